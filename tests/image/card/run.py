"""The card's image, booted and put to the test in an emulated machine (`make image-test`).

    python -m tests.image.card.run dist/picket-VERSION-arm64.img.zst [--only NAME ...] [--cuts N]

Enters: an image as it is shipped. Leaves: a line per point, report.json, and exit status 0 if every
point held. What it cannot show, only a Pi can: firmware, its cameras, real pins, a real card.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from appliance.system import card as file
from tests.image.card.cuts import cuts
from tests.image.card.host import Host, add_scene, spoil
from tests.image.card.parts import parts
from tests.image.card.report import Report
from tests.image.card.sealed import sealed_data
from tests.image.card.searched import searched
from tests.image.card.start import start
from tests.image.card.updates import update
from tests.image.card.vm import SERVICES, Machine, TooLateError, working_copy
from tests.image.scripts import lacks

_TOOLS = ("qemu-system-aarch64", "mtype", "mcopy", "zstd", "debugfs", "e2fsck")
_MORE_TOOLS = {
    "update": ("rauc", "mksquashfs", "unsquashfs", "veritysetup"),
    "sealed-data": ("swtpm", "ssh", "ssh-keygen"),
}
_LINE = "/sys/devices/platform/gpio-sim.0/gpiochip*/sim_gpio{}/value"


def main() -> int:
    """Put an image to the test."""
    parser = argparse.ArgumentParser(description="Boot a card's image and look.")
    parser.add_argument("image", type=Path)
    parser.add_argument("--only", action="append", choices=sorted(_PARTS))
    parser.add_argument("--cuts", type=int, default=20, help="times that the power is pulled")
    parser.add_argument("--again", type=int, default=4, help="of these, so many are started again")
    parser.add_argument("--seed", type=int, default=5, help="of the moments")
    parser.add_argument("--report", type=Path, default=Path("build/image/report.json"))
    arguments = parser.parse_args()
    chosen = arguments.only or list(_PARTS)
    if lacks(*_TOOLS, *(tool for name in chosen for tool in _MORE_TOOLS.get(name, ()))):
        return 1
    report = Report()
    for name in chosen:
        sys.stdout.write(f"-- {name}\n")
        try:
            _PARTS[name](arguments, report)
        except (TooLateError, TimeoutError, RuntimeError, subprocess.CalledProcessError) as e:
            report.point(f"{name}, to its end", so=False, seen=str(e)[-3000:])
    report.write(arguments.report)
    wrong = len(report.wrong)
    sys.stdout.write(f"{len(report.points) - wrong} points held, {wrong} did not\n")
    return 1 if wrong else 0


def _bad_card(arguments: argparse.Namespace, report: Report) -> None:
    """A wrong file: FAULT and its blink code on the lamps, the reason on the card."""
    with working_copy(arguments.image) as image:
        spoil(image)
        folder = image.parent
        with Machine(image, folder) as machine:
            machine.shell()
            machine.until("systemctl is-active picket-misprovisioned", "^active", 240)
            rises = machine.does(_watch_line(22, 80), 240)
            status = machine.does(f"cat /boot/picket/{file.STATUS}")
            failed = machine.does("systemctl is-active picket-first-boot picket-watch")
        report.point("a bad file is a fault on the lamps", so=rises.count("1") > 5, seen=rises)
        so = "state: FAULT" in status and "camera.fps" in status
        report.point("and the reason is on the card", so=so, seen=" / ".join(status.split("\n")))
        report.point("and nothing runs", so="\nactive" not in f"\n{failed}", seen=failed)


def _watch_line(bcm: int, tenths: int) -> str:
    return f"for i in $(seq {tenths}); do tr -d '\\n' <{_LINE.format(bcm)}; sleep 0.1; done; echo"


def _story(arguments: argparse.Namespace, report: Report) -> None:
    """From a card to an alert, and whatever can be done to a node that runs."""
    with working_copy(arguments.image) as image, Host(image.parent) as host:
        token = host.personalise(image)
        add_scene(image)
        with Machine(image, image.parent) as machine:
            machine.shell()
            _started(machine, host, report)
            _sealed(machine, report)
            _finds(machine, host, report)
            _survives(machine, host, report)
            machine.off(180)
        searched(image, token=token, bundle=host.folder / "list.bundle", report=report)


def _started(machine: Machine, host: Host, report: Report) -> None:
    shell_s = machine.seconds
    host.told("joined", 600)
    joined_s = machine.seconds
    machine.services_up(300)
    report.point("it joins, and its services run", so=True,
                 seen=f"shell {shell_s:.0f} s, joined {joined_s:.0f} s,"
                      f" services {machine.seconds:.0f} s after power-on, emulated")  # fmt: skip
    chain = machine.does("systemd-analyze; systemd-analyze critical-chain picket.target", 60)
    report.point("what the start waited for", so="picket" in chain, seen=chain)
    status = machine.until(f"cat /boot/picket/{file.STATUS}", "state: joined", 120)
    left = machine.does(f"ls /boot/picket; ls /var/lib/picket-join; {_mounts()}")
    report.point("the card says so, and the file is gone", so=file.FILE not in left,
                 seen=f"{status.splitlines()[0]}; {left}")  # fmt: skip


def _mounts() -> str:
    return "findmnt -no OPTIONS /boot/picket | cut -c1-2"


def _sealed(machine: Machine, report: Report) -> None:
    refused = machine.does("touch /usr/x /opt/picket/x 2>&1; mount -o remount,rw / 2>&1")
    so = refused.count("Read-only file system") >= 2
    report.point("the root cannot be written", so=so, seen=refused)
    verity = machine.does("cat /sys/block/dm-0/dm/name /sys/block/dm-0/ro; cat /proc/swaps")
    report.point("it is dm-verity's, and there is no swap", so=verity.split()[:2] == ["root", "1"],
                 seen=" ".join(verity.split()))  # fmt: skip
    out = machine.does("nft list chain inet picket output | grep -c 'dport 744[0-9]*\\|daddr'")
    report.point("nftables lets out what the card names", so=out.strip() != "0", seen=out)
    size = machine.does("df -m --output=size /data | tail -n 1").strip()
    report.point("data took the rest of the card", so=int(size) > 200, seen=f"{size} MiB")
    passwd = machine.does("cut -d: -f2 /etc/shadow | sort | uniq -c; ls /usr/sbin/sshd 2>&1")
    report.point("no password, no SSH", so="$" not in passwd, seen=" ".join(passwd.split()))
    doctor = machine.does("/opt/picket/bin/picket doctor --config /etc/picket/node.toml", 240)
    report.point("picket doctor runs", so="lamps" in doctor, seen=doctor)


def _finds(machine: Machine, host: Host, report: Report) -> None:
    before = len(host.events)
    began_s = machine.seconds
    host.deploy()
    host.told("accepted", 300, after=before)
    accepted_s = machine.seconds - began_s
    alert = host.told("alert", 900, after=before)
    seen = f"list {accepted_s:.0f} s after the order, alert {machine.seconds - began_s:.0f} s:"
    seen += f" {alert['subject']} at {alert['similarity']:.3f}"
    report.point("a list is taken, somebody is found, the alert arrives", so=True, seen=seen)
    camera = machine.does(f"cat {_LINE.format(17)}")
    blinks = machine.does(_watch_line(27, 60), 120)
    so, seen = "1" in camera and {"0", "1"} <= set(blinks), f"{camera.strip()}, status {blinks}"
    report.point("the camera's lamp is lit, the status lamp lives", so=so, seen=seen)
    rss = machine.does(
        f"for s in {' '.join(SERVICES)}; do awk '/VmRSS/ {{ print $2 }}'"
        " /proc/$(systemctl show -P MainPID $s)/status; done"
    )
    total = sum(int(kib) for kib in rss.split()) / 1024
    report.point("memory of the three services", so=total <= 450,
                 seen=f"{total:.0f} MiB ({' + '.join(rss.split())} KiB)")  # fmt: skip


def _survives(machine: Machine, host: Host, report: Report) -> None:
    """Killed and hung services come back by themselves."""
    for service, act in (("picket-link", "KILL"), ("picket-watch", "KILL"),
                         ("picket-indicator", "KILL"), ("picket-watch", "STOP")):  # fmt: skip
        pid = machine.does(f"systemctl show -P MainPID {service}").strip()
        began_s = machine.seconds
        machine.does(f"systemctl kill -s {act} {service}")
        fresh = (
            f"p=$(systemctl show -P MainPID {service}); [ $p != {pid} ] && [ $p != 0 ] && echo $p"
        )
        machine.until(fresh, r"\d", 240)
        machine.until(f"systemctl is-active {service}", "^active", 300)
        report.point(f"{service} after SIG{act}", so=True,
                     seen=f"up again in {machine.seconds - began_s:.0f} s")  # fmt: skip
    began_s = machine.seconds
    host.told("health", 300, after=len(host.events), state="watching")
    camera = machine.does(f"cat {_LINE.format(17)}")
    report.point("and it watches again, with its lamp lit", so=camera == "1",
                 seen=f"{machine.seconds - began_s:.0f} s later, lamp {camera}")  # fmt: skip


def _tampered(arguments: argparse.Namespace, report: Report) -> None:
    """One byte of the root changed: it does not run on."""
    with working_copy(arguments.image) as image:
        root = parts(image)[5]
        with image.open("r+b") as card:
            for step in range(200):
                card.seek(root.offset + (1 + step) * 500_000)
                byte = card.read(1)
                card.seek(-1, 1)
                card.write(bytes([byte[0] ^ 1]))
        with Machine(image, image.parent) as machine:
            try:
                machine.shell(240)
                machine.does("find / -xdev -type f -exec cat {} + >/dev/null", 240)
                ran = True
            except TooLateError as e:
                ran, said = False, str(e)
        seen = "it ran on" if ran else next(
            (line for line in said.splitlines() if "erity" in line), "it stopped without a word"
        )  # fmt: skip
        report.point("a changed root does not run on", so=not ran, seen=seen)


_PARTS: dict[str, Callable[[argparse.Namespace, Report], None]] = {
    "bad-card": _bad_card,
    "start": start,
    "story": _story,
    "update": update,
    "cuts": cuts,
    "sealed-data": sealed_data,
    "tampered": _tampered,
}

if __name__ == "__main__":
    sys.exit(main())
