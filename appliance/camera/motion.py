"""Where a walker is at a time: pure geometry, without a picture.

A person who walks straight towards a camera at face height: the distance shrinks evenly, so the
face grows as its inverse, and everything far away is near the horizon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from appliance.camera.script import Walker

HORIZON = 0.36
"""Of the frame's height, from the top: the height of the camera above the pavement."""
NOMINAL_WIDTH = 1280.0
"""Pixels of frame width that a script's pixels are meant for."""

_FADE_S = 0.3
"""A walker comes out of the crowd and goes back into it."""
_STEP_S = 0.55
"""Between two steps of somebody who is not in a hurry."""


@dataclass(frozen=True, slots=True)
class Pose:
    """A walker at one moment.

    Attributes:
        x, y: centre of the face, fractions of the frame.
        face_px: width of the face at NOMINAL_WIDTH.
        angle: degrees by which the body leans.
        light: brightness.
        presence: 0 invisible, 1 wholly there.
    """

    x: float
    y: float
    face_px: float
    angle: float
    light: float
    presence: float


def pose(walker: Walker, t_s: float) -> Pose | None:
    """The walker t_s after the beginning of the scene, None before entering or after leaving."""
    if not walker.enters_s <= t_s < walker.leaves_s:
        return None
    since_s, left_s = t_s - walker.enters_s, walker.leaves_s - t_s
    way = since_s / (walker.leaves_s - walker.enters_s)
    face_px = walker.from_px / (1 - way * (1 - walker.from_px / walker.to_px))
    # A straight line in the world is a straight line in the picture, walked by this much:
    part = way * face_px / walker.to_px
    swing = math.sin(math.pi * since_s / _STEP_S)
    rise = 0.03 * walker.sway * abs(swing) * face_px / NOMINAL_WIDTH
    return Pose(
        x=walker.from_x + (walker.to_x - walker.from_x) * part,
        y=HORIZON + (walker.y - HORIZON) * face_px / walker.to_px - rise,
        face_px=face_px,
        angle=walker.sway * swing,
        light=walker.light[0] + (walker.light[1] - walker.light[0]) * way,
        presence=min(1.0, since_s / _FADE_S, left_s / _FADE_S),
    )
