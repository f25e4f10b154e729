"""The appliance and its locked packages, for the node's Python: nothing is downloaded at boot.

Enters: requirements.lock with hashes. Leaves: a folder for PYTHONPATH. Everything is a wheel for
aarch64, but for lgpio, which has none (pip would take an empty placeholder without a word): its
C part is cross-compiled here from the locked source.
"""

from __future__ import annotations

import csv
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from work import BuildError, run

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON = "3.13"
_PLATFORMS = ("2_34", "2_31", "2_28", "2_27", "2_26", "2_17")
_UNUSED = (
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",  # 17 MB for a GPU that no Pi has
    "bin",
    "numpy/**/tests",
    "numpy/_core/include",
    "numpy/random/lib",
)
_PIP = (sys.executable, "-mpip", "--quiet", "--disable-pip-version-check", "--no-deps")
CAMERA = REPOSITORY / "tests/image/guest/camera.lock"
_GPIO = REPOSITORY / "tests/image/guest/gpio.lock"
LOCKS = (
    REPOSITORY / "requirements.lock", REPOSITORY / "pyproject.toml", _GPIO,
    REPOSITORY / "tests/image/sandbox/build_site.py",
)  # fmt: skip
"""Which wheels `install` takes."""
UNUSED = Path(__file__).resolve().parent / "unused"
"""What picamera2 imports and does not need."""
INSIDE = "picket-site"
"""In the root of Debian's tree, while it is compiled there: a folder of wheels."""
_MODELS = ("*.tflite", "manifest.toml", "golden")


def install(site: Path, tree: Path) -> None:
    """Fill a folder with what others wrote.

    Args:
        site: new.
        tree: Debian's, with the headers of its Python.

    Raises:
        BuildError: a wheel is missing, or lgpio does not compile.
    """
    sys.path.insert(0, str(REPOSITORY))
    from tests.image.sandbox.build_site import locked, needed

    with tempfile.TemporaryDirectory(prefix="picket-wheels-") as name:
        folder = Path(name)
        lock = folder / "node.lock"
        lock.write_text(locked(needed("picket")))
        _install(lock, site)
        _gpio(folder, site, tree / "headers")
    for pattern in _UNUSED:
        for path in site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _records(site)
    _compile(site, tree / "root")


def camera(folder: Path, tree: Path) -> None:
    """Fill a folder with picamera2, for Debian's libcamera.

    Raises:
        BuildError: a wheel is missing.
    """
    _install(CAMERA, folder)
    shutil.copytree(
        UNUSED, folder, ignore=shutil.ignore_patterns("*.md", "__pycache__"), dirs_exist_ok=True
    )
    shutil.rmtree(folder / "bin", ignore_errors=True)
    _records(folder)
    _compile(folder, tree / "root")


def _install(lock: Path, folder: Path) -> None:
    run([
        *_PIP[:2], "install", *_PIP[2:], "--no-compile", "--only-binary=:all:",
        "--require-hashes", "--implementation=cp", f"--python-version={PYTHON}",
        f"--target={folder}", *(f"--platform=manylinux_{minor}_aarch64" for minor in _PLATFORMS),
        f"--requirement={lock}",
    ])  # fmt: skip


def _records(site: Path) -> None:
    """Of what pip wrote down, keep what is there.

    Programs are not (nobody calls them), and their digests would tell of this machine: their first
    line names the Python that pip ran by.
    """
    for record in sorted(site.glob("*.dist-info/RECORD")):
        with record.open(newline="", encoding="utf-8") as file:
            rows = [
                row for row in csv.reader(file)
                if not row[0].startswith("../") and (site / row[0]).exists()
            ]  # fmt: skip
        with record.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)


