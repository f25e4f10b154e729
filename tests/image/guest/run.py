"""The indicator service in an emulated machine with simulated GPIO, under its own unit.

    python3 -m tests.image.guest.run TREE SITE GUEST      (make guest-test)

Enters: the sandbox test's tree and packages, and what build.sh made. Leaves: a report on standard
output, and exit status 0 if the lamps did what they should. The container of the sandbox test has
neither GPIO nor enforced device policies; this machine has its own kernel, and both.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.image.sandbox.container import REPOSITORY, SYSTEMD, metadata, tail

NSPAWN = "/usr/bin/systemd-nspawn"
HERE = Path(__file__).resolve().parent
BOOT_S = 600
PYTHON = (
    "/usr/bin/env PYTHONPATH=/mnt/repository:/mnt/site:/mnt/guest/gpio"
    " PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3"
)
NODE_TOML = f"""[node]
id = "cam-guest"
fleet = "fleet-guest"
authorities = ["{"00" * 32}"]
online_key = "{"00" * 32}"
alert_key = "{"00" * 1216}"
[lamps]
driver = "gpio"
"""
HEADER = "RPI_LGPIO_REVISION=c03114\nRPI_LGPIO_CHIP=0\n"
"""A Pi 4's; the simulated header is gpiochip0."""
OVERLAY = {
    "etc/picket/node.toml": NODE_TOML,
    "etc/picket/indicator.env": HEADER,
    "var/lib/picket-keys/watch.key": "of a node that has joined\n",
    "opt/picket/bin/picket": f'#!/bin/sh\nexec {PYTHON} -m appliance "$@"\n',
    "etc/systemd/system/picket-indicator.service.d/test.conf": "[Service]\nRestart=no\n"
    "TimeoutStartSec=120s\nStandardError=append:/mnt/results/indicator.txt\n",
    # The probe in the place of the watch service: what may it open?
    "etc/systemd/system/picket-watch.service.d/test.conf": "[Unit]\nRequires=\n[Service]\n"
    "ExecStart=\nExecStart=/usr/bin/python3 -I /mnt/repository/tests/image/sandbox/probe.py /dev\n"
    "LoadCredential=\nRestart=no\nTimeoutStartSec=120s\n"
    "StandardOutput=truncate:/mnt/results/watch.json\n",
    "etc/systemd/system/control.service": "[Unit]\nAfter=picket-watch.service\n"
    "[Service]\nType=oneshot\nUser=picket-watch\nGroup=picket\n"
    "ExecStart=/usr/bin/python3 -I /mnt/repository/tests/image/sandbox/probe.py /dev\n"
    "StandardOutput=truncate:/mnt/results/control.json\n",
    # As a careless udev rule would: everybody may open the header; the kernel still may not let.
    "etc/systemd/system/box.service": "[Unit]\nAfter=picket-indicator.service control.service\n"
    "[Service]\nType=oneshot\nTimeoutStartSec=300s\nEnvironmentFile=/etc/picket/indicator.env\n"
    f"WorkingDirectory=/run\nExecStart={PYTHON} -m tests.image.guest.box\n"
    "StandardError=append:/mnt/results/box.txt\n",
    "etc/systemd/system/open.service": "[Unit]\nBefore=picket-watch.service\n"
    "[Service]\nType=oneshot\nExecStart=/bin/chmod 0666 /dev/gpiochip0 /dev/port\n",
    "etc/systemd/system/over.service": "[Unit]\nAfter=box.service\nSuccessAction=poweroff-force\n"
    "FailureAction=poweroff-force\n[Service]\nType=oneshot\n"
    "ExecStart=-/bin/sh -c 'journalctl -b --no-pager -o short-monotonic"
    " > /mnt/results/journal.txt'\n",
    "etc/systemd/system/guest.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n"
    "Wants=dbus.service open.service picket-indicator.service picket-watch.service\n"
    "Wants=control.service box.service over.service\n",
}
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "ldconfig.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    "systemd-hostnamed.socket",
    "systemd-modules-load.service",
)
"""What a freshly unpacked Debian does at its first boot, and what takes minutes when emulated."""


def write_overlay(folder: Path) -> None:
    """What the guest finds over the tree."""
    for name, content in OVERLAY.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (folder / "opt/picket/bin/picket").chmod(0o755)
    for source in [*SYSTEMD.glob("picket*.service"), SYSTEMD / "picket.target"]:
        shutil.copy(source, folder / "etc/systemd/system")
    for kind in ("sysusers", "tmpfiles"):
        path = folder / f"usr/lib/{kind}.d/picket.conf"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SYSTEMD / f"{kind}.conf", path)


