"""The power pulled at random moments of writing, and what was answered for afterwards.

Pulling it means for the card: what is on it at that moment, and no more. So one guest is stopped
in mid-air again and again, while alerts are stored, the slot's file is switched back and forth, and
an update is written; its card is copied, and it goes on. What the copy is, the node's card would be
after a power cut. Each is looked at:

- the journal is played back, and the file system is without error
- autoboot.txt names a slot
- what the link service had answered for is with the controller or in the outbox, read by the
  node's own code
- as many as asked for are started: their services come up, and what waited arrives
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from appliance.alerts.durable import SqliteOutbox
from tests.image.card.host import NODE, Host, add_file, add_scene, debugfs
from tests.image.card.parts import parts
from tests.image.card.report import Report
from tests.image.card.vm import Machine, TooLateError, boot_partition, mtools, working_copy

_SWITCH = (
    "(while :; do for s in b a; do PICKET_SLOT=$s /usr/lib/picket/rauc-boot set-state $s good;"
    " done; done) >/dev/null 2>&1 & switching=$!"
)
_INSTALL = "(while :; do rauc install /data/up.raucb; done) >/dev/null 2>&1 & installing=$!"
_PRODUCE = (
    f"PYTHONPATH=/opt/picket/site python3 /data/scene/producer.py {NODE} 8 2>/dev/null &"
    " producing=$!"
)
_SHORT_S, _LONG_S = 3.0, 12.0
_Key = tuple[str, int]


@dataclass
class Cut:
    """A card at the moment of a power cut.

    Attributes:
        image: the copy.
        while_doing: what was written just then.
        answered: rows that the link service had answered for, by then.
        delivered: rows that the controller had by then.
        kept: rows in the outbox.
        wrong: what is not as it should be.
    """

    image: Path
    while_doing: str
    answered: set[_Key]
    delivered: set[_Key]
    kept: set[_Key] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


def cuts(arguments: argparse.Namespace, report: Report) -> None:
    """All of them."""
    shipped = arguments.image.with_name(arguments.image.name.replace(".img.zst", ".raucb"))
    chance = random.Random(arguments.seed)  # noqa: S311 - moments, not secrets
    times, again = arguments.cuts, min(arguments.again, arguments.cuts)
    chosen = {n * times // again for n in range(again)}
    found: list[Cut] = []
    with working_copy(arguments.image, more_mib=768) as image, Host(image.parent) as host:
        host.personalise(image)
        add_scene(image)
        add_file(image, "/scene", Path(__file__).with_name("producer.py"))
        _fill_the_other_slot(image)
        host.deploy()
        size, disk = shipped.stat().st_size, image.parent / "update.disk"
        disk.write_bytes(shipped.read_bytes() + bytes(-size % 512))
        with Machine(image, image.parent, disks=(disk,)) as machine:
            _prepared(machine, host, size)
            for number in range(times):
                doing = _does(machine, number, times)
                found.append(_cut(machine, image, host, doing, chance))
                _look(found[-1])
                report.progress(f"cut {number + 1} of {times}, while {doing}")
                if number not in chosen:
                    found[-1].image.unlink()
        _report(found, report)
        _start_again([found[number] for number in sorted(chosen)], host, report)


def _fill_the_other_slot(image: Path) -> None:
    """Slot b is a's copy, so that either may be named when the power goes."""
    found = parts(image)
    with image.open("r+b") as card:
        for source, to in ((2, 3), (5, 6)):
            for at in range(0, found[source].size, 1 << 24):
                size = min(1 << 24, found[source].size - at)
                card.seek(found[source].offset + at)
                block = card.read(size)
                if block.count(0) != len(block):
                    card.seek(found[to].offset + at)
                    card.write(block)
    command = mtools("mtype", found[3], image, "::cmdline.txt").decode()
    line = image.parent / "cmdline-b.txt"
    line.write_text(command.replace("-05", "-06").replace("slot=a", "slot=b"), encoding="ascii")
    mtools("mcopy", found[3], image, "-o", str(line), "::cmdline.txt")


def _prepared(machine: Machine, host: Host, size: int) -> None:
    machine.shell()
    host.told("joined", 900)
    machine.services_up(600)
    machine.does(f"head -c {size} /dev/vdb >/data/up.raucb && sync", 600)


def _does(machine: Machine, number: int, times: int) -> str:
    """Begin what is written besides alerts, a third of the times each."""
    if number == 0:
        machine.does(_PRODUCE)
    if number == times // 3:
        machine.does(_SWITCH)
    if number == 2 * times // 3:
        machine.does("kill $switching; wait $switching; mount -o remount,ro /boot/picket")
        machine.does("/usr/lib/picket/rauc-boot set-state a good; " + _INSTALL)
    if number < times // 3:
        return "alerts are stored"
    return "the slot is switched" if number < 2 * times // 3 else "an update is written"


