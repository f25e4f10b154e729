"""Memory that no other process can read, and that is overwritten when its use is over.

The best that the kernel has is taken:

1. memfd_secret (Linux 5.14, on by default from 6.5): pages that are taken out of the kernel's own
   map, so that neither another process, root with a debugger, nor a core dump can read them.
2. anonymous memory, locked (never swapped) and left out of core dumps and of children.
3. ordinary memory, left out of core dumps: only where the caller says that it will do.

Both of the first count against RLIMIT_MEMLOCK, which systemd's LimitMEMLOCK= raises. This file
does not decide what is secret.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np

from appliance.errors import SecretMemoryError

SYS_MEMFD_SECRET = 447
"""The same on every architecture (Linux, include/uapi/asm-generic/unistd.h)."""

MEMFD_SECRET, MLOCK, ORDINARY = "memfd_secret", "mlock", "ordinary"
KINDS = (MEMFD_SECRET, MLOCK)
"""What is tried, in this order."""

_libc = ctypes.CDLL(None, use_errno=True)
_FAILED = -1
_CLOSE_ON_EXEC = os.O_CLOEXEC


class SecretBuffer:
    """Zeroed memory of a fixed size. Unmapped when it was wiped and the last view is gone.

    Args:
        nbytes: 1 or more.
        kinds: what is tried, in order; see KINDS.
        allow_ordinary: whether ordinary memory will do if nothing else is to be had.

    Attributes:
        kind: "memfd_secret", "mlock" or "ordinary".
        view: the memory, writable. Views of it (numpy arrays too) stay valid after `wipe`; they
            then show zeros.

    Raises:
        SecretMemoryError: the kernel refuses; the message says what it refused and why.
    """

    def __init__(
        self, nbytes: int, *, kinds: tuple[str, ...] = KINDS, allow_ordinary: bool = False
    ) -> None:
        refusals = []
        for kind in (*kinds, *((ORDINARY,) if allow_ordinary else ())):
            try:
                self._map: mmap.mmap | None = _MAKERS[kind](nbytes)
            except OSError as e:
                refusals.append(f"{kind}: {e.strerror}")
            else:
                self.kind = kind
                self.view = memoryview(self._map)
                return
        raise SecretMemoryError(
            f"{nbytes} bytes of secret memory: {', '.join(refusals)} (see LimitMEMLOCK=)"
        )

    def wipe(self) -> None:
        """Overwrite the memory and let it go. Again does nothing."""
        if self._map is None:
            return
        np.frombuffer(self.view, np.uint8).fill(0)
        self._map = None
        self.view = memoryview(bytearray())


def _secret(nbytes: int) -> mmap.mmap:
    descriptor = _libc.syscall(SYS_MEMFD_SECRET, _CLOSE_ON_EXEC)
    if descriptor == _FAILED:
        raise _last_error()
    try:
        os.ftruncate(descriptor, nbytes)
        return mmap.mmap(descriptor, nbytes, flags=mmap.MAP_SHARED)
    finally:
        os.close(descriptor)


def _locked(nbytes: int) -> mmap.mmap:
    mapped = _ordinary(nbytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
    if _libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(nbytes)) == _FAILED:
        raise _last_error()
    return mapped


def _ordinary(nbytes: int) -> mmap.mmap:
    mapped = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapped.madvise(mmap.MADV_DONTDUMP)
    mapped.madvise(mmap.MADV_DONTFORK)
    return mapped


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


_MAKERS = {MEMFD_SECRET: _secret, MLOCK: _locked, ORDINARY: _ordinary}
