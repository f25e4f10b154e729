"""The node's root: Debian's tree, our overlay, the appliance; users made, units switched on.

Enters: the cached Debian tree, the folder of wheels. Leaves: a folder that is the root as it will
be, down to its modules. No arm64 program runs: what a postinst would do is done from outside.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from work import BuildError, remove, run

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
_ENABLED = (
    "picket.target", "picket-watch.service", "picket-link.service", "picket-indicator.service",
    "picket-first-boot.service", "picket-grow.service", "picket-data.service",
    "picket-sim.service", "picket-ssh.service", "picket-faults.service",
    "picket-wifi.service", "picket-confirm.service", "picket-boot-repair.service",
    "nftables.service", "systemd-networkd.service", "systemd-resolved.service",
    "systemd-timesyncd.service",
)  # fmt: skip
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "e2scrub_reap.service", "fstrim.timer", "systemd-binfmt.service", "dev-hugepages.mount",
    "proc-sys-fs-binfmt_misc.automount", "dev-mqueue.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "systemd-pcrphase.service",
    "systemd-networkd-wait-online.service", "wpa_supplicant.service", "getty@tty1.service",
    "systemd-journal-catalog-update.service", "systemd-update-done.service",
    "systemd-hwdb-update.service", "ldconfig.service", "systemd-firstboot.service",
    "serial-getty@ttyAMA0.service", "serial-getty@ttyS1.service", "serial-getty@ttyS0.service",
    "getty.target", "ctrl-alt-del.target",
    # Of a machine with users, with a /var that lasts, or with systemd's own use of a TPM.
    "systemd-logind.service", "systemd-user-sessions.service", "systemd-pstore.service",
    "systemd-random-seed.service", "systemd-machine-id-commit.service", "systemd-sysusers.service",
    "systemd-hibernate-clear.service", "systemd-pcrmachine.service",
    "systemd-pcrphase-sysinit.service", "systemd-tpm2-setup.service",
    "systemd-tpm2-setup-early.service", "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path", "systemd-hostnamed.socket", "systemd-creds.socket",
    "systemd-pcrextend.socket", "systemd-pcrlock.socket", "systemd-sysext.socket",
    "systemd-initctl.socket", "getty-static.service",
    # What they read is never there: credentials, a network on the kernel's command line. Nothing is
    # to be mounted anew, and nobody takes a lock.
    "systemd-network-generator.service", "systemd-udev-load-credentials.service",
    "systemd-remount-fs.service", "sys-kernel-config.mount", "run-lock.mount",
)  # fmt: skip
_REMOVED = (
    # Or whoever asks for a restart first asks for what is masked, and is told so at length.
    "usr/lib/systemd/system/dbus-org.freedesktop.login1.service",
    "usr/share/dbus-1/system-services/org.freedesktop.login1.service",
)
_GENERATORS = ("getty", "gpt-auto", "hibernate-resume", "rc-local", "ssh", "sysv", "tpm2")
"""Of systemd's, those that look for what this image never has, at each start and reload."""
_UNITS = "usr/lib/systemd/system"
_LAUNCHER = """#!/bin/sh
PYTHONPATH=/opt/picket/site exec /usr/bin/python3 -s -m appliance "$@"
"""


def stage(
    tree: Path,
    python: Path,
    sites: tuple[Path, ...],
    root: Path,
    *,
    kernel: str,
    release: tuple[str, str],
) -> None:
    """Make the root.

    Args:
        tree: Debian, left as it is.
        python: Debian's Python, with byte code that is good for it.
        sites: folders of wheels.
        root: new.
        kernel: release.
        release: version of Picket, and the kind of image, as updates know it.
    """
    run(["cp", "-a", "--reflink=auto", tree, root])
    run(["cp", "-a", "--reflink=auto", f"{python}/.", root])
    for name in ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "etc/fstab"):
        (root / name).unlink(missing_ok=True)
    for left in (root / "boot").iterdir():  # kernels of packages; ours are in the boot slots
        remove(left)
    run(["cp", "-a", f"{HERE / 'overlay'}/.", root])
    remove(root / "usr/lib/picket/__pycache__")  # whoever ran one of its programs here
    _ours(root, sites, release)
    _users(root)
    run(["systemctl", f"--root={root}", "--quiet", "enable", *_ENABLED])
    run(["systemctl", f"--root={root}", "--quiet", "mask", *_MASKED])
    run(["systemctl", f"--root={root}", "--quiet", "set-default", "multi-user.target"])
    generators = root / "etc/systemd/system-generators"
    generators.mkdir()
    for name in _GENERATORS:
        (generators / f"systemd-{name}-generator").symlink_to("/dev/null")
    for name in _REMOVED:
        (root / name).unlink(missing_ok=True)
    _slim(root / "usr/lib/modules" / kernel)
    run(["depmod", "-b", root, kernel])


