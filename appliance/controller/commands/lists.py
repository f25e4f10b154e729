"""`picketctl list build`, `list sign`, `list show`: what a list authority does, also offline."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from appliance.controller.arguments import (
    FLOOR,
    Commands,
    cosine,
    hours,
    rate,
    reference,
    sentence,
    whole,
)
from appliance.controller.fleet import Fleet
from appliance.controller.output import Output, plain, when
from appliance.controller.report import Report, read_meta
from appliance.controller.workplace import now_ms
from appliance.errors import PhotoError
from appliance.link.file import replace
from appliance.watchlist.build import Facts
from appliance.watchlist.bundle import parse_head, signers
from appliance.watchlist.files import BundleFile


def add(commands: Commands) -> None:
    """Declare the commands."""
    group = commands.group("list", "make, sign and look at watchlists")
    sub = group.add(
        "build", build, "turn photographs into a list that nobody has signed yet",
        "PHOTOS/ --meta meta.csv --out list.bundle --false-alerts 1/6000",
        more="One folder per subject, named after its reference. Writes LIST.bundle, LIST.key"
        " (secret) and LIST.report.json. Photographs that cannot be used are reported and left"
        " out; a subject with none left fails the whole, unless --leave-out.",
    )  # fmt: skip
    sub.add_argument("photos", nargs="+", type=Path, metavar="PHOTOS/")
    sub.add_argument("--out", type=Path, required=True, metavar="LIST.bundle")
    sub.add_argument("--meta", type=Path, metavar="FILE", help="CSV: subject,category,source")
    sub.add_argument("--report", type=Path, metavar="FILE", help="the report as .csv or .json, too")
    sub.add_argument(
        "--accept-partial",
        action="store_true",
        help="take photographs of part-hidden faces, for finding those people hidden alike",
    )
    sub.add_argument("--leave-out", action="store_true", help="do without subjects that were lost")
    sub.add_argument("--list-id", type=reference, help="default: the name of LIST")
    sub.add_argument(
        "--version", type=whole(1, 2**63 - 1), help="default: seconds since 1970: later is newer"
    )
    sub.add_argument("--deployment", type=reference, help="what it is for (default: the list's id)")
    sub.add_argument("--legal-basis", type=sentence, default="not stated", help="in the header")
    sub.add_argument("--officer", type=sentence, default="not stated", help="who authorised it")
    sub.add_argument("--hours", type=hours, default=12.0, help="until it expires (default 12)")
    sub.add_argument(
        "--false-alerts", type=rate, default=rate("1/6000"), metavar="1/N",
        help="tolerable, per passer-by (default 1/6000)",
    )  # fmt: skip
    sub.add_argument(
        "--floor", type=cosine, default=FLOOR, metavar="COSINE",
        help=f"no similarity below this is a match (default {FLOOR})",
    )  # fmt: skip
    sub.add_argument("--models", type=Path, metavar="FOLDER/", help="default: those installed")
    sub.add_argument("--threads", type=whole(1, 64), default=2, help="per model (default 2)")
    sub = group.add(
        "sign", sign, "add an authority's signature, after checking every piece",
        "list.bundle --key authorities/authority.key",
    )  # fmt: skip
    sub.add_argument("list", type=Path, metavar="LIST.bundle")
    sub.add_argument("--key", type=Path, required=True, metavar="FILE", help="made by `init`")
    sub.add_argument(
        "--threshold",
        type=whole(1, 8),
        metavar="N",
        help="how many must sign (default: fleet.toml)",
    )
    sub = group.add("show", show, "show what a list says of itself", "list.bundle --json")
    sub.add_argument("list", type=Path, metavar="LIST.bundle")


def build(arguments: argparse.Namespace) -> int:
    """Photographs to an unsigned list."""
    # What it needs is large: other commands start without it.
    from appliance.controller.authority import assess, build_list, bundle_path, open_enroller
    from appliance.controller.enrolment import gather

    out = bundle_path(arguments.out)
    fleet = Fleet.load(arguments.fleet).settings.name
    meta = read_meta(arguments.meta) if arguments.meta else {}
    photos = gather(arguments.photos)
    strangers = sorted(set(meta) - {photo.subject for photo in photos})
    if strangers:
        raise PhotoError(f"{arguments.meta}: '{strangers[0]}' has no photograph")
    facts = _facts(arguments, out, fleet)
    with open_enroller(
        arguments.models, threads=arguments.threads, accept_partial=arguments.accept_partial
    ) as (enroller, scaled):
        with _bar("photographs", len(photos), quiet=arguments.json) as done:
            enrolled, outcomes = assess(enroller, photos, progress=done)
        report = Report(outcomes, meta)
        if arguments.report:
            as_csv = arguments.report.suffix == ".csv"
            text = report.as_csv() if as_csv else report.as_json()
            replace(arguments.report, text.encode())
        if report.lost and not arguments.leave_out:
            first = next(o for o in outcomes if o.subject == report.lost[0])
            raise PhotoError(
                f"{first.photo}: {first.reason}; {len(report.lost)} of the subjects would not be on"
                " the list: mend their photographs, or give --leave-out"
            )
        key = build_list(out, facts, enrolled, scaled, report)
    document = report.document() | {"list": str(out), "key": str(key), "facts": plain(facts)}
    output = Output(json=arguments.json)
    if not arguments.json:
        output.show(None, report.as_table())
    output.show(
        document,
        f"{out}: {len({e.photo.subject for e in enrolled})} subjects, {len(enrolled)} templates of"
        f" {len(outcomes)} photographs, version {facts.version}\n"
        f"{key}: its key, for the controller alone\n"
        f"next: picketctl list sign {out} --key AUTHORITY.key",
    )
    return 0


def sign(arguments: argparse.Namespace) -> int:
    """Sign a list."""
    from appliance.controller.authority import sign_list, signing_key

    fleet = Fleet.load(arguments.fleet) if arguments.fleet.exists() else None
    needed = arguments.threshold or (1 if fleet is None else fleet.settings.signatures)
    key = signing_key(arguments.key)
    have = sign_list(arguments.list, key)
    public = key.public_key().public_bytes_raw()
    missing = max(0, needed - have)
    text = f"{arguments.list}: {have} of {needed} signatures"
    if missing:
        text += f"; {missing} more needed before it can be deployed"
    if fleet is not None and public not in fleet.authorities.values():
        text += f"\nthis key is no authority of {arguments.fleet}: its nodes will refuse the list"
    Output(json=arguments.json).show(
        {"list": str(arguments.list), "signatures": have, "needed": needed, "authority": public},
        text,
    )
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show a list's header and who signed it, and check every piece."""
    with BundleFile(arguments.list) as bundle:
        bundle.verify()
        header, head = bundle.header, parse_head(bundle.head)
    names: dict[bytes, str] = {}
    if arguments.fleet.exists():
        names = {key: name for name, key in Fleet.load(arguments.fleet).authorities.items()}
    good = signers(head, [one.authority for one in head.signatures])
    signed = [names.get(key, key.hex()) for key in sorted(good)]
    lines = [
        f"{header.list_id} version {header.version}, for fleet {header.fleet}",
        f"deployment {header.deployment}; {header.legal_basis}; officer {header.officer}",
        f"valid {when(header.not_before_utc_ms)} to {when(header.expires_utc_ms)}",
        f"{header.subjects} subjects; "
        + ", ".join(f"{c.templates} '{c.name}' of {c.model}" for c in header.columns),
        f"false alerts: 1 in {1 / header.target_fpir:,.0f}; floor {header.threshold_floor:g}",
        f"signed by {', '.join(signed) or 'nobody'}; {header.pieces} pieces, all whole",
    ]
    document = {"header": plain(header), "signed_by": signed}
    Output(json=arguments.json).show(document, "\n".join(lines))
    return 0


def _facts(arguments: argparse.Namespace, out: Path, fleet: str) -> Facts:
    at_ms = now_ms()
    list_id = arguments.list_id or reference(out.stem)
    return Facts(
        list_id=list_id,
        version=arguments.version or int(time.time()),
        fleet=fleet,
        created_utc_ms=at_ms,
        not_before_utc_ms=at_ms,
        expires_utc_ms=at_ms + round(arguments.hours * 3_600_000),
        deployment=arguments.deployment or list_id,
        legal_basis=arguments.legal_basis,
        officer=arguments.officer,
        target_fpir=float(arguments.false_alerts),
        threshold_floor=arguments.floor,
    )


@contextmanager
def _bar(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error, if that is a terminal."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
