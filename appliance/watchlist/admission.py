"""The checks that an offer must pass before anything of it is fetched or opened, in their order.

See trusted.py for the whole order. In goes an offer and what the node knows; out comes what was
admitted, with the content key, or the one error that names the first thing that was wrong. Keeps
no state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.errors import (
    DigestError,
    ExpiredError,
    GrantError,
    ListFormatError,
    MixedListError,
    NotYetValidError,
    OversizedListError,
    RollbackError,
    StaleStampError,
    TemplateError,
    ThresholdError,
    WrongDeploymentError,
    WrongFleetError,
    WrongModelError,
    WrongNodeError,
)
from appliance.types import FalseMatch
from appliance.watchlist.bundle import (
    WHOLE,
    Header,
    check_signatures,
    key_commitment,
    parse_head,
    parse_header,
)
from appliance.watchlist.calibration import threshold_for
from appliance.watchlist.grant import GrantKey, Terms
from appliance.watchlist.match import Scale
from appliance.watchlist.memory import Allocate, SecretMemory
from appliance.watchlist.pieces import DIGEST_BYTES, Layout
from appliance.watchlist.stamp import Action, Stamp, open_stamp
from appliance.wire import DIGESTS_MAX_BYTES, Offer


@dataclass(frozen=True, slots=True)
class Model:
    """This node's embedder for one column.

    Attributes:
        id: templates of another model are noise to it.
        dim: numbers in its templates.
        table: how often two strangers reach a similarity.
    """

    id: str
    dim: int
    table: FalseMatch


@dataclass(frozen=True, slots=True)
class Accepted:
    """The newest version of a list that was ever accepted.

    Attributes:
        version: never goes down.
        header_sha256: of its header, where this boot has seen it.
    """

    version: int
    header_sha256: bytes | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """A list that may be fetched and opened.

    Attributes:
        header: signed, for this fleet, valid now.
        header_sha256: tells two lists apart, whoever else signs them.
        stamp: for this node and poll.
        utc_ms: the time: the stamp's, or what earlier stamps make it by now if that is later.
        scales: by the name of each column that this node can search.
        content_key: whoever gets this wipes it.
    """

    header: Header
    header_sha256: bytes
    stamp: Stamp
    utc_ms: int
    scales: Mapping[str, Scale]
    content_key: SecretMemory


class Admission:
    """What this node lets in.

    Args:
        node: id of this node.
        boot: 16 bytes, made at this start.
        fleet: whose lists are taken.
        authorities: Ed25519 public keys that may sign lists.
        signatures: how many different ones of them must have signed.
        online_key: Ed25519 public key that signs stamps.
        models: this node's embedder for each column that it can search, "whole" among them.
        memory_max_bytes: that open templates may take.
    """

    def __init__(
        self,
        *,
        node: str,
        boot: bytes,
        fleet: str,
        authorities: Collection[bytes],
        signatures: int,
        online_key: bytes,
        models: Mapping[str, Model],
        memory_max_bytes: int,
    ) -> None:
        self._node, self._boot, self._fleet = node, boot, fleet
        self._authorities, self._signatures = frozenset(authorities), signatures
        self._online_key = Ed25519PublicKey.from_public_bytes(online_key)
        self._models, self._memory_max_bytes = models, memory_max_bytes

    def order(self, offer: Offer, *, nonce: bytes | None) -> Stamp:
        """A stamp that comes without a list: it may only close.

        Raises:
            WatchlistError: the first check that failed, by its subclass.
        """
        stamp = self._stamp(offer, nonce)
        if stamp.action is Action.GRANT:
            raise MixedListError("a stamp that grants came without its list")
        return stamp

    def list(
        self,
        offer: Offer,
        *,
        nonce: bytes | None,
        accepted: Mapping[str, Accepted],
        utc_ms: int,
        grant_key: GrantKey,
        allocate: Allocate,
    ) -> Admitted:
        """A list with its stamp and grant.

        Args:
            offer: as it came.
            nonce: of the last poll, None if it is too old to be answered.
            accepted: the newest version of each list.
            utc_ms: what earlier stamps make the time by now; 0 before the first.
            grant_key: of this boot.
            allocate: makes secret memory, for the content key.

        Raises:
            WatchlistError: the first check that failed, by its subclass.
        """
        header, header_sha256 = self._header(offer)
        stamp = self._stamp(offer, nonce)
        _same_list(stamp, header, offer.head)
        _no_older(header, header_sha256, accepted.get(header.list_id))
        utc_ms = max(utc_ms, stamp.now_utc_ms)
        _valid(header, stamp, utc_ms)
        opened = self._models_of(header)
        content_key = self._content_key(offer, stamp, header, grant_key, allocate)
        try:
            _signed_digests(header, offer.digests)
            scales = _scales(header, opened)
        except BaseException:
            content_key.wipe()
            raise
        return Admitted(header, header_sha256, stamp, utc_ms, scales, content_key)

    def _header(self, offer: Offer) -> tuple[Header, bytes]:
        if len(offer.digests) > DIGESTS_MAX_BYTES:
            raise OversizedListError(
                f"{len(offer.digests)} bytes of digests: at most {DIGESTS_MAX_BYTES}"
            )
        head = parse_head(offer.head)
        check_signatures(head, self._authorities, self._signatures)
        header = parse_header(head.header)
        pieces = Layout(header).pieces
        if header.pieces != pieces:
            raise ListFormatError(f"{header.pieces} pieces: its counts make {pieces}")
        nbytes = sum(4 * column.templates * column.dim for column in header.columns)
        if nbytes > self._memory_max_bytes:
            raise OversizedListError(
                f"{nbytes} bytes of open templates: at most {self._memory_max_bytes} fit here"
            )
        if header.fleet != self._fleet:
            raise WrongFleetError(f"for fleet '{header.fleet}': this node is of '{self._fleet}'")
        return header, hashlib.sha256(head.header).digest()

    def _stamp(self, offer: Offer, nonce: bytes | None) -> Stamp:
        stamp = open_stamp(offer.stamp, self._online_key)
        if stamp.node != self._node:
            raise WrongNodeError(f"stamped for node '{stamp.node}': this is '{self._node}'")
        if nonce is None or stamp.nonce != nonce:
            raise StaleStampError("the stamp does not answer the last poll")
        return stamp

    def _models_of(self, header: Header) -> dict[str, Model]:
        """The columns that this node can search: the others are not fetched."""
        opened = {}
        for column in header.columns:
            model = self._models.get(column.name)
            if model is None:
                continue
            if column.model != model.id and column.name != WHOLE:
                continue  # bare faces can still be searched; hidden ones are counted as not
            if column.model != model.id:
                raise WrongModelError(
                    f"column '{column.name}' made by {column.model}: this node has {model.id}"
                )
            if column.dim != model.dim:
                raise TemplateError(
                    f"column '{column.name}' of {column.dim} numbers: {model.id} makes {model.dim}"
                )
            opened[column.name] = model
        return opened

    def _content_key(
        self, offer: Offer, stamp: Stamp, header: Header, grant_key: GrantKey, allocate: Allocate
    ) -> SecretMemory:
        terms = Terms(
            self._node,
            self._boot,
            stamp.nonce,
            stamp.head_sha256,
            stamp.deployment,
            stamp.lease_s,
        )
        content_key = grant_key.open_grant(offer.grant, terms, allocate)
        if key_commitment(content_key.view) != header.key_sha256:
            content_key.wipe()
            raise GrantError("the grant holds another list's key")
        return content_key


def _same_list(stamp: Stamp, header: Header, head: bytes) -> None:
    if stamp.action is not Action.GRANT:
        raise MixedListError("a stamp that closes a list came with one")
    named = (stamp.list_id, stamp.version, stamp.head_sha256)
    if named != (header.list_id, header.version, hashlib.sha256(head).digest()):
        raise MixedListError(
            f"stamped for {stamp.list_id} version {stamp.version}:"
            f" what came is another head, {header.list_id} version {header.version}"
        )
    if stamp.deployment != header.deployment:
        raise WrongDeploymentError(
            f"for deployment '{header.deployment}': the stamp is for '{stamp.deployment}'"
        )


def _no_older(header: Header, header_sha256: bytes, accepted: Accepted | None) -> None:
    if accepted is None:
        return
    if header.version < accepted.version:
        raise RollbackError(
            f"{header.list_id} version {header.version}: {accepted.version} was accepted before"
        )
    known = accepted.header_sha256
    if header.version == accepted.version and known not in (None, header_sha256):
        raise RollbackError(
            f"{header.list_id} version {header.version}: another list of this version was accepted"
        )


def _valid(header: Header, stamp: Stamp, utc_ms: int) -> None:
    """Not before is judged by the stamp alone, the end by the latest time that was ever told."""
    if stamp.now_utc_ms < header.not_before_utc_ms:
        raise NotYetValidError(
            f"valid from {header.not_before_utc_ms}: it is {stamp.now_utc_ms} (UTC, ms)"
        )
    ends = [header.expires_utc_ms, *([stamp.until_utc_ms] if stamp.until_utc_ms else [])]
    if utc_ms >= min(ends):
        raise ExpiredError(f"valid until {min(ends)}: it is {utc_ms} (UTC, ms)")


def _signed_digests(header: Header, digests: bytes) -> None:
    if len(digests) != DIGEST_BYTES * header.pieces:
        raise DigestError(
            f"{len(digests)} bytes of digests: {header.pieces} pieces have"
            f" {DIGEST_BYTES * header.pieces}"
        )
    if hashlib.sha256(digests).digest() != header.digests_sha256:
        raise DigestError("the digests are not those that were signed")


def _scales(header: Header, models: Mapping[str, Model]) -> dict[str, Scale]:
    """A threshold per column, each for the whole of the tolerable rate.

    What a passer-by's track is compared in shares that rate: see services/watch.py. A column of
    hidden faces that cannot be served at the rate is left out, and counted as not searchable.
    """
    scales = {}
    for column in header.columns:
        model = models.get(column.name)
        if model is None:
            continue
        try:
            threshold = threshold_for(
                model.table,
                templates=column.templates,
                fpir=header.target_fpir,
                floor=header.threshold_floor,
            )
        except ThresholdError:
            if column.name == WHOLE:
                raise
            continue
        scales[column.name] = Scale(model.id, model.table, column.templates, threshold)
    return scales
