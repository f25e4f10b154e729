"""`picket doctor`: measures every part of a node that can be measured from outside its services.

It leaves a running node as it is: the camera and the lamps are touched only where no service has
them, the camera with its lamp lit; and no controller is spoken to as the node, because two of one
node at once look like a theft.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from appliance.accelerator import golden, versions
from appliance.accelerator.choose import Accelerators, attached
from appliance.accelerator.manifest import SHIPPED, Manifest
from appliance.config import Config
from appliance.errors import IdentityError, PicketError
from appliance.indicator.drivers import open_lamps
from appliance.indicator.gpio import Pin
from appliance.link import credentials, membership, outcome
from appliance.services import faults
from appliance.services.cameras import open_camera
from appliance.services.filming import camera_lamp
from appliance.services.firstboot import Places
from appliance.services.process import listens
from appliance.system import data, netfiles
from appliance.system import doctor as judged
from appliance.system import release as releases
from appliance.system.clock import SystemClock
from appliance.system.doctor import Finding
from appliance.system.memory import available_bytes
from appliance.system.thermal import read
from appliance.types import Lamp

_CONNECT_S = 3.0
_SYSTEMCTL_S = 5.0
_SERVICES = ("watch", "link", "indicator")
_PROC = Path("/proc")
_BLOCK = Path("/sys/dev/block")
HERE = Places.under(Path("/"))


def doctor(config: Config, *, as_json: bool, places: Places = HERE) -> int:
    """Check everything and print what was found.

    Args:
        config: of the node.
        as_json: for programs.
        places: of an image's files; elsewhere they are missing.

    Returns:
        0 if nothing is bad, else 1.
    """
    findings = examine(config, places)
    report = judged.as_json(findings) if as_json else judged.as_text(findings)
    sys.stdout.write(f"{report}\n")
    return judged.exit_status(findings)


def examine(config: Config, places: Places = HERE) -> list[Finding]:
    """Every check, in the order in which a node needs what is checked."""
    checks: tuple[tuple[str, Callable[[Config], Finding]], ...] = (
        ("clock", _clock),
        ("heat", _heat),
        ("memory", _memory),
        ("disk", _disk),
        ("data", lambda config: _data(config, places)),
        ("ssh", lambda _: _ssh(places)),
        ("update", _update),
        ("faults", lambda _: judged.faults(faults.kept(places.faults))),
        ("models", _models),
        ("accelerator", _accelerator),
        ("camera", _camera),
        ("lamps", _lamps),
        ("certificates", _certificates),
        ("link", _link),
        ("lease", _lease),
        ("sandbox", _sandbox),
    )
    findings = []
    for name, check in checks:
        try:
            findings.append(check(config))
        except PicketError as e:
            findings.append(judged.bad(name, str(e), _ADVICE.get(name, "")))
    return findings


_ADVICE = {
    "models": "make models, or install Picket again",
    "accelerator": "set models.accelerator = 'cpu' until it is mended",
    "camera": "is it plugged in, and no other program using it? (libcamera-hello --list-cameras)",
    "lamps": "check [lamps] against the wiring; is another program using the pins?",
    "certificates": "picket join, with an invitation made by `picketctl node add`",
}


def _clock(_: Config) -> Finding:
    utc_ns = SystemClock().utc_ns()
    return judged.clock(None if utc_ns is None else datetime.fromtimestamp(utc_ns / 1e9, UTC))


def _heat(_: Config) -> Finding:
    return judged.heat(read())


def _memory(_: Config) -> Finding:
    return judged.memory(available_bytes() / 2**20)


def _disk(config: Config) -> Finding:
    """Tried, not asked: an SD card that has gone bad is read-only all of a sudden."""
    folder = Path(config.link.state)
    refused = None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"picket")
            file.flush()
            os.fsync(file.fileno())
        free = shutil.disk_usage(folder).free
    except OSError as e:
        refused, free = e.strerror or str(e), 0
    return judged.disk(str(folder), free / 2**20, refused)


def _data(config: Config, places: Places) -> Finding:
    """Asked of the kernel; only the reason is taken from what opened it."""
    said = data.said(places.data)
    try:
        number = Path(config.link.state).stat().st_dev
    except OSError as e:
        return judged.unknown("data", f"{config.link.state}: {e.strerror}")
    encrypted = is_encrypted(f"{os.major(number)}:{os.minor(number)}")
    return judged.data(encrypted=encrypted, why=str(said.get("by" if encrypted else "why", "")))


def is_encrypted(device: str, block: Path = _BLOCK) -> bool:
    """Whether a device, or one that it stands on, is dm-crypt's.

    Args:
        device: MAJOR:MINOR.
        block: sysfs's folder of devices by number.
    """
    here = block / device
    try:
        if (here / "dm/uuid").read_text(encoding="ascii").startswith("CRYPT-"):
            return True
    except OSError:  # no device mapper's
        pass
    below = sorted((here / "slaves").glob("*/dev"))
    return bool(below) and all(
        is_encrypted(path.read_text(encoding="ascii").strip(), block) for path in below
    )


def _ssh(places: Places) -> Finding:
    try:
        head = (places.system / netfiles.SSH).read_text(encoding="ascii").partition("\n")[0]
    except FileNotFoundError:
        return judged.ssh(None)
    except OSError as e:
        return judged.unknown("ssh", f"{places.system / netfiles.SSH}: {e.strerror}")
    return judged.ssh(head.removeprefix("# "))


def _update(config: Config) -> Finding:
    release = Path(config.updates.release)
    running = releases.shown(releases.running(release)) if release.exists() else None
    tried = outcome.read(Path(config.updates.tried))
    last = "" if tried.version is None else releases.shown(tried.version)
    return judged.update(running, last, tried.outcome, tried.why)


def _manifest(config: Config) -> Manifest:
    return Manifest.load(Path(config.models.folder) if config.models.folder else SHIPPED)


def _names(config: Config) -> list[str]:
    told = config.models
    return [name for name in (told.detector, told.embedder, told.hidden, told.occlusion) if name]


def _models(config: Config) -> Finding:
    """Hashes, and that this machine's CPU computes what was stored when they were made."""
    manifest, found = _manifest(config), []
    with Accelerators("cpu", threads=config.models.threads) as accelerators:
        for name in _names(config):
            model = manifest.model(name)
            accelerator = accelerators.open(model)
            began_s = time.perf_counter()
            worst = golden.check(
                model, accelerator, min_cosine=model.golden.min_cosine, inputs=golden.INPUTS
            )
            took_s = time.perf_counter() - began_s
            found.append(f"{model.spec.id} (golden cosine {worst:.4f} in {took_s:.2f} s)")
    return judged.good("models", ", ".join(found))


