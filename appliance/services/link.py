"""The link service: the composition root of the process that has the network.

thread     does
receive    questions of the watch service; answers what needs no controller      link/relay.py
poll-N     questions that the controller may park                               link/relay.py
relay-N    all others that only the controller can answer                       link/relay.py
uplink     outbox → controller, until acknowledged                              link/uplink.py
care       certificate renewed in time; a failed card tried again               link/renewal.py
update     on an image: what a roll-out brings, fetched for root to install     link/upgrade.py
heart      feeds the watchdog while the others make progress                    services/process.py

It sees sealed alerts, ciphertext and figures, never a face or an open list. It writes to one
folder. Any worker's unexpected death ends the process; systemd starts it again, and nothing that
it has acknowledged is lost.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from contextlib import ExitStack
from pathlib import Path

from appliance.alerts.durable import SqliteOutbox
from appliance.config import Config
from appliance.errors import LinkError, UpdateError, WatchlistError
from appliance.interfaces import Clock
from appliance.link import outcome
from appliance.link.cache import PieceCache
from appliance.link.floors import Floors
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.link.rawrep import RawRep
from appliance.link.relay import Relay
from appliance.link.renewal import Renewal
from appliance.link.upgrade import Upgrader
from appliance.link.uplink import Uplink
from appliance.services.process import Heart, private_socket, stop_on_signals, when_stopped
from appliance.system import release
from appliance.system.clock import SystemClock
from appliance.system.memory import rss_bytes
from appliance.system.worker import Crew, Worker
from appliance.watchlist.bundle import parse_head, parse_header
from appliance.wire import (
    REQUEST_MAX_BYTES,
    Answer,
    Deny,
    Poll,
    Renew,
    Renewed,
    Request,
    encode,
)

log = logging.getLogger(__name__)

_POLLERS, _RELAYERS = 3, 2
"""A watch service that was started again leaves a poll parked behind; two such hinder no third."""
_WAITING = 8
"""Questions that may wait for a thread; one watch service never has so many."""
_TURNS = _POLLERS + _RELAYERS + 3
"""Questions to the controller at once: those, the uplink's, the renewal's and the update's."""
_SILENCE_S = 30.0
"""Without a sign of a controller for so long, the next one, or the same one from scratch: a
handshake that froze is never given up by itself."""
_TAKE_S = 0.2
_CARE_S = 1.0
_LAST_WORDS_S = 2.0
_ANSWERED = "a controller has answered", "no controller has answered yet"
"""For systemd. An update that came from a controller is kept once one has answered to it, too:
image-build/overlay/usr/lib/picket/confirm reads this line."""

_Waiting = queue.Queue[tuple[bytes, Request]]


