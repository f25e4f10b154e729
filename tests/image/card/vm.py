"""A card's image in an emulated machine: QEMU -M virt, this file playing the Pi's boot ROM.

Enters: a raw image. Leaves: a serial console with a root shell on it, asked for on the kernel's
command line; the image itself has none. The boot partition is chosen by autoboot.txt, as firmware
does, and kernel, initrd and command line are those in it.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.image.card.parts import Part, parts

PROMPT = r"root@\S+# "
"""Wherever it stands: other lines may come to the console behind it."""
_MASKED = (
    "modprobe@drm.service", "modprobe@efi_pstore.service", "systemd-logind.service",
    "systemd-journal-catalog-update.service",
    # There is no name server and no time server here, and a clock that is right from the beginning.
    "systemd-resolved.service", "systemd-timesyncd.service",
)  # fmt: skip
_EXTRA = (
    "picket.sim=1", "systemd.debug_shell=ttyAMA0", "systemd.default_debug_tty=ttyAMA0",
    "systemd.journald.forward_to_console=0", "printk.devkmsg=on",
    *(f"systemd.mask={unit}" for unit in _MASKED),
)  # fmt: skip


SERVICES = ("picket-watch", "picket-link", "picket-indicator")


class TooLateError(Exception):
    """The guest did not do in time what was waited for; carries the end of what it said."""


def boot_partition(image: Path, *, tryboot: bool = False) -> int:
    """The partition that a Pi's firmware would start from.

    Raises:
        TooLateError: autoboot.txt names none: nothing starts.
    """
    text = mtools("mtype", parts(image)[1], image, "::autoboot.txt").decode(errors="replace")
    section, chosen = "", {}
    for line in text.splitlines():
        section = line.strip("[]") if line.startswith("[") else section
        if line.startswith("boot_partition="):
            chosen[section] = int(line.partition("=")[2])
    number = chosen.get("tryboot" if tryboot else "all")
    if number is None:
        raise TooLateError(f"autoboot.txt names no partition: {text!r}")
    return number


def boot_files(image: Path, to: Path, *, tryboot: bool) -> int:
    """Copy what a Pi's firmware would load; returns the number of its partition."""
    number = boot_partition(image, tryboot=tryboot)
    for name in ("kernel8.img", "initramfs8", "cmdline.txt"):
        (to / name).write_bytes(mtools("mtype", parts(image)[number], image, f"::{name}"))
    return number


