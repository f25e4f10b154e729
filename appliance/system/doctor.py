"""What `picket doctor` says of each part of a node: pure judgements of what was measured.

Enters: measurements, by services/doctor.py. Leaves: Findings, each with what was found and what to
do about it, as text or JSON. Nothing in here touches a device.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from appliance.system.health import DISK_LOW_MIB, HOT_FROM_C, MEMORY_LOW_MIB
from appliance.system.thermal import Thermal
from appliance.wire import Outcome

CERTIFICATE_SOON = timedelta(days=7)
DARK = 8.0
"""Mean of a frame, of 255, below which a lens is likely to be covered."""


class Verdict(StrEnum):
    """BAD alone makes the command fail."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: name of the part; the names are for scripts and stay as they are.
        verdict: how it is.
        found: what was measured, or what went wrong.
        advice: what to do; "" if nothing.
    """

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def good(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Verdict.GOOD, found)


def warn(check: str, found: str, advice: str) -> Finding:
    """It works, but not for long or not as it could."""
    return Finding(check, Verdict.WARN, found, advice)


def bad(check: str, found: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(check, Verdict.BAD, found, advice)


def unknown(check: str, found: str, advice: str = "") -> Finding:
    """It cannot be told from here."""
    return Finding(check, Verdict.UNKNOWN, found, advice)


def exit_status(findings: Sequence[Finding]) -> int:
    """0 if nothing is bad, else 1."""
    return int(any(finding.verdict is Verdict.BAD for finding in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """An array of objects with the keys check, verdict, found, advice."""
    return json.dumps([asdict(finding) for finding in findings], indent=1)


def as_text(findings: Sequence[Finding]) -> str:
    """For people: a line each, what to do below it."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.verdict:8}{finding.check:13}{finding.found}")
        if finding.advice:
            lines.append(f"{'':21}→ {finding.advice}")
    return "\n".join(lines)


def camera(size: tuple[int, int], first_s: float, light: float) -> Finding:
    """A camera that gave a frame.

    Args:
        size: (width, height) of it.
        first_s: from opening the camera to its first frame.
        light: mean of the frame, 0 to 255.
    """
    found = f"{size[0]} x {size[1]}, first frame after {first_s:.2f} s, mean light {light:.0f}"
    if light < DARK:
        return warn("camera", found, "almost black: is the lens covered, or the scene dark?")
    return good("camera", found)


def accelerator(wanted: str, device: str, fallen: Sequence[str], versions: str) -> Finding:
    """What runs the models.

    Args:
        wanted: what the configuration names.
        device: what runs them.
        fallen: why others do not.
        versions: of runtime, delegate, driver and library.
    """
    found = f"{device} ({versions})"
    if fallen:
        return bad(
            "accelerator",
            f"{found}, because {'; '.join(fallen)}",
            f"mend that, or set models.accelerator = 'cpu' (it is '{wanted}')",
        )
    return good("accelerator", found)


def clock(utc: datetime | None) -> Finding:
    """The wall clock.

    Args:
        utc: None while it is not synchronised.
    """
    if utc is None:
        return warn(
            "clock",
            "not synchronised: alerts carry no wall-clock time until it is",
            "let a time server be reached (timedatectl timesync-status)",
        )
    return good("clock", f"synchronised, {utc:%Y-%m-%d %H:%M:%S} UTC")


def disk(path: str, free_mib: float, refused: str | None) -> Finding:
    """Where the outbox lies.

    Args:
        path: of the folder.
        free_mib: on its file system.
        refused: why nothing can be written, None if it can.
    """
    if refused is not None:
        return bad("disk", f"{path}: {refused}", "alerts outlive no power cut: mend or make it")
    found = f"{path}: {free_mib:.0f} MiB free"
    if free_mib < DISK_LOW_MIB:
        return warn("disk", found, f"make room: below {DISK_LOW_MIB:.0f} MiB alerts may be lost")
    return good("disk", found)


def data(*, encrypted: bool, why: str) -> Finding:
    """Where certificates, outbox and configuration lie, against who takes the card alone.

    Args:
        encrypted: as the kernel says of the device.
        why: it is not, or to what it is; "" if nobody said.
    """
    if encrypted:
        return good("data", f"encrypted{f' to this board ({why})' if why else ''}")
    return warn(
        "data",
        f"the data partition is not encrypted{f': {why}' if why else ''}",
        "revoke the node when its card is gone; a board with a TPM or a key in its OTP, and a card"
        " that is new, are encrypted from the first start",
    )


def ssh(sources: str | None) -> Finding:
    """Whether somebody is let in.

    Args:
        sources: from where, as the card said; None: nobody is.
    """
    if sources is None:
        return good("ssh", "off: this card lets nobody in")
    return warn(
        "ssh", f"open for the user service, {sources}",
        "when it is no longer needed, put a picket-provision.toml without [ssh] on the card",
    )  # fmt: skip


