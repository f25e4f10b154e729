"""Where a socket listens: its bound on what is received, its certificates, and files kept free.

What pynng 0.9.0 needs, each of it measured (numbers as in the link's feasibility report):

- The size of what is received is unlimited unless set, and setting it reports no error: it is
  read back (D6).
- A listener goes on with its old certificates for one connection after they were changed: that
  one connection is our own.
- Who connects and then says nothing, before or within the TLS handshake, keeps its file for
  ever: when such strangers hold half of the files that this process may open, the listener is
  closed and opened again, which sheds them; nodes dial again by themselves (D1). HAProxy in front
  sheds them sooner, and them alone: controller/haproxy.cfg.
"""

from __future__ import annotations

import logging
import resource
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import LinkError
from appliance.link.line import HEADER_ROOM_BYTES
from appliance.link.tls import ServerTls, server_config

log = logging.getLogger(__name__)

_KNOCK_S = 2.0
_SHED_S = 30.0


class Listener:
    """The address of a pynng socket. Used by one thread at a time.

    Args:
        nng_socket: of pynng; its callbacks are in place, or the first connections escape them.
        url: to listen at; port 0 takes a free one.
        max_bytes: of a message received.
        tls: for a tls+tcp:// address, and for no other.

    Attributes:
        url: with the real port.

    Raises:
        LinkError: the address is in use, or is none; or the certificates cannot be used.
    """

    def __init__(
        self,
        nng_socket: Any,  # noqa: ANN401 - pynng has no types
        url: str,
        *,
        max_bytes: int,
        tls: ServerTls | None,
    ) -> None:
        if (tls is not None) != url.startswith("tls+"):
            raise LinkError(f"'{url}' is no address to listen at: certificates go with tls+tcp://")
        self._socket, self._max_bytes, self._tls = nng_socket, max_bytes, tls
        self._shed_s = time.monotonic()
        self._listener = self._listen(url)
        scheme = url.partition("://")[0]
        address = self._listener.local_address
        self.url = f"{scheme}://{address}" if scheme in ("tcp", "tls+tcp") else url

    def renew(self, tls: ServerTls) -> None:
        """Meet connections from now on with other certificates or another revocation list.

        Raises:
            LinkError: the certificates cannot be used, or are not for whom these were; those in
                use stay.
        """
        if self._tls is None or tls.mutual is not self._tls.mutual:
            raise LinkError(f"{self.url}: whom a port is for cannot be changed while it is open")
        self._listener.tls_config = server_config(tls)
        self._tls = tls
        self._use_up_the_stale_accept()

    def shed(self, connected: int) -> None:
        """Get rid of half-open strangers, if they hold too many files.

        Args:
            connected: how many connections are complete.

        Raises:
            LinkError: the address was taken by another process meanwhile.
        """
        now_s = time.monotonic()
        if self._tls is None or now_s - self._shed_s < _SHED_S:
            return
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        strangers = open_files(limit) - connected
        if strangers <= limit // 2:
            return
        self._shed_s = now_s
        log.warning("%s: %d of %d files are not nodes': shed", self.url, strangers, limit)
        self._listener.close()
        self._listener = self._listen(self.url)

    def _listen(self, url: str) -> Any:  # noqa: ANN401 - pynng has no types
        import pynng

        bound = self._max_bytes + HEADER_ROOM_BYTES
        if self._tls is not None:
            self._socket.tls_config = server_config(self._tls)
        try:
            self._socket.recv_max_size = bound
            listener = self._socket.listen(url)
            taken = (self._socket.recv_max_size, listener.recv_max_size)
        except pynng.AddressInUse as e:
            raise LinkError(f"{url} is in use") from e
        except pynng.NNGException as e:
            raise LinkError(f"'{url}' is no address to listen at: {e}") from e
        if taken != (bound, bound):
            raise LinkError(f"{url}: what is received cannot be bounded at {self._max_bytes} bytes")
        return listener

    def _use_up_the_stale_accept(self) -> None:
        """NNG waits for the next connection with the configuration of before: be that one."""
        where = urlsplit(self.url)
        try:
            socket.create_connection((where.hostname or "", where.port or 0), _KNOCK_S).close()
        except OSError as e:
            log.warning("%s: the next connection is met with the old certificates: %s", self.url, e)


def open_files(limit: int) -> int:
    """Files that this process has open; `limit` if there is none left to look with."""
    try:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())
    except OSError:
        return limit


def allow_files(wanted: int) -> int:
    """Let this process open as many files, a node needing one; says so if it may not.

    Returns:
        How many it may open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < wanted:
        log.warning("%d files may be open, %d are wanted: see `ulimit -Hn`", soft, wanted)
    return soft
