"""The root becomes a card's image: squashfs with its hash tree, boot partitions, one MBR.

Enters: the staged root, the initrd, the Debian tree (firmware, kernel). Leaves: a raw image and the
parts of an update. No mount, no loop device. Every time, every number and every name follows from
the inputs, so that the same inputs give the same root hash.
"""

from __future__ import annotations

import datetime as dt
import gzip
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from work import BuildError, run

HERE = Path(__file__).resolve().parent
SIGNATURE = "9ac4e700"
"""Of the disk: names its partitions (PARTUUID) to kernel, fstab and RAUC."""
_VERITY_UUID = "5069636b-6574-4000-8000-000000000001"
_BLOCK = 4096
_DEVICE_TREES = (
    "bcm2710-rpi-zero-2-w", "bcm2837-rpi-zero-2-w", "bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus",
    "bcm2711-rpi-4-b", "bcm2711-rpi-400", "bcm2711-rpi-cm4-io", "bcm2712-rpi-5-b",
    "bcm2712-d-rpi-5-b",
)  # fmt: skip
_FIRMWARE = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")
_CONFIG = """# Read by the Pi's firmware from the boot slot that autoboot.txt names.
arm_64bit=1
upstream_kernel=1
enable_uart=1
disable_splash=1
kernel=kernel8.img
initramfs initramfs8 followkernel
"""
_CMDLINE = (
    "console=ttyS1,115200 console=ttyAMA0,115200 root=PARTUUID={signature}-0{part} ro"
    " roothash={hash} hashoffset={offset} rauc.slot={slot} panic=10 quiet net.ifnames=0"
    " systemd.volatile=state systemd.show_status=no systemd.swap=no\n"
)
_AUTOBOOT = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
_DATA = ("etc", "link", "keys", "join", "system", "rauc", "faults")
_DATA_MIB = 64
_GENIMAGE = """
image config.vfat {{ vfat {{ label = "BOOTCFG"
  extraargs = "-F 16 -i 9ac4e701" }} mountpoint = "/config"
  size = 32M }}
image boot.vfat {{ vfat {{ label = "BOOT"
  extraargs = "-F 32 -i 9ac4e702" }} mountpoint = "/boot"
  size = 80M }}
image card.img {{
  hdimage {{ partition-table-type = "mbr"
    disk-signature = 0x{signature}
    extended-partition = 4
    align = 1M }}
  partition config {{ partition-type = 0x0c
    bootable = true
    image = "config.vfat" }}
  partition boot_a {{ partition-type = 0x0c
    image = "boot.vfat" }}
  partition boot_b {{ partition-type = 0x0c
    size = 80M }}
  partition root_a {{ partition-type = 0x83
    image = "root.img"
    size = {root_mib}M }}
  partition root_b {{ partition-type = 0x83
    size = {root_mib}M }}
  partition data {{ partition-type = 0x83
    image = "data.ext4" }}
}}
"""


@dataclass(frozen=True)
class Root:
    """A squashfs with its hash tree behind it.

    Attributes:
        path: the file.
        hash: dm-verity's root hash, hexadecimal.
        offset: of the hash tree, bytes.
    """

    path: Path
    hash: str
    offset: int


def squash(root: Path, out: Path, epoch: int, log: Path) -> Root:
    """Make the root file system.

    Args:
        root: staged.
        out: the file.
        epoch: every time in it, seconds since 1970.
        log: gets what the programs say.
    """
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # mksquashfs refuses it beside its own options
    run([
        "mksquashfs", root, out, "-comp", "zstd", "-Xcompression-level", "12", "-b", "64K",
        "-noappend", "-quiet", "-no-progress", "-all-time", epoch, "-mkfs-time", epoch,
        "-wildcards", "-ef", HERE / "exclude.txt",
    ], log=log)  # fmt: skip
    return seal(out, log)