def _ours(root: Path, sites: tuple[Path, ...], release: tuple[str, str]) -> None:
    """Units, launcher, wheels, and the folders that a read-only root must already have."""
    units = REPOSITORY / "systemd"
    for unit in [*units.glob("*.service"), *units.glob("*.target")]:
        shutil.copy2(unit, root / _UNITS / unit.name)
    for source, to in (
        ("sysusers.conf", "usr/lib/sysusers.d/picket.conf"),
        ("tmpfiles.conf", "usr/lib/tmpfiles.d/picket.conf"),
        ("udev.rules", "usr/lib/udev/rules.d/60-picket.rules"),
        ("watchdog.conf", "etc/systemd/system.conf.d/picket-watchdog.conf"),
    ):
        (root / to).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(units / source, root / to)
    for folder in ("data", "boot/picket", "etc/picket", "opt/picket/bin", "opt/picket/site"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for site in sites:
        run(["cp", "-a", "--reflink=auto", f"{site}/.", root / "opt/picket/site"])
    launcher = root / "opt/picket/bin/picket"
    launcher.write_text(_LAUNCHER, encoding="ascii")
    launcher.chmod(0o755)
    (root / "etc/hostname").write_text("picket\n", encoding="ascii")
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolve/stub-resolv.conf")
    (root / "etc/picket-release").write_text("\n".join([*release, ""]), encoding="ascii")
    rauc = root / "etc/rauc/system.conf"
    told = rauc.read_text(encoding="ascii")
    rauc.write_text(told.replace("compatible=", f"compatible={release[1]}", 1), encoding="ascii")


def _users(root: Path) -> None:
    """Users of services; nobody can log in, root neither."""
    run(["systemd-sysusers", f"--root={root}"])
    shadow = root / "etc/shadow"
    text = shadow.read_text(encoding="ascii")
    text = re.sub(r"^root:[^:]*:", "root:!*:", text, flags=re.MULTILINE)
    # Days since 1970 of the last change: the same build on another day is the same file.
    text = re.sub(r"^(\w[\w-]*:[^:]*):\d+:", r"\1:19000:", text, flags=re.MULTILINE)
    shadow.write_text(text, encoding="ascii")
    if "\npicket-watch:" not in (root / "etc/passwd").read_text(encoding="ascii"):
        raise BuildError("systemd-sysusers made no user picket-watch")
    for left in ("etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/.pwd.lock"):
        (root / left).unlink(missing_ok=True)


def _slim(modules: Path) -> None:
    """Remove every module that neither modules.txt names nor one of those needs."""
    lines = (modules / "modules.dep").read_text(encoding="utf-8").splitlines()
    needs = {path: rest.split() for path, rest in (line.split(":", 1) for line in lines)}
    text = (HERE / "modules.txt").read_text(encoding="utf-8")
    kept_paths = tuple(f"kernel/{line}" for line in text.splitlines() if line and line[0] != "#")
    kept = {path for path in needs if path.startswith(kept_paths)}
    kept |= {needed for path in kept for needed in needs[path]}
    for path in needs:
        if path not in kept:
            (modules / path).unlink()
    # Squashfs packs them anyway, and what it does is unpacked sooner than what xz does.
    run(["xz", "-d", *(modules / path for path in sorted(kept) if path.endswith(".xz"))])