def run(config: Config) -> None:
    """Serve the watch service until SIGTERM or SIGINT.

    Raises:
        IdentityError: this node has not joined, or its certificate is broken.
        LinkError: the socket is in use, or an address is none.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(stop_on_signals(stop))
        LinkService(config, stack, stop).run()


class LinkService:
    """Everything that the link service is made of, wired together.

    Args:
        config: the node's.
        stack: closes what is opened, in reverse.
        stop: set by a signal or by a failure.
    """

    def __init__(self, config: Config, stack: ExitStack, stop: threading.Event) -> None:
        node, settings, state = config.node.id, config.link, Path(config.link.state)
        self._stop, clock = stop, SystemClock()
        with private_socket():  # first of all: a second link service ends here, and does no harm
            self._socket = RawRep(
                f"ipc://{Path(config.local.run) / 'link.ipc'}", max_bytes=REQUEST_MAX_BYTES
            )
        stack.callback(self._socket.close)
        self._renewal = Renewal(
            state, node, self._renew, server_name=settings.server_name, clock=clock
        )
        self._timeout_s = settings.answer_timeout_s
        self._upstream = stack.enter_context(
            NngLink(
                *settings.controllers,
                tls=self._renewal.tls,
                concurrent=_TURNS,
                pipeless_s=_SILENCE_S,
            )
        )
        self._outbox = SqliteOutbox(state / "outbox.db", capacity=settings.outbox)
        stack.callback(self._outbox.close)
        self._uplink = Uplink(
            self._outbox,
            self._upstream,
            node=node,
            timeout_s=settings.answer_timeout_s,
            rng=random.Random(),  # noqa: S311 - spreads waits, guards nothing
            clock=clock,
            stop=stop,
        )
        self._relay = Relay(
            node=node,
            outbox=self._outbox,
            upstream=self._upstream,
            pieces=PieceCache(state / "pieces"),
            floors=Floors(state / "floors.json"),
            name_of=_name_of,
            answered=self._heard,
            heard=self._renewal.heard,
            rss_mib=lambda: rss_bytes() / 2**20,
            timeout_s=settings.answer_timeout_s,
        )
        self._upgrader = self._make_upgrader(config, clock)
        if self._upgrader is not None:
            stack.callback(self._upgrader.close)
        self._answered = False
        self._polls: _Waiting = queue.Queue(_WAITING)
        self._others: _Waiting = queue.Queue(_WAITING)

    def run(self) -> None:
        """Everything runs, until `stop` is set.

        Raises:
            Exception: what a worker died of.
        """
        alive = [
            Worker("receive", self._receive, self._stop),
            Worker("uplink", self._uplink.step, self._stop),
            Worker("care", self._care, self._stop),
        ]
        # These wait for the controller, which may take long: no sign of life, nor of death.
        waiting = [
            Worker(f"poll-{n}", lambda: self._forward(self._polls), self._stop)
            for n in range(_POLLERS)
        ] + [
            Worker(f"relay-{n}", lambda: self._forward(self._others), self._stop)
            for n in range(_RELAYERS)
        ]
        if self._upgrader is not None:
            waiting.append(Worker("update", self._upgrader.step, self._stop))
        when_stopped(self._stop, lambda: self._upstream.wind_down(_LAST_WORDS_S))
        heart = Heart(alive, self._stop, status=lambda: _ANSWERED[not self._answered])
        Crew([*alive, *waiting, heart.worker()], self._stop).run()
        if not self._outbox.durable:
            self._uplink.flush(_LAST_WORDS_S)

    def _make_upgrader(self, config: Config, clock: Clock) -> Upgrader | None:
        """None where there is no image that could be updated."""
        try:
            running = release.running(Path(config.updates.release))
        except UpdateError as e:
            log.info("no updates are asked for: %s", e)
            return None
        return Upgrader(
            config.node.id,
            self._upstream,
            self._outbox,
            state=Path(config.link.state),
            running=running,
            tried=lambda: outcome.read(Path(config.updates.tried)),
            timeout_s=config.link.answer_timeout_s,
            rng=random.Random(),  # noqa: S311 - spreads questions, guards nothing
            clock=clock,
            stop=self._stop,
            every_s=config.updates.every_s,
        )

    def _receive(self) -> None:
        """Take one question; answer it, or hand it to a thread that may wait for the answer."""
        received = self._socket.receive(_TAKE_S)
        if received is None:
            return
        request = self._relay.read(received.message)
        if isinstance(request, Deny):
            self._answer(received.reply_to, request)
            return
        answer = self._relay.at_once(request)
        if answer is not None:
            self._answer(received.reply_to, answer)
            return
        waiting = self._polls if isinstance(request, Poll) else self._others
        try:
            waiting.put_nowait((received.reply_to, request))
        except queue.Full:
            self._answer(received.reply_to, Deny("other questions are under way"))

    def _forward(self, waiting: _Waiting) -> None:
        try:
            reply_to, request = waiting.get(timeout=_TAKE_S)
        except queue.Empty:
            return
        self._answer(reply_to, self._relay.forward(request))

    def _answer(self, reply_to: bytes, answer: Answer) -> None:
        self._socket.send(reply_to, encode(answer))

    def _heard(self) -> None:
        self._answered = True
        self._uplink.hurry()

    def _care(self) -> None:
        """What comes round once a second, and is hardly ever due."""
        self._outbox.tend()
        if self._renewal.step():
            try:
                self._upstream.use(self._renewal.tls)
            except LinkError as e:
                log.error("the new certificate cannot be used: %s", e)  # noqa: TRY400 - the line says it all
        self._stop.wait(_CARE_S)

    def _renew(self, question: Renew) -> Renewed:
        return ask(self._upstream, question, Renewed, self._timeout_s)


def _name_of(head: bytes) -> tuple[str, int] | None:
    """Which list an offer is about; unverified, which the cache can live with."""
    try:
        header = parse_header(parse_head(head).header)
    except WatchlistError:
        return None
    return header.list_id, header.version
