"""The world of squares: faces are coloured squares on black, and a colour is an identity.

It needs no model file and nobody's photograph, and runs the true tracker, matcher, policy and
link. A square must be at least SMALLEST_PX wide; two must not touch.
"""

from __future__ import annotations

import cv2
import numpy as np

from appliance.types import Face, Image, Vector
from appliance.vision.align import TEMPLATE, TEMPLATE_SIDE

SMALLEST_PX = 8
_DARKEST = 32
"""Of a square's brightest channel: less is background."""


class SimulatedDetector:
    """Finds squares; a square's score is how much of its box it fills."""

    def detect(self, image: Image) -> list[Face]:
        lit = (image.max(axis=2) >= _DARKEST).astype(np.uint8)
        _, _, stats, _ = cv2.connectedComponentsWithStats(lit, connectivity=8)
        faces = [_face(*(int(n) for n in row)) for row in stats[1:] if min(row[2:4]) >= SMALLEST_PX]
        return sorted(faces, key=lambda face: face.score, reverse=True)

    def forget(self) -> None:
        """Nothing is kept."""


class SimulatedEmbedder:
    """Turns the colour in the middle of a crop into a unit vector of three numbers."""

    model_id = "squares@000000000000"
    dim = 3
    side = TEMPLATE_SIDE

    def embed(self, crop: Image) -> Vector:
        """See interfaces.Embedder; opposite colours get opposite vectors.

        Raises:
            ValueError: a crop of another shape.
        """
        if crop.shape != (self.side, self.side, 3):
            raise ValueError(f"a crop of shape {crop.shape}, must be {(self.side, self.side, 3)}")
        margin = crop.shape[0] // 4
        middle = crop[margin:-margin, margin:-margin].reshape(-1, 3)
        # Half a level more than the middle, so that no colour is without a direction.
        direction = middle.mean(axis=0) - 127.75
        return np.asarray(direction / np.linalg.norm(direction), np.float32)

    def forget(self) -> None:
        """Nothing is kept."""


def _face(x: int, y: int, width: int, height: int, area: int) -> Face:
    corner = np.array([x, y], np.float32)
    size = np.array([width, height], np.float32)
    return Face(
        box=np.concatenate([corner, corner + size]),
        landmarks=corner + TEMPLATE * (size / np.float32(TEMPLATE_SIDE)),
        score=area / (width * height),
    )
