"""`picket faults`: what went wrong on this node, over its last starts.

picket-faults.service (image-build/overlay) keeps them on the data partition: error lines of the
node's services, and what systemd says of their ends. Nothing that tells a face from another is in
an error line, and so not in here: no picture, no vector, no subject, no alert.
"""

from __future__ import annotations

from pathlib import Path

from appliance.errors import CardError

FOLDER = Path("/data/faults")
_NEWER, _OLDER = "faults", "faults.old"


def kept(folder: Path = FOLDER) -> list[str] | None:
    """Lines, the oldest first.

    Args:
        folder: with at most two files.

    Returns:
        None where no ring is kept.

    Raises:
        CardError: it cannot be read.
    """
    if not folder.is_dir():
        return None
    lines: list[str] = []
    for name in (_OLDER, _NEWER):
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as e:
            raise CardError(f"{folder / name}: cannot be read: {e.strerror}") from e
        lines += content.decode("utf-8", "replace").splitlines()
    return lines
