"""An update's whole way over the node's real units: from the link service's folder to a restart.

    python3 -m tests.image.sandbox.update TREE SITE      (make sandbox-test)

Enters: a tree made by build-tree.sh, and a folder with the locked packages for its Python. Leaves:
what was seen, on standard output, and exit status 0 if it is as it should be. systemd, its sandbox
and `picket` are real. RAUC, the firmware's slots and the two services that film and send are shell
scripts; the restart that is asked for ends the container.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.image.sandbox.container import REPOSITORY, boot, metadata, tail
from tests.image.sandbox.node import CODE, PICKET

OVERLAY = REPOSITORY / "image-build/overlay"
UNIT = OVERLAY / "etc/systemd/system"
BUNDLE = '{"compatible": "picket-arm64", "version": "0.2.0"}\n'
PROGRAMS = {
    # It installs until the two services have seen that it does.
    "rauc": "case $1 in\n"
    '  info) cat "$3"; stat -c "%U:%G %a %n" "$3" >&2 ;;\n'
    "  install) stat -c '%U:%G %a %n' \"$2\" >>/data/rauc.log\n"
    "    for i in $(seq 300); do test -s /results/watch.txt &&"
    " grep -q over /results/link.txt && break; sleep 0.1; done ;;\n"
    "esac\n",
    "rauc-boot": "echo a\n",
    "ground": "set -e\n"
    "mkdir -p /data /boot/picket /var/lib/picket-keys /etc/picket /var/lib/picket-join\n"
    "echo 0.1.0 >/etc/picket-release\n"
    "echo secret >/var/lib/picket-keys/watch.key\n"
    "printf '[all]\\nboot_partition=2\\n[tryboot]\\nboot_partition=3\\n' "
    ">/boot/picket/autoboot.txt\n",
    # The link service: leaves an update, and reads what became of it.
    "link": "cd /var/lib/picket-link; mkdir -p update\n"
    "cp /usr/lib/picket/bundle update/part; mv update/part update/ready.raucb\n"
    "for i in $(seq 600); do grep -qs installing /data/update/outcome.json && break;"
    " sleep 0.05; done\n"
    "cat /data/update/outcome.json\n"
    "(echo >/data/update/outcome.json) 2>/dev/null && echo wrote\n"
    "(mv update /data/update/x) 2>/dev/null && echo moved\n"
    "echo; echo over; sleep 60\n",
    "watch": "while ! test -d /run/picket-update; do sleep 0.05; done; echo updating; sleep 60\n",
}
_RUN = "[Unit]\nRequires=ground.service\nAfter=ground.service\n[Service]\nType={kind}\nExecStart=\n"
_RUN += "ExecStart=/usr/lib/picket/{name}\nRestart=no\nWatchdogSec=0\n"
_RUN += "StandardOutput=truncate:/results/{name}.txt\nStandardError=append:/results/err.txt\n"
UNITS = {
    "ground.service": "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
    "ExecStart=/usr/lib/picket/ground\nStandardError=append:/results/err.txt\n",
    "picket-join.service.d/test.conf": "[Unit]\nRequires=ground.service\nAfter=ground.service\n",
    "picket-link.service.d/test.conf": _RUN.format(name="link", kind="exec"),
    "picket-watch.service.d/test.conf": _RUN.format(name="watch", kind="exec"),
    "picket-confirm.service.d/test.conf": "[Unit]\nRequires=ground.service\n"
    "After=ground.service\nConditionPathExists=\nRequiresMountsFor=\n[Service]\n"
    "StandardError=append:/results/confirm.txt\nStandardOutput=append:/results/confirm.txt\n",
    "picket-update.service.d/test.conf": "[Service]\n"
    "StandardError=append:/results/update.txt\nStandardOutput=append:/results/update.txt\n",
    # Runs until the restart that was asked for stops it.
    "witness.service": "[Unit]\nAfter=ground.service\n[Service]\nType=oneshot\n"
    "RemainAfterExit=yes\nExecStart=/bin/true\n"
    "ExecStop=-/bin/sh -c 'cp /run/systemd/reboot-param /results/reboot-param;"
    " cp /data/rauc.log /data/update/outcome.json /results/; ls -la /data/update >/results/own;"
    " ls /var/lib/picket-link/update >/results/left;"
    " journalctl -b --no-pager -o short-monotonic >/results/journal.txt'\n",
    "systemd-logind.service": "",  # masked, as in the image: the restart is asked of systemd itself
    "systemd-reboot.service.d/test.conf": "[Unit]\nSuccessAction=poweroff-force\n",
    # Whatever else happens, the container ends.
    "over.timer": "[Timer]\nOnActiveSec=100\n",
    "over.service": "[Unit]\nSuccessAction=poweroff-force\n[Service]\nType=oneshot\n"
    "ExecStart=/bin/sh -c 'journalctl -b --no-pager -o short-monotonic >/results/journal.txt'\n",
    "update.target": "[Unit]\nRequires=basic.target dbus.service\nAfter=basic.target dbus.service\n"
    "Wants=ground.service witness.service picket-link.service picket-watch.service"
    " picket-confirm.service over.timer\n",
}


def main() -> int:
    """Boot, look, judge."""
    tree, site = (Path(argument).resolve() for argument in sys.argv[1:3])
    with tempfile.TemporaryDirectory(prefix="picket-update-") as folder:
        out = Path(folder)
        bound = {REPOSITORY / name: f"/opt/picket/lib/{name}" for name in CODE}
        bound |= {site: "/opt/picket/site", metadata(out): "/opt/picket/lib/picket-0.dist-info"}
        bound |= {_program(out, "picket", PICKET): "/opt/picket/bin/picket"}
        for name, text in PROGRAMS.items():
            where = "/usr/bin/rauc" if name == "rauc" else f"/usr/lib/picket/{name}"
            bound[_program(out, name, f"#!/bin/sh\n{text}")] = where
        bound[OVERLAY / "usr/lib/picket/confirm"] = "/usr/lib/picket/confirm"
        (out / "bundle").write_text(BUNDLE, encoding="ascii")
        bound[out / "bundle"] = "/usr/lib/picket/bundle"
        names = ("picket-update.service", "picket-update.path", "picket-confirm.service")
        units = UNITS | {name: (UNIT / name).read_text(encoding="utf-8") for name in names}
        results = boot(tree, out, units=units, bound=bound, start="update.target")
        told = {
            path.name: path.read_text(encoding="utf-8", errors="replace")
            for path in sorted(results.iterdir())
            if path.name != "journal.txt"
        }
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
        wrong = judge(told)
        if wrong:
            sys.stderr.write(f"--- journal\n{tail(results / 'journal.txt', 12_000)}\n")
            sys.stderr.write(f"--- console\n{tail(out / 'console.txt')}\n")
    for line in wrong:
        sys.stderr.write(f"update: {line}\n")
    return 1 if wrong else 0


def judge(told: dict[str, str]) -> list[str]:
    """What is not as it should be."""
    link, update = told.get("link.txt", ""), told.get("update.txt", "")
    wanted = {
        "nothing was on trial before": "no update was tried" in told.get("confirm.txt", ""),
        "it was installed": "0.2.0 is installed" in update,
        "and is on trial": '"outcome":"trying"' in told.get("outcome.json", ""),
        "RAUC was given a copy that is root's alone": told.get("rauc.log", "")
        == "root:root 600 /data/update/bundle.raucb\n",
        "the copy is gone, and nothing else is left": "bundle.raucb" not in told.get("own", "b"),
        "the watch service saw that it was being installed": told.get("watch.txt") == "updating\n",
        "the link service reads what becomes of it": '"outcome":"installing"' in link,
        "and can neither write nor move it": link.endswith("\nover\n")
        and "wrote" not in link
        and "moved" not in link,
        "what it had left was taken away": told.get("left") == "",
        "the other slot was asked for, for one start": "tryboot" in told.get("reboot-param", ""),
    }
    return [f"not so: {what}" for what, so in wanted.items() if not so]


def _program(out: Path, name: str, text: str) -> Path:
    path = out / f"program-{name}"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    sys.exit(main())