def ours(folder: Path, tree: Path) -> None:
    """Fill a folder with the appliance, as its wheel installs it, and the models."""
    with tempfile.TemporaryDirectory(prefix="picket-wheel-") as name:
        words = ["--no-build-isolation", f"--wheel-dir={name}", REPOSITORY]
        run([*_PIP[:2], "wheel", *_PIP[2:], *words])
        (wheel,) = Path(name).glob("picket-*.whl")
        shutil.unpack_archive(wheel, folder, "zip")
    _models(folder / "models_tflite")
    _compile(folder, tree / "root")


def standard(folder: Path, tree: Path) -> None:
    """Fill a folder with Debian's own Python, compiled anew.

    Its packages' byte code is good for sources of one time of change, and in a root that is the
    same each time every file has the same one: a node would compile its Python at every start.
    """
    for name in ("python3", f"python{PYTHON}"):
        shutil.copytree(
            tree / "root/usr/lib" / name, folder / "usr/lib" / name, symlinks=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
    _compile(folder, tree / "root", at="/")


def _compile(site: Path, root: Path, *, at: str = "/opt/picket/site") -> None:
    """Byte code, by the node's own Python: a read-only root has no place for it later.

    One process and one order: what is written depends on what was compiled before it.
    """
    inside = root / INSIDE
    shutil.rmtree(inside, ignore_errors=True)
    site.rename(inside)
    try:
        run([
            "chroot", root, "/usr/bin/env", "PYTHONHASHSEED=0", "/usr/bin/python3", "-m",
            "compileall", "-q", "-j1", "--invalidation-mode=unchecked-hash", "-s", f"/{INSIDE}",
            "-p", at, f"/{INSIDE}",
        ])  # fmt: skip
    finally:
        inside.rename(site)


def sources() -> list[Path]:
    """Every file of this repository that `ours` may take."""
    found = {REPOSITORY / "pyproject.toml", *(REPOSITORY / "appliance").rglob("*")}
    for path in _chosen():
        found |= {path, *path.rglob("*")}
    return sorted(p for p in found if p.is_file() and p.suffix != ".pyc")


def _chosen() -> list[Path]:
    """Models: files and folders."""
    models = REPOSITORY / "models_tflite"
    return sorted(path for pattern in _MODELS for path in models.glob(pattern))


def _models(folder: Path) -> None:
    folder.mkdir()
    for path in _chosen():
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, folder / path.name)


def _gpio(folder: Path, site: Path, headers: Path) -> None:
    """rpi-lgpio, and lgpio below it."""
    run([
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
        "--no-deps", "--no-build-isolation", "--require-hashes", f"--dest={folder / 'gpio'}",
        f"--requirement={_GPIO}",
    ])  # fmt: skip
    (source,) = (folder / "gpio").glob("lgpio-*.tar.gz")
    (wheel,) = (folder / "gpio").glob("rpi_lgpio-*.whl")
    shutil.unpack_archive(wheel, site, "zip")
    with tarfile.open(source) as packed:
        packed.extractall(folder / "lg", filter="data")
    (lg,) = (folder / "lg").iterdir()
    run(["swig", "-python", "-o", "lgpio_wrap.c", "lgpio.i"], cwd=lg)
    # By names below its folder, which is another one each time, and without symbols; the headers'
    # assertions would name their files, and with them the checkout.
    sources = sorted(str(p.relative_to(lg)) for p in (lg / "src").glob("*.c"))
    include = headers / "usr/include"
    run([
        "aarch64-linux-gnu-gcc", "-O2", "-DNDEBUG", "-s", "-shared", "-fPIC", "-pthread", "-w",
        f"-ffile-prefix-map={include}=/usr/include", "-Isrc",
        f"-I{include}/python{PYTHON}", f"-I{include}", "-o", site / "_lgpio.so",
        "lgpio_wrap.c", *sources, "-lrt", "-ldl",
    ], cwd=lg)  # fmt: skip
    shutil.copy2(lg / "lgpio.py", site)
    if not (site / "_lgpio.so").stat().st_size:
        raise BuildError("lgpio: nothing was compiled")
