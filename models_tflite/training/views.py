"""What the network sees in training: the same person twice, hidden in the same way.

Enters: what prepare.py left. Leaves: batches of filled crops, half of them as an enrolment
photograph gives them, half as a street does. Every choice follows from the seed and the step, so
that a resumed training sees what an uninterrupted one would.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import disguise
import numpy as np
import numpy.typing as npt
from prepare import MARGIN

from appliance.types import Image
from appliance.vision.align import TEMPLATE_SIDE
from appliance.vision.occlusion import PARTS, Part, fill


@dataclass(frozen=True, slots=True)
class Recipe:
    """What batches are made of.

    Attributes:
        shares: of all batches, by the part that is hidden.
        morphed: share of batches with people who do not exist, of two each. There are millions of
            them, and the teacher tells what each is like.
        troubled: grey pictures, other gammas, small things in the way.
        strange: morphs of three as well, of other features and colours.
    """

    shares: dict[Part, float]
    morphed: float
    troubled: bool
    strange: bool


PLAIN = Recipe({"lower": 0.5, "eyes": 0.35, "upper": 0.15}, 0.0, troubled=False, strange=False)
HARD = Recipe({"lower": 0.44, "eyes": 0.44, "upper": 0.12}, 0.6, troubled=True, strange=False)
"""After the eyes were found to be behind."""

LONG = Recipe({"lower": 0.5, "eyes": 0.5}, 0.65, troubled=True, strange=True)
"""After faces under caps were found to need no filling."""

MOST_PER_SUBJECT = 24
"""Pictures of one subject per pass: a few have hundreds."""

_ANOTHER_PICTURE = 0.5
_DRAWN = 0.75
_PIVOT = np.array([56.0, 52.0])
_TO_WIDE = np.array([[1.0, 0.0, MARGIN], [0.0, 1.0, MARGIN]])

_Affine = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Pairs: rows i and i + n are of one person.

    Attributes:
        crops: (2n, 112, 112, 3) uint8, filled.
        indices: (2n,) of the pictures; less than 0, and of nobody else, for morphs.
        part: what is hidden in all of them.
        morphs: (n, 112, 112, 3) the morphs as they are, for the teacher; None for real people.
    """

    crops: Image
    indices: _Indices
    part: Part
    morphs: Image | None = None


