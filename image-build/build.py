"""`make image`: the SD card's image, from Debian, the locked wheels and this repository.

    python image-build/build.py [--out dist] [--work build/image] [--new-lock]

Leaves dist/picket-VERSION-arm64.img.zst (with a camera layer: …-arm64-LAYER.img.zst) with its
.sha256, package list and SBOM, and an update. The Debian tree and the wheels are kept by the hash
of what went into them; everything else is made anew, in half a minute. What is interrupted leaves
nothing under a final name, and starts clean. Versions are those of packages.lock (Debian) and
requirements.lock (wheels), or there is no image.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import bundle
import csi
import initrd
import lock
import pack
import sbom
import stage
import wheels
from cameras import Layer, layer
from work import BuildError, fail, remove, require, room, run, step, whole

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
_TOOLS = (
    "mmdebstrap", "arch-test", "qemu-aarch64-static", "mksquashfs", "veritysetup", "genimage",
    "faketime", "mcopy", "mkdosfs", "mke2fs", "debugfs", "zstd", "xz", "depmod", "readelf",
    "aarch64-linux-gnu-gcc", "swig", "systemd-sysusers", "rauc",
)  # fmt: skip
_ROOM = 6 << 30
_KEPT = 2


def main() -> int:
    """Build."""
    parser = argparse.ArgumentParser(description="Build the SD card's image.")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "dist")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build/image")
    parser.add_argument(
        "--new-lock", action="store_true", help="take what Debian has now, and write packages.lock"
    )
    arguments = parser.parse_args()
    try:
        build(arguments.out, arguments.work, new_lock=arguments.new_lock)
    except BuildError as e:
        return fail(e)
    except KeyboardInterrupt:
        return fail(BuildError("interrupted; the next run starts clean"))
    return 0


def build(out: Path, work: Path, *, new_lock: bool = False) -> str:
    """Everything, in order.

    Args:
        out: gets what is final.
        work: keeps what may be used again.
        new_lock: take Debian's packages as they are now, and write them down.

    Returns:
        The files' name, without what follows the first dot.

    Raises:
        BuildError: one line that says why.
    """
    check(work)
    tidy(out, work)
    version, epoch, cameras = _version(), _epoch(), _cameras()
    sensor = csi.chosen(os.environ.get("PICKET_SENSOR", "imx219"))
    require(*(csi.TOOLS if cameras.csi else ()))
    kind = f"picket-arm64{cameras.suffix(sensor)}"
    name = kind.replace("-", f"-{version}-", 1)
    tree = debian(work, cameras, new_lock=new_lock)
    kernel = (tree / "kernel").read_text(encoding="ascii").strip()
    # Byte code is made by the tree's own Python.
    by = [HERE / "wheels.py", tree / "root/var/lib/dpkg/status"]
    python = _kept(work, "python", by, lambda new: wheels.standard(new, tree))
    site = _kept(work, "site", [*by, *wheels.LOCKS], lambda new: wheels.install(new, tree))
    ours = _kept(work, "ours", [*by, *wheels.sources()], lambda new: wheels.ours(new, tree))
    # An archive with a libcamera of its own has the picamera2 that goes with it, too.
    sites = (site, ours) if cameras.sources else (site, _camera(work, tree, by), ours)
    drivers = _drivers(work, tree) if cameras.csi else None
    making = work / "making"
    making.mkdir(parents=True)
    log = work / "build.log"
    log.unlink(missing_ok=True)
    signed_by = bundle.keys(work)
    with step("root"):
        release = version, kind
        stage.stage(tree / "root", python, sites, making / "root", kernel=kernel, release=release)
        shutil.copy2(signed_by[0], making / "root/etc/rauc/keyring.pem")
        if drivers:
            csi.install(drivers, making / "root", kernel)
    with step("squashfs and its hash tree"):
        root = pack.squash(making / "root", making / "root.img", epoch, log)
    with step("initrd and image"):
        packed = initrd.make(tree / "root", kernel, HERE / "init")
        pack.boot(making / "boot", tree / "root", kernel, initrd=packed, root=root, slot="a")
        if drivers:
            csi.boot(drivers, making / "boot", sensor)
        card = pack.card(
            making / "card", making / "boot", tree / "root", root=root, epoch=epoch, log=log
        )
    with step("update"), whole(out / f"{name}.raucb") as new:
        fat = making / "card/out/boot.vfat"
        bundle.make(
            new, making / "card/input/root.img", fat, making / "update", version=version,
            signed_by=signed_by, compatible=kind,
        )  # fmt: skip
    with step("compression"):
        _publish(out, name, card=card, root=root, tree=tree / "root", sites=sites)
    remove(making)
    return name


def tidy(out: Path, work: Path) -> None:
    """Remove what a run that was cut off has left; nothing of it is used again."""
    left = [path for folder in (out, work) for path in folder.glob(".*.new*")]
    left += work.glob(f"tree-*/root/{wheels.INSIDE}")
    for path in (*left, work / "making"):
        remove(path)


def check(work: Path) -> None:
    """What can be known before anything is made.

    Raises:
        BuildError: a program, privileges, emulation or space are missing.
    """
    require(*_TOOLS)
    if os.geteuid() != 0:
        raise BuildError("making a Debian tree takes root: sudo make image")
    work.mkdir(parents=True, exist_ok=True)
    room(work, _ROOM)
    done = subprocess.run(["arch-test", "arm64"], capture_output=True, text=True, check=False)  # noqa: S607
    if done.returncode != 0:
        raise BuildError(
            "this machine does not run arm64 programs: mount -t binfmt_misc binfmt_misc"
            " /proc/sys/fs/binfmt_misc && update-binfmts --enable qemu-aarch64"
        )


def _version() -> str:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"])


def _epoch() -> int:
    """SOURCE_DATE_EPOCH, else the time of the last commit."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    return int(run(["git", "-C", REPOSITORY, "log", "-1", "--format=%ct"]).strip() or 0)


