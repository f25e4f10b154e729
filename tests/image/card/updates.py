"""Updates on the booted image: by hand and by a roll-out, good ones and such as must not be kept.

Eight starts of one card: what is refused; 0.2.0 by `picket update`, tried, kept, and started from;
0.3.0 by `picketctl update start`, fetched by the node itself; 0.4.0 by hand, signed, whose services
do not come up; 0.5.0 by a roll-out, whose services do, and which reaches no controller any more.
After either the old slot is back by itself; of the second the controller knows.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

from tests.image.card import bundles
from tests.image.card.host import NODE, Host
from tests.image.card.report import Report
from tests.image.card.vm import Machine, TooLateError, boot_partition, working_copy

_A, _B = 2, 3
"""Boot partitions of the two slots."""
_HURRY = "systemd.setenv=PICKET_LOOKS=12"
"""A slot on trial is looked at for two minutes instead of ten; a good one needs one of them."""
_PICKET = "/opt/picket/bin/picket"


def update(arguments: argparse.Namespace, report: Report) -> None:
    """All of it."""
    shipped = arguments.image.with_name(arguments.image.name.replace(".img.zst", ".raucb"))
    with working_copy(arguments.image, more_mib=1024) as image, Host(image.parent) as host:
        host.personalise(image)
        card = Card(image, host, report)
        folder = image.parent / "bundles"
        folder.mkdir()
        parts = bundles.taken_apart(shipped, folder / "parts")
        by_hand = bundles.signed(
            bundles.renamed(parts, "0.2.0", folder), "0.2.0", folder / "new.raucb"
        )
        refused = _to_be_refused(folder)
        with Machine(image, image.parent, disks=(by_hand, *refused.values())) as machine:
            machine.shell()
            host.told("joined", 900)
            machine.services_up(600)
            for number, (name, path) in enumerate(refused.items(), 2):
                card.refuses(machine, name, path, "abcdefgh"[number])
            card.installs(machine, by_hand)
        card.kept("0.2.0", _B)
        with Machine(image, image.parent) as machine:
            card.runs(machine, "0.2.0", _B, "the next start is from it")
            rolled = bundles.renamed(parts, "0.3.0", folder)
            card.rolls_out(machine, bundles.signed(rolled, "0.3.0", folder / "rolled.raucb"))
        card.kept("0.3.0", _A)
        bad = _without(rolled, "picket-watch.service", "0.4.0", folder)
        with Machine(image, image.parent, disks=(bad,)) as machine:
            card.runs(machine, "0.3.0", _A, "the next start is from what was rolled out")
            card.installed()
            card.installs(machine, bad)
        card.left("its services do not come up")
        with Machine(image, image.parent) as machine:
            card.runs(machine, "0.3.0", _A, "after it: the old slot is back by itself")
            state = machine.does("/usr/lib/picket/rauc-boot get-state b")
            report.point("and the other slot is marked", so=state == "bad", seen=state)
            card.rolls_out(machine, _without(rolled, "systemd-networkd.service", "0.5.0", folder))
        card.left("it reaches no controller")
        with Machine(image, image.parent) as machine:
            card.runs(machine, "0.3.0", _A, "after that: the old slot is back by itself")
            card.rolled_back("no controller answered it")


def _without(given: bundles.Parts, unit: str, version: str, folder: Path) -> Path:
    """An update in which a unit is missing."""
    line = f"{given.command.strip()} systemd.mask={unit}\n"
    parts = bundles.started_by(given, line, folder)
    return bundles.signed(parts, version, folder / f"{version}.raucb")


def _to_be_refused(folder: Path) -> dict[str, Path]:
    """Bundles that nobody may install; what is in them is never looked at."""
    for name in ("root", "boot"):
        (folder / name).write_bytes(name.encode() * 4096)
    little = bundles.Parts(folder / "root", folder / "boot", "")
    older = bundles.signed(little, "0.0.9", folder / "older.raucb")
    signers = bundles.stranger(folder)
    strange = bundles.signed(little, "9.0.0", folder / "strange.raucb", signed_by=signers)
    return {
        "an older version": older,
        "an update signed by somebody else": strange,
        "an update that was changed": bundles.changed(older, folder / "changed.raucb"),
    }


class Card:
    """A card and what becomes of it.

    Args:
        image: raw.
        host: its fleet.
        report: gets the points.
    """

    def __init__(self, image: Path, host: Host, report: Report) -> None:
        self._image, self._host, self._report = image, host, report
        self._said = ""

    def refuses(self, machine: Machine, name: str, path: Path, disk: str) -> None:
        """`picket update` says one line, and nothing changes."""
        _copied(machine, path, disk)
        said = machine.does(f"{_PICKET} update /data/try.raucb; echo status $?", 300)
        lines = [line for line in said.splitlines() if line.strip()]
        so = len(lines) == 2 and lines[0].startswith("picket: error: ") and lines[1] == "status 1"
        self._report.point(f"{name} is refused in one line", so=so, seen=" / ".join(lines))

    def installs(self, machine: Machine, path: Path) -> None:
        """`picket update`: installed, and started anew, for one try."""
        _copied(machine, path, "b")
        began_s = machine.seconds
        machine.says(f"{_PICKET} update /data/try.raucb; rm /data/try.raucb")
        said = machine.wait(r"is installed; it is kept[^\n]*\n|picket: error[^\n]*\n", 900)
        took_s = machine.seconds - began_s
        self._restarts(machine)
        line = said.strip().splitlines()[-1]
        so = "is installed" in line and boot_partition(self._image) == _A
        seen = f"{line} ({took_s:.0f} s); {self._command(machine)}"
        name = f"{path.stem}: picket update installs it, and starts the other slot once"
        self._report.point(name, so=so, seen=seen)

    def rolls_out(self, machine: Machine, path: Path) -> None:
        """`picketctl update start`: the node fetches, installs and starts it by itself."""
        self._host.ctl("update", "start", str(path), "--fleet", str(self._host.fleet),
                       "--stages", "100")  # fmt: skip
        began_s = machine.seconds
        self._restarts(machine, 1800)
        seen = f"after {machine.seconds - began_s:.0f} s; {self._command(machine)}"
        self._report.point(f"{path.stem}: the node fetches and installs it by itself",
                           so="tryboot" in seen, seen=seen)  # fmt: skip

    def kept(self, version: str, partition: int) -> None:
        """A start on trial, found good."""
        with Machine(self._image, self._image.parent, tryboot=True) as machine:
            machine.shell()
            tried = machine.partition
            release = machine.does("head -n 1 /etc/picket-release")
            deadline_s = time.monotonic() + 900
            while boot_partition(self._image) != partition:
                if time.monotonic() > deadline_s:
                    raise TooLateError(machine.does("journalctl -b -u picket-confirm -o cat"))
                time.sleep(1.0)
            after_s = machine.seconds
            machine.off(300)
        so = (tried, release) == (partition, version)
        seen = f"partition {tried}, {release}, kept after {after_s:.0f} s"
        self._report.point(f"{version} is tried, found good and kept", so=so, seen=seen)

    def left(self, why: str) -> None:
        """A start on trial that ends by itself."""
        with Machine(self._image, self._image.parent, tryboot=True, extra=(_HURRY,)) as machine:
            machine.shell()
            self._restarts(machine, 1200)
            after_s = machine.seconds
        self._report.point(f"{why}: it starts again", so=True,
                           seen=f"after {after_s:.0f} s; {self._command(machine)}")  # fmt: skip

    def runs(self, machine: Machine, version: str, partition: int, name: str) -> None:
        """A plain start: which slot, which version, and that the node does its work."""
        before = len(self._host.events)
        machine.shell()
        machine.services_up(600)
        self._host.told("health", 300, after=before)
        release = machine.does("head -n 1 /etc/picket-release")
        so = (machine.partition, release) == (partition, version)
        seen = f"partition {machine.partition}, {release}, {NODE} tells its health"
        self._report.point(name, so=so, seen=seen)

    def installed(self) -> None:
        """What the controller says of the roll-out."""
        self._report.point("the controller says: installed", so=self._says("installed"),
                           seen=self._said)  # fmt: skip

    def rolled_back(self, why: str) -> None:
        """What the controller says of the other."""
        so = self._says("rolled-back") and why in self._said
        self._report.point("the controller says: rolled back", so=so, seen=self._said)

    def _says(self, wanted: str) -> bool:
        fleet = ("--fleet", str(self._host.fleet))
        deadline_s = time.monotonic() + 600
        while True:
            told: dict[str, Any] = json.loads(self._host.ctl("update", "status", "--json", *fleet))
            self._said = f"{told['state']}, {told['nodes']} {told['reasons']} {told['why']}"
            if told["nodes"].get(NODE) == wanted:
                return True
            if time.monotonic() > deadline_s:
                return False
            time.sleep(2.0)

    def _restarts(self, machine: Machine, timeout_s: float = 300.0) -> None:
        """QEMU ends where a Pi would start again."""
        try:
            machine.process.wait(timeout=timeout_s)
        except TimeoutError as e:
            raise TooLateError("it does not start again") from e

    def _command(self, machine: Machine) -> str:
        """What the kernel was told as it went down."""
        said = machine.log.read_text(encoding="utf-8", errors="replace")
        told = re.findall(r"reboot: [^\r\n]*", said)
        return str(told[-1]) if told else "it went without a word"


def _copied(machine: Machine, path: Path, disk: str) -> None:
    size = path.stat().st_size
    machine.does(f"head -c {size} /dev/vd{disk} >/data/try.raucb && sync", 400)
