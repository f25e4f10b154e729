"""An update that a roll-out brought, tried once: what picket-update.service and its end are.

1. take     the link service's copy becomes root's own (handover.py)
2. read     RAUC's signature and compatible; not older than what runs (update.py)
3. bound    a bundle is tried TRIES times by this way: no link can make a box restart for ever
4. install  noted first; RAUC writes the slot that does not run
5. try      noted; restart into that slot, for one try
6. settle   at the start that follows: the version runs and was found good, or it was rolled back

What became of it is left where the link service can read it and not write (link/outcome.py). The
power may go at any point: what was interrupted before step 5 is none of the bundle's faults, and
the link service fetches it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.errors import CardError, UpdateError
from appliance.link import outcome
from appliance.link.outcome import Tried
from appliance.services import handover, update
from appliance.system import release as releases
from appliance.wire import Outcome

log = logging.getLogger(__name__)

TRIES = 3
COPY, WHY, LOCK = "bundle.raucb", "why", ".lock"
_WHY_MAX_BYTES = 200
_NOTHING, _NONE_TRIED = "there is no update", "no update was tried"
_UNKNOWN = "it did not start, its services did not come up, or the power went"


@dataclass(frozen=True, slots=True)
class Places:
    """Where things lie on a node.

    Attributes:
        state: of the link service.
        own: root's folder: the copy, and what became of it.
        release: holds the version that runs.
    """

    state: Path = Path("/var/lib/picket-link")
    own: Path = Path("/data/update")
    release: Path = releases.RELEASE


def try_offered(
    places: Places,
    *,
    say: Callable[[str], None],
    restart: Callable[[], None] = update.try_other_slot,
) -> None:
    """Steps 1 to 5 for what the link service has left, if it has left anything.

    Args:
        places: of the node.
        say: takes what was done, for the journal, before the restart.
        restart: into the other slot.

    Raises:
        UpdateError: it was refused, or could not be installed; what runs is as it was.
        CardError: what became of it cannot be written down.
    """
    with _alone(places.own):
        folder = handover.opened(places.state)
        if folder is None:
            say(_NOTHING)
            return
        try:
            sha256 = _take(places, folder)
        finally:
            os.close(folder)
        if sha256 is None:
            say(_NOTHING)
            return
        try:
            on_trial = _install(places, sha256, say)
        finally:
            (places.own / COPY).unlink(missing_ok=True)
        if on_trial:
            restart()


def interrupted(places: Places) -> str:
    """After picket-update.service has ended: an installation that did not come to its end.

    Returns:
        What was found, for the journal.

    Raises:
        CardError: it cannot be written down.
    """
    if not places.own.is_dir():
        return _NONE_TRIED
    with _alone(places.own):
        return _interrupted(places, outcome.read(places.own))


def settle(places: Places) -> str:
    """Step 6, once what runs is what will start again.

    Returns:
        What was found, for the journal.

    Raises:
        CardError: it cannot be written down.
    """
    if not places.own.is_dir():
        return _NONE_TRIED
    with _alone(places.own):
        tried = outcome.read(places.own)
        if tried.outcome is not Outcome.TRYING:
            return _interrupted(places, tried)
        if tried.version == releases.running(places.release):
            found, why = Outcome.INSTALLED, ""
        else:
            found, why = Outcome.ROLLED_BACK, _told(places.own / WHY)
        _note(places, msgspec.structs.replace(tried, outcome=found, why=why))
        (places.own / WHY).unlink(missing_ok=True)
    return f"{found}{': ' if why else ''}{why}"


def _interrupted(places: Places, tried: Tried) -> str:
    """Its try counts, and it is none of the bundle's faults: the link service fetches it again."""
    (places.own / COPY).unlink(missing_ok=True)
    if tried.outcome is not Outcome.INSTALLING:
        return "there is nothing to settle"
    why = "interrupted while it was installed"
    _note(places, msgspec.structs.replace(tried, outcome=Outcome.NONE, why=why))
    return why


def _take(places: Places, folder: int) -> str | None:
    """Step 1; the SHA-256 of the copy."""
    tried = outcome.read(places.own)
    try:
        if tried.outcome is Outcome.TRYING:
            # The other slot is the one that is known to be good.
            raise UpdateError("another update is on trial")  # noqa: TRY301 - refused like the rest
        return handover.take(folder, places.own / COPY)
    except UpdateError as e:
        if tried.outcome is not Outcome.TRYING:
            refused = {"sha256": None, "version": None, "why": outcome.reason(e)}
            _note(places, msgspec.structs.replace(tried, outcome=Outcome.REFUSED, **refused))
        raise
    finally:
        handover.remove(folder)


def _install(places: Places, sha256: str, say: Callable[[str], None]) -> bool:
    """Steps 2 to 4; whether there is anything to try."""
    copy = places.own / COPY
    tried = msgspec.structs.replace(outcome.read(places.own), sha256=sha256, version=None, why="")
    try:
        signed = update.read(copy, release=places.release)
        tried = msgspec.structs.replace(tried, version=signed.version)
        if signed.version == releases.running(places.release):
            _note(places, msgspec.structs.replace(tried, outcome=Outcome.INSTALLED))
            say(f"{signed.named} runs already")
            return False
        if tried.times(sha256) >= TRIES:
            raise UpdateError(f"{signed.named} was tried {TRIES} times")  # noqa: TRY301 - the same
        tried = msgspec.structs.replace(tried.again(sha256), outcome=Outcome.INSTALLING)
        _note(places, tried)
        update.install(copy)
    except UpdateError as e:
        why = outcome.reason(str(e).replace(f"{copy}: ", ""))
        _note(places, msgspec.structs.replace(tried, outcome=Outcome.REFUSED, why=why))
        raise
    copy.unlink()
    _note(places, msgspec.structs.replace(tried, outcome=Outcome.TRYING))
    say(f"{signed.named} is installed; it is kept if its services come up")
    return True


def _note(places: Places, tried: Tried) -> None:
    log.info("%s: %s", tried.outcome, tried.why or tried.sha256 or "")
    outcome.write(places.own, tried)


def _told(path: Path) -> str:
    """What picket-confirm.service has left before it gave the slot up."""
    try:
        with path.open("rb") as file:
            said = file.read(_WHY_MAX_BYTES).decode("utf-8", "replace").strip()
    except OSError:
        said = ""
    return outcome.reason(said or _UNKNOWN)


@contextlib.contextmanager
def _alone(own: Path) -> Iterator[None]:
    """One at a time in root's folder, which is made."""
    try:
        own.mkdir(exist_ok=True)
        own.chmod(0o755)
        number = os.open(own / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise CardError(f"{own}: cannot be written: {e.strerror}") from e
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
