"""The same face across frames.

Enters: the faces of one frame and its time. Leaves: the tracks that they belong to, and those
that are over. It knows nothing of pictures or vectors.

A face belongs to the track whose predicted box it overlaps most. People who walk by at 5 to 15
frames a second move by more than a face's width between two frames, so a face that overlaps no
prediction may still go to the nearest one; how far depends on the time that has passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from appliance.types import Face, Track

_REACH = 0.5
"""How far from its prediction a face may be at least, in face sizes: roots of its area, 0.17 m."""
_NEW_REACH_PER_S, _NEW_REACH_MOST = 10.0, 2.5
"""More by this for each second since a track's first face, up to that: it may walk at 1.6 m/s in
any direction. With a smaller bound, people who cross the picture at 5 frames/s fall to pieces."""
_REACH_PER_S, _REACH_MOST = 2.0, 1.0
"""The same once the velocity is known. Wider reaches mix two people who walk side by side, and a
mixed track is worse than a split one: its template is nobody's.

All five numbers, and _TREND, measured on simulated walks: ten people at once, boxes off by 5 %,
15 % of faces missed, people hiding each other. At 15 frames/s 150 people walking up make 202
tracks of which 23 hold two people's faces; 137 who cross the picture fast make 207 and 20, where
one reach of 0.5 + 6/s for all tracks makes 284 and 36."""
_MAX_GROWTH = 1.6
"""Ratio of sizes up to which the nearest face may be the same one, when boxes do not overlap."""
_TREND = 0.3
"""Weight of the newest measurement in the velocity: one noisy box must not throw the next
prediction off."""
_LEAST_DT_S = 1e-3
"""Frames closer than this say nothing about velocity."""

_State: TypeAlias = npt.NDArray[np.float64]
"""(4,) or (n, 4): x and y of the centre in pixels, log of width and height. Logarithms, because a
face grows by the same *factor* per second while its owner walks up, and can never be negative."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame did to the tracks.

    Attributes:
        seen: tracks whose face is in this frame, by id.
        ended: tracks that were out of sight for too long, by id.
    """

    seen: tuple[Track, ...]
    ended: tuple[Track, ...]


@dataclass(slots=True)
class _Open:
    """A track that may go on."""

    track: Track
    state: _State
    velocity: _State


class Tracker:
    """Follows faces by where they are. Used by one thread.

    Args:
        min_iou: overlap with the predicted box from which a face continues a track.
        patience_s: how long a track outlives its last face.
        max_tracks: open at the same time; more faces are counted and not followed.
    """

    def __init__(
        self, *, min_iou: float = 0.3, patience_s: float = 0.5, max_tracks: int = 64
    ) -> None:
        self._min_iou = min_iou
        self._patience_ns = round(patience_s * 1e9)
        self._max_tracks = max_tracks
        self._open: list[_Open] = []
        self._next_id = 1
        self._now_ns = 0
        self._untracked = 0

    @property
    def untracked(self) -> int:
        """Faces that started no track because max_tracks were open, so far; once per frame."""
        return self._untracked

    @property
    def pace(self) -> float:
        """How fast the fastest open track moves, in face sizes per second; 0 without any."""
        return max((_pace(entry) for entry in self._open), default=0.0)

    def update(self, faces: list[Face], boot_ns: int) -> Step:
        """Take the faces of the next frame.

        Args:
            faces: best score first; where there is room for one only, the first gets it.
            boot_ns: when the frame was exposed.

        Raises:
            ValueError: boot_ns is before the previous frame's.
        """
        if boot_ns < self._now_ns:
            raise ValueError(f"frame of {boot_ns} ns after one of {self._now_ns} ns")
        self._now_ns = boot_ns
        ended = self._expire(boot_ns)
        states = _states(faces)
        fresh = set(range(len(faces)))
        seen: list[Track] = []
        for which, index in self._associate(states, boot_ns):
            seen.append(_continue(self._open[which], faces[index], states[index], boot_ns))
            fresh.remove(index)
        seen += self._begin(faces, states, sorted(fresh), boot_ns)
        return Step(tuple(sorted(seen, key=lambda track: track.id)), ended)

    def close(self) -> tuple[Track, ...]:
        """End every track: no more frames will come for now."""
        ended = tuple(entry.track for entry in self._open)
        self._open = []
        return ended

    def _expire(self, boot_ns: int) -> tuple[Track, ...]:
        """Close what has been out of sight for longer than the patience."""
        oldest_ns = boot_ns - self._patience_ns
        ended = tuple(e.track for e in self._open if e.track.last_seen_ns < oldest_ns)
        if ended:
            self._open = [e for e in self._open if e.track.last_seen_ns >= oldest_ns]
        return ended

    def _associate(self, states: _State, boot_ns: int) -> list[tuple[int, int]]:
        """Pairs of (index of an open track, index of a face): the best pair first, greedily."""
        if not self._open or not len(states):
            return []
        elapsed_s = [(boot_ns - e.track.last_seen_ns) / 1e9 for e in self._open]
        predicted = np.array(
            [e.state + e.velocity * s for e, s in zip(self._open, elapsed_s, strict=True)]
        )
        reach = np.array([_reach(e.track, s) for e, s in zip(self._open, elapsed_s, strict=True)])
        affinity = _affinity(predicted, states, reach, self._min_iou)  # (tracks, faces)
        pairs: list[tuple[int, int]] = []
        for flat in np.argsort(-affinity, axis=None, kind="stable"):
            which, index = divmod(int(flat), len(states))
            if affinity[which, index] == -np.inf:
                break
            if all(which != w and index != i for w, i in pairs):
                pairs.append((which, index))
        return pairs

    def _begin(
        self, faces: list[Face], states: _State, fresh: list[int], boot_ns: int
    ) -> list[Track]:
        """New tracks for faces that continue none, as far as there is room."""
        room = self._max_tracks - len(self._open)
        self._untracked += max(0, len(fresh) - room)
        begun: list[Track] = []
        for index in fresh[:room]:
            track = Track(self._next_id, faces[index], boot_ns, boot_ns, hits=1)
            self._next_id += 1
            self._open.append(_Open(track, states[index], np.zeros(4)))
            begun.append(track)
        return begun


def _continue(entry: _Open, face: Face, state: _State, boot_ns: int) -> Track:
    """The track with one more face."""
    before = entry.track
    elapsed_s = max((boot_ns - before.last_seen_ns) / 1e9, _LEAST_DT_S)
    measured = (state - entry.state) / elapsed_s
    # The first measured velocity is all there is; later ones are blended in.
    weight = 1.0 if before.hits == 1 else _TREND
    entry.velocity = entry.velocity + weight * (measured - entry.velocity)
    entry.state = state
    entry.track = Track(before.id, face, before.first_seen_ns, boot_ns, before.hits + 1)
    return entry.track


def _pace(entry: _Open) -> float:
    size = float(np.exp(entry.state[2:].mean()))
    return float(np.hypot(*entry.velocity[:2])) / size


def _states(faces: list[Face]) -> _State:
    """(n, 4) states of the boxes; a box without an area counts as one pixel wide."""
    boxes = np.array([face.box for face in faces], np.float64).reshape(-1, 4)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    size = np.maximum(boxes[:, 2:] - boxes[:, :2], 1.0)
    return np.concatenate([centre, np.log(size)], axis=1)


def _reach(track: Track, elapsed_s: float) -> float:
    """How far from its prediction a track's next face may be, in face sizes."""
    if track.hits == 1:
        return min(_REACH + _NEW_REACH_PER_S * elapsed_s, _NEW_REACH_MOST)
    return min(_REACH + _REACH_PER_S * elapsed_s, _REACH_MOST)


