"""A picture of any size into a frame of one size."""

from __future__ import annotations

import cv2

from appliance.types import Image


def fit(bgr: Image, into: Image) -> None:
    """Scale a picture into the middle of a frame, whole and undistorted; the margins are black.

    Args:
        bgr: (h, w, 3) uint8 in OpenCV's channel order.
        into: (height, width, 3) uint8, overwritten with RGB.
    """
    height, width = into.shape[:2]
    h, w = bgr.shape[:2]
    scale = min(width / w, height / h)
    fit_w, fit_h = max(1, round(w * scale)), max(1, round(h * scale))
    left, top = (width - fit_w) // 2, (height - fit_h) // 2
    if (fit_w, fit_h) != (width, height):
        into.fill(0)
    inner = into[top : top + fit_h, left : left + fit_w]
    # Area averaging when shrinking, or eyes and mouth corners alias.
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    if (fit_w, fit_h) == (w, h):
        inner[:] = bgr
    else:
        cv2.resize(bgr, (fit_w, fit_h), dst=inner, interpolation=how)
    cv2.cvtColor(inner, cv2.COLOR_BGR2RGB, dst=inner)
