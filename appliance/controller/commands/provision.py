"""`picketctl provision`: a card for every node of a list, or one card in a reader."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appliance.controller import cards, image, rows
from appliance.controller.arguments import Commands, hours, reference, whole
from appliance.controller.fleet import Fleet
from appliance.controller.labels import Label, pdf
from appliance.controller.output import Output, complain, plain
from appliance.controller.store import Store
from appliance.controller.workplace import now_ms, workplace
from appliance.errors import CardError, ControllerError, ImageError, ProvisionError
from appliance.link.file import replace

_LABELS = "labels.pdf"
_BUILT = "dist/picket-*-arm64*.img.zst"
"""As `make image` leaves it."""


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(
        "provision", provision, "make a card for every node of a list, or write one card",
        "fleet.csv --image picket-arm64.img.zst --out cards/ --apply",
        more="Without --apply nothing is written. With --device one card in a reader is"
        f" overwritten, after a question. Columns of the list: {', '.join(rows.COLUMNS)}.",
    )  # fmt: skip
    sub.add_argument("rows", nargs="?", type=Path, metavar="fleet.csv", help="one node a row")
    sub.add_argument(
        "--image",
        type=Path,
        metavar="IMG",
        help=f".img or .img.zst, its .sha256 beside it (with --device: default {_BUILT})",
    )
    sub.add_argument(
        "--out", type=Path, default=Path("cards"), metavar="FOLDER/", help="default cards/"
    )
    sub.add_argument("--apply", action="store_true", help="write; without: say what would be")
    sub.add_argument(
        "--whole-images", action="store_true",
        help="a whole image per node, too: much larger than an archive for the first partition",
    )  # fmt: skip
    sub.add_argument(
        "--hours", type=hours, default=24 * 14.0,
        help="for which a token is good (default 336: two weeks)",
    )  # fmt: skip
    sub.add_argument("--jobs", type=whole(1, 64), default=os.cpu_count() or 2, help="at a time")
    sub.add_argument("--device", type=Path, metavar="/dev/sdX", help="write one card in a reader")
    sub.add_argument("--node", type=reference, metavar="NAME", help="whose card (with --device)")
    sub.add_argument("--yes", action="store_true", help="do not ask before overwriting")


def provision(arguments: argparse.Namespace) -> int:
    """Make cards."""
    if arguments.fleet.is_file():
        raise argparse.ArgumentTypeError(
            f"--fleet is the folder made by `picketctl init`; the list stands by itself:"
            f" picketctl provision {arguments.fleet}"
        )
    if (arguments.device is None) is not (arguments.node is None):
        raise argparse.ArgumentTypeError("--device and --node are given both or neither")
    if arguments.device is not None:
        return _one(arguments)
    if arguments.rows is None:
        raise argparse.ArgumentTypeError("name a list (fleet.csv), or --device and --node")
    return _many(arguments)


def _many(arguments: argparse.Namespace) -> int:
    checked = None if arguments.image is None else _verified(arguments.image)
    if arguments.whole_images and checked is None:
        raise argparse.ArgumentTypeError("--whole-images needs --image")
    with workplace(arguments.fleet) as (fleet, store):
        table = rows.read(arguments.rows, cards.common(fleet))
        planned = cards.plan(table, store, arguments.out, now_ms())
        written = _write(arguments, checked, planned, store) if arguments.apply else 0
        if arguments.apply:
            _labels(arguments.out / _LABELS, fleet, table)
    _say(arguments, planned, checked, written)
    return 0


def _write(
    arguments: argparse.Namespace,
    checked: image.Image | None,
    planned: list[cards.Card],
    store: Store,
) -> int:
    number = sum(one.standing in cards.WRITTEN for one in planned)
    with _base(arguments, checked) as base, _bar("cards", number) as progress:
        return cards.write_all(
            planned,
            store,
            cards.Writer(arguments.out, base),
            hours=arguments.hours,
            now_ms=now_ms(),
            jobs=arguments.jobs,
            done=lambda: progress.advance(progress.task_ids[0]),
        )


@contextmanager
def _base(arguments: argparse.Namespace, checked: image.Image | None) -> Iterator[Path | None]:
    """The raw image that each card's is a copy of."""
    if not arguments.whole_images or checked is None:
        yield None
        return
    image.require("mcopy")
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CardError(f"{arguments.out}: cannot be made: {e.strerror}") from e
    with tempfile.NamedTemporaryFile(dir=arguments.out, prefix=".base.") as file:
        image.write(Path(file.name), checked)
        yield Path(file.name)


