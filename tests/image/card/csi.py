"""The drivers of CSI cameras, loaded by the image's own kernel in an emulated machine.

    python -m tests.image.card.csi dist/picket-VERSION-arm64.img.zst DRIVERS      (make csi-test)

Enters: an image made with PICKET_CAMERAS=debian-csi, and the folder that csi.py of image-build made
for it. Leaves: a line per point, and exit status 0 if every point held. The machine is QEMU's, with
additions to its device tree: a bus that answers as the sensor would, a receiver whose registers are
plain memory. The sensor's part of the tree is a Pi's; light, a receiver and an ISP, only a Pi has.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.image.card.report import Report
from tests.image.card.vm import Machine, TooLateError, working_copy
from tests.image.scripts import lacks

HERE = Path(__file__).resolve().parent
CSI = HERE.parents[2] / "image-build/csi"
SENSORS = {"imx219": "10", "ov5647": "36"}
"""Those with an overlay, and their addresses."""
_BUS = "test_bus.ko"
_LOOK = "env PYTHONPATH=/opt/picket/site LIBCAMERA_LOG_LEVELS='*:WARN' python3 -s /run/look.py"
_ANNOUNCE = (
    "udevadm trigger --action=add --subsystem-match=platform --subsystem-match=i2c; udevadm settle"
)
_OR_WHY = "2>/run/why || cat /run/why"
_WATCH = " ".join(
    f"-p '{line.strip()}'"
    for line in (HERE.parents[2] / "systemd/picket-watch.service").read_text().splitlines()
    if line.startswith(("User=", "Group=", "SupplementaryGroups=", "Device", "Protect", "Private",
                        "Restrict", "System", "MemoryDeny", "Capability", "NoNew"))
)  # fmt: skip
"""The watch service's sandbox, as it is in the unit."""
_TOOLS = ("qemu-system-aarch64", "mtype", "zstd", "dtc", "fdtoverlay", "aarch64-linux-gnu-gcc")


def main() -> int:
    """Put an image's camera drivers to the test."""
    parser = argparse.ArgumentParser(description="Load a card's camera drivers and look.")
    parser.add_argument("image", type=Path)
    parser.add_argument("drivers", type=Path)
    parser.add_argument("--sensor", action="append", choices=sorted(SENSORS))
    parser.add_argument("--report", type=Path, default=Path("build/image/report-csi.json"))
    arguments = parser.parse_args()
    if lacks(*_TOOLS):
        return 1
    report = Report()
    for sensor in arguments.sensor or SENSORS:
        sys.stdout.write(f"-- {sensor}\n")
        try:
            seen = _seen(arguments.image, arguments.drivers, sensor)
        except (TooLateError, ValueError, subprocess.CalledProcessError) as e:
            report.point(f"{sensor}, to its end", so=False, seen=str(e)[-3000:])
            continue
        judge(seen, sensor, report)
    report.write(arguments.report)
    sys.stdout.write(f"{len(report.points)} points, {len(report.wrong)} did not hold\n")
    return 1 if report.wrong else 0


def judge(seen: dict[str, Any], sensor: str, report: Report) -> None:
    """Point by point.

    Args:
        seen: by look.py.
        sensor: that the device tree has.
        report: gets the points.
    """
    modules = seen["modules"]
    bad = {name: m for name, m in modules.items() if m["said"] or m["taint"] != "OE"}
    report.point(f"{sensor}: every module loads, and is noted as unsigned (taint OE)", so=not bad,
                 seen=bad or f"{len(modules)}: {', '.join(modules)}")  # fmt: skip
    own = {sensor, "bcm2835-unicam", "dma_heap", "cma_heap", "system_heap"}
    came = seen["by themselves"]
    report.point(f"{sensor}: what is needed is loaded without being asked for",
                 so=own <= set(came), seen=", ".join(came))  # fmt: skip
    made_for = {m["made for"] for m in modules.values()}
    report.point(f"{sensor}: they were made for this kernel", so=made_for == {seen["kernel"]},
                 seen=", ".join(sorted(made_for)))  # fmt: skip
    unknown = [line for line in seen["kernel's words"] if "unknown symbol" in line.lower()]
    report.point(f"{sensor}: no unknown symbol", so=not unknown, seen=unknown or "none")
    heaps = seen["heaps"]
    report.point(f"{sensor}: heaps give buffers", seen=heaps,
                 so=_whole(heaps) and {"system", "linux,cma"} <= set(heaps))  # fmt: skip
    drivers = {"imx219", "ov5647", "imx296", "bcm2835-unicam"}
    report.point(f"{sensor}: drivers wait for devices", so=drivers <= set(seen["drivers"]),
                 seen=", ".join(seen["drivers"]))  # fmt: skip
    found = [name for name in seen["sensor"] if name.endswith(f"-00{SENSORS[sensor]}")]
    report.point(f"{sensor}: the sensor is found where the overlay says", so=len(found) == 1,
                 seen=seen["sensor"] or seen["kernel's words"])  # fmt: skip
    names = " ".join(seen["video"].values())
    report.point(f"{sensor}: receiver and sensor are one graph", seen=seen["video"],
                 so="unicam" in names and sensor in names)  # fmt: skip
    python = seen["python"]
    report.point(f"{sensor}: picamera2 is there for the appliance", seen=python,
                 so=python["picamera2"].startswith("/opt/picket/site/"))  # fmt: skip
    there = seen["watch"]["heaps"]
    report.point(f"{sensor}: the watch service's sandbox lets it at the heaps", seen=there,
                 so=set(there) == set(heaps) and _whole(there))  # fmt: skip
    # Linux has no driver for the ISP of these boards: without it, libcamera makes no camera.
    report.point(f"{sensor}: without an ISP there is no camera, and that is said in a line",
                 so=not python["cameras"] and python["driver"].startswith("camera 0: "),
                 seen=python["driver"])  # fmt: skip


