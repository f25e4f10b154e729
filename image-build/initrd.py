"""A small initrd, put together without running a line of arm64 code.

Enters: the Debian tree. Leaves: an archive (cpio, zstd) with busybox, veritysetup and its
libraries, the modules that a root needs, in the order in which they are loaded, and `init`. The
same tree gives the same bytes.
"""

from __future__ import annotations

import lzma
import os
import re
import subprocess
from pathlib import Path

from work import BuildError, run

MODULES = (
    "virtio_blk", "virtio_pci", "virtio_mmio", "sdhci-iproc", "sdhci-brcmstb", "bcm2835",
    "mmc_block", "bcm2835_wdt", "i6300esb", "dm-verity", "squashfs", "ext4",
)  # fmt: skip
_LIBRARIES = "usr/lib/aarch64-linux-gnu"
_FOLDERS = ("bin", "dev", "proc", "sys", "run", "new", "lib", "lib/modules")
_FILE, _FOLDER = 0o100000, 0o040000


class Initrd:
    """What goes in: path to mode and content."""

    def __init__(self, root: Path, kernel: str) -> None:
        self._root, self._modules = root, root / "usr/lib/modules" / kernel
        self._files: dict[str, tuple[int, bytes]] = {}
        for folder in _FOLDERS:
            self._files[folder] = (_FOLDER | 0o755, b"")
        self.order: list[str] = []

    def add(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """A file."""
        self._files[path] = (_FILE | mode, content)

    def read(self, path: str) -> bytes:
        """A file of the tree; its links are those of the tree, not of this machine."""
        at = self._root / path
        while at.is_symlink():
            to = at.readlink()
            at = self._root / str(to).lstrip("/") if to.is_absolute() else at.parent / to
        return at.read_bytes()

    def program(self, path: str, to: str) -> None:
        """A program or library, and the libraries that it names."""
        self.add(to, self.read(path), 0o755)
        said = run(["readelf", "-d", self._resolved(path)])
        for library in re.findall(r"NEEDED.*\[(.+)\]", said):
            if f"lib/{library}" not in self._files:
                self.program(f"{_LIBRARIES}/{library}", f"lib/{library}")

    def _resolved(self, path: str) -> Path:
        at = self._root / path
        while at.is_symlink():
            to = at.readlink()
            at = self._root / str(to).lstrip("/") if to.is_absolute() else at.parent / to
        return at

    def modules(self, names: tuple[str, ...]) -> None:
        """Modules and what they need, each after what it needs."""
        lines = (self._modules / "modules.dep").read_text(encoding="utf-8").splitlines()
        needs = dict(line.split(":", 1) for line in lines)
        by_name = {_bare(path): path for path in needs}
        built_in = {_bare(p) for p in self._lines("modules.builtin")}
        for name in names:
            bare = name.replace("-", "_")
            if bare in built_in:
                continue
            if bare not in by_name:
                raise BuildError(f"this kernel has no module {name}")
            for path in [*reversed(needs[by_name[bare]].split()), by_name[bare]]:
                self._module(path)

    def _lines(self, name: str) -> list[str]:
        return (self._modules / name).read_text(encoding="utf-8").splitlines()

    def _module(self, path: str) -> None:
        base = os.path.basename(path).removesuffix(".xz")  # noqa: PTH119 - a name, not a path
        if base not in self.order:
            content = (self._modules / path).read_bytes()
            self.add(
                f"lib/modules/{base}", lzma.decompress(content) if path[-3:] == ".xz" else content
            )
            self.order.append(base)

    def cpio(self) -> bytes:
        """The archive, "newc"; no times, no owners, paths in order."""
        out = bytearray()
        for number, (path, (mode, content)) in enumerate(sorted(self._files.items()), 1):
            _entry(out, number, path, mode, content)
        _entry(out, 0, "TRAILER!!!", 0, b"")
        return bytes(out)


def _entry(out: bytearray, number: int, path: str, mode: int, content: bytes) -> None:
    name = path.encode() + b"\0"
    links = 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(name), 0)
    out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
    out += bytes(-len(out) % 4)
    out += content
    out += bytes(-len(out) % 4)


def _bare(path: str) -> str:
    name = path.strip().rsplit("/", 1)[-1]
    return re.sub(r"\.ko(\.xz)?$", "", name).replace("-", "_")


def make(root: Path, kernel: str, init: Path) -> bytes:
    """The initrd.

    Raises:
        BuildError: the tree lacks something.
    """
    made = Initrd(root, kernel)
    made.add("bin/busybox", made.read("usr/bin/busybox"), 0o755)
    made.program("usr/sbin/veritysetup", "bin/veritysetup")
    made.program(f"{_LIBRARIES}/ld-linux-aarch64.so.1", "lib/ld-linux-aarch64.so.1")
    made.modules(MODULES)
    made.add("modules", "".join(f"{name}\n" for name in made.order).encode())
    made.add("init", init.read_bytes(), 0o755)
    packed = subprocess.run(
        ["zstd", "-q", "-15", "-c"],  # noqa: S607 - required at the beginning
        input=made.cpio(), capture_output=True, check=False,
    )  # fmt: skip
    if packed.returncode != 0:
        raise BuildError(f"zstd: {packed.stderr.decode(errors='replace').strip()}")
    return packed.stdout
