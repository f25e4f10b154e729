"""Which picture plays which part: a CSV protocol, or a folder per subject.

Enters: a folder. Leaves: pictures with their roles, and every oddity that was found in the folder,
in words. No picture is opened here.

A protocol (open_set.csv) has columns role, subject, image; image is a path inside the folder. A
role is gallery (on the list), mated (shows somebody who is on it), nonmated (shows a stranger) or
spare (left out). Without a protocol every sub-folder is a subject. Of the subjects with two
pictures or more, every second one, in an order drawn by the seed, is put on the list by its first
picture and its others are mated; everybody else is a stranger.
"""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from appliance.errors import EvaluationError

PROTOCOL = "open_set.csv"
ERRATA = "errata.csv"
METADATA = "metadata.csv"
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})

MAX_TABLE_BYTES = 64 * 1024 * 1024
"""Of a CSV file: half a million rows and more."""


class Role(StrEnum):
    """The part of a picture in an open-set test."""

    GALLERY = "gallery"
    MATED = "mated"
    NONMATED = "nonmated"
    SPARE = "spare"


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, its part, and who is said to be on it."""

    role: Role
    subject: str
    path: Path


@dataclass(frozen=True, slots=True)
class Protocol:
    """An open-set test.

    Attributes:
        folder: where the pictures lie.
        pictures: in a fixed order.
        how: one line: where the roles come from.
        findings: oddities, one line each, for the report.
    """

    folder: Path
    pictures: tuple[Picture, ...]
    how: str
    findings: tuple[str, ...] = field(default=())


def load(folder: Path, *, seed: int, errata: Path | None = None) -> Protocol:
    """Read a folder of face data.

    Args:
        folder: holds open_set.csv, or a folder per subject.
        seed: of the order of subjects where there is no protocol.
        errata: pictures to leave out, besides those of errata.csv in the folder, if there is one.

    Raises:
        EvaluationError: it cannot be read, or nothing can be measured with it.
    """
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: no such folder")
    table = folder / PROTOCOL
    if table.is_file():
        pictures, findings = _by_table(folder, table)
        how = f"{PROTOCOL}: {_counts(pictures)}"
    else:
        pictures, findings = _by_folders(folder, seed)
        how = f"a folder per subject, roles drawn with seed {seed}: {_counts(pictures)}"
    pictures, left_out = _without_errata(pictures, folder, errata)
    findings += left_out
    _check(folder, pictures)
    return Protocol(folder, tuple(pictures), how, tuple(findings))


def read_table(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header.

    Raises:
        EvaluationError: unreadable, too long, not CSV in UTF-8, or a needed column is missing.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
    except OSError as e:
        raise EvaluationError(f"{path}: cannot be read: {e.strerror}") from e
    if len(content) > MAX_TABLE_BYTES:
        raise EvaluationError(f"{path}: longer than {MAX_TABLE_BYTES} bytes")
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = [name for name in needed if name not in (reader.fieldnames or ())]
        if missing:
            raise EvaluationError(f"{path}: has no column '{missing[0]}'")
        rows = [dict(row) for row in reader]
    except UnicodeDecodeError as e:
        raise EvaluationError(f"{path}: is not UTF-8 text: byte {e.start}") from e
    except csv.Error as e:
        raise EvaluationError(f"{path}: line {reader.line_num}: {e}") from e
    for number, row in enumerate(rows, 2):
        # DictReader files what is too much under None, and gives None for what is too little.
        if None in row or any(cell is None for cell in row.values()):
            raise EvaluationError(f"{path}: row {number}: not as many cells as the header has")
    return rows


def _by_table(folder: Path, table: Path) -> tuple[list[Picture], list[str]]:
    pictures: list[Picture] = []
    findings: list[str] = []
    root = folder.resolve()
    for number, row in enumerate(read_table(table, ("role", "subject", "image")), 2):
        if row["role"] not in set(Role):
            raise EvaluationError(
                f"{table}: row {number}: role is '{row['role']}', must be one of {', '.join(Role)}"
            )
        if not row["subject"]:
            raise EvaluationError(f"{table}: row {number}: no subject")
        path = folder / row["image"]
        if not path.resolve().is_relative_to(root):
            raise EvaluationError(f"{table}: row {number}: '{row['image']}' is outside the folder")
        pictures.append(Picture(Role(row["role"]), row["subject"], path))
    twice = [path for path, n in Counter(p.path for p in pictures).items() if n > 1]
    findings += [f"{path}: named twice or more in {PROTOCOL}" for path in sorted(twice)]
    listed = {p.subject for p in pictures if p.role is Role.GALLERY}
    strangers = {p.subject for p in pictures if p.role is Role.NONMATED}
    both = sorted(listed & strangers)
    if both:
        raise EvaluationError(f"{table}: {both[0]} is in the gallery and a stranger as well")
    lost = sorted({p.subject for p in pictures if p.role is Role.MATED} - listed)
    if lost:
        raise EvaluationError(f"{table}: {lost[0]} has mated pictures and none in the gallery")
    return pictures, findings


def _by_folders(folder: Path, seed: int) -> tuple[list[Picture], list[str]]:
    findings: list[str] = []
    subjects: dict[str, list[Path]] = defaultdict(list)
    for inside in sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != "."):
        found = sorted(p for p in inside.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        if found:
            subjects[inside.name] = found
        else:
            findings.append(f"{inside}: holds no picture")
    several = [name for name, paths in subjects.items() if len(paths) > 1]
    random.Random(seed).shuffle(several)  # noqa: S311 - a draw that can be repeated
    listed = set(several[::2])
    alone = len(subjects) - len(several)
    if alone:
        findings.append(f"{alone} subjects with a single picture: strangers, they cannot be mated")
    pictures: list[Picture] = []
    for name, paths in subjects.items():
        if name in listed:
            pictures.append(Picture(Role.GALLERY, name, paths[0]))
            pictures += [Picture(Role.MATED, name, path) for path in paths[1:]]
        else:
            pictures += [Picture(Role.NONMATED, name, path) for path in paths]
    return pictures, findings


def _without_errata(
    pictures: list[Picture], folder: Path, errata: Path | None
) -> tuple[list[Picture], list[str]]:
    """Leave out pictures whose label is known to be wrong, named by file, by stem or by path."""
    tables = [folder / ERRATA] if (folder / ERRATA).is_file() else []
    tables += [errata] if errata else []
    wrong = {row["image"] for table in tables for row in read_table(table, ("image",))}
    kept = [
        p
        for p in pictures
        if not wrong & {p.path.name, p.path.stem, p.path.relative_to(folder).as_posix()}
    ]
    if not len(pictures) - len(kept):
        return pictures, []
    names = " and ".join(table.name for table in tables)
    return kept, [f"{names}: {len(pictures) - len(kept)} of the pictures left out"]


def _check(folder: Path, pictures: list[Picture]) -> None:
    roles = Counter(p.role for p in pictures)
    if not pictures:
        raise EvaluationError(
            f"{folder}: holds neither {PROTOCOL} nor folders with pictures"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    for role, why in (
        (Role.GALLERY, "at least two pictures of one person are needed"),
        (Role.MATED, "at least two pictures of one person are needed"),
        (Role.NONMATED, "without strangers there is no false-alert rate"),
    ):
        if not roles[role]:
            raise EvaluationError(f"{folder}: no {role} picture: {why}")


def _counts(pictures: list[Picture]) -> str:
    roles = Counter(p.role for p in pictures)
    people = len({p.subject for p in pictures})
    return ", ".join(f"{roles[role]} {role}" for role in Role if roles[role]) + f", {people} people"
