"""A file replaced whole, or erased.

Whoever reads it, at any moment and after any power cut, finds the old content or the new one.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from appliance.errors import CardError


def replace(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Write a file under a temporary name and rename it.

    Args:
        path: in a folder that exists.
        content: all of it.
        durable: wait until file and name are on the card; otherwise a power cut may bring back
            the old file, or an empty one: for what is checked when it is read.
        mode: permissions of the file.

    Raises:
        CardError: the old file is still there.
    """
    temporary = ""
    try:
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(number, "wb") as file:
            os.fchmod(number, mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(number)
        Path(temporary).rename(path)
        temporary = ""
        if durable:
            sync_folder(path.parent)
    except OSError as e:
        raise CardError(f"{path}: cannot be written: {e.strerror}") from e
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def erase(path: Path, what: str) -> None:
    """Overwrite a file in place and remove it; one that is not there is erased already.

    On flash the card may keep a copy: what is erased like this must have been used up before.

    Args:
        path: of the file.
        what: it holds, for the message.

    Raises:
        CardError: it is still there.
    """
    try:
        with path.open("r+b") as file:
            file.write(bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return
    except OSError as e:
        raise CardError(f"{path}: holds {what} and cannot be erased: {e.strerror}") from e


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the card.

    Raises:
        OSError: they may not be.
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what a process that was killed in `replace` has left behind.

    Args:
        folder: where.
        name: of the file that was to be replaced.

    Raises:
        OSError: it cannot be removed.
    """
    for left in folder.glob(f".{name}.????????"):
        left.unlink(missing_ok=True)