class Views:
    """Batches over a prepared folder.

    Args:
        prepared: see prepare.py.
        pairs: per batch.
        seed: of everything.
        recipe: what they are made of.

    Attributes:
        subjects: (n,) the number of each picture's subject.
    """

    def __init__(self, prepared: Path, *, pairs: int, seed: int, recipe: Recipe = PLAIN) -> None:
        self._faces = np.load(prepared / "faces.npy", mmap_mode="r")
        with np.load(prepared / "moves.npz") as moves:
            self._moves = {part: moves[part] for part in PARTS}
        with (prepared / "index.csv").open(encoding="utf-8", newline="") as file:
            names = [row[0] for row in csv.reader(file)]
        self.subjects = np.unique(names, return_inverse=True)[1]
        self._of_subject: dict[int, list[int]] = defaultdict(list)
        for index, subject in enumerate(self.subjects.tolist()):
            self._of_subject[subject].append(index)
        self._pairs, self._seed, self._recipe = pairs, seed, recipe

    @property
    def per_pass(self) -> int:
        """Batches in which every subject's pictures come up once."""
        counts = [min(len(members), MOST_PER_SUBJECT) for members in self._of_subject.values()]
        return sum(counts) // self._pairs

    def clean(self, index: int) -> Image:
        """One face as it is, (112, 112, 3)."""
        inside = slice(MARGIN, MARGIN + TEMPLATE_SIDE)
        return np.ascontiguousarray(self._faces[index][inside, inside])

    def wide(self, index: int) -> Image:
        """One face with its margin, a copy."""
        return np.array(self._faces[index])

    def moves(self, part: Part) -> npt.NDArray[np.float64]:
        """See prepare.py."""
        return self._moves[part]

    def batch(self, number: int) -> Batch:
        """The batch of that number, always the same one."""
        rng = np.random.default_rng((self._seed, number))
        shares, morphed = self._recipe.shares, self._recipe.morphed
        part = list(shares)[rng.choice(len(shares), p=list(shares.values()))]
        if morphed and rng.random() < morphed:
            return self._morphed(number, part, rng)
        enrolled = self._order(number // self.per_pass)[(number % self.per_pass) * self._pairs :][
            : self._pairs
        ]
        seen = np.array([self._partner(index, rng) for index in enrolled])
        crops = [self._enrolled(self._faces[index], rng) for index in enrolled]
        crops += [self._seen(np.array(self._faces[index]), part, rng) for index in seen]
        stacked = np.stack(crops)
        fill(stacked, part)
        return Batch(stacked, np.concatenate([enrolled, seen]), part)

    def _morphed(self, number: int, part: Part, rng: np.random.Generator) -> Batch:
        """People who do not exist, each twice."""
        faces = [self._morph(rng) for _ in range(self._pairs)]
        crops = [self._enrolled(face, rng) for face in faces]
        crops += [self._seen(face.copy(), part, rng) for face in faces]
        stacked = np.stack(crops)
        fill(stacked, part)
        inside = slice(MARGIN, MARGIN + TEMPLATE_SIDE)
        morphs = np.stack([face[inside, inside] for face in faces])
        numbers = -1 - number * self._pairs - np.arange(self._pairs)
        return Batch(stacked, np.concatenate([numbers, numbers]), part, morphs)

    def _morph(self, rng: np.random.Generator) -> Image:
        mixed = self._mix(self.wide(int(rng.integers(len(self.subjects)))), 0.3, 0.7, rng)
        if not self._recipe.strange:
            return mixed
        if rng.random() < 0.4:  # noqa: PLR2004 - the recipe
            mixed = self._mix(mixed, 0.5, 0.75, rng)
        tint = np.exp(rng.normal(0.0, 0.07, 3)).astype(np.float32)
        return np.clip(_bent(mixed, rng) * tint, 0, 255).astype(np.uint8)

    def _mix(self, one: Image, least: float, most: float, rng: np.random.Generator) -> Image:
        """A face and somebody else's: between `least` and `most` of it stay."""
        other = self.wide(int(rng.integers(len(self.subjects))))
        if rng.random() < 0.5:  # noqa: PLR2004 - half of them
            other = np.ascontiguousarray(other[:, ::-1])
        share = rng.uniform(least, most)
        return np.asarray(cv2.addWeighted(one, share, other, 1 - share, 0.0), np.uint8)

    def _order(self, passed: int) -> _Indices:
        """All pictures of a pass, shuffled; of a subject with many, some."""
        rng = np.random.default_rng((self._seed, passed, 1))
        chosen = [
            rng.permutation(members)[:MOST_PER_SUBJECT] for members in self._of_subject.values()
        ]
        return np.asarray(rng.permutation(np.concatenate(chosen)), np.intp)

    def _partner(self, index: int, rng: np.random.Generator) -> int:
        if rng.random() > _ANOTHER_PICTURE:
            return index
        return int(rng.choice(self._of_subject[int(self.subjects[index])]))

    def _enrolled(self, face: Image, rng: np.random.Generator) -> Image:
        crop = _relit(_mirrored(_cut(face, _jitter(rng, 0.6)), rng), rng, 0.4)
        return _troubled(crop, rng) if self._recipe.troubled else crop

    def _seen(self, face: Image, part: Part, rng: np.random.Generator) -> Image:
        if rng.random() < _DRAWN:
            disguise.draw(face, _TO_WIDE, part, rng)
        crop = moved(face, self._moves[part], rng)
        return _troubled(crop, rng) if self._recipe.troubled else crop