def update(running: str | None, last: str, outcome: Outcome, why: str) -> Finding:
    """Which version runs, and what became of the last one that a roll-out brought.

    Args:
        running: None: this is no image.
        last: version of that update, "" if its signature was not good or there was none.
        outcome: of it.
        why: it was refused or rolled back, "" if it was not.
    """
    if running is None:
        return unknown("update", "not an image of Picket's: nothing is updated by itself here")
    found = f"{running} runs"
    if outcome is Outcome.NONE:
        return good("update", found)
    found += (
        f"; the last update{f', {last},' if last else ''} is {outcome}{f': {why}' if why else ''}"
    )
    if outcome in {Outcome.ROLLED_BACK, Outcome.REFUSED}:
        return warn("update", found, "picketctl update status, and `picket faults` here")
    return good("update", found)


def faults(lines: Sequence[str] | None) -> Finding:
    """What was kept of what went wrong.

    Args:
        lines: the oldest first; None where nothing is kept.
    """
    if lines is None:
        return unknown("faults", "nothing is kept across restarts here")
    real = [line for line in lines if not line.startswith(_NO_FAULT)]
    if not real:
        return good("faults", "none kept")
    since = next((n for n, line in enumerate(reversed(lines)) if line.startswith(_START)), None)
    recent = real if since is None else [x for x in lines[len(lines) - since :] if x in real]
    found = f"{len(real)} kept, {len(recent)} of them since the last start; the last: {real[-1]}"
    if not recent:
        return good("faults", found)
    return warn("faults", found, "picket faults")


_NO_FAULT, _START = "-- ", "-- start "
"""Of lines of the ring: image-build/overlay/usr/lib/picket/faults."""


def memory(free_mib: float) -> Finding:
    """What the kernel can still give away."""
    found = f"{free_mib:.0f} MiB available"
    if free_mib < MEMORY_LOW_MIB:
        return warn("memory", found, "end what else runs on this machine")
    return good("memory", found)


def heat(thermal: Thermal) -> Finding:
    """Temperature and supply."""
    if thermal.celsius is None:
        return unknown("heat", "no sensor of the chip")
    found = f"{thermal.celsius:.1f} °C"
    if thermal.under_voltage or thermal.was_under_voltage:
        when = "now" if thermal.under_voltage else "at some time since boot"
        return warn("heat", f"{found}, supply too weak {when}", "use a stronger power supply")
    if thermal.throttled or thermal.celsius >= HOT_FROM_C:
        return warn("heat", f"{found}, slowed down", "give it shade, air or a heat sink")
    return good("heat", found)


def certificate(not_before: datetime, not_after: datetime, now: datetime | None) -> Finding:
    """The node's certificate.

    Args:
        not_before: UTC.
        not_after: UTC.
        now: None while the clock is not synchronised.
    """
    found = f"valid until {not_after:%Y-%m-%d %H:%M} UTC"
    if now is None:
        return unknown("certificates", f"{found}, but the clock is not set")
    if now < not_before:
        return bad(
            "certificates",
            f"not valid before {not_before:%Y-%m-%d %H:%M} UTC",
            "is the clock right, here and at the controller?",
        )
    if now >= not_after:
        return bad("certificates", found, "it is over: invite the node again (picketctl node add)")
    if not_after - now < CERTIFICATE_SOON:
        return warn("certificates", found, "it is renewed by a link that reaches a controller")
    return good("certificates", found)


def controllers(reached: Mapping[str, float | str]) -> Finding:
    """The controllers' addresses.

    Args:
        reached: address to seconds until it took a connection, or to why it did not.
    """
    took = {address: s for address, s in reached.items() if not isinstance(s, str)}
    words = [
        f"{address}: {s}" if isinstance(s, str) else f"{address} in {1000 * s:.0f} ms"
        for address, s in reached.items()
    ]
    found = ", ".join(words)
    if not took:
        return bad("link", found, "is the network there, the address right, the controller up?")
    if len(took) < len(reached):
        return warn("link", found, "one controller is enough, until it fails, too")
    return good("link", found)


def sandbox(told: Mapping[str, Mapping[str, str] | str]) -> Finding:
    """What the kernel says of the services that run.

    Args:
        told: service to its lines of /proc/PID/status (and `net`: "own" or "shared"), or to why
            there are none.
    """
    running = {name: lines for name, lines in told.items() if not isinstance(lines, str)}
    if not running:
        why = next((why for why in told.values() if isinstance(why, str)), "nothing runs")
        return unknown("sandbox", why, "systemctl start picket.target")
    open_doors = [
        f"{name}: {door}" for name, lines in running.items() for door in _doors(name, lines)
    ]
    if open_doors:
        return bad(
            "sandbox",
            ", ".join(open_doors),
            "start the services by the units of systemd/, on systemd 252 or newer",
        )
    missing = sorted(set(told) - set(running))
    found = f"{', '.join(running)}: closed by the kernel"
    if missing:
        return warn("sandbox", f"{found}; not running: {', '.join(missing)}", "see journalctl")
    return good("sandbox", found)


def _doors(name: str, lines: Mapping[str, str]) -> list[str]:
    """What should be shut, and is not."""
    doors = []
    if lines.get("Seccomp") != "2":
        doors.append("no filter of system calls")
    if lines.get("NoNewPrivs") != "1":
        doors.append("may gain privileges")
    if int(lines.get("CapEff", "0"), 16):
        doors.append("has capabilities")
    if name != "link" and lines.get("net") == "shared":
        doors.append("sees the network")
    return doors
