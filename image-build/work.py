"""What every step of the build stands on: programs, space, and files that appear whole or not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {
    "mmdebstrap": "mmdebstrap",
    "arch-test": "arch-test",
    "qemu-aarch64-static": "qemu-user-static",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "veritysetup": "cryptsetup-bin",
    "genimage": "genimage",
    "faketime": "faketime",
    "mcopy": "mtools",
    "mtype": "mtools",
    "mkdosfs": "dosfstools",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "zstd": "zstd",
    "xz": "xz-utils",
    "depmod": "kmod",
    "readelf": "binutils",
    "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    "make": "make",
    "dtc": "device-tree-compiler",
    "fdtoverlay": "device-tree-compiler",
    "swig": "swig",
    "systemd-sysusers": "systemd",
    "rauc": "rauc",
    "qemu-system-aarch64": "qemu-system-arm",
    "swtpm": "swtpm",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
"""Program: the Debian packages that bring it."""
_SBIN = "/usr/sbin:/sbin"


class BuildError(Exception):
    """The build cannot go on; one line that says why."""


def require(*tools: str) -> None:
    """Name every program that is missing, with its package.

    Raises:
        BuildError: one is.
    """
    path = f"{os.environ.get('PATH', '')}:{_SBIN}"
    missing = [tool for tool in tools if shutil.which(tool, path=path) is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[tool] for tool in missing))
        raise BuildError(f"missing: {', '.join(missing)}: apt install {packages}")


def run(command: Sequence[object], *, cwd: Path | None = None, log: Path | None = None) -> str:
    """What a program prints.

    Args:
        command: its words.
        cwd: where it runs.
        log: gets what it says on stderr; its last line is the reason if it fails.

    Raises:
        BuildError: it failed.
    """
    words = [str(word) for word in command]
    environment = os.environ | {
        "PATH": f"{os.environ.get('PATH', '')}:{_SBIN}",
        "LC_ALL": "C.UTF-8",
        "MTOOLS_SKIP_CHECK": "1",
    }
    done = subprocess.run(
        words, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    if log is not None:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}")
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        where = f" (all of it: {log})" if log else ""
        raise BuildError(f"{words[0]}: {said[-1] if said else done.returncode}{where}")
    return done.stdout


def room(folder: Path, needed: int) -> None:
    """Whether there is space.

    Raises:
        BuildError: there is not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise BuildError(f"{folder}: {free >> 20} MiB free: {needed >> 20} MiB are needed")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside a file or folder, which takes its place if nothing goes wrong."""
    new = path.with_name(f".{path.name}.new")
    remove(new)
    path.parent.mkdir(parents=True, exist_ok=True)
    yield new
    remove(path)
    new.rename(path)


def remove(path: Path) -> None:
    """A file or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    began_s = time.monotonic()
    print(f"{what} …", flush=True)
    yield
    print(f"  {time.monotonic() - began_s:.1f} s", flush=True)


def fail(why: BuildError) -> int:
    """The one line."""
    print(f"picket: error: {why}", file=sys.stderr)
    return 1
