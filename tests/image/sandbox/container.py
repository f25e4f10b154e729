"""Boots units in a small Debian with systemd-nspawn, and brings back what they told.

The tree stays as it is: what is written goes to an overlay in RAM. `/results` inside is a folder of
this machine; the units end the container themselves.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
SYSTEMD = REPOSITORY / "systemd"
BOOT_S = 150


def boot(
    tree: Path, out: Path, *, units: Mapping[str, str], bound: Mapping[Path, str], start: str
) -> Path:
    """Run until the container powers itself off.

    Args:
        tree: made by build-tree.sh.
        out: an empty folder of this machine.
        units: more units and drop-ins, `name` or `unit.d/name`, beside the node's own.
        bound: paths of this machine and where they are to be seen inside, read-only.
        start: the unit to boot into.

    Returns:
        The folder that was /results inside.

    Raises:
        subprocess.TimeoutExpired: it did not power itself off.
    """
    folder, results = out / "units", out / "results"
    folder.mkdir()
    results.mkdir()
    for source in [*SYSTEMD.glob("picket*.service"), SYSTEMD / "picket.target"]:
        shutil.copy(source, folder)
    for name, content in units.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    everything = {
        **{unit: f"/etc/systemd/system/{unit.name}" for unit in folder.iterdir()},
        SYSTEMD / "sysusers.conf": "/usr/lib/sysusers.d/picket.conf",
        SYSTEMD / "tmpfiles.conf": "/usr/lib/tmpfiles.d/picket.conf",
        **bound,
    }
    command = [
        "systemd-nspawn", f"--directory={tree}", "--boot", "--volatile=overlay", "--quiet",
        "--register=no", "--keep-unit", "--private-network", "--capability=CAP_IPC_LOCK",
        "--system-call-filter=memfd_secret @memlock", "--console=pipe",
        f"--bind={results}:/results",
        *(f"--bind-ro={source}:{target}" for source, target in everything.items()),
        f"systemd.unit={start}",
    ]  # fmt: skip
    with (out / "console.txt").open("wb") as console:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            timeout=BOOT_S,
            check=False,
        )
    return results


def metadata(out: Path) -> Path:
    """What an installation would have: the package's name and version, by which it asks itself."""
    folder = out / "picket-0.dist-info"
    folder.mkdir()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n",
        encoding="utf-8",
    )
    return folder


def tail(path: Path, chars: int = 6000) -> str:
    """The end of a file, for people; of one that there is not, too."""
    if not path.exists():
        return f"(no {path.name})"
    return path.read_text(encoding="utf-8", errors="replace")[-chars:]
