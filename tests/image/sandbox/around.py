"""Everything around a node, inside the container: it runs as root, before the node's services.

1. prepares   node.toml, identity and certificate, as a node that has joined has them
2. answers    as the controller, over mutual TLS, with a real list (tests/path/other_end.py)
3. looks      what the node does under its own units, and what systemd says of it
4. disturbs   stops the watch service's process, as a hung library would
5. tells      /results/node.json

The three services are the real ones, in their real sandboxes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from appliance.config import load
from appliance.controller.fleet import Fleet, Settings
from appliance.controller.identity import pem
from appliance.link import credentials
from appliance.link.rawrep import RawRep
from appliance.services import doctor
from appliance.system.sdnotify import Notifier
from appliance.wire import REQUEST_MAX_BYTES
from tests.path.enrolled import PHOTOS, model_id, template
from tests.path.other_end import NODE, OtherEnd

RUN = Path("/run/around")
NODE_TOML = Path("/etc/picket/node.toml")
KEY = Path("/var/lib/picket-keys/watch.key")
STATE = Path("/var/lib/picket-link")
CONTROLLER = "tls+tcp://127.0.0.1:7441"
SCENE = f"""seconds = 3.0
anatomy = "{PHOTOS / "faces.toml"}"
[[walker]]
photo = "obama3.jpg"
who = "wanted"
enters_s = 0.2
leaves_s = 2.6
from_x = 0.4
to_x = 0.5
from_px = 70
to_px = 160
"""
SYSTEMCTL = "/usr/bin/systemctl"
LONG_S = 40.0


def shown(name: str, what: str) -> str:
    """A property of a unit."""
    command = [SYSTEMCTL, "show", f"--property={what}", "--value", f"picket-{name}.service"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def wait(what: str, holds: Callable[[], bool]) -> float:
    """Seconds until a condition held; infinite if it did not."""
    began_s = time.monotonic()
    while not holds():
        if time.monotonic() - began_s > LONG_S:
            sys.stderr.write(f"not within {LONG_S:.0f} s: {what}\n")
            return float("inf")
        time.sleep(0.05)
    return time.monotonic() - began_s


def provision(end: OtherEnd, fleet: Fleet) -> None:
    """As `picketctl node add` and `picket join` leave a node."""
    (RUN / "scene.toml").write_text(SCENE, encoding="utf-8")
    made = end.config(
        camera={"source": "scene", "path": str(RUN / "scene.toml"), "fps": 10.0, "loop": True},
        models={"threads": 1},
        local={"run": "/run/picket"},
        link={"poll_s": 1.0, "health_s": 0.5, "state": str(STATE), "controllers": [CONTROLLER]},
    )
    NODE_TOML.parent.mkdir(exist_ok=True)
    shutil.copy(made, NODE_TOML)
    shutil.chown(NODE_TOML, "root", "picket")
    NODE_TOML.chmod(0o640)
    shutil.copy(RUN / "watch.key", KEY)
    KEY.chmod(0o600)
    STATE.mkdir(mode=0o700, exist_ok=True)
    key, now = credentials.new_key(), datetime.now(UTC)
    issued = fleet.issue(NODE, credentials.request_for(key, NODE), now)
    credentials.keep_authority(STATE, fleet.server_tls().ca)
    credentials.swap(STATE, key, pem(issued))
    for path in STATE.iterdir():
        shutil.chown(path, "picket-link", "picket")
    shutil.chown(STATE, "picket-link", "picket")


def observe(end: OtherEnd) -> dict[str, object]:
    """What the node does, undisturbed and disturbed."""
    told: dict[str, object] = {}
    told["alert after s"] = wait("an alert", lambda: bool(end.alerts))
    told["subjects"] = sorted({alert.subject for alert in end.alerts})
    wait("ten health messages", lambda: len(end.healths) >= 10)
    health = end.healths[-1]
    told["state"], told["frames"], told["accelerator"] = (
        health.state, health.frames, health.accelerator,
    )  # fmt: skip
    told["outbox durable"], told["link rss MiB"] = (
        health.outbox_durable,
        round(health.link_rss_mib),
    )
    told["fps"] = round(health.fps, 1)
    told["rss MiB"] = round(health.rss_mib)
    findings = {f.check: f"{f.verdict}: {f.found}" for f in doctor.examine(load(NODE_TOML))}
    told["doctor"] = {
        name: findings[name]
        for name in ("sandbox", "lamps", "camera", "lease", "disk", "link", "certificates")
    }
    told["link says"] = shown("link", "StatusText")
    told["restarts before"] = int(shown("watch", "NRestarts"))
    os.kill(int(shown("watch", "MainPID")), signal.SIGSTOP)
    told["watchdog after s"] = wait(
        "the watchdog", lambda: shown("watch", "Result") == "watchdog" or restarts() > 0
    )
    told["again watching after s"] = wait("a restart", restarted(end))
    subprocess.run([SYSTEMCTL, "stop", "picket-indicator.service"], check=True)
    told["lamps at the end"] = (
        Path("/results/lamps.txt").read_text(encoding="utf-8").split("\n")[-2]
    )
    return told


def restarts() -> int:
    """Of the watch service."""
    return int(shown("watch", "NRestarts"))


def restarted(end: OtherEnd) -> Callable[[], bool]:
    """Whether another boot of the watch service than the one so far says that it watches."""
    boot = end.healths[-1].boot
    return lambda: any(health.boot != boot and health.frames > 0 for health in end.healths[-3:])


def main() -> None:
    """Prepare, tell systemd that the node may start, look, tell."""
    RUN.mkdir(mode=0o755)
    fleet = Fleet.init(RUN / "fleet", Settings(name="fleet-test"), now=datetime.now(UTC))
    vectors = np.stack([template("obama.jpg")])
    with OtherEnd(RUN, subjects=["wanted"], vectors=vectors, model=model_id()) as end:
        provision(end, fleet)
        controller = RawRep(CONTROLLER, max_bytes=REQUEST_MAX_BYTES, tls=fleet.server_tls())
        threading.Thread(target=end._serve, args=(controller,), daemon=True).start()
        Notifier.from_environment().ready()
        told = observe(end)
    Path("/results/node.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
