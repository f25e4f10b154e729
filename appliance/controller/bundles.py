"""The bundle of an update on the controller: looked at, copied into the fleet's folder, given out.

Enters: a file that RAUC made. Leaves: its version, FLEET/updates/SHA256.raucb, and its parts. The
signature is for the nodes' RAUC to check; here it is checked only where the operator names the
certificate. Nodes get what lies in that folder under its own SHA-256, and nothing else.
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import UpdateError
from appliance.link.file import sync_folder
from appliance.system import release
from appliance.wire import BUNDLE_MAX_BYTES, PIECE_MAX_BYTES, Version

FOLDER = "updates"
PART_BYTES = PIECE_MAX_BYTES
_MAGIC = b"hsqs"
"""A bundle begins with a squashfs, whose first bytes these are."""
_BLOCK_BYTES = 1 << 20
_TOOL_S = 120.0
_LAST = "manifest.raucm"


@dataclass(frozen=True, slots=True)
class Found:
    """What a bundle says of itself.

    Attributes:
        signed: its signature was checked.
    """

    version: Version
    signed: bool


def look(bundle: Path, certificate: Path | None) -> Found:
    """What a bundle says of itself, by `rauc info`, else by `unsquashfs`.

    Args:
        bundle: a file.
        certificate: of whoever must have signed it; None leaves that to the nodes.

    Raises:
        UpdateError: no bundle, for other machines, without a version, not signed by whom it
            should be, or neither of the two programs is here.
    """
    try:
        with bundle.open("rb") as file:
            begins, size = file.read(len(_MAGIC)), os.fstat(file.fileno()).st_size
    except OSError as e:
        raise UpdateError(f"{bundle}: cannot be read: {e.strerror}") from e
    if begins != _MAGIC:
        raise UpdateError(f"{bundle}: is no RAUC bundle")
    if size > BUNDLE_MAX_BYTES:
        raise UpdateError(f"{bundle}: {size} bytes: at most {BUNDLE_MAX_BYTES} are rolled out")
    if shutil.which("rauc"):
        compatible, version = _by_rauc(bundle, certificate)
    elif certificate is not None:
        raise UpdateError("rauc is missing, which checks the signature: apt-get install rauc")
    elif shutil.which("unsquashfs"):
        compatible, version = _by_unsquashfs(bundle)
    else:
        raise UpdateError(
            "rauc and unsquashfs are missing, one of which reads a bundle: apt-get install rauc"
        )
    if not release.is_kind(compatible):
        raise UpdateError(f"{bundle}: is for '{compatible[:60]}', no kind of {release.COMPATIBLE}")
    if not version:
        raise UpdateError(f"{bundle}: its manifest has no version")
    return Found(release.parse(version), certificate is not None)


def keep(bundle: Path, folder: Path) -> tuple[bytes, int]:
    """Copy a bundle, whole or not at all, under its SHA-256.

    Args:
        bundle: a file.
        folder: made if missing.

    Returns:
        SHA-256 and size.

    Raises:
        UpdateError: it cannot be copied.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with (
            bundle.open("rb") as source,
            tempfile.NamedTemporaryFile(dir=folder, prefix=".new-", delete=False) as out,
        ):
            try:
                while block := source.read(_BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
                    out.write(block)
                out.flush()
                os.fsync(out.fileno())
                Path(out.name).rename(folder / f"{digest.hexdigest()}.raucb")
            except OSError:
                Path(out.name).unlink(missing_ok=True)
                raise
        sync_folder(folder)
    except OSError as e:
        raise UpdateError(f"{bundle}: cannot be copied to {folder}: {e.strerror}") from e
    return digest.digest(), size


class Bundles:
    """Gives out the parts of one bundle at a time. Thread-safe.

    Args:
        folder: FLEET/updates.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._open: tuple[bytes, int] | None = None

    def prepare(self, sha256: bytes | None, size: int) -> str:
        """Open a bundle and read all of it once; what was open is closed.

        Args:
            sha256: of the bundle, None for none.
            size: in bytes.

        Returns:
            Why it cannot be given out, "" if it can.
        """
        with self._lock:
            if sha256 is not None and self._open is not None and self._open[0] == sha256:
                return ""
        number, why = -1, ""
        if sha256 is not None:
            number, why = _opened(self._folder / f"{sha256.hex()}.raucb", sha256, size)
        with self._lock:
            if self._open is not None:
                os.close(self._open[1])
            self._open = None if sha256 is None or number < 0 else (sha256, number)
        return why

    def part(self, sha256: bytes, index: int) -> bytes | None:
        """A part of the bundle that is open; None if it is another, or has no such part."""
        with self._lock:
            if self._open is None or self._open[0] != sha256:
                return None
            try:
                return os.pread(self._open[1], PART_BYTES, index * PART_BYTES) or None
            except OSError:
                return None

    def close(self) -> None:
        """Close what is open."""
        self.prepare(None, 0)


def _opened(path: Path, sha256: bytes, size: int) -> tuple[int, str]:
    number = -1
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with open(number, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if digest == sha256 and os.fstat(number).st_size == size:
            return number, ""
        why = f"{path}: is not what was rolled out: copy it there again"
    except OSError as e:
        why = f"{path}: {e.strerror}"
    if number >= 0:
        os.close(number)
    return -1, why


def _by_rauc(bundle: Path, certificate: Path | None) -> tuple[str, str]:
    check = ["--no-verify"] if certificate is None else [f"--keyring={certificate}"]
    said = _run(["rauc", *check[1:], "info", "--output-format=json", *check, str(bundle)], bundle)
    try:
        told = json.loads(said[said.index("{") :])
        return str(told["compatible"]), str(told.get("version") or "")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UpdateError(f"{bundle}: rauc does not tell what it is") from e


def _by_unsquashfs(bundle: Path) -> tuple[str, str]:
    manifest = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        manifest.read_string(_run(["unsquashfs", "-cat", str(bundle), _LAST], bundle))
        return manifest["update"]["compatible"], manifest["update"].get("version", "")
    except (configparser.Error, KeyError) as e:
        raise UpdateError(f"{bundle}: holds no manifest of RAUC's") from e


def _run(command: list[str], bundle: Path) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_TOOL_S
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise UpdateError(f"{bundle}: {command[0]}: {e}") from e
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UpdateError(f"{bundle}: {command[0]}: {lines[-1] if lines else done.returncode}")
    return done.stdout
