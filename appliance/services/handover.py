"""An update from the link service's folder into root's: where root touches what strangers wrote.

Enters: a folder that belongs to the link service, which may have been taken over. Leaves: a copy
that nobody but root ever had open, and its SHA-256; or nothing. No name in that folder is trusted:
no symbolic link is followed, a second name of somebody else's file (hard link), a pipe or a device
is refused, and so is whatever is longer than a bundle may be.

It is copied, not moved: who wrote the file may still have it open, and could write other bytes
into it after the signature was checked. An open file handed to RAUC as /proc/self/fd/N would not do
either: `rauc install` gives a path to a service, to which that name means another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path

from appliance.errors import CardError, UpdateError
from appliance.link.file import sync_folder
from appliance.link.part import FOLDER, READY
from appliance.wire import BUNDLE_MAX_BYTES

ROOM_BYTES = 64 * 2**20
"""That must be left on the data partition, for alerts."""
_BLOCK_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def opened(state: Path) -> int | None:
    """The folder in which the link service leaves an update, open; None if there is none.

    Args:
        state: of the link service; its own name is root's, what is in it is not.

    Returns:
        A file descriptor, to be closed.

    Raises:
        UpdateError: it is not a folder of the link service's.
    """
    try:
        outer = os.open(state, _FOLDER)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UpdateError(f"{state}: cannot be opened: {e.strerror}") from e
    try:
        inner = os.open(FOLDER, _FOLDER, dir_fd=outer)
        if os.fstat(inner).st_uid != os.fstat(outer).st_uid:
            os.close(inner)
            raise UpdateError(f"{state / FOLDER}: is not the link service's")
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UpdateError(f"{state / FOLDER}: no folder of the link service's: {e.strerror}") from e
    finally:
        os.close(outer)
    return inner


def take(folder: int, copy: Path) -> str | None:
    """Copy the update out of the link service's folder.

    Args:
        folder: as `offered` opened it.
        copy: in a folder that only root can write to; what is there is replaced.

    Returns:
        SHA-256 of the copy, 64 hex digits; None if there is no update.

    Raises:
        UpdateError: it is none, or there is no room for it; nothing is left of the copy.
    """
    copy.unlink(missing_ok=True)
    try:
        number = os.open(READY, _FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as e:
        raise UpdateError(f"{READY}: cannot be opened: {e.strerror}") from e
    try:
        size = _checked(number, os.fstat(folder).st_uid)
        _room(copy.parent, size)
        return _copied(number, size, copy)
    finally:
        os.close(number)


def remove(folder: int) -> None:
    """Take the name away that starts picket-update.service; what it names was copied or refused.

    Raises:
        UpdateError: it is still there.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(READY, dir_fd=folder)
        os.fsync(folder)
    except OSError as e:
        raise UpdateError(f"{READY}: cannot be removed: {e.strerror}") from e


def _checked(number: int, owner: int) -> int:
    """The size of a file that may be copied."""
    found = os.fstat(number)
    if not stat.S_ISREG(found.st_mode):
        raise UpdateError(f"{READY}: is no regular file")
    if found.st_uid != owner or found.st_nlink != 1:
        raise UpdateError(f"{READY}: is somebody else's file")
    if not 0 < found.st_size <= BUNDLE_MAX_BYTES:
        raise UpdateError(f"{READY}: {found.st_size} bytes: a bundle has 1 to {BUNDLE_MAX_BYTES}")
    return found.st_size


def _room(folder: Path, size: int) -> None:
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if free < size + ROOM_BYTES:
        raise UpdateError(
            f"{folder}: {free >> 20} MiB free: {(size + ROOM_BYTES) >> 20} MiB are needed"
        )


def _copied(number: int, size: int, copy: Path) -> str:
    digest, copied = hashlib.sha256(), 0
    try:
        with os.fdopen(os.open(copy, _NEW, 0o600), "wb") as out:
            # Never more than there is room for: the other side may still be writing.
            while copied <= size and (block := os.read(number, _BLOCK_BYTES)):
                copied += len(block)
                digest.update(block)
                out.write(block)
            if copied != size:
                raise UpdateError(f"{READY}: changed while it was copied")  # noqa: TRY301 - cleaned up below
            out.flush()
            os.fsync(out.fileno())
        sync_folder(copy.parent)
    except (OSError, UpdateError) as e:
        copy.unlink(missing_ok=True)
        if isinstance(e, OSError):
            raise CardError(f"{copy}: cannot be written: {e.strerror}") from e
        raise
    return digest.hexdigest()
