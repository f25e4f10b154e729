"""A TPM in the emulated machine: swtpm on this one, reached through a virtio port.

QEMU's own TPM of `-M virt` is one whose driver Debian's kernel does not have (CONFIG_TCG_TIS). So
the guest's kernel gets a TPM from its vtpm proxy, and a program hands commands from there to the
port. Unit and program come in as systemd credentials by QEMU's fw_cfg: the image has neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.image.board import Tpm

_UNIT = """[Unit]
DefaultDependencies=no
Before=picket-data.service
[Service]
Type=forking
ImportCredential=relay
ExecStart=/usr/bin/python3 -sB %d/relay
TimeoutStartSec=120s
StandardError=journal+console
"""
_RELAY = """
import fcntl, glob, os, struct, subprocess, sys, time

subprocess.run(["modprobe", "tpm_vtpm_proxy"], check=True)
(name,) = [os.path.dirname(p) for p in glob.glob("/sys/class/virtio-ports/*/name")
           if open(p).read().strip() == "tpm"]
port = os.open(f"/dev/{os.path.basename(name)}", os.O_RDWR)
wanted = bytearray(struct.pack("=5I", 1, 0, 0, 0, 0))  # VTPM_PROXY_FLAG_TPM2
fcntl.ioctl(os.open("/dev/vtpmx", os.O_RDWR), 0xC014A100, wanted)
kernel = struct.unpack("=5I", wanted)[2]
if os.fork():
    while not os.path.exists("/dev/tpmrm0"):
        time.sleep(0.05)
    sys.exit()
while True:
    command = os.read(kernel, 4096)
    if struct.unpack(">HII", command[:10])[2] == 0x20001000:  # which locality: any
        os.write(kernel, struct.pack(">HII", 0x8001, 10, 0))
        continue
    os.write(port, command)
    answer = b""
    while len(answer) < 10 or len(answer) < struct.unpack(">I", answer[2:6])[0]:
        answer += os.read(port, 4096)
    os.write(kernel, answer)
"""
KERNEL = ("systemd.wants=t.service",)
"""For the guest's command line. The unit's name is short: fw_cfg has 55 characters."""
_CREDENTIALS = "opt/io.systemd.credentials/"


@contextmanager
def tpm(state: Path) -> Iterator[tuple[str, ...]]:
    """A TPM, switched on.

    Args:
        state: its folder; another folder is another TPM.

    Yields:
        Words for QEMU.
    """
    chip = Tpm(state)
    (state / "unit").write_text(_UNIT, encoding="ascii")
    (state / "relay").write_text(_RELAY, encoding="ascii")
    with chip.on():
        yield (
            "-chardev", f"socket,id=tpm,path={chip.path}",
            "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=tpm,name=tpm",
            "-fw_cfg", f"name={_CREDENTIALS}systemd.extra-unit.t.service,file={state / 'unit'}",
            "-fw_cfg", f"name={_CREDENTIALS}relay,file={state / 'relay'}",
        )  # fmt: skip
