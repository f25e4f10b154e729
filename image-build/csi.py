"""What Debian's kernel is built without: CSI receiver, sensors, DMA heaps, as modules; overlays.

Enters: the Debian tree (its kernel's release and exact version). Leaves: a folder with modules/ (as
below the kernel's own folder of modules), overlays/ (device trees' additions, one per board and
sensor), and a module for the test in an emulated machine. The sources are Debian's, the packages of
that very version; nothing in them is changed. The modules are not signed: Debian's kernel notes
that (taint E and O) and loads them; what protects them on the card is the root's hash tree, as it
does everything else.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from work import BuildError, remove, run, step

HERE = Path(__file__).resolve().parent / "csi"
TOOLS = ("mmdebstrap", "make", "aarch64-linux-gnu-gcc", "dtc", "fdtoverlay", "depmod")
TEST_BUS = "test_bus.ko"
_CROSS = "aarch64-linux-gnu-"
_BOARDS = {
    "pi02": ("bcm2837-rpi-zero-2-w",),
    "pi3": ("bcm2837-rpi-3-b", "bcm2837-rpi-3-b-plus"),
    "pi4": ("bcm2711-rpi-4-b", "bcm2711-rpi-cm4-io"),
    "pi5": ("bcm2712-rpi-5-b", "bcm2712-d-rpi-5-b"),
}
"""Filter of config.txt: the device trees that the firmware may load there."""
_LOADED = "usr/lib/modules-load.d/picket-csi.conf"
_HEAPS = ("cma_heap", "system_heap")
"""No device asks for them, so nothing would load them."""


def inputs(tree: Path) -> list[Path]:
    """All that decides what make() leaves."""
    ours = sorted(path for path in HERE.rglob("*") if path.is_file())
    return [Path(__file__), *ours, tree / "root/.unpacked"]


def sensors() -> list[str]:
    """Those that there is an overlay for."""
    return sorted(path.stem for path in (HERE / "sensors").glob("*.h"))


def chosen(name: str) -> str:
    """A sensor's name, if there is an overlay for it.

    Raises:
        BuildError: there is none.
    """
    if name not in sensors():
        raise BuildError(f"PICKET_SENSOR: no overlay for '{name}'; for {', '.join(sensors())}")
    return name


def make(new: Path, tree: Path, log: Path) -> None:
    """Fill a folder.

    Args:
        new: the folder.
        tree: Debian's.
        log: gets what the programs say.

    Raises:
        BuildError: the archive no longer has this kernel's source, or it does not compile.
    """
    kernel = (tree / "kernel").read_text(encoding="ascii").strip()
    # Always the same place: names of headers end up in the modules, and so in the root's hash.
    folder = Path(tempfile.gettempdir()) / "picket-csi"
    remove(folder)
    folder.mkdir(mode=0o700)
    try:
        with step("  the kernel's headers and source"):
            _fetch(folder, kernel, _version(tree, kernel), log)
        _modules(folder, new / "modules", kernel, tree / "root", log)
        _overlays(folder, new / "overlays", tree / "root/usr/lib/modules" / kernel / "dtb")
    finally:
        remove(folder)


def install(made: Path, root: Path, kernel: str) -> None:
    """Put the modules into a staged root, beside the kernel's own.

    Raises:
        BuildError: one needs a module that the root has not kept.
    """
    modules = root / "usr/lib/modules" / kernel
    run(["cp", "-r", f"{made}/modules/.", modules])
    run(["depmod", "-b", root, kernel])
    lines = (modules / "modules.dep").read_text(encoding="ascii").splitlines()
    there = {_bare(line.partition(":")[0]) for line in lines}
    for module in sorted((made / "modules").rglob("*.ko")):
        needed = set(filter(None, run(["modinfo", "-F", "depends", module]).strip().split(",")))
        if missing := {_bare(name) for name in needed} - there:
            raise BuildError(f"{module.name} needs {', '.join(sorted(missing))}: see modules.txt")
    loaded = root / _LOADED
    loaded.parent.mkdir(parents=True, exist_ok=True)
    loaded.write_text("".join(f"{heap}\n" for heap in _HEAPS), encoding="ascii")


def _bare(path: str) -> str:
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def boot(made: Path, slot: Path, sensor: str) -> None:
    """Put the overlays into a boot slot, and name the sensor's in its config.txt."""
    shutil.copytree(made / "overlays", slot / "overlays")
    lines = [f"[{board}]\ndtoverlay={board}-{sensor}\n" for board in _BOARDS]
    with (slot / "config.txt").open("a", encoding="ascii") as config:
        config.write("".join([*lines, "[all]\n"]))


def drivers() -> dict[str, PurePosixPath]:
    """Name of a source file: its folder in the kernel's source."""
    lines = (HERE / "drivers.txt").read_text(encoding="utf-8").splitlines()
    paths = [PurePosixPath(line) for line in lines if line and line[0] != "#"]
    return {path.name: path.parent for path in paths}


def kbuild() -> str:
    """The Kbuild file of all drivers: one module each; the heaps' core needs a few words more."""
    sources = [name for name in drivers() if name.endswith(".c") and name != "dma-heap.c"]
    modules = " ".join(name.replace(".c", ".o") for name in sources)
    return f"obj-m := {modules} dma_heap.o test_bus.o\ndma_heap-y := dma-heap.o words.o\n"


