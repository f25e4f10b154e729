"""A sighting becomes a tuple that the controller can read, or nothing leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.alerts.compose import compose
from appliance.errors import WireError
from appliance.types import Face, Match, Quality, Sighting, Track
from appliance.wire import ALERT_MAX_BYTES, NAME_MAX_CHARS, Alert, encode

BOX = (320.0, 180.0, 640.0, 360.0)


def sighting(
    *,
    box: tuple[float, float, float, float] = BOX,
    similarity: float = 0.6,
    subject: str = "ann",
    rate: float = 1e-6,
) -> Sighting:
    face = Face(np.array(box, np.float32), np.zeros((5, 2), np.float32), 0.9)
    track = Track(id=7, face=face, first_seen_ns=10, last_seen_ns=20, hits=9)
    quality = Quality(44.0, 100.0, 128.0, 0.1, None)
    return Sighting(track, Match(subject, similarity, 0.1), 0.45, rate, 5, quality, 30)


def made(seen: Sighting, *, node: str = "node-7", utc_ns: int | None = None) -> Alert:
    return compose(
        seen,
        node=node,
        boot=b"b" * 16,
        alert_id=b"a" * 16,
        deployment="market",
        list_id="list",
        list_version=3,
        model="mobilefacenet-112@0123456789ab",
        frame_size=(1280, 720),
        utc_ns=utc_ns,
    )


def test_every_field_says_what_was_seen() -> None:
    assert made(sighting(), utc_ns=1_700_000_000_123_456_789) == Alert(
        alert_id=b"a" * 16,
        node="node-7",
        boot=b"b" * 16,
        sequence=0,
        deployment="market",
        list_id="list",
        list_version=3,
        subject="ann",
        similarity=0.6,
        threshold=0.45,
        false_alert_rate=1e-6,
        first_seen_boot_ns=10,
        exposed_boot_ns=20,
        decided_boot_ns=30,
        decided_utc_ms=1_700_000_000_123,
        frames_fused=5,
        box=(0.25, 0.25, 0.5, 0.5),
        eye_distance_px=44.0,
        occlusion="unknown",
        model="mobilefacenet-112@0123456789ab",
    )


def test_without_a_clock_there_is_no_wall_time() -> None:
    assert made(sighting(), utc_ns=None).decided_utc_ms is None


@pytest.mark.parametrize(("similarity", "kept"), [(1.0000001, 1.0), (-1.5, -1.0), (0.25, 0.25)])
def test_rounding_beyond_one_is_cut_off(similarity: float, kept: float) -> None:
    assert made(sighting(similarity=similarity)).similarity == kept


@given(st.tuples(*[st.floats(-1e4, 1e4, width=32)] * 4))
def test_a_box_outside_the_frame_is_cut_to_it(box: tuple[float, float, float, float]) -> None:
    alert = made(sighting(box=box))
    assert all(0.0 <= edge <= 1.0 for edge in alert.box)


@pytest.mark.parametrize(
    "broken",
    [
        sighting(subject="Ann Smith"),
        sighting(subject=""),
        sighting(subject="x" * (NAME_MAX_CHARS + 1)),
        sighting(similarity=math.nan),
        sighting(rate=math.nan),
        sighting(box=(math.nan, 0.0, 1.0, 1.0)),
    ],
)
def test_what_no_controller_can_read_never_leaves(broken: Sighting) -> None:
    with pytest.raises(WireError, match="not a message"):
        made(broken)


def test_an_alert_beyond_the_bound_never_leaves() -> None:
    with pytest.raises(WireError, match=f"at most {ALERT_MAX_BYTES} may leave"):
        made(sighting(), node="n" * 500)


def test_an_ordinary_alert_is_far_below_the_bound() -> None:
    assert len(encode(made(sighting(), utc_ns=1_700_000_000_123_456_789))) < 300
