"""A card whose data partition is encrypted to its board; and who is let in, and out, of a node.

Enters: an image. Leaves: points of the report. The first start makes the partition anew, an alert
goes its way, the next start opens it, its bytes tell nothing, another board does not open it, and a
power cut in the middle of making it is made good by the start that follows.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import tarfile
import time
from base64 import b64encode
from pathlib import Path

from appliance.system import card as file
from tests.image.board import script
from tests.image.card.host import NODE, Host, free_port, scene
from tests.image.card.parts import parts
from tests.image.card.report import Report
from tests.image.card.tpm import KERNEL, tpm
from tests.image.card.vm import Machine, working_copy

_DATA = "cat /run/picket-data.json"
_SECOND_LAMP = """import glob, time
path, = glob.glob("/sys/devices/platform/gpio-sim.0/gpiochip*/sim_gpio22/value")
until = time.monotonic() + 120
while open(path).read().strip() == "0" and time.monotonic() < until:
    time.sleep(0.02)
began = time.monotonic()
for tenth in range(200):
    time.sleep(max(0.0, began + tenth / 10 - time.monotonic()))
    print(open(path).read().strip(), end="")
"""


def sealed_data(arguments: argparse.Namespace, report: Report) -> None:
    """From a new card on a board with a TPM to the same card on another board."""
    with working_copy(arguments.image) as image, Host(image.parent) as host:
        folder = image.parent
        key, port = _key(folder), free_port()
        public = key.with_suffix(".pub").read_text().strip()
        token = host.personalise(image, ssh_key=public, ssh_from="10.0.2.2")
        disk = _packed(folder, scene(folder))
        with (
            tpm(folder / "board") as words,
            Machine(image, folder, extra=KERNEL, words=words, disks=(disk,), forward=(port, 22))
            as machine,
        ):  # fmt: skip
            _first(machine, host, report)
            _let_in(machine, key, port, report)
            _let_out(machine, host, report)
            _fails(machine)
            machine.off(240)
        _bytes(image, token, report)
        with (
            tpm(folder / "board") as words,
            Machine(image, folder, extra=KERNEL, words=words) as machine,
        ):
            _second(machine, report)
            machine.off(240)
        before = _digest(image)
        with (
            tpm(folder / "another") as words,
            Machine(image, folder, extra=KERNEL, words=words) as machine,
        ):
            _elsewhere(machine, report)
            machine.off(240)
        report.point("and leaves it as it was", so=_digest(image) == before, seen=before[:16])
    _cut_while_made(arguments, report)


def _packed(folder: Path, paths: tuple[Path, ...]) -> Path:
    """Files, as a disk of the guest: what is to be encrypted cannot be written from outside."""
    disk = folder / "scene.disk"
    with tarfile.open(disk, "w") as packed:
        for path in paths:
            packed.add(path, path.name)
    return disk


def _python(machine: Machine, code: str, *words: str) -> str:
    """What a program prints, run in the guest; one line for its shell, which prompts for each."""
    line = f"exec(__import__('base64').b64decode('{b64encode(code.encode()).decode()}'))"
    return machine.does(shlex.join(["python3", "-c", line, *words]), 200)


def _first(machine: Machine, host: Host, report: Report) -> None:
    machine.shell()
    machine.until("systemctl is-active data.mount", "^active", 400)
    machine.does("mkdir -p /data/scene && tar -C /data/scene -xf /dev/vdb", 120)
    said = machine.does(_DATA)
    below = machine.does(
        "lsblk -no NAME,TYPE /dev/vda7; cryptsetup luksDump /dev/vda7 | grep -A8 ^Keyslots:"
    )
    so = '"encrypted": true, "by": "tpm"' in said and "crypt" in below
    report.point("a new card is encrypted to the board's TPM", so=so, seen=f"{said} {below}")
    host.told("joined", 900)
    machine.services_up(600)
    status = machine.until(f"cat /boot/picket/{file.STATUS}", "state: joined", 200)
    so = "data: encrypted to this board (tpm)" in status
    report.point("its status says so", so=so, seen=" / ".join(status.splitlines()))
    doctor = machine.does(
        "/opt/picket/bin/picket doctor --config /etc/picket/node.toml"
        " | grep -E ' (data|ssh|faults) '",
        400,
    )
    report.point("and so does the doctor", so="encrypted to this board" in doctor, seen=doctor)
    before = len(host.events)
    host.deploy()
    alert = host.told("alert", 1200, after=before)
    report.point("an alert goes its way from there", so=True, seen=alert["subject"])


def _key(folder: Path) -> Path:
    path = folder / "engineer"
    subprocess.run(
        ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "anna", "-f", str(path)],
        check=True,
    )
    return path


def _let_in(machine: Machine, key: Path, port: int, report: Report) -> None:
    """Who the card names, as `service`, by key; nobody else, and nothing else."""
    machine.until("systemctl is-active picket-ssh", "^active", 200)

    def says(command: str, user: str = "service", identity: Path = key) -> str:
        words = [
            "/usr/bin/ssh", "-p", str(port), "-i", str(identity), "-F", "none",
            "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
            "-o", f"UserKnownHostsFile={key.parent / 'known'}", "-o", "ConnectTimeout=60",
            f"{user}@127.0.0.1", command,
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)
        return f"{done.stdout}{done.stderr}".strip()

    who = says("id -un; journalctl -q -n 1 -u picket-data -o cat; cat /etc/picket/node.toml")
    so = who.startswith("service\n") and "Permission denied" in who and "fleet" not in who
    report.point("SSH lets in who the card names, as nobody in particular", so=so, seen=who)
    root, other = says("id", "root"), says("id", identity=_key_of_another(key))
    so = all("Permission denied (publickey)" in said for said in (root, other))
    report.point(
        "not as root, not with another key, never by password", so=so, seen=f"{root}; {other}"
    )
    rule = machine.does("nft list chain inet picket input | grep 'dport 22'")
    so = rule.split() == ["ip", "saddr", "10.0.2.2", "tcp", "dport", "22", "accept"]
    report.point("and from nowhere but where it says", so=so, seen=rule)


def _key_of_another(key: Path) -> Path:
    folder = key.parent / "another-key"
    folder.mkdir()
    return _key(folder)


def _let_out(machine: Machine, host: Host, report: Report) -> None:
    """The link's group of processes reaches its controller and nothing else."""
    allowed = machine.does("systemctl show -P IPAddressAllow picket-link")
    so = set(allowed.split()) == {"127.0.0.0/8", "::1/128", "10.0.2.2/32"}
    report.point("the link may speak to its controller alone", so=so, seen=allowed)
    group = "/sys/fs/cgroup/system.slice/picket-link.service/cgroup.procs"
    code = (
        "import socket, sys\n"
        f"if sys.argv[1] == 'link': open('{group}', 'w').write('0')\n"
        "for kind, at in ((socket.SOCK_STREAM, ('10.0.2.2', PORT)),"
        " (socket.SOCK_DGRAM, ('10.0.2.3', 53))):\n"
        "    s = socket.socket(socket.AF_INET, kind); s.settimeout(20)\n"
        "    try: s.connect(at); s.send(b'?'); print('through', end=' ')\n"
        "    except OSError as e: print(e.strerror or e, end=' / ')\n"
    ).replace("PORT", str(host.port))
    said = {who: _python(machine, code, who) for who in ("root", "link")}
    so = said == {"root": "through through", "link": "through Operation not permitted /"}
    report.point("the kernel keeps it to that", so=so, seen=said)