def _labels(path: Path, fleet: Fleet, table: list[rows.Row]) -> None:
    name = fleet.settings.name
    replace(path, pdf([Label(row.node, name, row.place) for row in table]), mode=0o644)


def _say(
    arguments: argparse.Namespace,
    planned: list[cards.Card],
    checked: image.Image | None,
    written: int,
) -> None:
    count = {
        standing.value: sum(one.standing is standing for one in planned)
        for standing in cards.Standing
    }
    document = {
        "applied": arguments.apply,
        "image_sha256": None if checked is None else checked.sha256,
        "nodes": {one.row.node: one.standing.value for one in planned},
        "bytes": written,
    }
    lines = [f"{many} {standing}" for standing, many in count.items() if many]
    text = f"{arguments.rows}: {len(planned)} nodes: {', '.join(lines)}"
    if not arguments.apply:
        text += "\nnothing was written; --apply does it"
    elif written:
        text += f"\nwrote {written} bytes and {_LABELS} to {arguments.out}"
        text += "\nunpack NODE.zip onto the first partition of a card that has the image"
    Output(json=arguments.json).show(plain(document), text)


def _one(arguments: argparse.Namespace) -> int:
    """Write one card: everything that can be refused is, before it is asked about."""
    device = image.look(arguments.device, 0)
    image.require("mcopy")
    checked = _verified(arguments.image or _built())
    device = image.look(arguments.device, checked.size)
    with workplace(arguments.fleet) as (fleet, store):
        row = _row(arguments, cards.common(fleet))
        if not arguments.yes and not _agreed(device, checked):
            raise ControllerError(f"{device.path}: was left as it is")
        with _bar("card", 2 * checked.size) as progress:
            task = progress.task_ids[0]
            image.write(device.path, checked, lambda more: progress.advance(task, more))
        token = cards.invite(store, row.node, hours=arguments.hours, now_ms=now_ms())
        image.personalise(device.path, cards.provision_of(row, token))
    Output(json=arguments.json).show(
        {"node": row.node, "device": str(device.path), "image_sha256": checked.sha256},
        f"{device.path}: is {row.node}'s card: written, read back, the same",
    )
    return 0


def _row(arguments: argparse.Namespace, common: rows.Tables) -> rows.Row:
    """The node's row of the list; without a list, a node with every default."""
    if arguments.rows is None:
        (row,), _ = rows.parse(f"node\n{arguments.node}\n", common)
        return row
    found = [row for row in rows.read(arguments.rows, common) if row.node == arguments.node]
    if not found:
        raise ProvisionError(f"{arguments.rows}: no row for {arguments.node}")
    return found[0]


def _built() -> Path:
    """The image that was made here, if there is just one."""
    found = sorted(Path().glob(_BUILT))
    if len(found) != 1:
        raise argparse.ArgumentTypeError(f"--device needs --image: {len(found)} are {_BUILT}")
    return found[0]


def _agreed(device: image.Device, checked: image.Image) -> bool:
    """Whether a person types the device's name again."""
    what = f" ({device.what})" if device.what else ""
    sys.stderr.write(
        f"everything on {device.path}{what}, {device.size / 1e9:.1f} GB, will be overwritten"
        f" with {checked.path.name}\n"
        f"type {device.path} to go on: "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip() == str(device.path)


def _verified(path: Path) -> image.Image:
    try:
        size = path.stat().st_size
    except OSError as e:
        raise ImageError(f"{path}: cannot be read: {e.strerror}") from e
    if path.suffix not in {".img", ".zst"}:
        complain(f"{path} is called neither .img nor .img.zst: taken for a raw image")
    with _bar("image", size) as progress:
        return image.verify(path, lambda more: progress.advance(progress.task_ids[0], more))


@contextmanager
def _bar(what: str, total: int) -> Iterator[Progress]:
    """A progress bar on a terminal, nothing elsewhere."""
    progress = Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )
    progress.add_task(what, total=total)
    with progress:
        yield progress