def _version(tree: Path, kernel: str) -> str:
    """Of the packages that the tree's kernel was unpacked from."""
    for line in (tree / "root/.unpacked").read_text(encoding="ascii").splitlines():
        package, version = line.split()
        if package in {f"linux-binary-{kernel}", f"linux-image-{kernel}"}:
            return version
    raise BuildError(f"the tree does not say which package its kernel {kernel} came from")


def _fetch(folder: Path, kernel: str, version: str, log: Path) -> None:
    """Unpack the kernel's headers and its source package below a folder.

    Headers and helpers are the node's: the helpers run here as arm64 programs, by the emulation
    that the build needs anyway, since those of amd64 ask for trixie's C library.
    """
    abi = kernel.removesuffix("-arm64")
    source = f"linux-source-{'.'.join(version.split('.')[:2])}"
    names = (
        source, f"linux-headers-{kernel}", f"linux-headers-{abi}-common", f"linux-kbuild-{abi}"
    )  # fmt: skip
    wanted = " ".join(f"'{name}={version}'" for name in names)
    backports = 'sed -i "s/ trixie main/ trixie-backports main/" "$1/etc/apt/sources.list"'
    get = f"APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get download -qq {wanted}"
    try:
        run([
            "mmdebstrap", "--quiet", "--variant=custom", "--format=null", "--architectures=arm64",
            "--components=main", '--aptopt=Acquire::Languages "none"',
            f"--setup-hook={backports}",
            f'--customize-hook=mkdir "$1/csi" && cd "$1/csi" && {get}',
            f"--customize-hook=copy-out /csi {folder}", "trixie", "/dev/null",
        ], log=log)  # fmt: skip
    except BuildError as e:
        raise BuildError(
            f"{source} {version} cannot be had: is the tree's kernel older than the archive's?"
            f" `make image LOCK=new` takes the newest (all of it: {log})"
        ) from e
    for deb in sorted((folder / "csi").glob("*.deb")):
        run(["dpkg-deb", "-x", deb, folder])
    _unpack(folder / "usr/src" / f"{source}.tar.xz", folder / "source")


def _unpack(packed: Path, to: Path) -> None:
    """The drivers' files of the kernel's source, side by side.

    Raises:
        BuildError: one is not there.
    """
    top = packed.name.removesuffix(".tar.xz")
    wanted = {f"{top}/{where}/{name}": name for name, where in drivers().items()}
    to.mkdir()
    with tarfile.open(packed) as tar:
        for member in tar:
            if member.name in wanted:
                member.name = wanted.pop(member.name)
                tar.extract(member, to, filter="data")
            if not wanted:
                return
    raise BuildError(f"{top} has no {', '.join(sorted(wanted))}")


def _modules(folder: Path, to: Path, kernel: str, root: Path, log: Path) -> None:
    """Compile, and put each where the kernel's own build would; the root's squashfs packs them."""
    source, headers = folder / "source", folder / "usr/src"
    shutil.copy2(HERE / "dma_heap.c", source / "words.c")
    shutil.copy2(HERE / "test_bus.c", source)
    (source / "Kbuild").write_text(kbuild(), encoding="ascii")
    run([
        "make", "-s", f"-j{os.cpu_count()}",
        "-C", headers / f"linux-headers-{kernel.removesuffix('-arm64')}-common",
        f"O={headers / f'linux-headers-{kernel}'}", f"M={source}", "ARCH=arm64",
        f"CROSS_COMPILE={_CROSS}", f"CC={_CROSS}gcc",
        f"QEMU_LD_PREFIX={root}",  # where emulated helpers find their C library
        # Debug information is removed anyway. Compilers before gcc 14 align functions by another
        # word than the one that Debian's configuration names.
        "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF=", "CONFIG_DEBUG_INFO_BTF_MODULES=",
        "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules",
    ], log=log)  # fmt: skip
    to.mkdir(parents=True)
    shutil.move(source / TEST_BUS, to.parent)
    homes = {_bare(name.replace(".c", ".ko")): where for name, where in drivers().items()}
    for module in sorted(source.glob("*.ko")):
        home = to / "kernel" / homes[_bare(module.name)]
        home.mkdir(parents=True, exist_ok=True)
        run([f"{_CROSS}strip", "--strip-debug", module])
        shutil.move(module, home)


def _overlays(folder: Path, to: Path, trees: Path) -> None:
    """Compile, and try on every device tree that the firmware may load.

    Raises:
        BuildError: one does not fit.
    """
    to.mkdir(parents=True)
    for sensor in sensors():
        for board, fits in _BOARDS.items():
            text, overlay = folder / "overlay.dts", to / f"{board}-{sensor}.dtbo"
            run([
                f"{_CROSS}gcc", "-E", "-P", "-nostdinc", "-undef", "-x", "assembler-with-cpp",
                f"-I{HERE / 'sensors'}", f'-DSENSOR="{sensor}.h"', "-o", text,
                HERE / "boards" / f"{board}.dts",
            ])  # fmt: skip
            run(["dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", overlay, text])
            for tree in fits:
                base = trees / "broadcom" / f"{tree}.dtb"
                run(["fdtoverlay", "-i", base, "-o", folder / "tried.dtb", overlay])
