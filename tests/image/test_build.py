"""The image's build, without building: what it refuses, what it leaves, what it tells apt."""

from __future__ import annotations

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.image.card import csi, run
from tests.image.card.parts import parts
from tests.image.scripts import HERE, imported

NAMES = ("work", "initrd", "cameras", "sbom", "stage", "pack", "wheels", "csi", "build")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts, which import each other by bare names."""
    with imported(*NAMES) as found:
        yield found


def test_a_missing_program_is_named_with_its_package(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = modules["work"]
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(work, "_SBIN", "/nonexistent")
    with pytest.raises(work.BuildError) as refused:
        work.require("mksquashfs", "mcopy", "mkdosfs")
    said = "missing: mksquashfs, mcopy, mkdosfs: apt install squashfs-tools mtools dosfstools"
    assert str(refused.value) == said


def test_every_program_of_build_and_test_has_a_package(modules: dict[str, ModuleType]) -> None:
    tools = {*modules["build"]._TOOLS, *csi._TOOLS, *run._TOOLS}
    tools |= {tool for more in run._MORE_TOOLS.values() for tool in more}
    assert tools <= set(modules["work"].PACKAGES)


def test_an_emulator_that_is_missing_is_named_before_anything_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(sys, "argv", ["run", "none.img.zst", "--only", "sealed-data"])
    assert run.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("picket: error: missing: qemu-system-aarch64, ")
    assert said.endswith(" openssh-client\n")


def test_no_space_is_said_before_anything_is_made(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    work = modules["work"]
    with pytest.raises(work.BuildError, match=r"MiB free: .* MiB are needed"):
        work.room(tmp_path, 1 << 60)


def test_what_is_interrupted_has_no_final_name(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    whole = modules["work"].whole
    path = tmp_path / "dist" / "picket.img.zst"

    def interrupted() -> None:
        with whole(path) as new:
            new.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not path.exists()
    with whole(path) as new:
        assert not new.exists(), "it starts clean"
        new.write_bytes(b"all of it")
    assert [p.name for p in path.parent.iterdir()] == ["picket.img.zst"]


def test_a_build_that_was_killed_leaves_nothing_to_the_next(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    out, work = tmp_path / "dist", tmp_path / "work"
    inside = work / "tree-1/root" / modules["wheels"].INSIDE
    killed = (
        f"import os, signal; from pathlib import Path; from work import whole\n"
        f"out, work = Path({str(out)!r}), Path({str(work)!r})\n"
        f"with whole(out / 'picket.img.zst') as image, whole(work / 'site-1') as site:\n"
        f"    image.write_bytes(b'half'); site.mkdir(); Path({str(inside)!r}).mkdir(parents=True)\n"
        f"    (work / 'making').mkdir(); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", killed], cwd=HERE, check=False)
    assert done.returncode == -signal.SIGKILL
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    assert {"dist/.picket.img.zst.new", "work/.site-1.new", "work/making"} <= left
    (out / "picket-0.1.0-arm64.roothash").touch()
    modules["build"].tidy(out, work)
    assert [p.name for p in out.iterdir()] == ["picket-0.1.0-arm64.roothash"]
    assert [p.name for p in work.iterdir()] == ["tree-1"]
    assert not inside.exists()


def test_what_pip_wrote_down_names_nothing_of_the_machine_that_built(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "tqdm-4.dist-info").mkdir()
    (tmp_path / "tqdm-4.dist-info/METADATA").touch()
    (tmp_path / "a,b.py").touch()
    record = tmp_path / "tqdm-4.dist-info/RECORD"
    kept = '"a,b.py",sha256=uU0nuZNNPgilLlLX2n2r-sSE7-N6U4DukIj3rOLvzek,3\n'
    kept += "tqdm-4.dist-info/METADATA,sha256=x,4\n"
    record.write_text(
        f"../../bin/tqdm,sha256=XDcG19gIysDSTGOZmDXctri5zdl90XKtMKh2wPun84E,215\n"
        f"{kept}numpy/tests/gone.py,sha256=x,5\ntqdm-4.dist-info/RECORD,,\n"
    )
    modules["wheels"]._records(tmp_path)
    assert record.read_text() == f"{kept}tqdm-4.dist-info/RECORD,,\n"


def test_a_failing_program_is_one_line_with_its_log(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    work = modules["work"]
    with pytest.raises(work.BuildError, match=r"^sh: second \(all of it: .*build\.log\)$"):
        work.run(
            ["sh", "-c", "echo first >&2; echo second >&2; exit 3"], log=tmp_path / "build.log"
        )
    assert "first\nsecond" in (tmp_path / "build.log").read_text()


def test_a_machine_that_does_not_run_arm64_is_told_how(
    modules: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = modules["build"]
    (tmp_path / "arch-test").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "arch-test").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(build, "require", lambda *_: None)
    monkeypatch.setattr(build, "room", lambda *_: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(modules["work"].BuildError, match="update-binfmts --enable qemu-aarch64"):
        build.check(tmp_path / "work")


def test_a_tree_is_kept_by_what_went_into_it(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    build, made = modules["build"], []
    source = tmp_path / "packages.txt"

    def kept() -> Path:
        def make(new: Path) -> None:
            new.mkdir()
            made.append(new)

        path = build._kept(tmp_path / "work", "tree", [source], make)
        assert isinstance(path, Path)
        return path

    (tmp_path / "work").mkdir()
    source.write_text("systemd\n")
    first = kept()
    assert (kept(), len(made)) == (first, 1)
    source.write_text("systemd\nudev\n")
    second = kept()
    assert (second != first, len(made)) == (True, 2)
    source = source.rename(tmp_path / "other.txt")
    assert (kept() != second, len(made)) == (True, 3)
    for n in range(3):
        source.write_text(f"{n}\n")
        kept()
    assert len(list((tmp_path / "work").glob("tree-*"))) == 2


def test_every_file_that_the_wheel_and_the_models_are_made_of_decides_what_is_kept(
    modules: dict[str, ModuleType],
) -> None:
    wheels = modules["wheels"]
    found = {str(path.relative_to(wheels.REPOSITORY)) for path in wheels.sources()}
    assert {"appliance/controller/haproxy.cfg", "models_tflite/manifest.toml"} <= found
    assert any(name.startswith("models_tflite/golden/") for name in found)
    project = tomllib.loads((wheels.REPOSITORY / "pyproject.toml").read_text())
    assert "readme" not in project["project"], "the wheel would change with every word of it"
    told = subprocess.run(
        [shutil.which("git") or "false", "-C", wheels.REPOSITORY, "ls-files", "appliance"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if told.returncode == 0:  # elsewhere it is no checkout
        assert set(told.stdout.split()) <= found


CPIO = shutil.which("cpio")


@pytest.mark.skipif(CPIO is None, reason="cpio is missing")
def test_the_initrd_is_an_archive_and_the_same_each_time(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    made = modules["initrd"].Initrd(tmp_path, "1.0")
    made.add("init", b"#!/bin/sh\n" * 7, 0o755)
    made.add("lib/modules/a.ko", b"x" * 1001)
    assert made.cpio() == made.cpio()
    listed = subprocess.run(
        [str(CPIO), "-tv"], input=made.cpio(), capture_output=True, check=True
    ).stdout.decode()
    assert "-rwxr-xr-x" in listed
    assert "lib/modules/a.ko" in listed
    assert "1001" in listed


def test_debian_alone_needs_no_archive(modules: dict[str, ModuleType]) -> None:
    layer = modules["cameras"].layer("debian")
    assert (layer.kernel, layer.packages, layer.sources) == ("", (), "")


def test_raspberry_pis_archive_is_pinned_to_what_is_named(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    key = tmp_path / "key.gpg"
    key.touch()
    url = "https://archive.example/debian/"
    layer = modules["cameras"].layer("raspberry-pi", url=url, key=str(key), accelerators=True)
    assert layer.packages[0] == layer.kernel == "linux-image-rpi-v8"
    assert {"python3-picamera2", "hailort", "libedgetpu1-std"} <= set(layer.packages)
    assert f"URIs: {url}\n" in layer.sources
    assert f"Signed-By: {key}\n" in layer.sources
    rest, named = layer.preferences.split("\n\n")
    assert rest == 'Package: *\nPin: origin "archive.example"\nPin-Priority: 100'
    assert "src:libcamera" in named
    assert "Pin-Priority: 990" in named
    assert "raspberrypi" not in (HERE / "cameras.toml").read_text(), "no archive's name is in here"


@pytest.mark.skipif(shutil.which("apt-cache") is None, reason="apt is missing")
def test_apt_understands_the_pins(modules: dict[str, ModuleType], tmp_path: Path) -> None:
    key = tmp_path / "key.gpg"
    key.touch()
    layer = modules["cameras"].layer("raspberry-pi", url="https://archive.example/", key=str(key))
    preferences = tmp_path / "preferences"
    preferences.write_text(layer.preferences)
    said = subprocess.run(
        [str(shutil.which("apt-cache")), "-o", f"Dir::Etc::preferences={preferences}", "policy"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert "linux-image-rpi-v8 -> " in said.stdout or "Pinned packages" in said.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"name": "other"}, "no layer 'other'; there are debian, debian-csi, raspberry-pi"),
        ({"name": "raspberry-pi"}, "is no address"),
        ({"name": "raspberry-pi", "url": "https://a b/"}, "is no address"),
        ({"name": "raspberry-pi", "url": "https://a/", "key": "/nonexistent"}, "is no file"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(
    modules: dict[str, ModuleType], words: dict[str, str], said: str
) -> None:
    with pytest.raises(modules["work"].BuildError, match=said):
        modules["cameras"].layer(**words)


def test_what_is_in_an_image_is_listed_twice(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    sbom = modules["sbom"]
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: udev\nStatus: install ok installed\nVersion: 257.13-1\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    (tmp_path / ".unpacked").write_text("raspi-firmware 1.2024\n")
    site = tmp_path / "site"
    (site / "numpy-2.5.dist-info").mkdir(parents=True)
    (site / "numpy-2.5.dist-info/METADATA").write_text("Name: numpy\nVersion: 2.5\n")
    packages, wheels = sbom.debian(tmp_path), sbom.python(site)
    assert packages == {"raspi-firmware": "1.2024", "udev": "257.13-1"}
    assert sbom.listing(packages, wheels).splitlines()[-1] == "wheel numpy 2.5"
    made = sbom.cyclonedx("0.1.0", packages, wheels)
    assert made == sbom.cyclonedx("0.1.0", packages, wheels)
    assert io.StringIO(made).read().count('"purl"') == 3


def test_the_overlay_needs_nothing_that_the_root_cannot_do() -> None:
    """A read-only root: every mount point is made at build time, every unit is our own path."""
    fstab = (HERE / "overlay/etc/fstab").read_text().splitlines()
    points = [line.split()[1] for line in fstab if line and line[0] != "#"]
    staged = (HERE / "stage.py").read_text()
    for point in points:
        assert point.startswith(("/var/", "/tmp")) or f'"{point[1:]}"' in staged  # noqa: S108
    for unit in (HERE / "overlay/etc/systemd/system").glob("picket-*.service"):
        for line in unit.read_text().splitlines():
            if line.startswith("ExecStart=/usr/lib/picket/"):
                assert (HERE / "overlay" / line.partition("=/")[2].split()[0]).exists(), unit


def _mbr(entries: list[tuple[int, int, int]]) -> bytes:
    table = bytearray(512)
    for number, (kind, start, size) in enumerate(entries):
        struct.pack_into("<4xB3xII", table, 446 + 16 * number, kind, start, size)
    table[510:] = b"\x55\xaa"
    return bytes(table)


def test_data_takes_the_rest_of_a_larger_card_and_nothing_else_moves(tmp_path: Path) -> None:
    mib = 2048
    card = tmp_path / "card.img"
    tables = {
        0: [(0x0C, mib, mib), (0x0C, 2 * mib, mib), (0, 0, 0), (0x0F, 3 * mib, 6 * mib)],
        3 * mib: [(0x83, mib, mib), (0x05, 2 * mib, 2 * mib)],
        5 * mib: [(0x83, mib, mib), (0x05, 4 * mib, 2 * mib)],
        7 * mib: [(0x83, mib, mib)],
    }
    with card.open("wb") as file:
        for sector, entries in tables.items():
            file.seek(sector * 512)
            file.write(_mbr(entries))
        file.truncate(64 * mib * 512)
    before = parts(card)
    grow = HERE / "overlay/usr/lib/picket/grow-table"
    for _ in range(2):
        subprocess.run([sys.executable, str(grow), str(card)], check=True)
        after = parts(card)
        assert {n: p for n, p in after.items() if n not in {4, 7}} == {
            n: p for n, p in before.items() if n not in {4, 7}
        }
        assert after[7].offset == before[7].offset == 8 * mib * 512
        assert after[7].offset + after[7].size == after[4].offset + after[4].size == 64 * mib * 512
