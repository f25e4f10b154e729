"""`make image-twice`: whether the same inputs give the same image, byte for byte.

Builds once as `make image` does, with what is kept, and once from nothing in a folder of its own.
What is compared: the image, the root's hash, the lists, and of the update all that is signed; its
signature has a time and a random number in it, as signatures do.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import build
import bundle
from work import BuildError, fail, remove

_SUFFIXES = ("img.zst", "roothash", "packages.txt", "cdx.json")


def main() -> int:
    """Build, build, compare."""
    kept, fresh = build.REPOSITORY / "build/image", build.REPOSITORY / "build/image-twice"
    outs = build.REPOSITORY / "dist", fresh / "dist"
    try:
        remove(fresh)
        name = build.build(outs[0], kept)
        certificate, key = bundle.keys(kept)  # the image holds the certificate
        os.environ |= {"PICKET_UPDATE_CERT": str(certificate), "PICKET_UPDATE_KEY": str(key)}
        build.build(outs[1], fresh)
        differ = [line for line in _compared(name, *outs) if line.startswith("NOT")]
    except BuildError as e:
        return fail(e)
    except KeyboardInterrupt:
        return fail(BuildError("interrupted; the next run starts clean"))
    if differ:
        return fail(
            BuildError(f"{len(differ)} of {len(_SUFFIXES) + 1} differ; the second: {fresh}")
        )
    remove(fresh)
    return 0


def _compared(name: str, first: Path, second: Path) -> list[str]:
    """A line for each file."""
    lines = []
    for suffix in (*_SUFFIXES, "raucb"):
        one, other = (out / f"{name}.{suffix}" for out in (first, second))
        digests = [_digest(path) for path in (one, other)]
        same = digests[0] == digests[1]
        lines.append(f"{'same' if same else 'NOT '} {one.name} {' '.join(dict.fromkeys(digests))}")
        print(lines[-1])
    return lines


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".raucb":  # the signature is the end, and its length the last eight bytes
        content = content[: -8 - int.from_bytes(content[-8:], "big")]
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