def debian(work: Path, cameras: Layer, *, new_lock: bool) -> Path:
    """The Debian tree, of the packages that are written down.

    Args:
        work: keeps it.
        cameras: with packages of its own, and so with a lock of its own.
        new_lock: made anew whatever is kept, and written down.

    Raises:
        BuildError: the mirror has other versions; said before many minutes are spent on them.
    """
    locked = HERE / ("packages.lock" if not cameras.sources else f"packages.{cameras.name}.lock")
    files = [HERE / "packages.txt", *_layer_files(cameras, work)]
    inputs = [HERE / "tree.sh", *files, locked]

    def make(new: Path) -> None:
        _tree(new, cameras, files, None if new_lock else locked)
        if new_lock:
            lock.write(locked, sbom.debian(new / "root"))
        lock.check(locked, sbom.debian(new / "root"))

    if not new_lock:
        _asked_for(files[-3 if cameras.sources else 0], locked)
        return _kept(work, "tree", inputs, make)
    with step("tree, of what Debian has now"), whole(work / "tree.new") as new:
        make(new)
    kept = work / f"tree-{_digest(inputs)}"
    remove(kept)
    return (work / "tree.new").rename(kept)


def _asked_for(packages: Path, locked: Path) -> None:
    """Whether whoever added a package wrote down its version.

    Raises:
        BuildError: no.
    """
    names = {line for line in packages.read_text(encoding="utf-8").splitlines() if line}
    missing = sorted(name for name in names - lock.read(locked).keys() if name[0] != "#")
    if missing:
        raise BuildError(
            f"{locked.name}: no version of {', '.join(missing)}: `make image LOCK=new` writes it"
        )


def _digest(inputs: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(hashlib.sha256(path.name.encode() + b"\0" + path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _kept(work: Path, what: str, inputs: list[Path], make: Callable[[Path], None]) -> Path:
    """A folder that is made only if its inputs changed; older ones make room."""
    kept = work / f"{what}-{_digest(inputs)}"
    if not kept.exists():
        with step(f"{what} ({kept.name})"), whole(kept) as new:
            make(new)
    os.utime(kept)
    for old in sorted(work.glob(f"{what}-*"), key=lambda p: p.stat().st_mtime)[:-_KEPT]:
        remove(old)
    return kept


def _cameras() -> Layer:
    """The camera layer that the environment asks for."""
    given = os.environ.get
    return layer(
        given("PICKET_CAMERAS", "debian"),
        url=given("PICKET_CAMERAS_URL", ""),
        key=given("PICKET_CAMERAS_KEY", ""),
        accelerators=given("PICKET_ACCELERATORS", "") == "1",
    )


def _camera(work: Path, tree: Path, by: list[Path]) -> Path:
    """picamera2."""
    inputs = [*by, wheels.CAMERA, *sorted(wheels.UNUSED.rglob("*.py"))]
    return _kept(work, "camera", inputs, lambda new: wheels.camera(new, tree))


def _drivers(work: Path, tree: Path) -> Path:
    """Modules and overlays of a CSI camera."""
    log = work / "csi.log"
    return _kept(work, "csi", csi.inputs(tree), lambda new: csi.make(new, tree, log))


def _layer_files(cameras: Layer, work: Path) -> list[Path]:
    """The layer's files for apt, with its packages behind ours; none for Debian alone."""
    if not cameras.sources:
        return []
    folder = work / "layer"
    folder.mkdir(exist_ok=True)
    ours = (HERE / "packages.txt").read_text(encoding="utf-8")
    texts = {
        "packages.txt": ours + "\n".join([*cameras.packages[1:], ""]),
        f"{cameras.name}.sources": cameras.sources,
        f"{cameras.name}.pref": cameras.preferences,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _tree(new: Path, cameras: Layer, files: list[Path], locked: Path | None) -> None:
    """Debian, or Debian and a layer: then the layer's packages take the place of ours."""
    first, *more = files[1:] if cameras.sources else files
    words = [first, locked or "", *more, *([cameras.kernel] if more else [])]
    try:
        run([HERE / "tree.sh", new, *words], log=new.parent / "tree.log")
    except BuildError:
        said = Path(f"{new}.new/candidates")
        if locked and said.exists():  # a better reason than the last line of a long log
            lock.check(locked, lock.candidates(said.read_text(encoding="utf-8")))
        raise


def _publish(
    out: Path, name: str, *, card: Path, root: pack.Root, tree: Path, sites: tuple[Path, ...]
) -> None:
    """Names that are final, the image's last: where it is, the others are, too."""
    packages, python = sbom.debian(tree), sbom.python(*sites)
    version = name.split("-")[1]
    texts = {
        "packages.txt": sbom.listing(packages, python),
        "cdx.json": sbom.cyclonedx(version, packages, python),
        "roothash": f"{root.hash}\n",
    }
    for suffix, text in texts.items():
        with whole(out / f"{name}.{suffix}") as new:
            new.write_text(text, encoding="utf-8")
    room(out, card.stat().st_size // 2)
    image = out / f"{name}.img.zst"
    with whole(image) as new:
        run(["zstd", "-q", "-3", "-T2", card, "-o", new])
        digest = hashlib.sha256(new.read_bytes()).hexdigest()
        with whole(out / f"{image.name}.sha256") as beside:
            beside.write_text(f"{digest}  {image.name}\n", encoding="ascii")
    print(f"{image}: {image.stat().st_size / 1e6:.0f} MB, root hash {root.hash}")
    print(f"  SHA-256 {digest}")


if __name__ == "__main__":
    sys.exit(main())
