"""A card per node: what is new, what is as it should be, and the archives that say it.

Enters: rows of fleet.csv, the fleet and its store. Leaves: NODE.zip each, holding the
picket-provision.toml that goes into the first partition of a card with the common image; or, if
asked, a whole image per node. A second run writes only what changed: an archive whose token the
store still knows is left alone.
"""

from __future__ import annotations

import io
import secrets
import shutil
import tomllib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from appliance.controller import identity, image, rows
from appliance.controller.fleet import Fleet
from appliance.controller.joining import token_hash
from appliance.controller.store import NodeRow, Status, Store
from appliance.errors import CardError, ProvisionError
from appliance.link.file import replace
from appliance.system import card

TOKEN_BYTES = 32
_STILL_GOOD_MS = 3_600_000
"""A token that ends sooner than in an hour is not one to stick in a box."""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_ARCHIVE_MAX_BYTES = 1024 * 1024


class Standing(StrEnum):
    """How it stands with a node's card."""

    NEW = "new"
    CHANGED = "changed"
    TOKEN = "needs a new token"  # noqa: S105 - words
    SAME = "unchanged"
    JOINED = "has joined: left alone"


WRITTEN = frozenset({Standing.NEW, Standing.CHANGED, Standing.TOKEN})
"""Cards that a run writes."""


@dataclass(frozen=True, slots=True)
class Card:
    """One node's, planned."""

    row: rows.Row
    standing: Standing


def common(fleet: Fleet) -> rows.Tables:
    """picket-provision.toml of no node in particular; its token is zeros.

    Raises:
        IdentityError: fleet.toml holds what no node takes.
    """
    document = tomllib.loads(fleet.node_toml("unnamed"))
    ca = identity.pem(fleet.authority.certificate).decode("ascii")
    own = {"format": 1, "join": {"token": "0" * card.TOKEN_CHARS, "ca": ca}}
    return own | document | {"lamps": {"driver": "gpio"}}


def plan(table: Iterable[rows.Row], store: Store, out: Path, now_ms: int) -> list[Card]:
    """How it stands with every card.

    Raises:
        ProvisionError: a node was revoked or is in quarantine.
        CardError: an archive cannot be read.
    """
    known = {row.node: row for row in store.nodes.all()}
    planned = [Card(row, _standing(row, known, out, now_ms)) for row in table]
    barred = [c.row.node for c in planned if known.get(c.row.node) and _barred(known[c.row.node])]
    if barred:
        raise ProvisionError(f"revoked or in quarantine: {', '.join(barred)}")
    return planned


def _barred(row: NodeRow) -> bool:
    return row.status in {Status.REVOKED, Status.QUARANTINED}


def _standing(row: rows.Row, known: Mapping[str, NodeRow], out: Path, now_ms: int) -> Standing:
    there = known.get(row.node)
    if there is not None and there.status is not Status.INVITED:
        return Standing.JOINED
    old = _open(out / f"{row.node}.zip")
    if old is None or there is None:
        return Standing.NEW
    token = old["join"]["token"]
    zeroed = old | {"join": old["join"] | {"token": "0" * card.TOKEN_CHARS}}
    if zeroed != row.document:
        return Standing.CHANGED
    expired = there.token_expires_ms < now_ms + _STILL_GOOD_MS
    if expired or there.token_hash != token_hash(bytes.fromhex(token)):
        return Standing.TOKEN
    return Standing.SAME


def provision_of(row: rows.Row, token: bytes) -> bytes:
    """picket-provision.toml of a node, with its token."""
    join = row.document["join"] | {"token": token.hex()}
    return card.write(row.document | {"join": join})


def archive(provision: bytes) -> bytes:
    """What is to be unpacked onto the first partition; the same content is the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr(zipfile.ZipInfo(card.FILE, _LONG_AGO), provision)
    return out.getvalue()


def _open(path: Path) -> rows.Tables | None:
    """An archive's tables; None where there is none, or what is there is not ours."""
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.getinfo(card.FILE).file_size > _ARCHIVE_MAX_BYTES:
                return None
            return card.read(packed.read(card.FILE))[1]
    except (FileNotFoundError, zipfile.BadZipFile, KeyError, ProvisionError):
        return None  # it is written anew
    except OSError as e:
        raise CardError(f"{path}: cannot be read: {e.strerror}") from e


def invite(store: Store, node: str, *, hours: float, now_ms: int) -> bytes:
    """A new token, which the store knows before any card does."""
    token = secrets.token_bytes(TOKEN_BYTES)
    expires_ms = now_ms + round(hours * 3_600_000)
    store.nodes.invite(node, token_hash=token_hash(token), expires_ms=expires_ms, now_ms=now_ms)
    return token


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes cards.

    Attributes:
        out: the folder.
        base: a raw image that each node's whole image is a copy of; None writes archives alone.
    """

    out: Path
    base: Path | None = None

    def write(self, row: rows.Row, token: bytes) -> int:
        """One node's files.

        Returns:
            Bytes written; a copied image counts with what it takes up.
        """
        provision = provision_of(row, token)
        content = archive(provision)
        if self.base is None:
            replace(self.out / f"{row.node}.zip", content)
            return len(content)
        path, new = self.out / f"{row.node}.img", self.out / f".{row.node}.img.new"
        try:
            _copy(self.base, new)
            image.personalise(new, provision)
            new.rename(path)
        except OSError as e:
            raise CardError(f"{path}: cannot be written: {e.strerror}") from e
        finally:
            new.unlink(missing_ok=True)
        # Last: it is what a later run takes for the proof that the card is as it should be.
        replace(self.out / f"{row.node}.zip", content)
        return len(content) + path.stat().st_blocks * 512


def _copy(base: Path, new: Path) -> None:
    """A copy that shares what the file system can share, and has holes where there is nothing."""
    cp = shutil.which("cp") or "cp"
    image.run([cp, "--reflink=auto", "--sparse=always", str(base), str(new)])
    new.chmod(0o600)


def write_all(
    cards: Sequence[Card],
    store: Store,
    writer: Writer,
    *,
    hours: float,
    now_ms: int,
    jobs: int,
    done: Callable[[], None],
) -> int:
    """Write all that need it, several at a time.

    Args:
        cards: planned.
        store: gets the tokens, one after the other.
        writer: writes the files.
        hours: for which a token is good.
        now_ms: the wall clock.
        jobs: at the same time.
        done: told of each.

    Returns:
        Bytes written.

    Raises:
        CardError: the first that could not be written; the rest may have been. Run it again.
    """
    wanted = [one.row for one in cards if one.standing in WRITTEN]
    try:
        writer.out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CardError(f"{writer.out}: cannot be made: {e.strerror}") from e

    def one(row: rows.Row, token: bytes) -> int:
        written = writer.write(row, token)
        done()
        return written

    with ThreadPoolExecutor(jobs, thread_name_prefix="card") as pool:
        futures = [
            pool.submit(one, row, invite(store, row.node, hours=hours, now_ms=now_ms))
            for row in wanted
        ]
        try:
            return sum(future.result() for future in futures)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
