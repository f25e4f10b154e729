"""The list of Debian packages that an image is made of: written once, held against ever after.

    python3 lock.py packages.lock CANDIDATES       # of `apt-cache policy`; exit status 1: others

Enters: packages by name with their versions, as apt would take them or as a tree has them. Leaves:
a committed file, or one line that names what differs. Debian's mirrors keep the newest version
only: an older one cannot be asked for, so what differs is refused, until somebody takes the new
versions (`make image LOCK=new`) and looks at the difference before committing it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from work import BuildError, fail, whole

_HEAD = (
    "# Debian packages of the image and their versions, all of them. `make image` refuses others;\n"
    "# `make image LOCK=new` takes what the mirror has now and writes this file anew.\n"
)
_SHOWN = 6
_CANDIDATE = re.compile(r"^(\S+):\n  Installed: .*\n  Candidate: (\S+)$", re.MULTILINE)


def candidates(said: str) -> dict[str, str]:
    """Versions by name, out of what `apt-cache policy` says."""
    return dict(_CANDIDATE.findall(said))


def read(path: Path) -> dict[str, str]:
    """Versions by name.

    Raises:
        BuildError: there is no such file, or a line of it is no package and version.
    """
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except FileNotFoundError as e:
        raise BuildError(f"{path.name}: missing: `make image LOCK=new` writes it") from e
    found = {}
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        words = line.split()
        if len(words) != 2:  # noqa: PLR2004 - name and version
            raise BuildError(f"{path.name}: line {number}: '{line[:60]}': a name and a version")
        found[words[0]] = words[1]
    return found


def write(path: Path, found: dict[str, str]) -> None:
    """The file anew, whole or not at all."""
    lines = [f"{name} {version}\n" for name, version in sorted(found.items())]
    with whole(path) as new:
        new.write_text(_HEAD + "".join(lines), encoding="ascii")


def check(path: Path, found: dict[str, str]) -> None:
    """Hold packages against the file.

    Raises:
        BuildError: other packages, or other versions of them; the line names them.
    """
    wanted = read(path)
    changed = [
        f"{name} {wanted.get(name, 'none')} is now {found.get(name, 'none')}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    ]
    if not changed:
        return
    more = f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else ""
    raise BuildError(
        f"{path.name}: {len(changed)} of {len(wanted)} packages differ: "
        f"{', '.join(changed[:_SHOWN])}{more}: `make image LOCK=new` takes what there is now"
    )


def main() -> int:
    """Say at once what would come out after many minutes."""
    try:
        check(Path(sys.argv[1]), candidates(Path(sys.argv[2]).read_text(encoding="utf-8")))
    except BuildError as e:
        return fail(e)
    return 0


if __name__ == "__main__":
    sys.exit(main())