def moved(face: Image, moves: npt.NDArray[np.float64] | None, rng: np.random.Generator) -> Image:
    """A crop out of a wide face as a street gives it: out of place, relit, blurred.

    Args:
        face: with its margin.
        moves: one of these similarities is taken; None for landmarks of a bare face.
        rng: every choice is taken from it.
    """
    move = _jitter(rng, 1.0)
    if moves is not None:
        move = _after(move, moves[rng.integers(len(moves))])
    crop = _relit(_mirrored(_cut(face, move), rng), rng, 1.0)
    return _coarse(crop, rng)


def _bent(face: Image, rng: np.random.Generator) -> Image:
    """Smoothly out of shape: a broader nose, eyes further apart, a longer chin."""
    side = face.shape[0]
    coarse = rng.normal(0.0, 2.0, (2, 5, 5)).astype(np.float32)
    across, down = (
        cv2.resize(each, (side, side), interpolation=cv2.INTER_CUBIC) for each in coarse
    )
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return np.asarray(
        cv2.remap(face, columns + across, rows + down, cv2.INTER_LINEAR,
                  borderMode=cv2.BORDER_REPLICATE),
        np.uint8,
    )  # fmt: skip


def _troubled(crop: Image, rng: np.random.Generator) -> Image:
    """Sometimes grey, of another gamma, or with something small in the way."""
    chance = rng.random(3)
    if chance[0] < 0.15:  # noqa: PLR2004 - the recipe
        crop = np.repeat(crop.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    if chance[1] < 0.3:  # noqa: PLR2004
        curve = 255 * (np.arange(256) / 255) ** rng.uniform(0.6, 1.6)
        crop = np.asarray(cv2.LUT(np.ascontiguousarray(crop), curve.astype(np.uint8)), np.uint8)
    if chance[2] < 0.35:  # noqa: PLR2004
        crop = np.array(crop)
        top, left = rng.integers(0, 96, 2)
        tall, wide = rng.integers(6, 26, 2)
        crop[top : top + tall, left : left + wide] = rng.integers(0, 256, 3)
    return crop


def _jitter(rng: np.random.Generator, strength: float) -> _Affine:
    """A small similarity about the middle of the eyes."""
    turn = np.deg2rad(rng.normal(0.0, 1.5 * strength))
    scale = np.exp(rng.normal(0.0, 0.02 * strength))
    shift = rng.normal(0.0, strength, 2)
    cosine, sine = scale * np.cos(turn), scale * np.sin(turn)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([linear, _PIVOT + shift - linear @ _PIVOT])


def _after(second: _Affine, first: _Affine) -> _Affine:
    return np.asarray(second @ np.vstack([first, [0.0, 0.0, 1.0]]), np.float64)


def _cut(face: Image, moved: _Affine) -> Image:
    """The crop out of a wide face, every point moved."""
    matrix = _after(moved, np.array([[1.0, 0.0, -MARGIN], [0.0, 1.0, -MARGIN]]))
    side = (TEMPLATE_SIDE, TEMPLATE_SIDE)
    return np.asarray(cv2.warpAffine(face, matrix, side, flags=cv2.INTER_LINEAR), np.uint8)


def _mirrored(crop: Image, rng: np.random.Generator) -> Image:
    return crop[:, ::-1] if rng.random() < 0.5 else crop  # noqa: PLR2004 - half of them


def _relit(crop: Image, rng: np.random.Generator, strength: float) -> Image:
    gain = np.exp(rng.normal(0.0, 0.2 * strength))
    offset = rng.normal(0.0, 10.0 * strength)
    return np.clip(crop * np.float32(gain) + np.float32(offset), 0, 255).astype(np.uint8)


def _coarse(crop: Image, rng: np.random.Generator) -> Image:
    """Sometimes out of focus, sometimes from far away."""
    chance = rng.random()
    if chance < 0.15:  # noqa: PLR2004 - these are the recipe
        return np.asarray(cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.4, 1.6)), np.uint8)
    if chance < 0.25:  # noqa: PLR2004
        small = int(TEMPLATE_SIDE / rng.uniform(1.2, 2.5))
        reduced = cv2.resize(crop, (small, small), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(reduced, (TEMPLATE_SIDE, TEMPLATE_SIDE)), np.uint8)
    return crop
