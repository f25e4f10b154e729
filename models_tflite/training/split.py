"""Who is trained on and who is judged on: a rule, so that no list has to be kept.

Enters: a folder as ../shared/data/README.md describes it (images/SUBJECT/*.jpg, open_set.csv,
errata.csv). Leaves: pictures, each with its subject, role and side of the split.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of one person.

    Attributes:
        subject: the person.
        path: relative to the data folder's images/.
        role: "gallery", "mated", "nonmated", or "" for one in no role.
    """

    subject: str
    path: str
    role: str

    @property
    def trained_on(self) -> bool:
        """Whether its subject is in the training part."""
        return is_trained_on(self.subject)


def is_trained_on(subject: str) -> bool:
    """Two thirds of all subjects, by the SHA-256 of their name."""
    digest = hashlib.sha256(f"picket-hidden:{subject}".encode()).hexdigest()
    return int(digest, 16) % 3 < 2  # noqa: PLR2004 - two of three


def pictures(folder: Path) -> list[Picture]:
    """Every picture with a label that can be trusted, in a fixed order.

    Raises:
        FileNotFoundError: `folder` is no such folder.
    """
    wrong = {_name(row["image"]) for row in _rows(folder / "errata.csv")}
    roles = {_name(row["image"]): row["role"] for row in _rows(folder / "open_set.csv")}
    found = []
    for path in sorted((folder / "images").glob("*/*.jpg")):
        if path.stem not in wrong:
            inside = f"{path.parent.name}/{path.name}"
            found.append(Picture(path.parent.name, inside, roles.get(path.stem, "")))
    if not found:
        raise FileNotFoundError(f"{folder}: no images/SUBJECT/*.jpg in it")
    return found


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _name(image: str) -> str:
    return image.rpartition("/")[2].removesuffix(".jpg")
