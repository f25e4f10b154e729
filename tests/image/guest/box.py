"""Inside the guest, as root: drives the real indicator service, and reads the LEDs' lines back.

Plays the watch service: sends Show to the indicator's socket. Looks at the lines where the kernel's
gpio-sim shows their levels, below the library, the driver and the service. Leaves
/results/box.json: what was seen; run.py judges.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from appliance.indicator.patterns import STATUS
from appliance.link.nng import NngLink
from appliance.link.question import ask
from appliance.types import Lamp, NodeState
from appliance.wire import Ack, Show

RESULTS = Path("/mnt/results")
PINS = {Lamp.CAMERA: 17, Lamp.STATUS: 27, Lamp.ALERT: 22}
STATES = (NodeState.WATCHING, NodeState.HOT, NodeState.FAULT)
HOLD = (
    "import lgpio, time; chip = lgpio.gpiochip_open(0); lgpio.gpio_claim_output(chip, 27, 0);"
    " print('held', flush=True); time.sleep(60)"
)
"""Another program that has the status lamp's pin."""
SYSTEMCTL = "/usr/bin/systemctl"
_LOOK_S = 8.0
_PAUSE_S = 0.02


def lines() -> Path:
    """Where gpio-sim shows its lines."""
    return next(Path("/sys/devices/platform").glob("gpio-sim.*/gpiochip*"))


def level(lamp: Lamp) -> bool:
    """Whether a lamp's line is high."""
    path = lines() / f"sim_gpio{PINS[lamp]}" / "value"
    return path.read_text(encoding="ascii").strip() == "1"


def levels() -> dict[str, bool]:
    """Of all lamps."""
    return {lamp.value: level(lamp) for lamp in Lamp}


def look(link: NngLink, state: NodeState) -> dict[str, object]:
    """Show a state for a while, once a second as the watch service does, and count the flashes."""
    shares, before, rises = dict.fromkeys(Lamp, 0), dict.fromkeys(Lamp, False), []
    began_s = said_s = time.monotonic()
    ask(link, Show(state, camera_on=True), Ack, 5.0)
    samples = 0
    while time.monotonic() - began_s < _LOOK_S:
        if time.monotonic() - said_s > 1.0:
            said_s = time.monotonic()
            ask(link, Show(state, camera_on=True), Ack, 5.0)
        samples += 1
        for lamp in Lamp:
            on = level(lamp)
            shares[lamp] += on
            if lamp is Lamp.STATUS and on and not before[lamp]:
                rises.append(round(time.monotonic() - began_s, 2))
            before[lamp] = on
        time.sleep(_PAUSE_S)
    rhythm = STATUS[state]
    return {
        "lit": {lamp.value: round(shares[lamp] / samples, 2) for lamp in Lamp},
        "status should be lit": round(sum(rhythm[::2]) / sum(rhythm), 2),
        "flashes": len(rises),
        "flashes should be": round(_LOOK_S * 10 / sum(rhythm) * len(rhythm) / 2, 1),
    }


def silence() -> float:
    """Seconds of silence after which both lamps were lit together for more than half a second."""
    began_s = time.monotonic()
    since_s: float | None = None
    while time.monotonic() - began_s < 2 * _LOOK_S:
        if level(Lamp.STATUS) and level(Lamp.ALERT):
            since_s = since_s or time.monotonic()
            if time.monotonic() - since_s > 0.5:
                return round(time.monotonic() - began_s, 2)
        else:
            since_s = None
        time.sleep(_PAUSE_S)
    return float("inf")


def systemctl(*words: str) -> str:
    """What systemctl says."""
    done = subprocess.run([SYSTEMCTL, *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def contract() -> str:
    """The last line of the contract test that is run where there is a header: here there is one.

    Without tests/conftest.py, whose imports take long here and which it does not need.
    """
    command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", "-m", "pi"]
    done = subprocess.run(
        [*command, "tests/contracts/test_lamps.py"],
        cwd="/mnt/repository",
        env=os.environ | {"LG_WD": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},  # noqa: S108 - a guest
        capture_output=True,
        text=True,
        check=False,
    )
    (RESULTS / "contract.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    return done.stdout.strip().split("\n")[-1]


def main() -> None:
    """Look at everything, one after the other."""
    seen: dict[str, object] = {}
    with NngLink("ipc:///run/picket/indicator.ipc", redial_s=(0.05, 0.5)) as link:
        ask(link, Show(NodeState.WATCHING, camera_on=True), Ack, 30.0)
        seen["camera lamp once answered"] = level(Lamp.CAMERA)
        seen["states"] = {state.value: look(link, state) for state in STATES}
        ask(link, Show(NodeState.WATCHING, camera_on=False), Ack, 5.0)
        seen["camera lamp once off"] = level(Lamp.CAMERA)
        seen["fault after silence of s"] = silence()
    systemctl("stop", "picket-indicator.service")
    seen["lines once the process has ended"] = levels()
    holder = subprocess.Popen([sys.executable, "-c", HOLD], stdout=subprocess.PIPE, cwd="/run")
    assert holder.stdout is not None
    holder.stdout.readline()
    systemctl("start", "picket-indicator.service")
    holder.kill()
    holder.wait()
    said = (RESULTS / "indicator.txt").read_text(encoding="utf-8", errors="replace")
    seen["with a pin in use"] = [line for line in said.split("\n") if line][-1]
    systemctl("stop", "picket-indicator.service")
    seen["contract"] = contract()
    (RESULTS / "box.json").write_text(json.dumps(seen, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
