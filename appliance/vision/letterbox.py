"""A picture of any size on the canvas that the detector takes, and points on it back again."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from appliance.types import Image

PADDING = 0
"""What the canvas holds where the picture does not reach: black, as nothing is there."""

_LEAST_LINEAR = 0.25
"""Scale down to which linear interpolation, which skips pixels, is as good as averaging them all.
Measured with CenterFace on 630 LFW faces of 11 to 36 px on the canvas, in scenes 1366, 1920 and
2304 px wide: as many are found within 2 in 100, scores within 0.01. Averaging takes five times as
long at 1920x1080 (3.6 ms against 0.7 on one x86-64 core); where a picture is halved, as at
1280x720, OpenCV averages in both cases. Smaller scales are photographs, where time is no matter."""


class Letterbox:
    """The largest picture of the same proportions, in the upper left corner of a canvas.

    In the corner and not in the middle, because then the way back is one division.

    Args:
        source: (width, height) of the pictures.
        target: (width, height) of the canvas.

    Attributes:
        canvas: (target height, target width, 3) uint8; the only copy of the picture.
    """

    def __init__(self, *, source: tuple[int, int], target: tuple[int, int]) -> None:
        scale = min(target[0] / source[0], target[1] / source[1])
        width = max(1, round(source[0] * scale))
        height = max(1, round(source[1] * scale))
        self.canvas: Image = np.full((target[1], target[0], 3), PADDING, np.uint8)
        self._picture = self.canvas[:height, :width]
        self._source = source
        # Rounding to whole pixels makes the two scales differ a little.
        self._scale = np.array([width / source[0], height / source[1]], np.float32)
        self._interpolation = cv2.INTER_LINEAR if scale >= _LEAST_LINEAR else cv2.INTER_AREA

    def fit(self, image: Image) -> Image:
        """Scale a picture onto the canvas.

        Args:
            image: (source height, source width, 3) uint8.

        Returns:
            The canvas; the next call writes over it.

        Raises:
            ValueError: an image of another size than `source`.
        """
        if image.shape != (self._source[1], self._source[0], 3):
            raise ValueError(
                f"an image of {image.shape[1]}x{image.shape[0]}, expected"
                f" {self._source[0]}x{self._source[1]}"
            )
        height, width = self._picture.shape[:2]
        cv2.resize(image, (width, height), dst=self._picture, interpolation=self._interpolation)
        return self.canvas

    def to_source(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Points on the canvas as points in the picture.

        Args:
            points: (..., 2) float32 pixels, x before y.
        """
        return points / self._scale

    def wipe(self) -> None:
        """Overwrite the picture."""
        self._picture.fill(PADDING)