def _affinity(
    predicted: _State, found: _State, reach: npt.NDArray[np.float64], min_iou: float
) -> npt.NDArray[np.float64]:
    """How well each face fits each prediction, (tracks, faces): -inf is not at all.

    Overlapping boxes have their intersection over union, in (0, 1]; those in reach have minus
    their distance in face sizes, so that any overlap goes first and the nearest comes next.
    """
    x, y, log_w, log_h = (predicted[:, None, axis] - found[:, axis] for axis in range(4))
    sides = np.exp(predicted[:, None, 2:]), np.exp(found[:, 2:])
    (w_p, h_p), (w_f, h_f) = (np.moveaxis(side, -1, 0) for side in sides)
    wide = np.minimum((w_p + w_f) / 2 - abs(x), np.minimum(w_p, w_f))
    high = np.minimum((h_p + h_f) / 2 - abs(y), np.minimum(h_p, h_f))
    shared = np.maximum(wide, 0.0) * np.maximum(high, 0.0)
    iou = shared / (w_p * h_p + w_f * h_f - shared)
    distance = np.hypot(x, y) / np.sqrt(w_f * h_f)
    grown = np.maximum(abs(log_w), abs(log_h))
    near = (distance <= reach[:, None]) & (grown <= np.log(_MAX_GROWTH))
    return np.where(iou >= max(min_iou, 1e-9), iou, np.where(near, -distance, -np.inf))