def _accelerator(config: Config) -> Finding:
    if config.models.accelerator != "cpu" and _pid("watch") is not None:
        return judged.unknown(
            "accelerator", "the watch service has it", "systemctl status picket-watch"
        )
    manifest = _manifest(config)
    told = config.models
    with Accelerators(told.accelerator, threads=told.threads, forced=told.force) as accelerators:
        for name in _names(config):
            accelerators.open(manifest.model(name))
        here = {
            "runtime": versions.runtime(),
            "libedgetpu": versions.edgetpu(),
            "hailo_pci": versions.hailo_driver(),
            "plugged in:": " and ".join(attached()),
        }
        return judged.accelerator(
            told.accelerator,
            accelerators.device,
            accelerators.fallen,
            ", ".join(f"{name} {version}" for name, version in here.items() if version),
        )


def _camera(config: Config) -> Finding:
    if _pid("watch") is not None:  # it has the camera, or at least the lamp that goes with it
        return judged.unknown("camera", "the watch service has it", "systemctl status picket-watch")
    clock = SystemClock()
    into = np.zeros((config.camera.height, config.camera.width, 3), np.uint8)
    began_s = time.perf_counter()
    try:
        with camera_lamp(config), open_camera(config, clock) as camera:
            camera.read(into, config.camera.timeout_s)
            took_s = time.perf_counter() - began_s
        return judged.camera(camera.size, took_s, float(into.mean()))
    finally:
        into.fill(0)


