"""`picket update BUNDLE`: a signed update into the other slot, tried once, kept if it is good.

1. read     RAUC checks the bundle's signature against the image's keyring, and tells its version
2. refuse   what is of another kind, such as with other cameras' drivers; or older than what runs: a
            hole once closed stays closed
3. install  RAUC writes the slot that does not run
4. restart  into it, for one try; the image's picket-confirm.service keeps it or leaves it

Enters: a file that only root can change. Leaves: two programs of the image, started: rauc and
systemctl. The power may go at any point: until the last step the old slot is what starts. What a
roll-out brought is trial.py's, which takes the same steps.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import UpdateError
from appliance.system import release as releases
from appliance.wire import Version

log = logging.getLogger(__name__)

_INFO_S, _INSTALL_S, _RESTART_S = 120.0, 1800.0, 60.0


@dataclass(frozen=True, slots=True)
class Signed:
    """What RAUC says of a bundle whose signature is good.

    Attributes:
        version: as it is compared.
        named: as it is written in the bundle.
    """

    version: Version
    named: str


def update(
    bundle: Path,
    *,
    say: Callable[[str], None],
    release: Path = releases.RELEASE,
    restart: bool = True,
) -> None:
    """Install an update.

    Args:
        bundle: a file, as `make image` leaves it.
        say: takes the line that tells it, before the restart, which spares nobody.
        release: holds the version that runs.
        restart: into the new slot, at once.

    Raises:
        UpdateError: not signed by whom the image believes, for another machine, older than what
            runs, or RAUC failed; what runs is as it was.
    """
    if not bundle.is_file():
        raise UpdateError(f"{bundle}: no such file")
    signed = read(bundle, release=release)
    install(bundle)
    say(f"{signed.named} is installed; it is kept if its services come up")
    if restart:
        try_other_slot()


def read(bundle: Path, *, release: Path) -> Signed:
    """Steps 1 and 2.

    Raises:
        UpdateError: as `update` does.
    """
    signed, running = _info(bundle, releases.kind(release)), releases.running(release)
    if signed.version < running:
        raise UpdateError(
            f"{bundle}: version {signed.named} is older than {releases.shown(running)}, which runs"
        )
    return signed


def install(bundle: Path) -> None:
    """Step 3.

    Raises:
        UpdateError: RAUC failed.
    """
    log.info("installing %s", bundle)
    _run(["rauc", "install", str(bundle)], _INSTALL_S)


def try_other_slot() -> None:
    """Step 4: the firmware's "tryboot", the other slot for one start only.

    Raises:
        UpdateError: systemd refused.
    """
    _run(["systemctl", "--no-block", "reboot", "--reboot-argument=0 tryboot"], _RESTART_S)


def _info(bundle: Path, kind: str) -> Signed:
    said = _run(["rauc", "info", "--output-format=json", str(bundle)], _INFO_S)
    try:
        told = json.loads(said[said.index("{") :])
        compatible, version = str(told["compatible"]), str(told["version"])
    except (ValueError, KeyError, TypeError) as e:
        raise UpdateError(f"{bundle}: rauc does not tell what it is") from e
    if compatible != kind:
        raise UpdateError(f"{bundle}: is for '{compatible[:60]}', this is {kind}")
    return Signed(releases.parse(version), version)


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
