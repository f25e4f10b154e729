"""Inside the guest, as root, by the image's own Python: what became of the camera's drivers.

    python3 look.py SENSOR [MODULE ...]

Enters: a sensor's name, the modules to load. Leaves: a line of JSON, for csi.py.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

_ALLOCATE = 0xC0184800
"""DMA_HEAP_IOCTL_ALLOC: length, descriptor, its flags, the heap's flags."""
_SYNC = 0x40086200
"""DMA_BUF_IOCTL_SYNC."""
_READ_WRITE, _END = 3, 4
_BYTES = 1 << 20
_FOUND_S = 20.0


def main() -> None:
    """Look."""
    sensor, modules = sys.argv[1], sys.argv[2:]
    found = bound(sensor) if modules else []
    seen = {
        "kernel": os.uname().release,
        "by themselves": [name for name in modules if folder(name).exists()],
        "modules": {name: module(name) for name in modules},
        "heaps": {path.name: heap(path) for path in sorted(Path("/dev/dma_heap").glob("*"))},
        "drivers": [name for name in modules if driver(name)],
        "sensor": found,
        "video": {
            path.name: (path / "name").read_text().strip()
            for path in sorted(Path("/sys/class/video4linux").iterdir())
        },
        "kernel's words": said(sensor),
        "python": python(),
    }
    sys.stdout.write(f"{json.dumps(seen)}\n")


def folder(name: str) -> Path:
    """Of a module that is loaded."""
    return Path("/sys/module") / name.replace("-", "_")


def module(name: str) -> dict[str, str]:
    """Load a module, as a device would."""
    loaded = run("modprobe", name)
    words = run("modinfo", "-F", "vermagic", name).split()
    at = folder(name) / "taint"
    taint = at.read_text().strip() if at.exists() else "not loaded"
    return {"said": loaded, "made for": words[0] if words else "", "taint": taint}


def heap(path: Path) -> dict[str, object]:
    """Take a buffer from a heap, write to it, read it back."""
    status = path.stat()
    found: dict[str, object] = {"mode": oct(stat.S_IMODE(status.st_mode)), "group": status.st_gid}
    device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        wanted = struct.pack("QIIQ", _BYTES, 0, os.O_RDWR | os.O_CLOEXEC, 0)
        buffer = struct.unpack("QIIQ", fcntl.ioctl(device, _ALLOCATE, wanted))[1]
    except OSError as e:
        return found | {"failed": str(e)}
    finally:
        os.close(device)
    with mmap.mmap(buffer, _BYTES, mmap.MAP_SHARED) as memory:
        fcntl.ioctl(buffer, _SYNC, struct.pack("Q", _READ_WRITE))
        found["came empty"] = memory[:] == bytes(_BYTES)
        memory[:] = b"\xa5" * _BYTES
        found["kept what was written"] = memory[:] == b"\xa5" * _BYTES
        fcntl.ioctl(buffer, _SYNC, struct.pack("Q", _READ_WRITE | _END))
    os.close(buffer)
    return found


def driver(name: str) -> bool:
    """Whether a module's driver is there for devices that come."""
    names = {name, name.replace("bcm2835-", "").replace("_", "-")}
    return any(
        path.name in names for bus in ("i2c", "platform")
        for path in Path(f"/sys/bus/{bus}/drivers").iterdir()
    )  # fmt: skip


def bound(sensor: str) -> list[str]:
    """Addresses on a bus at which the sensor's driver has found its sensor, in a few seconds."""
    until_s = time.monotonic() + _FOUND_S
    while True:
        found = [path.name for path in Path("/sys/bus/i2c/drivers").glob(f"{sensor}/*-*")]
        if found or time.monotonic() > until_s:
            return found
        time.sleep(0.5)


def said(sensor: str) -> list[str]:
    """Lines of the kernel that are about this."""
    words = (sensor, "unicam", "dma_heap", "unknown symbol", "test-bus", "deferred probe")
    lines = run("dmesg").splitlines()
    return [line for line in lines if any(word in line.lower() for word in words)]


def python() -> dict[str, object]:
    """Whether the appliance's driver can be imported, and what it says without a picture."""
    began_s = time.monotonic()
    import libcamera
    import picamera2

    imported_s = time.monotonic() - began_s
    from appliance.camera.picamera import Picamera
    from appliance.errors import CameraError

    cameras = [str(camera.id) for camera in libcamera.CameraManager.singleton().cameras]
    try:
        with Picamera(size=(640, 480), fps=15.0):
            told = "it opened"
    except CameraError as e:
        told = str(e)
    return {
        "picamera2": str(Path(picamera2.__file__).parent), "imported in s": round(imported_s, 1),
        "libcamera": libcamera.CameraManager.singleton().version,
        "cameras": cameras, "driver": told,
    }  # fmt: skip


def run(*command: str) -> str:
    """What a program says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip()


if __name__ == "__main__":
    main()