def _lamps(config: Config) -> Finding:
    lamps = config.lamps
    if lamps.driver != "gpio":
        return judged.good("lamps", f"driver '{lamps.driver}': no LEDs to check")
    if listens(Path(config.local.run) / "indicator.ipc"):
        return judged.good("lamps", "the indicator service answers, and has them")
    leds = {Lamp.CAMERA: lamps.camera, Lamp.STATUS: lamps.status, Lamp.ALERT: lamps.alert}
    with open_lamps(
        lamps.driver,
        pins={lamp: Pin(led.bcm, active_low=led.active_low) for lamp, led in leds.items()},
        colours={lamp: led.colour for lamp, led in leds.items()},
        stream=sys.stderr,
    ):
        wired = ", ".join(f"{lamp} on BCM {led.bcm}" for lamp, led in leds.items())
    return judged.good("lamps", f"{wired}: can be driven (`picket leds --show all` shows them)")


def _certificates(config: Config) -> Finding:
    state = Path(config.link.state)
    if not membership.joined(state):
        raise IdentityError(f"{state}: no certificate: this node has not joined")
    utc_ns = SystemClock().utc_ns()
    now = None if utc_ns is None else datetime.fromtimestamp(utc_ns / 1e9, UTC)
    return judged.certificate(*credentials.life(state), now)


def _link(config: Config) -> Finding:
    """A connection and no more: see the module's first lines."""
    return judged.controllers({url: _reach(url) for url in config.link.controllers})


def _reach(url: str) -> float | str:
    """Seconds until an address took a connection, or why it did not."""
    parts = urlsplit(url)
    try:
        if parts.hostname is None or parts.port is None:
            return "no address of a network"
        began_s = time.perf_counter()
        with socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_S):
            return time.perf_counter() - began_s
    except (OSError, ValueError) as e:
        return str(e) or type(e).__name__


def _lease(_: Config) -> Finding:
    """Only the watch service knows, in memory; it tells systemd, in its status line."""
    status = _ask_systemd("watch", "StatusText")
    if not status:
        return judged.unknown("lease", "the watch service does not say")
    return judged.good("lease", status)


def _sandbox(_: Config) -> Finding:
    return judged.sandbox({name: _kernels_word(name) for name in _SERVICES})


def _kernels_word(name: str) -> dict[str, str] | str:
    """What /proc says of a service's process, or why there is nothing to say."""
    pid = _pid(name)
    if pid is None:
        return "no service is run by systemd"
    process = _PROC / str(pid)
    try:
        lines = (process / "status").read_text(encoding="ascii", errors="replace").splitlines()
        net = (process / "ns/net").readlink(), (_PROC / "1/ns/net").readlink()
    except OSError as e:
        return f"its processes cannot be looked at ({e.strerror}): run picket doctor as root"
    told = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return told | {"net": "shared" if net[0] == net[1] else "own"}


def _pid(name: str) -> int | None:
    """Process of a service that systemd runs; None if it does not, or there is no systemd."""
    pid = _ask_systemd(name, "MainPID")
    return int(pid) if pid.isdigit() and pid != "0" else None


def _ask_systemd(name: str, what: str) -> str:
    """A property of a service; "" where there is no systemd to ask."""
    command = ["systemctl", "show", f"--property={what}", "--value", f"picket-{name}.service"]
    try:
        asked = subprocess.run(
            command, capture_output=True, text=True, timeout=_SYSTEMCTL_S, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return asked.stdout.strip() if asked.returncode == 0 else ""