def _cut(machine: Machine, image: Path, host: Host, doing: str, chance: random.Random) -> Cut:
    """A while of writing, half of the time without a controller, and then no power."""
    copy = image.parent / f"cut-{time.monotonic_ns()}.img"
    if chance.random() < 0.5:
        host.serving.send_signal(signal.SIGSTOP)
    time.sleep(chance.uniform(_SHORT_S, _LONG_S))
    machine.process.send_signal(signal.SIGSTOP)
    try:
        subprocess.run(["/usr/bin/cp", "--sparse=always", image, copy], check=True)
        said = machine.log.read_text(encoding="utf-8", errors="replace")
    finally:
        machine.process.send_signal(signal.SIGCONT)
        host.serving.send_signal(signal.SIGCONT)
    answered = {
        (boot, n)
        for boot, last in re.findall(r"answered ([0-9a-f]{32}) (\d+)\b", said)
        for n in range(1, int(last) + 1)
    }
    return Cut(copy, doing, answered, _delivered(host))


def _delivered(host: Host) -> set[_Key]:
    kinds = {"alert", "unreadable", "duplicate"}
    return {(e["boot"], e["sequence"]) for e in host.events if e["event"] in kinds}


def _look(cut: Cut) -> None:
    """All that can be told without starting it; in a copy, for this changes what it looks at."""
    copy = cut.image.with_suffix(".look")
    subprocess.run(["/usr/bin/cp", "--sparse=always", cut.image, copy], check=True)
    data = f"{copy}?offset={parts(copy)[7].offset}"
    played = _e2fsck("-E", "journal_only", "-p", data)
    sound = _e2fsck("-f", "-n", data)
    if sound.returncode:
        cut.wrong.append(f"e2fsck: {sound.stdout[-300:]} (journal: {played.stdout[-100:]})")
    try:
        boot_partition(copy)
    except TooLateError as e:
        cut.wrong.append(f"autoboot.txt: {e}")
    folder = copy.with_suffix(".outbox")
    folder.mkdir()
    for name in ("outbox.db", "outbox.db-wal"):
        debugfs(copy, [f"dump /link/{name} {folder / name}"])
    outbox = SqliteOutbox(folder / "outbox.db", capacity=1 << 20)
    cut.kept = {(row.boot.hex(), row.sequence) for row in outbox.peek(1 << 20)}
    if not outbox.durable:
        cut.wrong.append("the outbox cannot be opened")
    outbox.close()
    lost = cut.answered - cut.delivered - cut.kept
    if lost:
        cut.wrong.append(f"{len(lost)} rows were answered for and are gone: {sorted(lost)[:3]}")
    shutil.rmtree(folder)
    copy.unlink()


def _e2fsck(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/usr/sbin/e2fsck", *words], capture_output=True, text=True, check=False)


def _report(found: list[Cut], report: Report) -> None:
    for doing in dict.fromkeys(cut.while_doing for cut in found):
        of_it = [cut for cut in found if cut.while_doing == doing]
        wrong = [f"cut {found.index(cut)}: {why}" for cut in of_it for why in cut.wrong]
        waited = ", ".join(str(len(cut.kept)) for cut in of_it)
        answered = len(of_it[-1].answered)
        seen = (
            f"{len(of_it)} cuts; {answered} rows answered for by the last, in the outbox: {waited};"
            f" wrong: {wrong or 'nothing'}"
        )
        report.point(f"power cuts while {doing}: file system sound, slot named, nothing lost",
                     so=not wrong, seen=seen)  # fmt: skip


def _start_again(again: list[Cut], host: Host, report: Report) -> None:
    """The node comes back from each, and what waited in it arrives."""
    seen, wrong = [], []
    for cut in again:
        before = len(host.events)
        with Machine(cut.image, cut.image.parent) as machine:
            machine.shell()
            machine.services_up(600)
            up_s = machine.seconds
            errors = machine.does("dmesg | grep -c 'EXT4-fs error\\|verity.*corrupt'")
            arrived = _arrives(host, cut.answered - cut.delivered, before)
            tries = machine.does("systemctl show -P NRestarts picket-link picket-watch").split()
        seen.append(f"slot {machine.partition} {up_s:.0f} s")
        report.progress(f"started again: {len(seen)} of {len(again)}")
        if errors != "0" or not arrived:
            wrong.append(f"{cut.image.stem}: {errors} errors, arrived: {arrived}, {tries}")
    report.point(f"started again after {len(again)} of them: it comes up, what waited arrives",
                 so=not wrong, seen=f"{', '.join(seen)}; wrong: {wrong or 'nothing'}")  # fmt: skip


def _arrives(host: Host, rows: set[_Key], before: int) -> bool:
    deadline_s = time.monotonic() + 300
    kinds = {"alert", "unreadable", "duplicate"}
    while time.monotonic() < deadline_s:
        came = {(e["boot"], e["sequence"]) for e in host.events[before:] if e["event"] in kinds}
        if rows <= came | _delivered(host):
            return True
        time.sleep(1.0)
    return False
