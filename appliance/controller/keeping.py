"""A list in files becomes a list in the store, if it may be used in this fleet at all."""

from __future__ import annotations

from pathlib import Path

from appliance.controller.fleet import Fleet
from appliance.controller.report import REPORT_SUFFIX, read_counts
from appliance.controller.store import ListRow, Store
from appliance.controller.workplace import now_ms
from appliance.errors import WrongFleetError
from appliance.watchlist.bundle import Header, check_signatures, parse_head
from appliance.watchlist.files import KEY_SUFFIX, BundleFile, read_key


def keep_list(fleet: Fleet, store: Store, path: Path, key: Path | None) -> Header:
    """Check a list from a file and keep it in the store.

    Raises:
        WatchlistError: not a list, damaged, not signed by enough authorities, of another fleet,
            or the key is not its own.
        StoreError: another list is kept under this version.
    """
    counts = read_counts(path.with_suffix(REPORT_SUFFIX))
    with BundleFile(path) as bundle:
        header = bundle.header
        authorities = fleet.authorities.values()
        check_signatures(parse_head(bundle.head), authorities, fleet.settings.signatures)
        if header.fleet != fleet.settings.name:
            raise WrongFleetError(
                f"{path}: for fleet '{header.fleet}', this is '{fleet.settings.name}'"
            )
        content_key = read_key(key or path.with_suffix(KEY_SUFFIX), header)
        bundle.verify()
        row = ListRow(
            list_id=header.list_id,
            version=header.version,
            deployment=header.deployment,
            head=bundle.head,
            digests=bundle.digests,
            content_key=content_key,
            counts=counts,
            added_ms=now_ms(),
        )
        store.lists.add(row, (bundle.piece(index) for index in range(header.pieces)))
    return header
