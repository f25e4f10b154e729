"""fleet.csv: one node a row, and every mistake in it at once.

Enters: the text, and what all nodes of the fleet are told. Leaves: a Row each, already checked as
the node will check it; or one error that names row and column of everything that is wrong.
Nothing in here writes.
"""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.errors import ProvisionError
from appliance.system import card, netfiles
from appliance.wire import printable

Tables = dict[str, Any]
MAX_ROWS = 10_000
MAX_BYTES = 8 * 1024 * 1024
_PLACE_CHARS = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One node.

    Attributes:
        line: of the file, from 1.
        node: its id.
        place: where it is to hang, for the label only.
        document: picket-provision.toml as tables; its token is still zeros.
    """

    line: int
    node: str
    place: str
    document: Tables


def _text(cell: str) -> object:
    return cell


def _words(cell: str) -> object:
    return cell.replace(";", " ").split()


def _address(cell: str) -> object:
    return "" if cell.lower() == "dhcp" else cell


def _pin(cell: str) -> object:
    """17, or !17 for a LED that is lit while the pin is low. What is no number, card.py refuses."""
    bcm = cell.removeprefix("!")
    number: int | str = int(bcm) if bcm.isascii() and bcm.isdigit() else bcm
    return {"bcm": number} | ({"active_low": True} if cell.startswith("!") else {})


def _camera(cell: str) -> object:
    """A device such as /dev/video0 is one that is read as a recording is."""
    return {"source": "recorded", "path": cell} if cell.startswith("/") else {"source": cell}


_COLUMNS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "node": ("node.id", _text),
    "controllers": ("link.controllers", _words),
    "join": ("link.join", _text),
    "address": ("network.address", _address),
    "gateway": ("network.gateway", _text),
    "dns": ("network.dns", _words),
    "wifi_ssid": ("network.wifi_ssid", _text),
    "wifi_psk": ("network.wifi_psk", _text),
    "time_servers": ("time.servers", _words),
    "ssh_key": ("ssh.key", _text),
    "ssh_from": ("ssh.from", _words),
    "lamps": ("lamps.driver", _text),
    "led_camera": ("lamps.camera", _pin),
    "led_status": ("lamps.status", _pin),
    "led_alert": ("lamps.alert", _pin),
    "camera": ("camera", _camera),
}
"""Column: the key that it sets, and how."""
COLUMNS = (*_COLUMNS, "place")


def read(path: Path, common: Tables) -> list[Row]:
    """Read fleet.csv.

    Args:
        path: UTF-8, commas, the first line names the columns; an empty cell leaves the default.
        common: picket-provision.toml of no node in particular, as tables.

    Returns:
        The rows, in their order.

    Raises:
        ProvisionError: it cannot be read, or something in it is wrong: a line for each, with its
            row and column.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as e:
        raise ProvisionError(f"{path}: cannot be read: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise ProvisionError(f"{path}: not UTF-8: {e.reason} at byte {e.start}") from e
    if len(content) > MAX_BYTES:
        raise ProvisionError(f"{path}: {len(content)} bytes: at most {MAX_BYTES} are read")
    rows, wrong = parse(text, common)
    if wrong:
        shown = "; ".join(wrong[:20])
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""  # noqa: PLR2004
        raise ProvisionError(f"{path}: {shown}{more}")
    return rows


def parse(text: str, common: Tables) -> tuple[list[Row], list[str]]:
    """Rows, and what is wrong with others; see `read`."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        head = [cell.strip() for cell in next(reader, [])]
        wrong = _head(head)
        lines = [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except csv.Error as e:
        return [], [f"row {reader.line_num}: not CSV: {e}"]
    if not wrong and not lines:
        wrong = ["no row below the names of the columns"]
    if len(lines) > MAX_ROWS:
        wrong = [f"{len(lines)} rows: at most {MAX_ROWS} are read"]
    rows: list[Row] = []
    if wrong:
        return rows, wrong
    names: dict[str, int] = {}
    for line, cells in lines:
        if len(cells) > len(head):
            wrong.append(f"row {line}: {len(cells)} cells: there are {len(head)} columns")
            continue
        row, mistakes = _row(line, dict(zip(head, map(str.strip, cells), strict=False)), common)
        first = names.setdefault(row.node, line)
        if first != line and row.node:
            mistakes.append(f"row {line}, node: {row.node} is row {first} already")
        wrong += mistakes
        rows.append(row)
    return rows, wrong


def _head(head: list[str]) -> list[str]:
    known = ", ".join(COLUMNS)
    wrong = [
        f"row 1: no column '{printable(n)}'; there are {known}" for n in head if n not in COLUMNS
    ]
    wrong += [f"row 1: column {n} twice" for n in sorted(set(head)) if head.count(n) > 1]
    return wrong if "node" in head else [*wrong, "row 1: column node is missing"]


def _row(line: int, cells: Mapping[str, str], common: Tables) -> tuple[Row, list[str]]:
    """A row, and its mistakes: each is taken out in turn, to find the next."""
    given = {name: cell for name, cell in cells.items() if cell and name in _COLUMNS}
    place, wrong = cells.get("place", ""), []
    if len(place) > _PLACE_CHARS or not place.isprintable():
        wrong.append(f"row {line}, place: at most {_PLACE_CHARS} printable characters")
    if not given.get("node"):
        wrong.append(f"row {line}, node: empty")
        given["node"] = "unnamed"
    node = cells.get("node", "")
    while True:
        document = _document(given, common)
        try:
            netfiles.files(card.convert(document))
        except ProvisionError as e:
            key, what = _where(str(e))
            guilty = _guilty(key, given)
            at = f", {guilty[0]}" if guilty else ""
            wrong.append(f"row {line}{at}: {printable(what)}")
            if not guilty or guilty == ["node"]:
                break
            for name in guilty:
                del given[name]
        else:
            break
    return Row(line, node, place, document), wrong


def _document(given: Mapping[str, str], common: Tables) -> Tables:
    document = copy.deepcopy(common)
    for name, cell in given.items():
        key, read = _COLUMNS[name]
        table, _, leaf = key.partition(".")
        there, found = document.setdefault(table, {}), read(cell)
        if isinstance(found, dict):
            (there.setdefault(leaf, {}) if leaf else there).update(found)
        else:
            there[leaf] = found
    return document


def _where(message: str) -> tuple[str, str]:
    """The key that card.py names, "" for none, and what is wrong with it."""
    rest = message.removeprefix(f"{card.FILE}: ")
    key, found, what = rest.partition(": ")
    return (key, what) if found and " " not in key else ("", rest)


def _guilty(key: str, given: Mapping[str, str]) -> list[str]:
    """The columns that a key stands in, the likeliest first: one of it, or all of its table."""
    exact = [n for n in given if key and (key + ".").startswith(_COLUMNS[n][0] + ".")]
    exact = exact or [n for n in given if key.startswith(_COLUMNS[n][0] + "[")]
    return exact or [n for n in given if key and _COLUMNS[n][0].startswith(f"{key}.")]
