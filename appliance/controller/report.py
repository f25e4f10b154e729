"""What became of each photograph: for the screen, and as a file beside the list.

It names photographs and subjects, so it stays with the authority; only the counts of categories
and sources go further, into the record.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from appliance.controller.output import plain, table
from appliance.errors import PhotoError
from appliance.types import Quality

REPORT_SUFFIX = ".report.json"
_COLUMNS = (
    "subject",
    "photo",
    "accepted",
    "reason",
    "eye_distance_px",
    "sharpness",
    "light",
    "turn",
)
_META_COLUMNS = {"subject", "category", "source"}
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """One photograph.

    Attributes:
        reason: why it was refused, "" if it was not.
        quality: of its face, None if none was judged.
    """

    subject: str
    photo: str
    reason: str = ""
    quality: Quality | None = None

    @property
    def accepted(self) -> bool:
        """Whether it became a template."""
        return not self.reason


class Report:
    """What became of all of them.

    Args:
        outcomes: in the order of the photographs.
        meta: columns of meta.csv by subject; see `read_meta`.
    """

    def __init__(self, outcomes: Sequence[Outcome], meta: Mapping[str, Mapping[str, str]]) -> None:
        self.outcomes = tuple(outcomes)
        self._meta = meta

    @property
    def accepted(self) -> int:
        """Photographs that became templates."""
        return sum(one.accepted for one in self.outcomes)

    @property
    def lost(self) -> tuple[str, ...]:
        """Subjects none of whose photographs was accepted."""
        kept = {one.subject for one in self.outcomes if one.accepted}
        return tuple(dict.fromkeys(o.subject for o in self.outcomes if o.subject not in kept))

    @property
    def counts(self) -> dict[str, int]:
        """Subjects on the list by category, and by source of their pictures."""
        counted: Counter[str] = Counter()
        for subject in {one.subject for one in self.outcomes if one.accepted}:
            for column in ("category", "source"):
                value = self._meta.get(subject, {}).get(column, "") or "not stated"
                counted[f"{column}: {value}"] += 1
        return dict(sorted(counted.items()))

    def document(self) -> dict[str, object]:
        """All of it, for JSON."""
        return {
            "photos": len(self.outcomes),
            "accepted": self.accepted,
            "subjects_lost": list(self.lost),
            "counts": self.counts,
            "outcomes": [plain(self._row(one)) for one in self.outcomes],
        }

    def as_table(self) -> str:
        """The refused ones, or all if they are few."""
        shown = self.outcomes
        if len(shown) > _SHOWN:
            shown = tuple(one for one in shown if not one.accepted)
        return table(
            ("subject", "photo", "", "eyes px", "reason"),
            (
                (
                    one.subject,
                    Path(one.photo).name,
                    "accepted" if one.accepted else "refused",
                    "-" if one.quality is None else f"{one.quality.eye_distance_px:.0f}",
                    one.reason,
                )
                for one in shown
            ),
        )

    def as_csv(self) -> str:
        """All of it, a line each."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for one in self.outcomes:
            writer.writerow(self._row(one))
        return text.getvalue()

    def as_json(self) -> str:
        """All of it."""
        return msgspec.json.format(msgspec.json.encode(self.document()).decode(), indent=2) + "\n"

    @staticmethod
    def _row(one: Outcome) -> dict[str, object]:
        quality = one.quality
        row: dict[str, object] = dict.fromkeys(_COLUMNS, "")
        row |= {
            "subject": one.subject,
            "photo": one.photo,
            "accepted": one.accepted,
            "reason": one.reason,
        }
        if quality is not None:
            for name in _COLUMNS[4:]:
                row[name] = round(float(getattr(quality, name)), 3)
        return row


def read_counts(path: Path) -> dict[str, int]:
    """The counts of a report beside a list; none if there is no report.

    Raises:
        PhotoError: it is no report.
    """
    if not path.exists():
        return {}
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        return msgspec.json.decode(document["counts"], type=dict[str, int])
    except (OSError, KeyError, msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise PhotoError(f"{path}: not a report of `picketctl list build`: {e}") from e


def read_meta(path: Path) -> dict[str, dict[str, str]]:
    """meta.csv: what an authority knows of subjects, for the record's counts.

    Args:
        path: a CSV file with the column `subject`, and `category` and `source` if known.

    Raises:
        PhotoError: unreadable, another column, or a subject twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = set(reader.fieldnames or ())
            if "subject" not in columns or not columns <= _META_COLUMNS:
                raise PhotoError(
                    f"{path}: columns {', '.join(sorted(columns))}: subject, and category and"
                    " source, are what it may have"
                )
            meta: dict[str, dict[str, str]] = {}
            for row in reader:
                subject = row.pop("subject")
                if subject in meta or None in row or None in row.values():
                    raise PhotoError(f"{path}: line {reader.line_num}: '{subject}' is there twice,"
                                     " or has too many or too few columns")  # fmt: skip
                meta[subject] = row
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise PhotoError(f"{path}: cannot be read: {e}") from e
    return meta
