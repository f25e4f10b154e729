"""The locked packages that Picket runs and is tested with, for the container's Python.

    .venv/bin/python -m tests.image.sandbox.build_site SITE      (make sandbox-test)

Enters: requirements.lock, and what this environment says that Picket needs. Leaves: a folder for
PYTHONPATH. Nothing is built: where there is no wheel, it fails.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PYTHON = "3.13"
"""Of Debian trixie, as build-tree.sh installs it."""
PLATFORMS = [f"manylinux_2_{minor}_{{machine}}" for minor in (34, 28, 27, 17)]


def normal(name: str) -> str:
    """A package's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(package: str) -> set[str]:
    """A package's dependencies, and theirs, without extras."""
    found: set[str] = set()
    waiting = [package]
    while waiting:
        for requirement in importlib.metadata.requires(waiting.pop()) or []:
            name = normal(re.split(r"[ ;<>=!~\[(]", requirement, maxsplit=1)[0])
            if "extra ==" in requirement or name in found or not installed(name):
                continue
            found.add(name)
            waiting.append(name)
    return found


def installed(name: str) -> bool:
    """False for what is needed by another system or Python only."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def locked(names: set[str]) -> str:
    """Their paragraphs of requirements.lock, with hashes."""
    kept, keeping = [], False
    for line in (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines():
        package = re.match(r"([A-Za-z0-9._-]+)==", line)
        if package:
            keeping = normal(package[1]) in names
        elif not line.startswith(" "):
            keeping = False
        if keeping:
            kept.append(line)
    return "\n".join(kept) + "\n"


def main() -> None:
    """Install."""
    site = Path(sys.argv[1]).resolve()
    new = site.with_name(f"{site.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lock", encoding="utf-8") as lock:
        lock.write(locked({"pytest", *needed("pytest"), *needed("picket")}))
        lock.flush()
        command = [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-deps", "--only-binary=:all:", "--require-hashes", "--implementation=cp",
            f"--python-version={PYTHON}", f"--target={new}", f"--requirement={lock.name}",
            *(f"--platform={p.format(machine=platform.machine())}" for p in PLATFORMS),
        ]  # fmt: skip
        subprocess.run(command, check=True)
    shutil.rmtree(site, ignore_errors=True)
    new.rename(site)


if __name__ == "__main__":
    main()
