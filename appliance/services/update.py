"""`picket update BUNDLE`: a signed update into the other slot, tried once, kept if it is good.

1. read     RAUC checks the bundle's signature against the image's keyring, and tells its version
2. refuse   what is for another machine, or older than what runs: a hole once closed stays closed
3. install  RAUC writes the slot that does not run
4. restart  into it, for one try; the image's picket-confirm.service keeps it or leaves it

Enters: a file. Leaves: two programs of the image, started: rauc and systemctl. The power may go at
any point: until the last step the old slot is what starts.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import UpdateError

log = logging.getLogger(__name__)

COMPATIBLE = "picket-arm64"
RELEASE = Path("/etc/picket-release")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,3}")
_INFO_S, _INSTALL_S, _RESTART_S = 120.0, 1800.0, 60.0


@dataclass(frozen=True, slots=True)
class Bundle:
    """What RAUC says of a bundle whose signature is good."""

    compatible: str
    version: str


def update(bundle: Path, *, release: Path = RELEASE, restart: bool = True) -> str:
    """Install an update.

    Args:
        bundle: a file, as `make image` leaves it.
        release: holds the version that runs.
        restart: into the new slot, at once.

    Returns:
        The version that was installed.

    Raises:
        UpdateError: not signed by whom the image believes, for another machine, older than what
            runs, or RAUC failed; what runs is as it was.
    """
    if not bundle.is_file():
        raise UpdateError(f"{bundle}: no such file")
    offered, running = _info(bundle), _running(release)
    if offered.compatible != COMPATIBLE:
        raise UpdateError(f"{bundle}: is for '{offered.compatible}', this is {COMPATIBLE}")
    if _parts(offered.version) < _parts(running):
        raise UpdateError(
            f"{bundle}: version {offered.version} is older than {running}, which runs"
        )
    log.info("installing %s over %s", offered.version, running)
    _run(["rauc", "install", str(bundle)], _INSTALL_S)
    if restart:
        # The firmware's "tryboot": the other slot, for one start only.
        _run(["systemctl", "reboot", "--reboot-argument=0 tryboot"], _RESTART_S)
    return offered.version


def _info(bundle: Path) -> Bundle:
    said = _run(["rauc", "info", "--output-format=json", str(bundle)], _INFO_S)
    try:
        told = json.loads(said[said.index("{") :])
        return Bundle(str(told["compatible"]), str(told["version"]))
    except (ValueError, KeyError, TypeError) as e:
        raise UpdateError(f"{bundle}: rauc does not tell what it is") from e


def _running(release: Path) -> str:
    try:
        return release.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as e:
        raise UpdateError(f"{release}: cannot be read: this is no image of Picket's") from e


def _parts(version: str) -> tuple[int, ...]:
    """A version, to be compared.

    Raises:
        UpdateError: it is none.
    """
    if not _VERSION.fullmatch(version):
        raise UpdateError(f"'{version[:40]}' is no version, such as 1.2.3")
    found = tuple(int(part) for part in version.split("."))
    return found + (0,) * (4 - len(found))


def _run(command: list[str], timeout_s: float) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except FileNotFoundError as e:
        raise UpdateError(f"{command[0]} is missing: updates are for Picket's image") from e
    except subprocess.TimeoutExpired as e:
        raise UpdateError(f"{command[0]} did not end within {timeout_s:.0f} s") from e
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UpdateError(f"{command[0]}: {lines[-1].strip() if lines else done.returncode}")
    return done.stdout
