"""What became of the updates that root tried: a small file that root writes and the link reads.

Enters and leaves: a Tried. The link service cannot write where this lies, so that a service that
was taken over cannot make a node forget what it has tried already.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from appliance.errors import CardError
from appliance.link.file import replace
from appliance.wire import REASON_MAX_CHARS, TRIES_MAX, Outcome, Reason, Version, printable

log = logging.getLogger(__name__)

FILE = "outcome.json"
REMEMBERED = 16
"""Updates whose tries are counted; the one that was tried longest ago makes room."""
_FILE_MAX_BYTES = 16 * 1024
_Hex = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Tries = Annotated[int, Meta(ge=0, le=TRIES_MAX)]


class Tried(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The last update that was handed to root, and how often each was tried.

    Attributes:
        sha256: of the bundle, 64 hex digits, "" before the first.
        version: that RAUC read in it after it had checked the signature, None before that.
        outcome: what became of it.
        why: it was refused or rolled back.
        tries: of the bundles whose signature was good, by SHA-256.
    """

    sha256: _Hex | None = None
    version: Version | None = None
    outcome: Outcome = Outcome.NONE
    why: Reason = ""
    tries: Annotated[tuple[tuple[_Hex, _Tries], ...], Meta(max_length=REMEMBERED)] = ()

    def times(self, sha256: str) -> int:
        """How often a bundle was tried."""
        return dict(self.tries).get(sha256, 0)

    def again(self, sha256: str) -> Tried:
        """With one more try of a bundle."""
        tries = dict(self.tries)
        times = min(tries.pop(sha256, 0) + 1, TRIES_MAX)
        kept = (*tries.items(), (sha256, times))[-REMEMBERED:]
        return msgspec.structs.replace(self, tries=kept)


_decoder = msgspec.json.Decoder(Tried)


def read(folder: Path) -> Tried:
    """What is kept in a folder; a file that is missing or damaged tells of nothing tried."""
    path = folder / FILE
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(number, "rb") as file:
            if not stat.S_ISREG(os.fstat(number).st_mode):
                raise CardError("not a file")  # noqa: TRY301 - as if damaged
            content = file.read(_FILE_MAX_BYTES + 1)
        if len(content) > _FILE_MAX_BYTES:
            raise CardError(f"over {_FILE_MAX_BYTES} bytes")  # noqa: TRY301 - as if damaged
        return _decoder.decode(content)
    except FileNotFoundError:
        return Tried()
    except OSError as e:
        log.error("%s: cannot be read: %s", path, e.strerror)  # noqa: TRY400 - the line says it all
    except (msgspec.MsgspecError, UnicodeDecodeError, CardError) as e:
        log.error("%s: damaged, nothing is known of earlier updates: %s", path, e)  # noqa: TRY400 - the same
    return Tried()


def write(folder: Path, tried: Tried) -> None:
    """Keep it, durable and for everybody to read.

    Raises:
        CardError: what was kept before is still there.
    """
    replace(folder / FILE, msgspec.json.encode(tried), mode=0o644)


def reason(error: object) -> str:
    """A reason that fits a message."""
    return printable(str(error))[:REASON_MAX_CHARS]
