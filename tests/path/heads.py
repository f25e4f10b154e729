"""Heads of lists as the link service sees them: readable, and for nobody here to verify."""

from __future__ import annotations

import hashlib

from appliance.watchlist.bundle import WHOLE, ColumnHeader, Header, unsigned


def a_head(list_id: str, version: int, digests: bytes) -> bytes:
    """A head that names a list, as an Offer carries it; nobody has signed it."""
    return unsigned(
        Header(
            list_id=list_id,
            version=version,
            fleet="town",
            created_utc_ms=1,
            not_before_utc_ms=1,
            expires_utc_ms=2**40,
            deployment="market",
            legal_basis="a test",
            officer="nobody",
            columns=(ColumnHeader(WHOLE, "m@1", 4, 1),),
            subjects=1,
            target_fpir=0.001,
            threshold_floor=0.3,
            index_bytes=10,
            pieces=len(digests) // 32,
            digests_sha256=hashlib.sha256(digests).digest(),
            key_sha256=bytes(32),
        )
    )
