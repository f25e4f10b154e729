"""`make soak`: processes killed, cables cut, answers lost; and not one alert missing or twice.

Real processes: `picketctl serve` with TLS and its store, `picket run link`, and a producer that
stands for the watch service and speaks to the link service as it does. After each part all that
the link service has answered for must be in the controller's store, once.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.soak.fleet import Child, SoakError, SoakFleet, Tally, eventually
from tests.soak.proxy import Cable

DAY = 1440
"""Alerts of a day at one a minute, which is a busy node's day."""
_SETTLE_EVERY = 50
_BURST = 30
"""Alerts at each start of the watch, so that there is always something under way."""
_UNFINISHED = 0.3
"""How often a process is killed whatever it does, which mostly is: importing modules."""
_PATIENCE_S = 10.0
_TOLD = 0.9
"""How often the ends of a broken connection are told; if not, half a minute of silence tells."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one part of the soak did, and what it left."""

    name: str
    kills: tuple[int, int, int]
    tally: Tally
    duplicates: int
    seconds: float


class Soak:
    """The parts, one after the other, on one fleet.

    Args:
        folder: empty.
        seed: of all moments.
        rate: alerts per second.
        say: told of progress.
    """

    def __init__(self, folder: Path, *, seed: int, rate: float, say: Callable[[str], None]) -> None:
        self._rng, self._say = random.Random(seed), say  # noqa: S311 - moments
        self.fleet = SoakFleet(folder, rate=rate)
        self.parts: list[Part] = []

    def kill_at_random(self, kills: int, *, only: Child | None = None) -> None:
        """Kill -9 of watch, link and controller, and now and then of the cable between them."""
        self.fleet.produce(burst=_BURST)
        for number in range(1, kills + 1):
            victim = only or self._rng.choice(self.fleet.children)
            self._wait_for_a_moment(victim)
            victim.kill()
            if self._rng.random() < 0.1:
                self.fleet.proxy.cable = self._rng.choice([Cable.CUT, Cable.DEAF, Cable.FROZEN])
            if self._rng.random() < 0.3:
                self._pause(0.0, 0.5)
            victim.start()
            if self._rng.random() < 0.5:
                self._mend()
            if number % _SETTLE_EVERY == 0:
                self.fleet.proxy.cable = Cable.WHOLE
                self.fleet.settle()
                self._say(f"{number} of {kills} kills")
        self.fleet.proxy.cable = Cable.WHOLE

    def cut_for_a_day(self, alerts: int = DAY) -> None:
        """A day's alerts without a controller; link and watch are killed meanwhile."""
        fleet = self.fleet
        fleet.proxy.cable = Cable.CUT
        before = len(fleet.answered())
        fleet.watch.kill()
        fleet.produce(burst=alerts)
        fleet.watch.start()
        eventually(lambda: len(fleet.answered()) > before + alerts // 2, "half a day's alerts", 120)
        fleet.link.kill()
        fleet.link.start()
        eventually(lambda: len(fleet.answered()) > before + alerts, "a day's alerts", 120)
        fleet.produce(burst=0)
        for child in (fleet.watch, fleet.link):
            child.kill()
            child.start()
        self._say(f"{alerts} alerts wait, the cable is plugged in again")
        fleet.proxy.cable = Cable.WHOLE

    def lose_answers(self, times: int) -> None:
        """Questions arrive, answers do not, again and again."""
        for _ in range(times):
            self.fleet.proxy.cable = Cable.DEAF
            self._pause(0.5, 3.0)
            self._mend()
            self._pause(0.5, 3.0)

    def jump_clocks(self, times: int, library: Path) -> None:
        """Wall clocks of running processes jump by up to ten years, back and forth.

        Meanwhile certificates are not yet valid, or not any longer: alerts wait.

        Args:
            times: so many jumps.
            library: libfaketime, which makes wall clocks up for a process.
        """
        clocks = {child: self.fleet.folder / f"clock.{child.name}" for child in self.fleet.children}
        for child, clock in clocks.items():
            clock.write_text("+0")
            child.environment = {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_NO_CACHE": "1",
                "DONT_FAKE_MONOTONIC": "1",
            }
            child.kill()
            child.start()
        for _ in range(times):
            self._wait_for_a_moment(self.fleet.watch)
            clocks[self._rng.choice(self.fleet.children)].write_text(
                f"{self._rng.choice('+-')}{self._rng.randrange(10 * 365)}d"
            )
        for child, clock in clocks.items():
            clock.write_text("+0")
            child.environment = {}
            child.kill()
            child.start()

    def part(self, name: str, run: Callable[[], None]) -> None:
        """Run a part, let all arrive, and take stock.

        Raises:
            SoakError: something that must not happen has happened.
        """
        begun_s, kills = time.monotonic(), self._kills()
        self._say(name)
        run()
        self.fleet.watch.kill()
        self.fleet.settle(from_the_beginning=True)
        tally = self.fleet.tally()
        made = (after - before for before, after in zip(kills, self._kills(), strict=True))
        duplicates = self.fleet.controller.count('"event":"duplicate"')
        seconds = time.monotonic() - begun_s
        watch, link, controller = made
        self.parts.append(Part(name, (watch, link, controller), tally, duplicates, seconds))
        self.fleet.watch.start()
        if not tally.good:
            raise SoakError(f"{name}: {tally}")

    def table(self) -> str:
        """The parts as text; alerts are counted from the beginning of the soak."""
        head = (
            f"{'part':34} {'kills w/l/c':>13} {'decided':>8} {'answered':>8} {'stored':>8}"
            f" {'again':>7} {'lost':>5} {'twice':>5} {'gaps':>5} {'s':>6}"
        )
        lines = [head, "-" * len(head)]
        for part in self.parts:
            tally = part.tally
            lines.append(
                f"{part.name:34} {'/'.join(map(str, part.kills)):>13} {tally.decided:8}"
                f" {tally.answered:8} {tally.stored:8} {part.duplicates:7} {tally.lost:5}"
                f" {tally.twice:5} {tally.gaps:5} {part.seconds:6.0f}"
            )
        return "\n".join(lines)

    def close(self) -> None:
        """Kill everything."""
        self.fleet.close()

    def _wait_for_a_moment(self, victim: Child) -> None:
        """Some die while they start, the others after they have done some work, if they can."""
        if self._rng.random() < _UNFINISHED:
            self._pause(0.0, 1.0)
            return
        sign = self.fleet.sign_of_life(victim)
        work = sign() + self._rng.randrange(1, 2000)
        patience_s = _PATIENCE_S if self.fleet.proxy.cable is Cable.WHOLE else 1.0
        deadline_s = time.monotonic() + patience_s
        while sign() < work and time.monotonic() < deadline_s:
            threading.Event().wait(0.002)

    def _mend(self) -> None:
        """The cable is whole again; often what broke on it is told, as a router would, or never."""
        self.fleet.proxy.cable = Cable.WHOLE
        if self._rng.random() < _TOLD:
            self.fleet.proxy.hang_up()

    def _kills(self) -> tuple[int, int, int]:
        watch, link, controller = (child.kills for child in self.fleet.children)
        return watch, link, controller

    def _pause(self, shortest_s: float, longest_s: float) -> None:
        threading.Event().wait(self._rng.uniform(shortest_s, longest_s))


def main() -> int:
    """Run all parts and print what became of every alert."""
    asked = _asked()
    with tempfile.TemporaryDirectory(prefix="picket-soak-") as folder:
        soak = Soak(Path(folder), seed=asked.seed, rate=asked.rate, say=_say)
        try:
            _all_parts(soak, asked)
        except SoakError as e:
            _say(f"soak: error: {e}")
            return 1
        finally:
            soak.close()
            _say(soak.table())
    return 0


def _all_parts(soak: Soak, asked: argparse.Namespace) -> None:
    soak.part("a day without a controller", soak.cut_for_a_day)
    soak.part("answers lost", lambda: soak.lose_answers(asked.lost))
    library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if library is None:
        _say("clocks that jump: left out, because libfaketime is missing: apt install faketime")
    else:
        soak.part("clocks jump by years", lambda: soak.jump_clocks(asked.jumps, library))
    soak.part("kill -9 of all three", lambda: soak.kill_at_random(asked.kills))
    controller = soak.fleet.controller
    soak.part(
        "kill -9 of the controller alone",
        lambda: soak.kill_at_random(asked.restarts, only=controller),
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make soak",
        description="Kill processes, cut cables, lose answers; count every alert.",
        epilog="example: make soak KILLS=100 RESTARTS=0",
    )
    parser.add_argument("--kills", type=int, default=1000, help="of all three (default 1000)")
    parser.add_argument("--restarts", type=int, default=1000, help="of the controller alone")
    parser.add_argument("--lost", type=int, default=20, help="times that answers are lost")
    parser.add_argument("--jumps", type=int, default=50, help="of wall clocks (default 50)")
    parser.add_argument("--rate", type=float, default=40.0, help="alerts per second (default 40)")
    parser.add_argument("--seed", type=int, default=4, help="of all moments (default 4)")
    return parser.parse_args()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