def mtools(tool: str, part: Part, image: Path, *words: str) -> bytes:
    """What a tool for FAT file systems says of a partition."""
    done = subprocess.run(
        [f"/usr/bin/{tool}", "-i", f"{image}@@{part.offset}", *words],
        capture_output=True, check=False, env=os.environ | {"MTOOLS_SKIP_CHECK": "1"},
    )  # fmt: skip
    if done.returncode:
        raise TooLateError(f"{tool}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


class Machine:
    """A running guest.

    Args:
        image: raw; written to.
        folder: for boot files, sockets and the console's log.
        tryboot: start the slot that is on trial.
        extra: more words for the kernel's command line.
        disks: more disks, read-only: /dev/vdb ...
        words: more of QEMU's command line.
        forward: (port of this machine's loopback, port of the guest), if any.
        device_tree: in the place of the machine's own.
    """

    def __init__(
        self,
        image: Path,
        folder: Path,
        *,
        tryboot: bool = False,
        extra: tuple[str, ...] = (),
        disks: tuple[Path, ...] = (),
        words: tuple[str, ...] = (),
        forward: tuple[int, int] | None = None,
        device_tree: Path | None = None,
    ) -> None:
        self.began_s = time.monotonic()
        self.partition = boot_files(image, folder, tryboot=tryboot)
        net = "user,id=net"
        if forward:
            net += f",hostfwd=tcp:127.0.0.1:{forward[0]}-:{forward[1]}"
        line = " ".join([(folder / "cmdline.txt").read_text().strip(), *_EXTRA, *extra])
        serial = folder / "serial.sock"
        serial.unlink(missing_ok=True)
        self.log = folder / "console.log"
        self._said = (folder / "qemu.log").open("wb")
        self.process = subprocess.Popen(
            [
                "/usr/bin/qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2",
                "-m", "1024", "-accel", "tcg,thread=multi", "-display", "none", "-no-reboot",
                "-kernel", str(folder / "kernel8.img"), "-initrd", str(folder / "initramfs8"),
                "-append", line, *(("-dtb", str(device_tree)) if device_tree else ()),
                "-drive", f"if=none,id=card,file={image},format=raw,cache=writeback",
                "-device", "virtio-blk-pci,drive=card",
                *(word for disk in disks for word in
                  ("-drive", f"if=virtio,file={disk},format=raw,readonly=on")),
                "-netdev", net, "-device", "virtio-net-pci,netdev=net,romfile=",
                "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
                "-chardev", f"socket,id=tty,path={serial},server=on,wait=off",
                "-serial", "chardev:tty", *words,
            ],
            stdout=self._said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._serial = socket.socket(socket.AF_UNIX)
        deadline_s = time.monotonic() + 20
        while True:
            try:
                self._serial.connect(str(serial))
                break
            except OSError as e:
                if time.monotonic() > deadline_s:
                    raise TooLateError((folder / "qemu.log").read_text()) from e
                time.sleep(0.05)
        self._heard, self._news = "", threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.pull()
        self._listener.join()
        self._serial.close()
        self._said.close()

    @property
    def seconds(self) -> float:
        """Since the power came."""
        return time.monotonic() - self.began_s

    @property
    def used_s(self) -> float:
        """Processor time that the emulator has used: hardly changed by other work going on."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def pull(self) -> None:
        """Take the power away."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait(self, pattern: str, timeout_s: float = 600.0) -> str:
        """What was said up to a pattern.

        Raises:
            TooLateError: it did not come.
        """
        deadline_s = time.monotonic() + timeout_s
        with self._news:
            while True:
                found = re.search(pattern, self._heard)
                if found:
                    said, self._heard = self._heard[: found.end()], self._heard[found.end() :]
                    return said
                if time.monotonic() > deadline_s or self.process.poll() is not None:
                    raise TooLateError(f"no {pattern!r}:\n{self._heard[-3000:]}")
                self._news.wait(0.5)

    def _listen(self) -> None:
        """Take what the console says as it comes: a guest whom nobody listens to stands still."""
        with self.log.open("a", encoding="utf-8") as file:
            while said := self._serial.recv(65536).decode(errors="replace"):
                file.write(said)
                file.flush()
                with self._news:
                    self._heard += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", said)
                    self._news.notify_all()

    def shell(self, timeout_s: float = 600.0) -> None:
        """Wait for the shell on the console."""
        self.wait(PROMPT, timeout_s)
        self._serial.sendall(b"stty -echo cols 500; export PS1= TERM=dumb PAGER=cat\n")
        self.does("true", 60)

    def does(self, command: str, timeout_s: float = 180.0) -> str:
        """What a command prints, in the guest as root."""
        mark = f"M{time.monotonic_ns()}"
        self._serial.sendall(f"{command}; echo {mark[:1]}''{mark[1:]} $?\n".encode())
        said = self.wait(rf"{mark} \d+\n", timeout_s)
        return said[: said.rindex(mark)].strip()

    def says(self, line: str) -> None:
        """Type a line, and wait for nothing."""
        self._serial.sendall(f"{line}\n".encode())

    def until(self, command: str, pattern: str, timeout_s: float = 300.0) -> str:
        """Ask again until the answer matches.

        Raises:
            TooLateError: it never did.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            said = self.does(command)
            if re.search(pattern, said):
                return said
            if time.monotonic() > deadline_s:
                raise TooLateError(f"{command}: never {pattern!r}:\n{said}")
            time.sleep(1.0)

    def services_up(self, timeout_s: float) -> None:
        """Wait until each of the three services is active.

        Raises:
            TooLateError: they are not.
        """
        asked = f"systemctl is-active {' '.join(SERVICES)} | tr '\\n' ' '"
        self.until(asked, "^active active active", timeout_s)

    def off(self, timeout_s: float) -> None:
        """Shut the machine down as a person would who pulls no plug."""
        self.says("sync; systemctl poweroff --no-block")
        self.process.wait(timeout=timeout_s)


@contextmanager
def working_copy(packed: Path, *, more_mib: int = 256) -> Iterator[Path]:
    """A raw copy of an image, with space behind it, as a larger card has."""
    with tempfile.TemporaryDirectory(prefix="picket-card-", dir=packed.parent) as name:
        image = Path(name) / "card.img"
        subprocess.run(["/usr/bin/zstd", "-q", "-d", str(packed), "-o", str(image)], check=True)
        os.truncate(image, image.stat().st_size + (more_mib << 20))
        yield image


def as_json(said: str) -> object:
    """The JSON document in what a command printed."""
    return json.loads(said[said.index("{") :])