def compiled(tree: Path, site: Path, folder: Path) -> Path:
    """A copy of what the guest runs, compiled by the tree's Python: the guest's takes minutes.

    Args:
        tree: whose Python compiles.
        site: packages, compiled in place.
        folder: where the copy goes.
    """
    for name in ("appliance", "tests"):
        ignored = shutil.ignore_patterns("__pycache__", "photos", "*.npz")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    metadata(folder)
    subprocess.run(
        [
            NSPAWN, "--quiet", f"--directory={tree}", "--volatile=overlay",
            "--register=no", "--keep-unit", "--private-network", "--console=pipe",
            f"--bind={site}:/mnt/site", f"--bind={folder}:/mnt/repository",
            "/usr/bin/python3", "-m", "compileall", "-q", "-j2",
            "/mnt/site", "/mnt/repository",
        ],
        stdin=subprocess.DEVNULL,
        check=False,  # packages bring files for other versions of Python along
    )  # fmt: skip
    return folder


def boot(shares: dict[str, Path], guest: Path, console: Path, kernel: str) -> None:
    """Run the machine until it powers itself off.

    Args:
        shares: what it sees below /mnt; of them `tree` is its root, and `results` can be written.
        guest: made by build.sh.
        console: what it says goes there.
        kernel: more words for the kernel's command line; `program=` is what runs first.
    """
    tags = f"shares={','.join(set(shares) - {'tree'})}"
    command = [
        "qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max",
        "-smp", "2", "-m", "1024", "-nodefaults", "-no-reboot", "-display", "none",
        "-serial", f"file:{console}",
        "-kernel", str(guest / "vmlinuz"), "-initrd", str(guest / "initrd.gz"),
        "-append", f"console=ttyS0 quiet panic=-1 no_timer_check {tags} {kernel}",
    ]  # fmt: skip
    for tag, path in shares.items():
        readonly = "" if tag == "results" else ",readonly=on"
        command += [
            "-fsdev", f"local,id={tag},path={path},security_model=passthrough{readonly}",
            "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}",
        ]  # fmt: skip
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=BOOT_S, check=True)
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"guest: did not power itself off within {BOOT_S} s\n")


def judge(box: dict[str, Any], watch: dict[str, Any], control: dict[str, Any]) -> list[str]:
    """What is not as it should be."""
    opened = "files that could be opened for writing"
    wanted = {
        "the camera's lamp was lit before the answer": box["camera lamp once answered"],
        "and dark after it was off": not box["camera lamp once off"],
        "silence was shown as a fault": 4 <= box["fault after silence of s"] <= 10,
        "a pin in use is a clear line": "cannot be driven" in box["with a pin in use"],
        "the contract test passed": "passed" in box["contract"] and "failed" not in box["contract"],
        "the watch service may not open the header": "/dev/gpiochip0" not in watch[opened],
        "though anybody else may": "/dev/gpiochip0" in control[opened],
    }
    for state, seen in box["states"].items():
        near = abs(seen["lit"]["status"] - seen["status should be lit"]) <= 0.12
        wanted[f"{state}: the rhythm is right"] = near
        wanted[f"{state}: so is the number of flashes"] = (
            abs(seen["flashes"] - seen["flashes should be"]) <= 1.5
        )
        wanted[f"{state}: the camera's lamp was never dark"] = seen["lit"]["camera"] == 1.0
    return [f"not so: {what}" for what, so in wanted.items() if not so]


def main() -> int:
    """Boot, look, judge."""
    tree, site, guest = (Path(argument).resolve() for argument in sys.argv[1:4])
    with tempfile.TemporaryDirectory(prefix="picket-guest-") as folder:
        results = Path(folder)
        write_overlay(results / "overlay")
        shares = {
            "tree": tree,
            "site": site,
            "guest": guest,
            "repository": compiled(tree, site, results / "repository"),
            "results": results,
        }
        masks = " ".join(f"systemd.mask={unit}" for unit in MASKED)
        kernel = f"program=/lib/systemd/systemd systemd.unit=guest.target {masks}"
        boot(shares, guest, results / "console.txt", kernel)
        told = {name: results / f"{name}.json" for name in ("box", "watch", "control")}
        if not all(path.exists() and path.stat().st_size for path in told.values()):
            for name in ("console", "box", "indicator", "journal"):
                sys.stderr.write(f"--- {name}\n{tail(results / f'{name}.txt')}\n")
            return 1
        box, watch, control = (json.loads(path.read_text("utf-8")) for path in told.values())
        sys.stdout.write(json.dumps(box, indent=1) + "\n")
        wrong = judge(box, watch, control)
        if any("contract" in line for line in wrong):
            sys.stderr.write(tail(results / "contract.txt") + "\n")
    for line in wrong:
        sys.stderr.write(f"guest: {line}\n")
    sys.stdout.write("guest: not as it should be\n" if wrong else "guest: as it should be\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