def _fails(machine: Machine) -> None:
    """A fault, to be found after the next start."""
    machine.does("systemctl kill -s ABRT picket-indicator; sleep 3")
    machine.until("cat /data/faults/faults", "picket-indicator.service: Failed with", 200)


def _bytes(image: Path, token: str, report: Report) -> None:
    """The partition, read as a thief reads it."""
    part = parts(image)[7]
    with image.open("rb") as card:
        card.seek(part.offset)
        content = card.read(part.size)
    supers = sum(
        content[at + 1080 : at + 1082] == b"\x53\xef" and content[at + 1144 : at + 1148] == b"data"
        for at in range(0, len(content) - 4096, 1024)
    )
    plain = (
        b"SQLite format 3",
        NODE.encode(),
        b"BEGIN CERTIFICATE",
        b"walker",
        bytes.fromhex(token),
    )
    found = [needle[:16] for needle in plain if needle in content]
    so = content[:6] == b"LUKS\xba\xbe" and not supers and not found
    report.point(
        "its bytes tell nothing",
        so=so,
        seen=f"{len(content) >> 20} MiB: {supers} superblocks, {found}",
    )


def _second(machine: Machine, report: Report) -> None:
    machine.shell()
    machine.services_up(900)
    said = machine.does(_DATA)
    who = machine.does("grep ^id /etc/picket/node.toml")
    so = '"encrypted": true, "by": "tpm"' in said and NODE in who
    report.point(
        "the next start opens it", so=so, seen=f"{said} {who}; services {machine.seconds:.0f} s"
    )
    kept = machine.does("/opt/picket/bin/picket faults; du -b /data/faults/faults*", 200)
    so = "picket-indicator.service: Failed with" in kept and kept.count("-- start ") == 2
    report.point("a fault of before is still known", so=so, seen=kept)


