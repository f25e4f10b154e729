"""Boots the node's own units in a small Debian, and lets probe.py try what they forbid.

    python3 -m tests.image.sandbox.run TREE      (make sandbox-test)

Enters: a tree made by build-tree.sh. Leaves: a table on standard output, and exit status 0 if the
kernel refused all that it was to refuse, and nothing else. A control, the same probe and the same
user without the units' sandbox, shows that the probe would have got through. What a container
cannot enforce (DeviceAllow= on some hosts) is not judged here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.image.sandbox.container import HERE, boot, tail

DONE = "done"
SERVICES = ("watch", "link", "indicator", "control")

DROP_IN = """[Service]
ExecStart=
ExecStart=/usr/bin/python3 -I /usr/lib/picket/probe.py
Restart=no
StandardOutput=truncate:/results/{name}.json
StandardError=truncate:/results/{name}.err
"""
# The first try fails: systemd is to try again, and then to start what had to wait.
JOIN = """[Service]
ExecStart=
ExecStart=/bin/sh -c 'cd /var/lib/picket-join; test -e tried || {touch tried; exit 1;}; \
 echo secret > watch.key; echo secret > /var/lib/picket-link/tls.key'
RestartSec=1s
"""
UNITS = {
    "picket-watch.service.d/probe.conf": DROP_IN.format(name="watch"),
    "picket-link.service.d/probe.conf": DROP_IN.format(name="link"),
    "picket-indicator.service.d/probe.conf": DROP_IN.format(name="indicator"),
    "picket-join.service.d/probe.conf": JOIN.replace("{touch", "{ touch"),
    "control.service": "[Unit]\nRequires=picket-watch.service\nAfter=picket-watch.service\n"
    "ConditionPathExists=/var/lib/picket-keys/watch.key\n"
    + DROP_IN.format(name="control").replace("ExecStart=\n", "User=picket-watch\nGroup=picket\n"),
    "link-ipc.socket": "[Socket]\nListenStream=/run/picket/link.ipc\nSocketUser=picket-link\n"
    "SocketGroup=picket\nSocketMode=0660\nDirectoryMode=0755\n",
    "link-ipc.service": "[Service]\nExecStart=/bin/sleep infinity\n",
    "over.service": "[Unit]\nSuccessAction=poweroff-force\n[Service]\nType=oneshot\n"
    "StandardOutput=append:/results/journal.txt\n"
    "ExecStart=/bin/sh -c 'for i in $(seq 100); do test -s /results/control.json"
    " -a -s /results/link.json -a -s /results/indicator.json && break; sleep 0.2; done'\n"
    "ExecStartPost=-/usr/bin/journalctl -b --no-pager -o short-monotonic\n",
    "sandbox.target": "[Unit]\nRequires=basic.target\nAfter=basic.target\n"
    "Wants=link-ipc.socket picket.target over.service\n",
    # Whatever starts the watch service, the control follows it.
    "picket.target.d/control.conf": "[Unit]\nWants=control.service\n",
}


@dataclass(frozen=True)
class Row:
    """One attempt and which services it must be refused to; all others must get through."""

    attempt: str
    refused: frozenset[str]
    judged: frozenset[str] = frozenset(SERVICES)


def refused(attempt: str, *names: str, judged: tuple[str, ...] = SERVICES) -> Row:
    """Shorthand for the table below."""
    return Row(attempt, frozenset(names), frozenset(judged))


BOXED = ("watch", "link", "indicator")
ROWS = (
    refused("socket AF_INET", "watch", "indicator"),
    refused("socket AF_INET6", "watch", "indicator"),
    refused("socket AF_NETLINK", *BOXED),
    refused("socket AF_PACKET", *SERVICES),
    refused("socket AF_VSOCK", *BOXED, judged=BOXED),
    refused("an interface beyond loopback", *SERVICES),
    refused("socket AF_UNIX"),
    refused("dial the link service"),
    refused("read its own credential", "link", "indicator", "control"),
    refused("read the link service's state", "watch", "indicator", "control"),
    refused("read the identity at rest", *SERVICES),
    refused("read the configuration"),
    refused("read /proc/cpuinfo", "link"),
    refused("read the kernel's log", *BOXED, judged=BOXED),
    refused("see another user's process", *BOXED),
    refused("trace PID 1", *SERVICES),
    refused("memory to write and execute", *BOXED),
    refused("secret memory", "link", "indicator"),
    refused("a new user namespace", *BOXED),
    refused("a new network namespace", *BOXED),
    refused("a device node", *SERVICES),
    refused("a mount", *SERVICES),
    refused("become root", *SERVICES),
    refused("set the clock", *SERVICES),
    refused("a set-uid file", *BOXED),
)
FOLDERS = {
    "watch": set(),
    "link": {"/run/picket", "/tmp", "/var/lib/picket-link", "/var/tmp"},  # noqa: S108 - private ones
    "indicator": {"/run/picket", "/run/picket-indicator"},
}
"""Where a service may make files; the control must have found more."""
_PSEUDO = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx")
HARMLESS = {f"/dev/{name}" for name in _PSEUDO}
"""Devices that every process may open and that keep nothing."""


def probe(tree: Path, out: Path) -> dict[str, Any]:
    """Run the units in the tree until they have all told what the probe found, by service."""
    configuration = out / "node.toml"
    configuration.write_text("# a configuration\n", encoding="utf-8")
    bound = {
        HERE / "probe.py": "/usr/lib/picket/probe.py",
        configuration: "/etc/picket/node.toml",
    }
    results = boot(tree, out, units=UNITS, bound=bound, start="sandbox.target")
    told = {}
    for name in SERVICES:
        path = results / f"{name}.json"
        if not path.exists() or not path.stat().st_size:
            sys.exit(f"{name} told nothing; see the journal:\n{tail(results / 'journal.txt')}")
        told[name] = json.loads(path.read_text(encoding="utf-8"))
    return told


def judge(told: dict[str, Any]) -> list[str]:
    """Print the table and return what is wrong."""
    wrong = []
    sys.stdout.write(f"{'':34}" + "".join(f"{name:>14}" for name in SERVICES) + "\n")
    for row in ROWS:
        cells = []
        for name in SERVICES:
            came = told[name][row.attempt]
            good = name not in row.judged or (came != DONE) == (name in row.refused)
            if not good:
                wrong.append(f"{name}: {row.attempt}: {came}")
            cells.append(f"{came if good else came + ' !':>14}")
        sys.stdout.write(f"{row.attempt:34}" + "".join(cells) + "\n")
    for what in ("folders where a file was made", "files that could be opened for writing"):
        counts = "".join(f"{len(told[name][what]):>14}" for name in SERVICES)
        sys.stdout.write(f"{what:34}"[:34] + counts + "\n")
    for name in BOXED:
        wrong += _judge_box(name, told[name])
    if set(told["control"]["folders where a file was made"]) <= FOLDERS["link"]:
        wrong.append("the control could write nowhere: the probe proves nothing")
    return wrong


def _judge_box(name: str, told: dict[str, Any]) -> list[str]:
    wrong = []
    folders = set(told["folders where a file was made"])
    if folders != FOLDERS[name]:
        wrong.append(f"{name}: could write in {sorted(folders)}, may in {sorted(FOLDERS[name])}")
    files = set(told["files that could be opened for writing"]) - HARMLESS
    mine = {path for path in files if any(path.startswith(f"{f}/") for f in FOLDERS[name])}
    if files - mine:
        wrong.append(f"{name}: could open for writing {sorted(files - mine)[:10]}")
    status = told["status"]
    if (status["NoNewPrivs"], status["Seccomp"]) != ("1", "2") or int(status["CapBnd"], 16):
        wrong.append(f"{name}: {status}")
    if told["core limit"] != [0, 0]:
        wrong.append(f"{name}: may leave a core of {told['core limit']} bytes")
    return wrong


def main() -> int:
    """Boot, judge, tell."""
    tree = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="picket-sandbox-") as folder:
        wrong = judge(probe(tree, Path(folder)))
    for line in wrong:
        sys.stderr.write(f"sandbox: {line}\n")
    sys.stdout.write("sandbox: leaks\n" if wrong else "sandbox: holds\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
