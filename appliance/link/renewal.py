"""The node's certificate, renewed over the link that it secures, before it runs out.

Enters: the time, and the controller's answers. Leaves: a new key and its certificate in the
link's state folder, both or neither. The socket that goes on with the old one is the link
service's to replace (NngLink.use) when `step` says so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from appliance.errors import CardError, IdentityError, LinkError
from appliance.interfaces import Clock
from appliance.link import credentials
from appliance.link.tls import ClientTls
from appliance.wire import Renew, Renewed

log = logging.getLogger(__name__)

RENEWED_LEFT = 1 / 3
"""What is left of a certificate's life when it is renewed: ten days of thirty, in which the
controller may be away."""
_AGAIN_S = 3600.0


class Renewal:
    """Renews the certificate in the last third of its life. Used by one thread, but for `heard`.

    Args:
        state: the link's folder, of a node that has joined.
        node: its name.
        server_name: common name of the controllers' certificate.
        ask: puts a question to the controller, or raises LinkError.
        clock: the node's.
        again_s: between two attempts, whatever came of the first: a clock that is years ahead
            must not make a node ask for ever.

    Attributes:
        failed: why the last attempt came to nothing, "" if it did not.

    Raises:
        IdentityError: the certificate in use is missing or broken.
    """

    def __init__(
        self,
        state: Path,
        node: str,
        ask: Callable[[Renew], Renewed],
        *,
        server_name: str,
        clock: Clock,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._state, self._node, self._ask = state, node, ask
        self._clock, self._again_ns = clock, round(again_s * 1e9)
        self._told: tuple[int, int] | None = None
        self._not_before_ns = clock.boot_ns()
        self.failed = ""
        self.tls: ClientTls = credentials.load(state, server_name)
        self._life = credentials.life(state)

    def heard(self, now_utc_ms: int) -> None:
        """The controller's time, from a Welcome: a Pi may boot without, and never learn another.

        At any time, from any thread.
        """
        self._told = (now_utc_ms * 1_000_000, self._clock.boot_ns())

    def step(self) -> bool:
        """Renew the certificate if it is time to.

        Returns:
            True: `tls` is another one, to be used from now on.
        """
        now_ns = self._clock.boot_ns()
        if now_ns < self._not_before_ns or not self._due():
            return False
        self._not_before_ns = now_ns + self._again_ns
        try:
            self._renew()
        except (LinkError, IdentityError, CardError) as e:
            self.failed = str(e)
            log.warning("the certificate, which ends %s, is not renewed: %s", self._life[1], e)
            return False
        self.failed = ""
        log.info("the certificate is renewed until %s", self._life[1])
        return True

    def _renew(self) -> None:
        key = credentials.new_key()
        answer = self._ask(Renew(self._node, credentials.request_for(key, self._node)))
        certificate = answer.certificate
        credentials.check(certificate, key=key, node=self._node, ca=self.tls.ca)
        credentials.swap(self._state, key, certificate)
        self.tls = credentials.load(self._state, self.tls.server_name)
        self._life = credentials.life(self._state)

    def _due(self) -> bool:
        utc_ns = self._utc_ns()
        if utc_ns is None:
            return False
        begins, ends = self._life
        return datetime.fromtimestamp(utc_ns / 1e9, UTC) >= ends - (ends - begins) * RENEWED_LEFT

    def _utc_ns(self) -> int | None:
        """The controller's time rather than ours: it is the controller who checks."""
        if self._told is None:
            return self._clock.utc_ns()
        utc_ns, boot_ns = self._told
        return utc_ns + self._clock.boot_ns() - boot_ns
