"""Part-hidden faces on the true path of a frame: squares that wear something grey."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from appliance.types import Image
from appliance.vision.align import TEMPLATE_SIDE
from appliance.vision.occlusion import Hidden, Told
from appliance.vision.simulated import SimulatedEmbedder
from appliance.watchlist.match import Watchlist
from tests.path.squares import BLUE, GREEN, RED, Node, street, vector, wanted

CLOTH = (90, 90, 90)
_WORN: dict[str, slice] = {"lower": slice(66, 112), "eyes": slice(44, 62), "too-much": slice(0, 90)}
"""Rows of a face, in the crop's pixels."""


@dataclass
class SquareTeller:
    """Looks for cloth; as sure as it is told to be."""

    sure: float = 1.0
    second: Hidden = "none"
    forgot: int = field(default=0)

    def tell(self, crop: Image) -> Told:
        worn = (np.abs(crop[:, 30:80].astype(int) - CLOTH[0]) < 8).all(axis=(1, 2))
        at = {row: bool(worn[row]) for row in (20, 53, 100)}
        hidden: Hidden = "none"
        if at[20]:
            hidden = "too-much"
        elif at[53]:
            hidden = "eyes"
        elif at[100]:
            hidden = "lower"
        return Told(hidden, self.sure, self.second)

    def forget(self) -> None:
        self.forgot += 1


@dataclass
class HidingNode(Node):
    """A node that tells hidden faces apart."""

    teller: SquareTeller = field(default_factory=SquareTeller)
    unsearchable: int = 0

    def __post_init__(self) -> None:
        self.options = {
            "hidden": SimulatedEmbedder(),
            "teller": self.teller,
            "unsearchable": self._count,
        }
        super().__post_init__()

    def _count(self) -> None:
        self.unsearchable += 1


def face(colour: tuple[int, int, int], hidden: Hidden = "none", x: int = 100) -> Image:
    """A street with one square, maybe behind cloth."""
    image = street((x, 60, TEMPLATE_SIDE, colour))
    if hidden != "none":
        rows = _WORN[hidden]
        image[60 + rows.start : 60 + rows.stop, x : x + TEMPLATE_SIDE] = CLOTH
    return image


def listed(*columns: str) -> Watchlist:
    """RED and GREEN, in these columns besides "whole"."""
    lists = [wanted(RED, GREEN) for _ in range(1 + len(columns))]
    names = ("whole", *columns)
    return replace(
        lists[0],
        columns={name: each.columns["whole"] for name, each in zip(names, lists, strict=True)},
        scales={name: each.scales["whole"] for name, each in zip(names, lists, strict=True)},
    )


@pytest.mark.parametrize("part", ["lower", "eyes"])
def test_found_behind_cloth_and_the_sighting_says_what_it_hides(part: Hidden) -> None:
    node, watchlist = HidingNode(), listed("lower", "eyes")
    for _ in range(4):
        node.see(watchlist, face(RED, part))
    (sighting,) = node.sightings
    assert (sighting.match.subject, sighting.hidden) == ("subject-0", part)
    assert sighting.frames_fused == 3
    assert sighting.threshold == watchlist.threshold_in(part, 1.0)


def test_a_stranger_behind_cloth_is_nobody() -> None:
    node, watchlist = HidingNode(), listed("lower")
    for _ in range(4):
        node.see(watchlist, face(BLUE, "lower"))
    assert not node.sightings
    assert node.unsearchable == 0


def test_a_bare_face_is_judged_as_if_there_were_no_other_columns() -> None:
    watchlist = listed("lower", "eyes")
    plain, hiding = Node(), HidingNode()
    for node in (plain, hiding):
        for _ in range(4):
            node.see(watchlist, face(GREEN))
    (before,), (after,) = plain.sightings, hiding.sightings
    assert (before.hidden, after.hidden) == ("unknown", "none")
    assert after.match == before.match
    assert after.threshold == before.threshold
    assert after.false_alert_rate == before.false_alert_rate


def test_a_track_of_two_kinds_of_faces_shares_the_rate_between_them() -> None:
    node, watchlist = HidingNode(embeddings=4), listed("lower")
    for hidden in ("none", "lower", "lower", "lower"):
        node.see(watchlist, face(RED, hidden))
    (sighting,) = node.sightings
    column = sighting.column
    share = sighting.frames_fused / 4
    assert share < 1.0
    assert sighting.threshold == watchlist.threshold_in(column, share)
    rate = watchlist.false_alert_rate(sighting.match.similarity, column)
    assert sighting.false_alert_rate == pytest.approx(rate / share)


def test_what_is_not_certain_is_read_in_both_ways() -> None:
    node, watchlist = HidingNode(teller=SquareTeller(sure=0.6)), listed("lower")
    for _ in range(4):
        node.see(watchlist, face(RED, "lower"))
    (sighting,) = node.sightings
    assert sighting.match.subject == "subject-0"
    assert sighting.frames_fused == 3  # of each column: a face counts once


def test_without_the_column_nothing_is_matched_and_it_is_counted_once() -> None:
    node = HidingNode()
    for _ in range(6):
        node.see(wanted(RED, GREEN), face(RED, "lower"))
    node.watch.close(wanted(RED, GREEN))
    assert not node.sightings
    assert node.unsearchable == 1
    assert node.ledger.snapshot().balanced
    assert node.ledger.snapshot().faces_held == 0


def test_a_face_that_is_bare_for_a_moment_is_found_without_the_column() -> None:
    node, watchlist = HidingNode(), wanted(RED, GREEN)
    for hidden in ("lower", "none", "none", "none"):
        node.see(watchlist, face(RED, hidden))
    (sighting,) = node.sightings
    assert sighting.hidden == "none"
    assert node.unsearchable == 0


def test_too_much_is_never_matched() -> None:
    node, watchlist = HidingNode(), listed("lower", "eyes")
    for _ in range(6):
        node.see(watchlist, face(RED, "too-much"))
    node.watch.close(watchlist)
    assert not node.sightings
    assert node.unsearchable == 1


def test_models_forget_after_every_track_that_was_looked_at() -> None:
    node = HidingNode()
    for _ in range(3):
        node.see(listed("lower"), face(RED, "too-much"))
    node.watch.close(None)
    assert node.teller.forgot > 0


def test_a_list_that_is_swapped_for_one_without_the_column_matches_nobody_by_it() -> None:
    node = HidingNode(embeddings=3)
    for _ in range(2):
        node.see(listed("lower"), face(RED, "lower"))
    node.see(wanted(RED, GREEN), face(RED))
    node.watch.close(wanted(RED, GREEN))
    assert [s.column for s in node.sightings] in ([], ["whole"])
    assert node.ledger.snapshot().balanced


def test_the_filled_square_still_has_its_colour() -> None:
    # What the tests above rest on.
    assert vector(RED) @ vector(GREEN) < 0.5