def _whole(heaps: dict[str, Any]) -> bool:
    """Whether every heap gave a buffer without anything in it, which keeps what is written."""
    return all(h.get("came empty") and h.get("kept what was written") for h in heaps.values())


def _seen(packed: Path, drivers: Path, sensor: str) -> dict[str, Any]:
    names = sorted(p.name.partition(".ko")[0] for p in drivers.rglob("modules/**/*.ko*"))
    with working_copy(packed) as image:
        folder = image.parent
        disks = [_disk(folder, path) for path in (drivers / _BUS, HERE / "look.py")]
        with Machine(
            image, folder, device_tree=_tree(folder, sensor), disks=tuple(disks)
        ) as machine:
            machine.shell()
            machine.until("systemctl is-active systemd-modules-load", "^active", 300)
            for disk, source in zip("bc", (drivers / _BUS, HERE / "look.py"), strict=True):
                size = source.stat().st_size
                machine.does(f"head -c {size} /dev/vd{disk} >/run/{source.name}")
            # The image's udev leaves most of an emulated machine's devices alone, to start sooner;
            # a Pi's it all announces, as here.
            machine.does(f"insmod /run/{_BUS}; {_ANNOUNCE}", 180)
            seen = _json(machine.does(f"{_LOOK} {sensor} {' '.join(names)} {_OR_WHY}", 600))
            machine.until("systemctl is-active dbus", "^active", 300)
            watch = f"systemd-run --quiet --wait --pipe --collect {_WATCH} {_LOOK} {sensor}"
            seen["watch"] = _json(machine.does(f"{watch} {_OR_WHY}", 600))
    return seen


def _json(said: str) -> dict[str, Any]:
    """The one line that is look.py's; the guest's services may speak on the same console."""
    for line in said.splitlines():
        if line.startswith('{"kernel"'):
            seen: dict[str, Any] = json.loads(line)
            return seen
    raise TooLateError(said)


def _disk(folder: Path, source: Path) -> Path:
    """A file as a disk: whole sectors."""
    content = source.read_bytes()
    disk = folder / f"{source.name}.disk"
    disk.write_bytes(content + bytes(-len(content) % 512))
    return disk


def _tree(folder: Path, sensor: str) -> Path:
    """The machine's own device tree, what makes it enough of a Pi, and the sensor's overlay."""
    own, base, overlay, tree = (folder / f"{n}.dtb" for n in ("own", "base", "overlay", "tree"))
    machine = ("-cpu", "cortex-a72", "-smp", "2", "-m", "1024", "-display", "none", "-nodefaults")
    _run(["qemu-system-aarch64", "-M", f"virt,dumpdtb={own}", *machine])
    text = _run(["dtc", "-q", "-I", "dtb", "-O", "dts", own])
    _compile(text + (HERE / "virt.dtsi").read_text(encoding="ascii"), base)
    preprocessed = _run([
        "aarch64-linux-gnu-gcc", "-E", "-P", "-nostdinc", "-undef", "-x", "assembler-with-cpp",
        f"-I{CSI / 'boards'}", f"-I{CSI / 'sensors'}", f'-DSENSOR="{sensor}.h"',
        HERE / "virt.dts",
    ])  # fmt: skip
    _compile(preprocessed, overlay)
    _run(["fdtoverlay", "-i", base, "-o", tree, overlay])
    return tree


def _compile(text: str, to: Path) -> None:
    source = to.with_suffix(".dts")
    source.write_text(text, encoding="ascii")
    _run(["dtc", "-q", "-@", "-I", "dts", "-O", "dtb", "-o", to, source])


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TooLateError(f"{command[0]}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
