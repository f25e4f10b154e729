"""The drivers that Debian's kernel is built without, and their overlays: what needs no download."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from appliance.system import release
from tests.image.scripts import HERE, imported

NAMES = ("work", "csi", "cameras")


@pytest.fixture(scope="module")
def modules() -> Iterator[dict[str, ModuleType]]:
    """The scripts, which import each other by bare names."""
    with imported(*NAMES) as found:
        yield found


def test_the_layer_is_debians_kernel_with_modules(modules: dict[str, ModuleType]) -> None:
    layer = modules["cameras"].layer("debian-csi")
    assert (layer.csi, layer.kernel, layer.packages, layer.sources) == (True, "", (), "")
    assert not modules["cameras"].layer("debian").csi


def test_a_camera_layer_is_in_the_name_and_the_kind_of_an_image(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    layer = modules["cameras"].layer
    (tmp_path / "key").touch()
    archive = layer("raspberry-pi", url="https://archive.example/", key=str(tmp_path / "key"))
    found = [one.suffix("imx219") for one in (layer("debian"), layer("debian-csi"), archive)]
    assert found == ["", "-csi-imx219", "-raspberry-pi"]
    for suffix in found:
        assert release.is_kind(f"picket-arm64{suffix}")


def test_every_program_has_a_package(modules: dict[str, ModuleType]) -> None:
    assert set(modules["csi"].TOOLS) <= set(modules["work"].PACKAGES)


def test_a_module_for_each_driver(modules: dict[str, ModuleType]) -> None:
    csi = modules["csi"]
    first, second = csi.kbuild().splitlines()
    built = set(first.partition(":= ")[2].split())
    sources = {name for name in csi.drivers() if name.endswith(".c")}
    assert {f"{name[:-2]}.o" for name in sources - {"dma-heap.c"}} == built - {
        "dma_heap.o",
        "test_bus.o",
    }
    assert second == "dma_heap-y := dma-heap.o words.o"


def test_every_module_is_kept_when_the_root_is_slimmed(modules: dict[str, ModuleType]) -> None:
    text = (HERE / "modules.txt").read_text()
    kept = tuple(line for line in text.splitlines() if line and line[0] != "#")
    for folder in modules["csi"].drivers().values():
        assert str(folder).startswith(kept), folder


def test_a_sensor_without_an_overlay_is_refused(modules: dict[str, ModuleType]) -> None:
    csi = modules["csi"]
    assert csi.chosen("imx219") == "imx219"
    said = "no overlay for 'imx708'; for imx219, ov5647"
    with pytest.raises(modules["work"].BuildError, match=said):
        csi.chosen("imx708")


def test_a_boot_slot_names_its_boards_overlays(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    made, slot = tmp_path / "csi", tmp_path / "boot"
    (made / "overlays").mkdir(parents=True)
    (made / "overlays/pi5-imx219.dtbo").write_bytes(b"overlay")
    slot.mkdir()
    (slot / "config.txt").write_text("arm_64bit=1\n")
    modules["csi"].boot(made, slot, "imx219")
    config = (slot / "config.txt").read_text()
    assert config.startswith("arm_64bit=1\n[pi02]\ndtoverlay=pi02-imx219\n[pi3]\n")
    assert config.endswith("[pi5]\ndtoverlay=pi5-imx219\n[all]\n")
    assert (slot / "overlays/pi5-imx219.dtbo").exists()


def test_a_tree_of_another_kernel_is_refused(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/.unpacked").write_text("linux-binary-7.3.4+deb13-arm64 7.3.4-1~bpo13+1\n")
    csi = modules["csi"]
    assert csi._version(tmp_path, "7.3.4+deb13-arm64") == "7.3.4-1~bpo13+1"
    with pytest.raises(modules["work"].BuildError, match="which package its kernel 6"):
        csi._version(tmp_path, "6.12")


BASE = """/dts-v1/;
/ { #address-cells = <1>; #size-cells = <1>;
    gpio: gpio { #gpio-cells = <2>; };
    pins: pins { };
    bus: bus { #address-cells = <1>; #size-cells = <0>; };
    csi: csi { status = "disabled"; port { }; };
};
"""
"""The least that an overlay of a board looks for."""
LABELS = {
    "pi02": ("gpio", "i2c0", "csi1"),
    "pi3": ("expgpio", "i2c0", "csi1"),
    "pi4": ("expgpio", "i2c0_1", "csi1"),
    "pi5": ("rp1_gpio", "rp1_i2c4", "rp1_csi1"),
}
TOOLS = all(map(shutil.which, ("dtc", "fdtoverlay", "aarch64-linux-gnu-gcc")))


@pytest.mark.skipif(not TOOLS, reason="dtc or the cross compiler is missing")
def test_overlays_connect_the_sensor_with_the_receiver(
    modules: dict[str, ModuleType], tmp_path: Path
) -> None:
    csi, run = modules["csi"], modules["work"].run
    trees = tmp_path / "trees/broadcom"
    trees.mkdir(parents=True)
    for board, names in csi._BOARDS.items():
        text = BASE.replace("pins: pins", "i2c0_gpio44: pins")
        for ours, theirs in zip(("gpio", "bus", "csi"), LABELS[board], strict=True):
            text = text.replace(f"{ours}: {ours} ", f"{theirs}: {ours} ")
        for name in names:
            (tmp_path / "base.dts").write_text(text)
            run(
                ["dtc", "-q", "-@", "-O", "dtb", "-o", trees / f"{name}.dtb", tmp_path / "base.dts"]
            )
    csi._overlays(tmp_path, tmp_path / "overlays", tmp_path / "trees")
    made = {path.name for path in (tmp_path / "overlays").iterdir()}
    assert made == {f"{b}-{s}.dtbo" for b in csi._BOARDS for s in csi.sensors()}
    seen = run(["dtc", "-q", "-I", "dtb", "-O", "dts", tmp_path / "tried.dtb"])
    assert 'compatible = "ovti,ov5647"' in seen, "the last one that was tried"
    assert seen.count("remote-endpoint") == 2
    (trees / "bcm2712-d-rpi-5-b.dtb").write_bytes((trees / "bcm2837-rpi-3-b.dtb").read_bytes())
    with pytest.raises(modules["work"].BuildError, match="fdtoverlay"):
        csi._overlays(tmp_path, tmp_path / "again", tmp_path / "trees")
