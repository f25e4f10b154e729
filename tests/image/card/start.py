"""From power-on to a node that watches: the first start, which joins, and one after it.

Emulated seconds say nothing of a Pi's, and seconds on a busy machine not even much of themselves:
each comes with the processor time that the emulator used, and with the machine's load.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tests.image.card.host import Host, add_scene
from tests.image.card.report import Report
from tests.image.card.vm import Machine, working_copy

BOUND_S = 60.0
"""Asked for by the issue, on a machine that does nothing else."""
_CHAIN = "systemd-analyze; systemd-analyze critical-chain picket-watch.service"
_BLAME = "systemd-analyze blame | head -n 25"
_USED = (
    "for u in $(systemctl list-units --plain --no-legend -t service | cut -d' ' -f1);"
    " do echo $(systemctl show -P CPUUsageNSec $u | sed 's/[0-9]\\{6\\}$//') ms $u;"
    " done | sort -rn | head -n 16"
)


def start(arguments: argparse.Namespace, report: Report) -> None:
    """A card with a list waiting for it, started twice."""
    with working_copy(arguments.image) as image, Host(image.parent) as host:
        host.personalise(image)
        add_scene(image)
        host.deploy()
        _watches(image, host, report, "the first start, with joining")
        _watches(image, host, report, "a start after that")


def _watches(image: Path, host: Host, report: Report, which: str) -> None:
    before = len(host.events)
    with Machine(image, image.parent) as machine:
        host.told("accepted", 900, after=before)
        accepted_s = machine.seconds
        host.told("health", 900, after=before, state="watching")
        watching_s, used_s, load = machine.seconds, machine.used_s, os.getloadavg()[0]
        machine.shell()
        chain = machine.does(_CHAIN, 120)
        blame = machine.does(_BLAME, 120)
        used = machine.does(_USED, 300)
        machine.off(300)
    seen = (
        f"list after {accepted_s:.0f} s, watching after {watching_s:.0f} s and {used_s:.0f} s of"
        f" processor time, at load {load:.1f}"
    )
    report.point(f"{which}: power-on to watching", so=watching_s <= BOUND_S, seen=seen)
    report.point(f"{which}: what it waited for", so="picket" in chain, seen=chain)
    report.point(f"{which}: what took longest", so=".service" in blame, seen=blame)
    report.point(f"{which}: who used the processors", so="picket-watch" in used, seen=used)
