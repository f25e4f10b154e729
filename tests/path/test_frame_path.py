"""The path of a frame in the world of squares: who is found, once; and that the books balance."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import AcceleratorError
from appliance.system.erasure import Ledger
from appliance.types import Image, Vector
from appliance.vision.simulated import SimulatedEmbedder
from tests.path.squares import BLUE, GREEN, RED, Node, street, vector, wanted


def balanced(ledger: Ledger) -> bool:
    account = ledger.snapshot()
    return account.balanced and account.faces_held == 0


def test_a_wanted_square_is_one_alert_however_long_it_stays() -> None:
    node, watchlist = Node(), wanted(RED)
    for step in range(40):
        node.see(watchlist, street((20 + 4 * step, 60, 40, RED)))
    node.watch.close(watchlist)
    assert [s.match.subject for s in node.sightings] == ["subject-0"]
    assert node.sightings[0].frames_fused == 3
    assert balanced(node.ledger)
    assert node.ledger.snapshot().faces_alerted == 1


def test_strangers_are_erased_and_counted() -> None:
    node, watchlist = Node(), wanted(RED)
    for step in range(20):
        node.see(watchlist, street((20 + 4 * step, 20, 40, BLUE), (200 - 4 * step, 110, 40, GREEN)))
    node.watch.close(watchlist)
    assert node.sightings == []
    account = node.ledger.snapshot()
    assert (account.faces_seen, account.faces_erased, account.faces_alerted) == (2, 2, 0)
    assert balanced(node.ledger)


def test_a_stranger_is_erased_while_still_in_view() -> None:
    node, watchlist = Node(), wanted(RED)
    for _ in range(6):
        node.see(watchlist, street((100, 60, 40, BLUE)))
    account = node.ledger.snapshot()
    assert account.faces_erased == 1
    assert account.vectors.count == 1
    assert account.vectors.max_ms <= 1e3 / 10 + 1


def test_nobody_is_held_longer_than_hold_s_even_if_too_few_embeddings_come() -> None:
    node, watchlist = Node(embeddings=32, hold_s=0.5), wanted(RED)
    for _ in range(7):
        node.see(watchlist, street((100, 60, 40, BLUE)))
    assert node.ledger.snapshot().faces_held == 0


def test_nobody_is_held_longer_than_hold_s_after_having_left_either() -> None:
    node, watchlist = Node(embeddings=32, hold_s=0.15), wanted(RED)
    node.see(watchlist, street((100, 60, 40, RED)))
    node.see(watchlist, street((100, 60, 40, RED)))
    node.see(watchlist, street())  # the track goes on for 0.25 s
    assert node.ledger.snapshot().faces_held == 0
    assert [s.frames_fused for s in node.sightings] == [2]
    assert balanced(node.ledger)


def test_nobody_is_held_longer_than_hold_s_because_no_frame_comes() -> None:
    node, watchlist = Node(embeddings=32, hold_s=0.5), wanted(RED)
    node.see(watchlist, street((100, 60, 40, RED)))
    node.clock.advance(0.4)
    node.watch.idle(watchlist)
    assert node.ledger.snapshot().faces_held == 1
    node.clock.advance(0.1)
    node.watch.idle(watchlist)
    assert node.ledger.snapshot().faces_held == 0
    assert len(node.sightings) == 1
    assert balanced(node.ledger)


class MortalEmbedder(SimulatedEmbedder):
    """Works until it is told not to."""

    alive = True

    def embed(self, crop: Image) -> Vector:
        if not self.alive:
            raise AcceleratorError("gone")
        return super().embed(crop)

    def forget(self) -> None:
        if not self.alive:
            raise AcceleratorError("gone")


def test_a_device_that_fails_leaves_no_face_and_no_vector_behind() -> None:
    embedder = MortalEmbedder()
    node, watchlist = Node(embedder=embedder, embeddings=5), wanted(RED)
    node.see(watchlist, street((20, 20, 40, BLUE)))
    node.see(watchlist, street((20, 20, 40, BLUE)))
    node.see(watchlist, street())
    node.see(watchlist, street())
    (dossier,) = node.watch._undecided.values()
    (evidence,) = dossier.evidence.values()
    embedder.alive = False
    with pytest.raises(AcceleratorError):  # in the very frame in which the first track ends
        node.see(watchlist, street((200, 100, 40, GREEN)))
    assert not node.watch._crop.any()
    with pytest.raises(AcceleratorError):
        node.watch.close(None)
    assert evidence.count == 0
    assert not evidence._vectors.any()
    assert balanced(node.ledger)


def test_a_short_look_is_decided_on_what_there_was() -> None:
    node, watchlist = Node(), wanted(RED)
    node.see(watchlist, street((100, 60, 40, RED)))
    for _ in range(5):
        node.see(watchlist, street())
    assert len(node.sightings) == 1
    assert node.sightings[0].frames_fused == 1
    assert balanced(node.ledger)


def test_the_cool_down_is_per_subject() -> None:
    node, watchlist = Node(cooldown_s=5.0), wanted(RED, GREEN)
    for start in range(4):
        for _ in range(5):
            colour = RED if start % 2 == 0 else GREEN
            node.see(watchlist, street((40 + 60 * start, 60, 40, colour)))
        for _ in range(5):
            node.see(watchlist, street())
    assert [s.match.subject for s in node.sightings] == ["subject-0", "subject-1"]
    assert balanced(node.ledger)


def test_without_a_list_everybody_is_erased_undecided() -> None:
    node, watchlist = Node(), wanted(RED)
    node.see(watchlist, street((100, 60, 40, RED)))
    node.watch.close(None)
    assert node.sightings == []
    assert balanced(node.ledger)


def test_a_list_that_is_wiped_in_between_finds_nobody() -> None:
    node, watchlist = Node(), wanted(RED)
    node.see(watchlist, street((100, 60, 40, RED)))
    watchlist.wipe()
    for _ in range(4):
        node.see(watchlist, street((100, 60, 40, RED)))
    assert node.sightings == []
    assert balanced(node.ledger)


def test_no_vector_of_a_decided_track_is_left() -> None:
    node, watchlist = Node(), wanted(RED)
    for _ in range(8):
        node.see(watchlist, street((100, 60, 40, BLUE)))
    gc.collect()
    stranger = vector(BLUE)
    held = [
        array
        for array in gc.get_objects()
        if isinstance(array, np.ndarray)
        and array.dtype == np.float32
        and array.ndim == 2
        and array.shape[1] == stranger.size
        and np.allclose(array[0], stranger, atol=1e-3)
    ]
    assert held == []


colours = st.sampled_from([RED, GREEN, BLUE])
walks = st.lists(
    st.tuples(st.integers(0, 220), st.integers(0, 120), st.integers(12, 50), colours), max_size=1
)


@settings(max_examples=60, deadline=None)
@given(st.lists(walks, max_size=25))
def test_the_books_balance_after_every_frame(
    frames: list[list[tuple[int, int, int, tuple[int, int, int]]]],
) -> None:
    node, watchlist = Node(), wanted(RED)
    for squares in frames:
        node.see(watchlist, street(*squares))
        assert node.ledger.snapshot().balanced
    node.watch.close(watchlist)
    assert balanced(node.ledger)
    account = node.ledger.snapshot()
    assert account.faces_alerted == len(node.sightings)


@pytest.mark.parametrize("count", [1, 4, 16])
def test_everybody_in_a_crowd_is_judged(count: int) -> None:
    node, watchlist = Node(), wanted(RED)
    places = [(4 + 38 * (n % 8), 10 + 60 * (n // 8)) for n in range(count)]
    crowd = [(x, y, 24, RED if n == 0 else BLUE) for n, (x, y) in enumerate(places)]
    for _ in range(5):
        node.see(watchlist, street(*crowd))
    node.watch.close(watchlist)
    account = node.ledger.snapshot()
    assert account.faces_seen == count
    assert account.faces_alerted == 1
    assert balanced(node.ledger)


@pytest.mark.parametrize("phase", range(3))
def test_who_is_in_view_for_a_second_is_found_although_quiet_streets_are_searched_rarely(
    phase: int,
) -> None:
    node, watchlist = Node(embeddings=5, rest_s=0.15, fps=15.0), wanted(RED)
    for _ in range(15 + phase):
        node.see(watchlist, street())
    for step in range(15):
        node.see(watchlist, street((40 + 8 * step, 60, 40, RED)))
    for _ in range(15):
        node.see(watchlist, street())
    assert [s.match.subject for s in node.sightings] == ["subject-0"]
    assert node.sightings[0].frames_fused == 5
    assert balanced(node.ledger)


def test_somebody_who_stays_is_not_judged_twice_because_of_rare_searches() -> None:
    node, watchlist = Node(rest_s=0.15, fps=15.0), wanted(RED)
    for step in range(60):
        node.see(watchlist, street((10 + 4 * step, 60, 40, BLUE)))
    node.watch.close(watchlist)
    assert node.ledger.snapshot().faces_seen == 1
