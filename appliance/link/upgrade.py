"""Updates from the controller to this node's card. It asks; root installs, or refuses.

1. ask      every few minutes, and at once when something became of the last update
2. fetch    part by part, gone on with after a kill; an alert that waits goes first
3. verify   size and SHA-256 of all of it
4. ask      once more: the roll-out may have been paused meanwhile, or a deployment have begun
5. hand over   under the name that picket-update.service waits for

Nothing of this is trusted by root (services/trial.py): it checks RAUC's signature and the version
itself. What this file guards is the card: one bundle at a time, of a bounded size, with room left
for alerts, at a bounded rate, and after one that was refused none for an hour.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path

from appliance.errors import CardError, DeniedError, DigestError, LinkError
from appliance.interfaces import Clock, Link, Outbox
from appliance.link import outcome
from appliance.link.backoff import Backoff
from appliance.link.outcome import Tried
from appliance.link.part import FOLDER, PartFile, waits
from appliance.link.question import ask
from appliance.system.release import shown
from appliance.wire import Ack, Answer, Bundle, Outcome, Part, Pull, Upgrade, Version

log = logging.getLogger(__name__)

BYTES_PER_S = 2**20
_LOOK_S = 1.0
_FIRST_S = 30.0
"""A node that was started again has news soon, yet a fleet that was does not ask in step."""
_REST_S = 3600.0
_TRIES = 3
"""As services/trial.py's: more tries are refused there, so that they are not worth fetching."""
_SPREAD = 0.2
_News = tuple[Version, Outcome, bytes | None, int]


