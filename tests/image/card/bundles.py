"""Updates for the emulated node: another version, one whose services do not come up, and worse.

Enters: the update that was built beside an image, and the key that signed it. Leaves: bundles of
the same root and boot slot, changed, which RAUC on the node believes, or is not to believe.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from tests.image.scripts import imported

_REPOSITORY = Path(__file__).resolve().parents[3]
_KEPT = _REPOSITORY / "build/image"


@dataclass(frozen=True)
class Parts:
    """What an update is made of.

    Attributes:
        root: squashfs with its hash tree.
        boot: a slot's FAT.
        command: the kernel's command line in it.
    """

    root: Path
    boot: Path
    command: str


def signers() -> tuple[Path, Path]:
    """Certificate and key that the image believes: those it was built with."""
    named = [os.environ.get(f"PICKET_UPDATE_{what}") for what in ("CERT", "KEY")]
    return Path(named[0] or _KEPT / "update.crt"), Path(named[1] or _KEPT / "update.key")


def taken_apart(bundle: Path, folder: Path) -> Parts:
    """What is in an update.

    Args:
        bundle: of `make image`.
        folder: new.
    """
    _run("rauc", f"--keyring={signers()[0]}", "extract", bundle, folder)
    boot = folder / "boot.vfat"
    return Parts(folder / "rootfs.img", boot, _run("mtype", "-i", boot, "::cmdline.txt"))


def renamed(given: Parts, version: str, folder: Path) -> Parts:
    """The same root, which says of itself that it is another version."""
    tree, root = folder / "tree", folder / f"root-{version}.img"
    _run("unsquashfs", "-quiet", "-no-progress", "-d", tree, given.root)
    release = tree / "etc/picket-release"
    kind = release.read_text(encoding="ascii").splitlines()[1]
    release.write_text(f"{version}\n{kind}\n", encoding="ascii")
    _run("mksquashfs", tree, root, "-comp", "zstd", "-Xcompression-level", "3", "-b", "256K",
         "-noappend", "-quiet", "-no-progress")  # fmt: skip
    shutil.rmtree(tree)
    sealed = _build("pack").seal(root)
    command = _with(given.command, roothash=sealed.hash, hashoffset=str(sealed.offset))
    return started_by(Parts(root, given.boot, given.command), command, folder)


def started_by(given: Parts, command: str, folder: Path) -> Parts:
    """The same root and boot slot, with another command line for the kernel."""
    line, boot = folder / "cmdline.txt", folder / f"boot-{len(list(folder.iterdir()))}.vfat"
    shutil.copyfile(given.boot, boot)
    line.write_text(command, encoding="ascii")
    _run("mcopy", "-o", "-i", boot, line, "::cmdline.txt")
    return Parts(given.root, boot, command)


def of_another_root(given: Parts, folder: Path) -> Parts:
    """The same root, and a boot slot that asks for one with another hash."""
    before = dict(word.split("=", 1) for word in given.command.split() if "=" in word)["roothash"]
    other = before[:-1] + ("0" if before[-1] != "0" else "1")
    return started_by(given, _with(given.command, roothash=other), folder)


def signed(
    given: Parts, version: str, out: Path, *, signed_by: tuple[Path, Path] | None = None
) -> Path:
    """Make an update of it.

    Args:
        given: what is in it.
        version: what it says that it is.
        out: new.
        signed_by: certificate and key; those of the image if none are given.
    """
    work = out.with_suffix(".work")
    _build("bundle").make(
        out, given.root, given.boot, work, version=version, signed_by=signed_by or signers()
    )
    shutil.rmtree(work)
    return out


def stranger(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key that no image knows."""
    paths = folder / "stranger.crt", folder / "stranger.key"
    _build("bundle").certify(*paths)
    return paths


def changed(bundle: Path, out: Path) -> Path:
    """An update of which one byte was changed after it was signed."""
    shutil.copyfile(bundle, out)
    with out.open("r+b") as file:
        file.seek(out.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    return out


def _with(command: str, **words: str) -> str:
    """A command line with other values."""
    said = [word.partition("=") for word in command.split()]
    return " ".join(f"{n}{e}{words.get(n, v)}" for n, e, v in said) + "\n"


def _build(name: str) -> ModuleType:
    """One of the build's scripts."""
    with imported(name) as found:
        return found[name]


def _run(*words: object) -> str:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False,
        env=os.environ | {"PATH": path, "MTOOLS_SKIP_CHECK": "1"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
