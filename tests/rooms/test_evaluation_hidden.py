"""The test of hidden faces, on squares: one score for all columns, and what is counted."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.errors import EvaluationError
from appliance.evaluation import commands
from appliance.evaluation.hidden import (
    BARE,
    LOST,
    Eyes,
    Gallery,
    Seen,
    evaluate_hidden,
    in_words,
    row_of,
    write,
)
from appliance.evaluation.occluders import KINDS
from appliance.evaluation.protocol import Picture, Protocol, Role
from appliance.types import FalseMatch, Image
from appliance.vision.occlusion import Told
from appliance.vision.quality import QualityGate
from appliance.vision.reader import COLUMNS, WHOLE, Reader, open_part
from appliance.vision.simulated import SimulatedDetector, SimulatedEmbedder

TABLE = FalseMatch(
    similarity=(0.0, 0.5),
    rate=(0.5, 1e-3),
    tail_similarity=0.5,
    tail_rate=1e-3,
    tail_slope=20.0,
    probes=1000,
    comparisons=1_000_000,
    source="squares: made up",
)


class Always:
    """A teller that never sees anything hidden."""

    def tell(self, crop: Image) -> Told:
        del crop
        return Told("none", 1.0, "lower")

    def forget(self) -> None:
        """Nothing is kept."""


def eyes() -> Eyes:
    embedder = SimulatedEmbedder()
    return Eyes(
        detector=SimulatedDetector(),
        reader=Reader(embedder=embedder, hidden=embedder, teller=Always()),
        gate=QualityGate(
            min_eye_distance_px=10.0, min_sharpness=0.0, min_light=0.0, max_light=256.0
        ),
        embed_whole=embedder.embed,
        embed_part={p: lambda crop, p=p: open_part(crop, p, embedder, embedder) for p in COLUMNS},  # type: ignore[misc]  # a bound default
        tables=dict.fromkeys((WHOLE, *COLUMNS), TABLE),
    )


def face(*colour: int) -> Image:
    return np.full((112, 112, 3), colour, np.uint8)


RED, GREEN, BLUE = face(255, 0, 0), face(0, 255, 0), face(0, 0, 255)


def vector(crop: Image) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return SimulatedEmbedder().embed(crop)


def test_a_score_is_how_rarely_strangers_come_so_near() -> None:
    gallery = Gallery({"red": RED, "green": GREEN}, eyes())
    alone = gallery.worth({WHOLE: (vector(RED), 1.0)})
    assert alone[0] > 6
    assert alone[1] < 1
    half = gallery.worth({"lower": (vector(RED), 0.5)})
    assert half[0] == pytest.approx(alone[0] + math.log10(0.5), abs=1e-3)


def test_the_rarest_of_the_columns_counts() -> None:
    gallery = Gallery({"red": RED}, eyes())
    both = gallery.worth({WHOLE: (vector(GREEN), 0.5), "eyes": (vector(RED), 0.5)})
    assert both[0] == gallery.worth({"eyes": (vector(RED), 0.5)})[0]


def test_who_is_found_who_is_not_and_what_was_told() -> None:
    gallery = Gallery({"red": RED, "green": GREEN}, eyes())
    who = [(Role.MATED, "red"), (Role.MATED, "green"), (Role.NONMATED, "blue")]
    seen = [
        Seen("lower", {"lower": vector(RED)}),
        Seen(LOST, {}),
        Seen("none", {WHOLE: vector(BLUE)}),
    ]
    row = row_of("mask", who, seen, gallery, seed=1)
    assert row.one.tpir.value == 0.5
    assert row.kept == 0.0
    assert row.told == {"lower": 1, LOST: 1, "none": 1}


@pytest.fixture
def protocol(tmp_path: Path) -> Protocol:
    pictures = []
    shown = {
        "red": ((250, 0, 0), "gmmmmm"),
        "green": ((0, 250, 0), "gm"),
        "blue": ((0, 0, 250), "n"),
    }
    for subject, (colour, roles) in shown.items():
        for number, role in enumerate(roles):
            image = np.zeros((200, 200, 3), np.uint8)
            image[40:160, 40:160] = colour
            path = tmp_path / f"{subject}-{number}.png"
            cv2.imwrite(str(path), image[..., ::-1])
            named = {"g": Role.GALLERY, "m": Role.MATED, "n": Role.NONMATED}[role]
            pictures.append(Picture(named, subject, path))
    return Protocol(tmp_path, tuple(pictures), "squares")


def test_from_pictures_to_a_page(protocol: Protocol, tmp_path: Path) -> None:
    rows = evaluate_hidden(protocol, ["sunglasses"], eyes(), seed=1)
    assert [row.thing for row in rows] == [BARE, "sunglasses"]
    assert rows[0].one.tpir.value == rows[0].five.tpir.value == 1.0
    assert rows[0].kept == 0.0
    page = write(rows, tmp_path / "report")
    assert "| sunglasses |" in page.read_text()
    assert "told: too-much" in in_words(rows)
    assert set(json.loads((page.parent / "hidden.json").read_text())) == {BARE, "sunglasses"}


def test_a_folder_that_cannot_be_written_is_named(protocol: Protocol, tmp_path: Path) -> None:
    (tmp_path / "report").write_text("in the way")
    rows = evaluate_hidden(protocol, [], eyes(), seed=1)
    with pytest.raises(EvaluationError, match="report: cannot be written"):
        write(rows, tmp_path / "report")


def test_the_command_takes_each_thing_once() -> None:
    assert commands._kinds(",".join(KINDS)) == list(KINDS)
    for wrong in ("hat", "mask,mask", "mask, cap", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="some of mask, scarf"):
            commands._kinds(wrong)