def _elsewhere(machine: Machine, report: Report) -> None:
    """The card in another board: shut, said so, nothing runs, nothing is open."""
    machine.shell()
    machine.until("systemctl is-active picket-misprovisioned", "^active", 600)
    status = machine.does(f"cat /boot/picket/{file.STATUS}")
    so = "state: FAULT" in status and "encrypted to another board" in status
    report.point(
        "another board does not open it, and says why", so=so, seen=" / ".join(status.splitlines())
    )
    seen = _python(machine, _SECOND_LAMP)
    report.point("with a blink code of its own", so=_flashes(seen), seen=seen)
    down = machine.does(
        "systemctl is-active data.mount picket-watch picket-link picket-ssh picket-join;"
        " nft list ruleset | grep -c 'policy drop'; ls /data"
    )
    so = "\nactive" not in f"\n{down}" and "\n3" in down
    report.point("nothing runs, and nothing gets in or out", so=so, seen=" ".join(down.split()))


def _flashes(seen: str) -> bool:
    """One long flash and three short ones between two pauses; an emulated lamp is not punctual."""
    groups = seen.replace("0" * 10, " ").split()
    whole = [[len(lit) for lit in group.split("0") if lit] for group in groups[1:-1]]
    return any(len(lit) == 4 and lit[0] > max(lit[1:]) for lit in whole)


def _digest(image: Path) -> str:
    part = parts(image)[7]
    with image.open("rb") as card:
        card.seek(part.offset)
        return hashlib.sha256(card.read(part.size)).hexdigest()


def _cut_while_made(arguments: argparse.Namespace, report: Report) -> None:
    """The power goes while the partition is being made."""
    data = script("data_partition")
    with working_copy(arguments.image) as image:
        folder = image.parent
        with tpm(folder / "board") as words, Machine(image, folder, extra=KERNEL, words=words):
            deadline_s = time.monotonic() + 600
            while data.Table(image).mark != data.MAKING and time.monotonic() < deadline_s:
                time.sleep(0.02)
            time.sleep(1.0)
            mark = data.Table(image).mark
        with (
            tpm(folder / "board") as words,
            Machine(image, folder, extra=KERNEL, words=words) as machine,
        ):
            machine.shell()
            machine.until("systemctl is-active data.mount", "^active", 600)
            said = machine.does(_DATA)
            machine.does("sync", 60)
        so = mark == data.MAKING and '"encrypted": true' in said
        so &= data.Table(image).mark == data.SEALED
        report.point(
            "a power cut while it is made is made good", so=so, seen=f"{mark:#x}, then {said}"
        )
