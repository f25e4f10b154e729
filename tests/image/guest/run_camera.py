"""The Pi's camera driver over libcamera's virtual camera, in an emulated machine.

    python3 -m tests.image.guest.run_camera CAMERA SITE GUEST      (make guest-test)

Enters: what build-camera.sh made, the sandbox test's packages, and what build.sh made. Leaves: a
report on standard output, and exit status 0 if the driver did what it should.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.image.guest.run import boot, compiled
from tests.image.sandbox.container import tail

PROGRAM = """#!/bin/sh
mount -t proc proc /proc; mount -t sysfs sys /sys
export LIBCAMERA_LOG_LEVELS='*:WARN' PYTHONDONTWRITEBYTECODE=1
export PYTHONPATH=/mnt/repository:/mnt/camera/site:/mnt/site
/usr/bin/python3 -m tests.image.guest.camera >/mnt/results/said.txt 2>&1
sync
echo o >/proc/sysrq-trigger
sleep 60
"""


def judge(seen: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    youngest, oldest = seen["age ms, least and most"]
    wanted = {
        "the picture has bars": len(seen["brightness of the bars"]) > 1,
        "frames come in order": seen["in order"],
        "every period is accounted for": seen["accounted for"],
        "exposures are on CLOCK_BOOTTIME": 0 <= youngest <= oldest < 10_000,
        "the sensor's memory is overwritten": seen["the sensor's memory before and after"]
        == [True, False],
        "a silent sensor is told in time": 0.9 < seen.get("told after s", 0) < 3,
        "and closes": seen["closed after s"] < 10,
    }
    return [f"not so: {what}" for what, so in wanted.items() if not so]


def main() -> int:
    """Boot, look, judge."""
    camera, site, guest = (Path(argument).resolve() for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="picket-camera-") as folder:
        results = Path(folder)
        program = results / "overlay" / "program"
        program.parent.mkdir()
        program.write_text(PROGRAM, encoding="utf-8")
        program.chmod(0o755)
        shares = {
            "tree": camera / "tree",
            "site": site,
            "camera": camera,
            "repository": compiled(camera / "tree", camera / "site", results / "repository"),
            "results": results,
        }
        boot(shares, guest, results / "console.txt", "program=/program")
        told = results / "camera.json"
        if not told.exists():
            sys.stderr.write(f"{tail(results / 'console.txt')}\n{tail(results / 'said.txt')}\n")
            return 1
        seen = json.loads(told.read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(seen, indent=1) + "\n")
    wrong = judge(seen)
    for line in wrong:
        sys.stderr.write(f"camera: {line}\n")
    sys.stdout.write("camera: not as it should be\n" if wrong else "camera: as it should be\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
