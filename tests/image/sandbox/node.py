"""The node's real services under their real units: they find somebody, and survive a hung thread.

    python3 -m tests.image.sandbox.node TREE SITE      (make sandbox-test)

Enters: a tree made by build-tree.sh, and a folder with the locked packages for its Python. Leaves:
what around.py saw, on standard output, and exit status 0 if it is as it should be.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.image.sandbox.container import REPOSITORY, boot, metadata, tail

PYTHON = "/usr/bin/env PYTHONPATH=/opt/picket/lib:/opt/picket/site /usr/bin/python3"
PICKET = f'#!/bin/sh\nexec {PYTHON} -m appliance "$@"\n'
UNITS = {
    # Short, so that a hung process is found out while somebody waits.
    "picket-watch.service.d/test.conf": "[Unit]\nAfter=around.service\n"
    "[Service]\nWatchdogSec=4s\nRestartSec=1s\nStandardError=append:/results/watch.txt\n"
    "Environment=PICKET_LOG=INFO\n",
    "picket-indicator.service.d/test.conf": "[Unit]\nAfter=around.service\n"
    "[Service]\nStandardOutput=append:/results/lamps.txt\n"
    "StandardError=append:/results/indicator.txt\nEnvironment=PICKET_LOG=INFO\n",
    # Nothing to do, once around.py has put the identity there.
    "picket-join.service.d/test.conf": "[Unit]\nAfter=around.service\n",
    "picket-link.service.d/test.conf": "[Unit]\nAfter=around.service\n"
    "[Service]\nStandardError=append:/results/link.txt\nEnvironment=PICKET_LOG=INFO\n",
    "around.service": "[Service]\nType=notify\nTimeoutStartSec=60s\n"
    f"ExecStart={PYTHON} -m tests.image.sandbox.around\n"
    "StandardError=append:/results/around.txt\nWorkingDirectory=/opt/picket/lib\n",
    "over.service": "[Unit]\nSuccessAction=poweroff-force\nFailureAction=poweroff-force\n"
    "After=around.service\n[Service]\nType=oneshot\nTimeoutStartSec=140s\n"
    "StandardOutput=append:/results/journal.txt\n"
    "ExecStart=/bin/sh -c 'while systemctl is-active -q around.service; do sleep 0.2; done'\n"
    "ExecStartPost=-/usr/bin/journalctl -b --no-pager -o short-monotonic\n",
    "node.target": "[Unit]\nRequires=basic.target dbus.service\nAfter=basic.target dbus.service\n"
    "Wants=around.service picket.target over.service\n",
}


def main() -> int:
    """Boot, look, judge."""
    tree, site = (Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="picket-node-") as folder:
        out = Path(folder)
        launcher = out / "picket"
        launcher.write_text(PICKET, encoding="utf-8")
        launcher.chmod(0o755)
        bound = {REPOSITORY / name: f"/opt/picket/lib/{name}" for name in CODE}
        bound |= {site: "/opt/picket/site", launcher: "/opt/picket/bin/picket"}
        bound |= {metadata(out): "/opt/picket/lib/picket-0.dist-info"}
        results = boot(tree, out, units=UNITS, bound=bound, start="node.target")
        if not (results / "node.json").exists():
            for name in ("around.txt", "watch.txt", "link.txt", "indicator.txt", "journal.txt"):
                sys.stderr.write(f"--- {name}\n{tail(results / name)}\n")
            return 1
        told = json.loads((results / "node.json").read_text(encoding="utf-8"))
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        wrong = judge(told)
        if wrong:
            sys.stderr.write(f"--- watch\n{tail(results / 'watch.txt')}\n")
    for line in wrong:
        sys.stderr.write(f"node: {line}\n")
    return 1 if wrong else 0


CODE = ("appliance", "models_tflite", "tests")


def judge(told: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    wanted = {
        "it found the one on the list": told["subjects"] == ["wanted"],
        "it says that it watches, or alerts": told["state"] in ("watching", "alert"),
        "the kernel holds all three": told["doctor"]["sandbox"].startswith("good"),
        "the alert was on disk first": told["outbox durable"],
        "its certificate is good": told["doctor"]["certificates"].startswith(("good", "unknown")),
        "the link says that it was answered": told["link says"] == "a controller has answered",
        "the doctor leaves the camera to the service": told["doctor"]["camera"]
        == "unknown: the watch service has it",
        "the lamps are driven": told["doctor"]["lamps"].startswith("good"),
        "nothing had restarted it before": told["restarts before"] == 0,
        "its watchdog ended a hung process": told["watchdog after s"] < 12,
        "it watched again": told["again watching after s"] < 40,
        "the last light was a fault": told["lamps at the end"].count("●") >= 2
        and "● status  ● alert" in told["lamps at the end"],
    }
    return [f"not so: {what}" for what, so in wanted.items() if not so]


if __name__ == "__main__":
    sys.exit(main())
