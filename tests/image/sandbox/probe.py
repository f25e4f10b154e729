"""Tries, from inside a service, all that the service must not be able to do.

Run by systemd in place of the real program, with the unit's own sandbox; standard library only.
Leaves: one JSON object on standard output, attempt to what came of it: "done", or the name of the
error with which the kernel refused. run.py says which of them were to be refused.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PTRACE_ATTACH = 16
SYS_MEMFD_SECRET = 447  # the same on every architecture
DONE = "done"

libc = ctypes.CDLL(None, use_errno=True)


def outcome(attempt: Callable[[], object]) -> str:
    """What came of an attempt."""
    try:
        attempt()
    except OSError as e:
        return errno.errorcode.get(e.errno or 0, str(e))
    return DONE


def call(result: int) -> int:
    """A system call's result, its errno as an exception."""
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def folders() -> Iterator[Path]:
    """Every folder below the one named on the command line, but for /proc: no files are there."""
    for top, names, _ in os.walk(sys.argv[1] if sys.argv[1:] else "/"):
        if top == "/":
            names.remove("proc")
        yield Path(top)


def open_and_close(path: Path | str, flags: int) -> None:
    """Whether it can be opened at all."""
    os.close(os.open(path, flags))


def create_files() -> list[str]:
    """Folders where a new file could be made."""
    made = []
    for folder in folders():
        path = folder / "picket-probe"
        if outcome(partial(open_and_close, path, os.O_CREAT | os.O_WRONLY)) == DONE:
            made.append(str(folder))
            path.unlink()
    return sorted(made)


def open_files() -> list[str]:
    """Which existing files and devices can be opened for writing."""
    writable = []
    for folder in folders():
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            mode = entry.stat(follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode)):
                continue
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            if outcome(partial(open_and_close, entry.path, flags)) == DONE:
                writable.append(entry.path)
    return sorted(writable)


def read_credential() -> None:
    """The service's own secret."""
    (Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / "watch.key").read_bytes()


def dial(path: str) -> None:
    """Connect to a socket of the node."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dialled:
        dialled.settimeout(5)
        dialled.connect(path)


def write_and_execute() -> None:
    """Memory that is written to and then run: what injected code needs."""
    protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, protection).close()


def secret_memory() -> None:
    """Memory that no other process can read, as the watchlist has."""
    fd = call(libc.syscall(SYS_MEMFD_SECRET, 0))
    try:
        os.ftruncate(fd, mmap.PAGESIZE)
        with mmap.mmap(fd, mmap.PAGESIZE) as memory:
            memory[:5] = b"hello"
    finally:
        os.close(fd)


def set_uid_file() -> None:
    """A file in memory that would run as its owner."""
    fd = os.memfd_create("probe")
    try:
        os.fchmod(fd, 0o4700)
    finally:
        os.close(fd)


def processes_of_others() -> None:
    """Any process of another user that can be seen at all."""
    me = os.getuid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.stat().st_uid != me:
            return
    raise FileNotFoundError(errno.ENOENT, "no process of another user")


def interface_beyond_loopback() -> None:
    """A network to speak on."""
    for line in Path("/proc/self/net/dev").read_text(encoding="ascii").splitlines()[2:]:
        if line.split(":")[0].strip() != "lo":
            return
    raise OSError(errno.ENETUNREACH, "only the loopback interface")


ATTEMPTS: dict[str, Callable[[], object]] = {
    "socket AF_INET": lambda: socket.socket(socket.AF_INET).close(),
    "socket AF_INET6": lambda: socket.socket(socket.AF_INET6).close(),
    "socket AF_NETLINK": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "socket AF_PACKET": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "socket AF_VSOCK": lambda: socket.socket(socket.AF_VSOCK).close(),
    "an interface beyond loopback": interface_beyond_loopback,
    "socket AF_UNIX": lambda: socket.socket(socket.AF_UNIX).close(),
    "dial the link service": lambda: dial("/run/picket/link.ipc"),
    "read its own credential": read_credential,
    "read the link service's state": lambda: Path("/var/lib/picket-link/tls.key").read_bytes(),
    "read the identity at rest": lambda: Path("/var/lib/picket-keys/watch.key").read_bytes(),
    "read the configuration": lambda: Path("/etc/picket/node.toml").read_bytes(),
    "read /proc/cpuinfo": lambda: Path("/proc/cpuinfo").read_bytes(),
    "read the kernel's log": lambda: open_and_close("/dev/kmsg", os.O_RDONLY),
    "see another user's process": processes_of_others,
    "trace PID 1": lambda: call(libc.ptrace(PTRACE_ATTACH, 1, 0, 0)),
    "memory to write and execute": write_and_execute,
    "secret memory": secret_memory,
    "a device node": lambda: os.mknod("/run/picket/null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "a mount": lambda: call(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    "become root": lambda: os.setuid(0),
    "set the clock": lambda: time.clock_settime(0, 0.0),
    "a set-uid file": set_uid_file,
    # Last: a user namespace of one's own changes what else one may do.
    "a new user namespace": lambda: call(libc.unshare(CLONE_NEWUSER)),
    "a new network namespace": lambda: call(libc.unshare(CLONE_NEWNET)),
}


def status() -> dict[str, str]:
    """What the kernel says of this process."""
    wanted = ("NoNewPrivs", "Seccomp", "CapEff", "CapBnd")
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {key: found[key].strip() for key in wanted}


def notify(line: str) -> None:
    """Tell systemd, as the real service does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(line.encode(), os.environ["NOTIFY_SOCKET"])


def main() -> None:
    """Try everything, tell what came of it, and report as ready if there is somebody to tell."""
    told: dict[str, object] = {name: outcome(attempt) for name, attempt in ATTEMPTS.items()}
    told["folders where a file was made"] = create_files()
    told["files that could be opened for writing"] = open_files()
    told["status"] = status()
    told["core limit"] = resource.getrlimit(resource.RLIMIT_CORE)
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    if "NOTIFY_SOCKET" in os.environ:
        notify("READY=1")


if __name__ == "__main__":
    main()