def seal(out: Path, log: Path | None = None) -> Root:
    """Put dm-verity's hash tree behind a file system.

    Args:
        out: the file, which grows.
        log: gets what the programs say.
    """
    offset = -(-out.stat().st_size // _BLOCK) * _BLOCK
    os.truncate(out, offset)
    said = run([
        "veritysetup", "format", out, out, f"--hash-offset={offset}",
        f"--data-blocks={offset // _BLOCK}", "--salt=-", f"--uuid={_VERITY_UUID}",
    ], log=log)  # fmt: skip
    found = re.search(r"Root hash:\s+([0-9a-f]{64})", said)
    if not found:
        raise BuildError("veritysetup told no root hash")
    return Root(out, found[1], offset)


def boot(out: Path, tree: Path, kernel: str, *, initrd: bytes, root: Root, slot: str) -> None:
    """Fill a boot slot's folder."""
    out.mkdir(parents=True)
    for name in _FIRMWARE:
        shutil.copy2(tree / "usr/lib/raspi-firmware" / name, out)
    modules = tree / "usr/lib/modules" / kernel
    with (out / "kernel8.img").open("wb") as file:
        image = (modules / "vmlinuz").read_bytes()
        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            packed.write(image)
    (out / "initramfs8").write_bytes(initrd)
    trees = [t for t in _DEVICE_TREES if (modules / f"dtb/broadcom/{t}.dtb").exists()]
    for name in trees:
        shutil.copy2(modules / f"dtb/broadcom/{name}.dtb", out)
    if not trees:
        raise BuildError("this kernel has no device tree of a Pi")
    (out / "config.txt").write_text(_CONFIG, encoding="ascii")
    line = _CMDLINE.format(
        signature=SIGNATURE, part={"a": 5, "b": 6}[slot], hash=root.hash, offset=root.offset,
        slot=slot,
    )  # fmt: skip
    (out / "cmdline.txt").write_text(line, encoding="ascii")


def card(work: Path, boot_a: Path, tree: Path, *, root: Root, epoch: int, log: Path) -> Path:
    """The card's image.

    Args:
        work: a new folder.
        boot_a: slot a's folder.
        tree: Debian's.
        root: packed.
        epoch: seconds since 1970.
        log: gets what the programs say.

    Returns:
        The raw image.
    """
    root_mib = 384
    if root.path.stat().st_size > root_mib << 20:
        raise BuildError(f"the root has {root.path.stat().st_size} bytes: a slot {root_mib} MiB")
    folders = work / "folders"
    (folders / "config").mkdir(parents=True)
    shutil.copytree(boot_a, folders / "boot")
    config = folders / "config"
    (config / "autoboot.txt").write_text(_AUTOBOOT, encoding="ascii")
    (config / "config.txt").write_text("# see the boot slots\n", encoding="ascii")
    shutil.copy2(tree / "usr/lib/raspi-firmware/bootcode.bin", config)
    for path in [folders, *folders.rglob("*")]:
        os.utime(path, (epoch, epoch))
    inputs = work / "input"
    inputs.mkdir()
    root.path.rename(inputs / "root.img")
    _data(inputs / "data.ext4", epoch, log)
    settings = work / "genimage.cfg"
    settings.write_text(_GENIMAGE.format(signature=SIGNATURE, root_mib=root_mib), encoding="ascii")
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    run([
        *_at(epoch),
        "genimage", "--config", settings, "--rootpath", folders, "--tmppath", work / "tmp",
        "--inputpath", inputs, "--outputpath", work / "out",
    ], log=log)  # fmt: skip
    return work / "out" / "card.img"


def _data(out: Path, epoch: int, log: Path) -> None:
    """The data partition, with its folders; the node grows it, or makes it anew."""
    with out.open("wb") as file:
        file.truncate(_DATA_MIB << 20)
    run([
        *_at(epoch), "mke2fs", "-q", "-t", "ext4", "-L", "data", "-m", "0", "-U", _VERITY_UUID,
        "-E", f"hash_seed={_VERITY_UUID},lazy_itable_init=0", out,
    ], log=log)  # fmt: skip
    commands = out.with_suffix(".commands")
    commands.write_text("".join(f"mkdir /{name}\n" for name in _DATA), encoding="ascii")
    run([*_at(epoch), "debugfs", "-w", "-f", commands, out], log=log)
    commands.unlink()


def _at(epoch: int) -> list[str]:
    """In front of a program that writes down when it made something, whatever it is told."""
    then = dt.datetime.fromtimestamp(epoch, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
    return ["env", "TZ=UTC0", "faketime", "-f", then]
