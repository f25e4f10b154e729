import cv2
import numpy as np
import pytest

from appliance.types import Face, Image, Points, Quality
from appliance.vision.align import TEMPLATE
from appliance.vision.quality import QualityGate

GATE = QualityGate(
    min_eye_distance_px=20.0, min_sharpness=20.0, min_light=30.0, max_light=235.0, max_turn=0.8
)


def texture(low: int = 60, high: int = 200) -> Image:
    return np.random.default_rng(1).integers(low, high, (112, 112, 3), np.uint8)


def assess(crop: Image, landmarks: Points = TEMPLATE, gate: QualityGate = GATE) -> Quality:
    return gate.assess(crop, Face(np.array([0, 0, 112, 112], np.float32), landmarks, 0.9))


def test_a_sharp_bright_frontal_face_passes() -> None:
    quality = assess(texture())
    assert quality.refusal is None
    assert quality.eye_distance_px == pytest.approx(35.2, abs=0.1)
    assert quality.light == pytest.approx(130, abs=3)
    assert quality.turn < 0.05


def test_a_small_face_is_refused_in_pixels() -> None:
    quality = assess(texture(), TEMPLATE * np.float32(0.25))
    assert quality.refusal == "eyes 9 px apart, at least 20 needed"


def test_a_blurred_face_is_refused() -> None:
    blurred = cv2.GaussianBlur(texture(), (0, 0), 6).astype(np.uint8)
    assert str(assess(blurred).refusal).startswith("blurred: sharpness ")


@pytest.mark.parametrize(
    ("low", "high", "says"), [(0, 20, "too dark: light 10"), (240, 255, "too bright: light 247")]
)
def test_a_face_in_bad_light_is_refused(low: int, high: int, says: str) -> None:
    assert str(assess(texture(low, high)).refusal).startswith(says)


def test_a_face_turned_away_is_refused_however_the_head_is_tilted() -> None:
    turned = TEMPLATE.copy()
    turned[2, 0] = turned[1, 0]
    tilt = np.array([[0.8, -0.6], [0.6, 0.8]], np.float32)
    for landmarks in (turned, turned @ tilt.T):
        quality = assess(texture(), landmarks)
        assert quality.turn == pytest.approx(1.0, abs=0.12)
        assert str(quality.refusal).startswith("turned away: ")


def test_eyes_in_one_place_are_refused_not_divided_by() -> None:
    landmarks = TEMPLATE.copy()
    landmarks[1] = landmarks[0]
    assert str(assess(texture(), landmarks).refusal).startswith("eyes 0 px apart")


def test_the_gate_keeps_no_picture() -> None:
    gate = QualityGate()
    assess(texture(), gate=gate)
    assert not gate._luma.any()
    assert not gate._edges.any()
