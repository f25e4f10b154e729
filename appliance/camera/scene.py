"""Real photographed faces that walk towards the camera, and the truth about who is where.

A scene is a script (camera/script.py) of walkers. Each is a photograph, cut out (cutout.py),
perhaps with the face part-hidden (cover.py), moved (motion.py) over a street (street.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from appliance.camera.cutout import Cutout
from appliance.camera.motion import NOMINAL_WIDTH, Pose, pose
from appliance.camera.pace import Pace, PaceName
from appliance.camera.script import Anatomy, Cover, Script, Walker, load_script
from appliance.camera.street import street
from appliance.errors import EndOfStreamError
from appliance.interfaces import Clock
from appliance.types import Frame, Image

Box = tuple[float, float, float, float]

_ASPECT = 16 / 9
"""Of the frame that a script is meant for."""
_KEPT_FACE_PX = 160.0
"""Largest face that a cut-out keeps: above, drawing enlarges it. Seven people need 45 MB."""
_BODY_FACES = 2.4
"""Width of a body in widths of its face."""


@dataclass(frozen=True, slots=True)
class Truth:
    """One person in view.

    Attributes:
        walker: place in the script; a person who walks by twice has two.
        who: the subject reference, "" for a stranger.
        box: of the face, x1 y1 x2 y2 as fractions of the frame; may reach outside of it.
        covered: a part of the face is hidden.
        visible: fraction of the face that is in the frame and behind nobody, times how far the
            person has faded in.
    """

    walker: int
    who: str
    box: Box
    covered: bool
    visible: float


class Scene:
    """A script, the photographs that it needs, and who is where at any time.

    Args:
        script: who walks by.
        anatomies: by Walker.photo.
        folder: what Walker.photo is relative to.
    """

    def __init__(self, script: Script, anatomies: dict[str, Anatomy], folder: Path) -> None:
        self.script, self.anatomies, self.folder = script, anatomies, folder

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a script and the anatomies that it names.

        Raises:
            ConfigError: see camera/script.py.
        """
        script, anatomies = load_script(path)
        return cls(script, anatomies, (path.parent / script.anatomy).parent)

    @property
    def seconds(self) -> float:
        """How long the scene lasts."""
        return self.script.seconds

    @property
    def appearances(self) -> tuple[str, ...]:
        """Truth.who of every walker, in the order of Truth.walker."""
        return tuple(walker.who for walker in self.script.walker)

    def poses(self, t_s: float) -> list[tuple[int, Walker, Pose]]:
        """Who is there, the farthest first."""
        there = [
            (place, walker, at)
            for place, walker in enumerate(self.script.walker)
            if (at := pose(walker, t_s)) is not None
        ]
        return sorted(there, key=lambda one: one[2].face_px)

    def truth(self, t_s: float) -> tuple[Truth, ...]:
        """Who is in view t_s after the first frame, the farthest first.

        A face that is wholly outside of the frame is not in view.
        """
        there = self.poses(t_s)
        boxes = [self._box(walker, at) for _, walker, at in there]
        found = []
        for rank, (place, walker, at) in enumerate(there):
            box = boxes[rank]
            hidden = max((_share(box, _body(nearer)) for nearer in boxes[rank + 1 :]), default=0.0)
            inside = _share(box, (0.0, 0.0, 1.0, 1.0))
            if inside > 0:
                visible = inside * (1 - hidden) * at.presence
                found.append(Truth(place, walker.who, box, bool(walker.cover), visible))
        return tuple(found)

    def _box(self, walker: Walker, at: Pose) -> Box:
        x1, y1, x2, y2 = self.anatomies[walker.photo].face
        half_w = at.face_px / NOMINAL_WIDTH / 2
        half_h = half_w * _ASPECT * (y2 - y1) / (x2 - x1)
        return at.x - half_w, at.y - half_h, at.x + half_w, at.y + half_h


class SceneCamera:
    """Films a scene.

    Args:
        script: the scene.
        size: (width, height) in pixels of the frames; 16:9, as scripts are meant for.
        fps: frames per second.
        clock: CLOCK_BOOTTIME.
        pace: "realtime" or "flat-out", see Pace. The scene begins with the first frame read.
        loop: begin again at the end.
        wait: sleeps for so many seconds.

    Raises:
        CameraError: a photograph cannot be read; names it.
    """

    def __init__(
        self,
        script: Scene,
        *,
        size: tuple[int, int],
        fps: float,
        clock: Clock,
        pace: PaceName = "realtime",
        loop: bool = False,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._scene, self._size, self._fps, self._loop = script, size, fps, loop
        self._pace = Pace(fps=fps, clock=clock, pace=pace, wait=wait)
        self._background = street(size, script.script.seed)
        self._cutouts: dict[tuple[str, Cover], Cutout] = {}
        for walker in script.script.walker:
            if (walker.photo, walker.cover) not in self._cutouts:
                self._cutouts[walker.photo, walker.cover] = Cutout(
                    script.folder / walker.photo,
                    script.anatomies[walker.photo],
                    cover=walker.cover,
                    face_px=_KEPT_FACE_PX * max(1.0, size[0] / NOMINAL_WIDTH),
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cutouts.clear()

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @property
    def dropped(self) -> int:
        return self._pace.dropped

    def read(self, into: Image, timeout_s: float) -> Frame:
        number, boot_ns = self._pace.next(timeout_s)
        t_s = number / self._fps
        if t_s >= self._scene.seconds:
            if not self._loop:
                raise EndOfStreamError(f"the scene of {self._scene.seconds} s is over")
            t_s %= self._scene.seconds
        self._draw(into, t_s)
        return Frame(sequence=number, boot_ns=boot_ns, image=into)

    def _draw(self, into: Image, t_s: float) -> None:
        width, height = self._size
        enlarged = width / NOMINAL_WIDTH
        into[:] = self._background
        for _, walker, at in self._scene.poses(t_s):
            self._cutouts[walker.photo, walker.cover].draw(
                into,
                (at.x * width, at.y * height),
                face_px=at.face_px * enlarged,
                angle=at.angle,
                blur_px=walker.blur_px * enlarged,
                light=at.light,
                presence=at.presence,
            )


def _body(face: Box) -> Box:
    """What a person hides: from the forehead down, as wide as the shoulders."""
    x1, y1, x2, _ = face
    middle, half = (x1 + x2) / 2, (x2 - x1) / 2 * _BODY_FACES
    return middle - half, y1, middle + half, 1.0


def _share(box: Box, other: Box) -> float:
    """Fraction of `box` that is inside `other`."""
    w = min(box[2], other[2]) - max(box[0], other[0])
    h = min(box[3], other[3]) - max(box[1], other[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(0.0, w) * max(0.0, h) / area if area > 0 else 0.0
