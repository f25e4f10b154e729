"""The indicator service: the composition root of the process that drives the lamps.

thread     does
receive    takes Show from the watch service, sets the lamps, then answers
play       the rhythm of the state; the dead-man

It touches lamps and one socket of the box, nothing else. If the watch service is silent for five
seconds, the lamps show FAULT; when this service ends, they are left showing FAULT. Until somebody
has said more than "starting", a minute of silence is borne: models are loaded, or the node joins,
which says "starting" at every try.

The socket can be reached by the link service as well, which has the network. So whoever says more
than that first is listened to, and nobody else until that connection has been silent for five
seconds: a link service that was taken over can keep the camera off, but it cannot film in the dark.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from pathlib import Path

from appliance.config import Config
from appliance.errors import WireError
from appliance.indicator.player import Player
from appliance.interfaces import Clock
from appliance.link.rawrep import RawRep
from appliance.services.leds import lamps_of
from appliance.services.process import Heart, private_socket, stop_on_signals
from appliance.system.clock import SystemClock
from appliance.system.worker import Crew, Worker
from appliance.types import NodeState
from appliance.wire import (
    REASON_MAX_CHARS,
    REQUEST_MAX_BYTES,
    Ack,
    Answer,
    Deny,
    Show,
    decode_request,
    encode,
)

log = logging.getLogger(__name__)

SILENCE_S = 5.0
START_S = 60.0
"""A Pi's services are up in a fraction of it; two tries to join are nearer to each other."""
_PLAY_S = 0.05
_RECEIVE_S = 0.2
_PIPE_BYTES = 4


class Indicator:
    """Show in, lamps and an answer out; silence is FAULT. Thread-safe.

    Args:
        player: plays the rhythms.
        clock: for the dead-man.
        silence_s: without a Show for so long, FAULT is shown.
        start_s: the same, before the first Show that says more than "starting".
    """

    def __init__(
        self,
        player: Player,
        clock: Clock,
        *,
        silence_s: float = SILENCE_S,
        start_s: float = START_S,
    ) -> None:
        self._player, self._clock = player, clock
        self._silence_ns, self._start_ns = round(silence_s * 1e9), round(start_s * 1e9)
        self._heard_ns = clock.boot_ns()
        self._silent = False
        self._speaker: bytes | None = None

    def answer(self, question: bytes, speaker: bytes) -> Answer:
        """Do what a Show says; Ack means that the lamps are so.

        Args:
            question: as it came.
            speaker: which connection it came by; see `connection_of`.
        """
        try:
            show = decode_request(question)
            if not isinstance(show, Show):
                return Deny("only Show is answered here")
            state = NodeState(show.state)
        except (WireError, ValueError) as e:
            log.warning("not a Show: %s", e)
            return Deny("not a Show")
        now_ns = self._clock.boot_ns()
        if speaker != self._speaker and self._speaker is not None and not self._lapsed(now_ns):
            log.warning("somebody else wants to drive the lamps")
            return Deny("the lamps are driven by another connection")
        if self._speaker is not None or show.camera_on or state is not NodeState.STARTING:
            self._speaker = speaker
        self._heard_ns, self._silent = now_ns, False
        try:
            self._player.state, self._player.hint = state, show.hint
            self._player.camera_on = show.camera_on
        except OSError as e:
            log.error("lamps: %s", e)  # noqa: TRY400 - the line says it all
            return Deny(f"lamps: {e}"[:REASON_MAX_CHARS])
        return Ack()

    def play(self) -> None:
        """Bring the lamps up to date.

        Raises:
            OSError: a lamp could not be driven.
        """
        if self._lapsed(self._clock.boot_ns()):
            if not self._silent:
                log.error("silence from the watch service for %g s", self._patience_ns / 1e9)
            self._silent = True
            self._player.state = NodeState.FAULT
        self._player.step()

    @property
    def _patience_ns(self) -> int:
        return self._start_ns if self._speaker is None else self._silence_ns

    def _lapsed(self, now_ns: int) -> bool:
        return now_ns - self._heard_ns > self._patience_ns


def connection_of(reply_to: bytes) -> bytes:
    """Which connection a question came by: the first word of NNG's return address is its pipe."""
    return reply_to[:_PIPE_BYTES]


def run(config: Config) -> None:
    """Drive the lamps until SIGTERM or SIGINT.

    Raises:
        LinkError: the socket cannot be opened.
        OSError: the lamps cannot be driven.
    """
    stop = threading.Event()
    clock = SystemClock()
    with ExitStack() as stack:
        stack.enter_context(stop_on_signals(stop))
        lamps = stack.enter_context(lamps_of(config.lamps))
        player = Player(lamps, clock)
        indicator = Indicator(player, clock)
        with private_socket():
            socket = RawRep(
                f"ipc://{Path(config.local.run) / 'indicator.ipc'}", max_bytes=REQUEST_MAX_BYTES
            )
        stack.callback(socket.close)

        def receive() -> None:
            received = socket.receive(_RECEIVE_S)
            if received is not None:
                answer = indicator.answer(received.message, connection_of(received.reply_to))
                socket.send(received.reply_to, encode(answer))

        def play() -> None:
            indicator.play()
            stop.wait(_PLAY_S)

        workers = [Worker("receive", receive, stop), Worker("play", play, stop)]
        workers.append(Heart(workers, stop).worker())
        try:
            Crew(workers, stop).run()
        finally:
            player.leave()
