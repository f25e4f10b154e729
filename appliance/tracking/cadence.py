"""Which frames are searched for faces. Pure: times and motion in, yes or no out.

Searching is most of the work of an empty street. While somebody is being judged every frame counts;
else frames are passed over, for no longer than `rest_s`, and for less the faster the faces in view
move: a track that is already decided must be found again, or its owner would be judged twice.

With rest_s = 0.15 at 15 frames/s every third frame of an empty street is searched. Whoever comes
into view is seen within rest_s and one frame, and from then on in every frame.
"""

from __future__ import annotations

import math

_STRAY = 0.25
"""How far a face may move between two looks, in face sizes: half of what the tracker bridges."""


class Cadence:
    """Used by one thread.

    Args:
        rest_s: longest time between two looks, but for the frames' own distance; 0 looks at all.
    """

    def __init__(self, *, rest_s: float) -> None:
        self._rest_s = rest_s
        self._last_ns: int | None = None

    def due(self, boot_ns: int, *, undecided: int, pace: float) -> bool:
        """Whether a frame is to be searched; if so it counts as searched.

        Args:
            boot_ns: when it was exposed.
            undecided: tracks that are being judged.
            pace: of the fastest track in view, in face sizes per second; 0 if there is none.
        """
        if self._last_ns is not None and not undecided:
            wait_s = min(self._rest_s, _STRAY / pace if pace > 0 else math.inf)
            if boot_ns - self._last_ns < wait_s * 1e9:
                return False
        self._last_ns = boot_ns
        return True