class Upgrader:
    """`step` is called by one thread.

    Args:
        node: who asks.
        link: to the controller.
        outbox: goes first.
        state: of the link service.
        running: version of the image.
        tried: reads what root says of the last update.
        timeout_s: for an answer.
        rng: spreads a fleet's questions.
        clock: for when the next one is due.
        stop: ends a wait at once.
        every_s: between two questions.
        bytes_per_s: at most.
    """

    def __init__(
        self,
        node: str,
        link: Link,
        outbox: Outbox,
        *,
        state: Path,
        running: Version,
        tried: Callable[[], Tried],
        timeout_s: float,
        rng: random.Random,
        clock: Clock,
        stop: threading.Event,
        every_s: float,
        bytes_per_s: float = BYTES_PER_S,
    ) -> None:
        self._node, self._link, self._outbox = node, link, outbox
        self._folder, self._running, self._tried = state / FOLDER, running, tried
        self._timeout_s, self._rng, self._clock, self._stop = timeout_s, rng, clock, stop
        self._every_s, self._bytes_per_s = every_s, bytes_per_s
        self._backoff = Backoff(stop, rng, clock)
        self._part: PartFile | None = None
        self._handed: tuple[bytes, Tried] | None = None
        self._refused: tuple[bytes, str] | None = None
        self._wrong: bytes | None = None
        self._trouble: tuple[bytes, str] | None = None
        self._asked: _News | None = None
        self._rest_ns = self._next_ns = 0
        self._due_ns = self._in(min(every_s, _FIRST_S) * rng.random())

    def step(self) -> None:
        """One question, one part, or a short wait."""
        said = self._situation()
        if self._part is not None and self._part.complete:
            self._finish(self._part)
        elif self._clock.boot_ns() >= self._due_ns or self._news(said):
            self._inquire(said)
        elif self._part is None:
            self._stop.wait(_LOOK_S)
        elif self._outbox.depth or not self._backoff.rest(_LOOK_S):
            self._stop.wait(_LOOK_S / 4)
        else:
            self._pull(self._part)

    def close(self) -> None:
        """Leave what was fetched, for later."""
        self._stop_fetching()

    def _situation(self) -> Upgrade:
        """What there is to say."""
        tried = self._tried()
        sha256 = None if tried.sha256 is None else bytes.fromhex(tried.sha256)
        if self._handed is not None and tried != self._handed[1]:
            sha256 = sha256 or self._handed[0]  # of one that root could not even read
            self._handed, self._rest_ns = None, 0
            if tried.outcome is Outcome.REFUSED and sha256 is not None:
                self._refused = (sha256, tried.why)
                self._rest_ns = self._in(_REST_S)
        if self._handed is not None and self._clock.boot_ns() >= self._rest_ns:
            self._handed = None  # root has said nothing of it
        if self._handed is not None:
            return self._upgrade(Outcome.INSTALLING, self._handed[0], tried)
        if waits(self._folder):
            return self._upgrade(Outcome.INSTALLING, None, tried)
        if self._part is not None:
            return self._upgrade(Outcome.FETCHING, self._part.offer.sha256, tried)
        if self._trouble is not None:
            return self._upgrade(Outcome.FETCHING, self._trouble[0], tried, self._trouble[1])
        if self._refused is not None:
            return self._upgrade(Outcome.REFUSED, self._refused[0], tried, self._refused[1])
        return self._upgrade(tried.outcome, sha256, tried, tried.why)

    def _upgrade(
        self, found: Outcome, sha256: bytes | None, tried: Tried, why: str = ""
    ) -> Upgrade:
        tries = 0 if sha256 is None else tried.times(sha256.hex())
        return Upgrade(self._node, self._running, found, sha256, tries, outcome.reason(why))

    def _news(self, said: Upgrade) -> bool:
        """Whether something became of an update since the last question; progress is no news."""
        return self._asked is not None and _key(said) != self._asked and self._part is None

    def _inquire(self, said: Upgrade) -> Bundle | None:
        """Ask; what is on offer now is being fetched when this returns."""
        self._asked = _key(said)
        self._due_ns = self._in(self._spread(self._every_s))
        answer: Answer
        try:
            answer = ask(self._link, said, (Bundle, Ack), self._timeout_s)
        except DeniedError as e:
            log.debug("updates: %s", e)
            answer = Ack()
        except LinkError as e:
            log.debug("updates: %s", e)
            self._due_ns = self._in(self._spread(min(self._every_s, _FIRST_S)))
            return None
        if isinstance(answer, Bundle):
            self._follow(answer)
            return answer
        self._stop_fetching()
        return None

    def _follow(self, offer: Bundle) -> None:
        """Fetch what is on offer, unless there is something against it."""
        if self._part is not None and self._part.offer == offer:
            return
        self._stop_fetching()
        tried, name = self._tried(), offer.sha256.hex()
        if self._handed or waits(self._folder) or tried.outcome is Outcome.TRYING:
            return
        if offer.version <= self._running:
            runs = f"{shown(self._running)}, which runs"
            self._refuse(offer, f"version {shown(offer.version)} is not newer than {runs}")
        elif tried.times(name) >= _TRIES:
            self._refuse(offer, f"{shown(offer.version)} was tried {_TRIES} times")
        elif tried.outcome is Outcome.REFUSED and tried.sha256 == name:
            self._refuse(offer, tried.why)
        elif self._clock.boot_ns() >= self._rest_ns:
            self._begin(offer)

    def _begin(self, offer: Bundle) -> None:
        try:
            self._part = PartFile(self._folder, offer)
        except CardError as e:
            self._hinder(offer, e)
            return
        self._trouble = self._refused = None
        log.info("fetching version %s from part %d on", shown(offer.version), self._part.index)

    def _pull(self, part: PartFile) -> None:
        """One more part, in its time."""
        wait_s = (self._next_ns - self._clock.boot_ns()) / 1e9
        if wait_s > 0 and self._stop.wait(min(wait_s, _LOOK_S)):
            return
        try:
            question = Pull(self._node, part.offer.sha256, part.index)
            answer = ask(self._link, question, Part, self._timeout_s)
            if answer.index != part.index:
                raise DigestError(f"part {answer.index} in place of {part.index}")  # noqa: TRY301 - as if cut
            part.append(answer.content)
        except DeniedError as e:
            log.info("not fetched any further: %s", e)
            self._stop_fetching()
        except LinkError as e:
            log.debug("part %d: %s", part.index, e)
            self._backoff.fail()
        except (DigestError, CardError) as e:
            self._hinder(part.offer, e)
        else:
            self._backoff.succeed()
        # From the answer on: one that was held up is not followed by a burst.
        self._next_ns = self._in(part.offer.part_bytes / self._bytes_per_s)

    def _finish(self, part: PartFile) -> None:
        """All of it is here: is it the right one, and still wanted?"""
        try:
            if not part.verify(self._stop):
                return
            self._wrong, tried = None, self._tried()
            if self._inquire(self._situation()) == part.offer and self._part is part:
                part.hand_over()
                log.info("version %s is handed over", shown(part.offer.version))
                self._part, self._handed = None, (part.offer.sha256, tried)
                self._rest_ns = self._in(_REST_S)
            elif self._part is part:
                self._stop_fetching()
        except DigestError as e:
            self._part = None
            if self._wrong == part.offer.sha256:  # once may be a power cut; fetched anew
                self._refuse(part.offer, str(e))
                self._rest_ns = self._in(_REST_S)
            self._wrong = part.offer.sha256
        except CardError as e:
            self._hinder(part.offer, e)

    def _refuse(self, offer: Bundle, why: str) -> None:
        if self._refused != (offer.sha256, why):
            log.error("version %s is refused: %s", shown(offer.version), why)
        self._refused, self._trouble = (offer.sha256, why), None

    def _hinder(self, offer: Bundle, error: Exception) -> None:
        """It cannot be fetched now, and that is not its fault: tried again later."""
        log.error("version %s: %s", shown(offer.version), error)
        self._stop_fetching()
        self._trouble = (offer.sha256, str(error))
        self._due_ns = self._in(self._spread(self._every_s))

    def _stop_fetching(self) -> None:
        if self._part is not None:
            self._part.close()
        self._part = None

    def _in(self, seconds: float) -> int:
        return self._clock.boot_ns() + round(seconds * 1e9)

    def _spread(self, seconds: float) -> float:
        return seconds * self._rng.uniform(1 - _SPREAD, 1 + _SPREAD)


def _key(said: Upgrade) -> _News:
    return said.running, said.outcome, said.bundle, said.tries
