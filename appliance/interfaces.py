"""What it flows through: the seams, each with a real and a simulated side.

seam         real                              simulated
Camera       camera/picamera.py, recorded.py   camera/scene.py
Accelerator  accelerator/tflite.py             accelerator/simulated.py
Detector     vision/detector.py                vision/simulated.py
Embedder     vision/embedder.py                vision/simulated.py
Link         link/nng.py                       link/simulated.py
Lamps        indicator/gpio.py, terminal.py    indicator/simulated.py
Outbox       alerts/durable.py                 alerts/outbox.py (in memory)
Clock        system/clock.py                   system/clock.py

A seam is the smallest thing that we need, in our words, and names the error that it raises; the
driver behind it imports its vendor's library inside the constructor and translates that
vendor's errors. One contract test in tests/contracts runs over every side of a seam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from appliance.types import Face, Frame, Image, Lamp, ModelSpec, Tensor, Vector
from appliance.wire import Row


class Camera(AbstractContextManager["Camera"], Protocol):
    """Light becomes a Frame. Opened by its constructor, closed by `with`; used by one thread."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels of every frame."""

    @property
    def dropped(self) -> int:
        """Frames that the source had and read() did not hand over, so far."""

    def read(self, into: Image, timeout_s: float) -> Frame:
        """The newest frame, copied into the caller's buffer.

        The driver keeps no copy: whoever owns `into` can erase the frame.

        Args:
            into: (height, width, 3) uint8, overwritten; the result's `image` is this array.
            timeout_s: how long to wait for a frame.

        Raises:
            EndOfStreamError: a recorded source is over.
            CameraError: no frame came within timeout_s, or the source failed.
        """


class Accelerator(AbstractContextManager["Accelerator"], Protocol):
    """One loaded model on one device. Used by one thread."""

    @property
    def spec(self) -> ModelSpec:
        """What the manifest says of the model."""

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """Raw output tensors in the order of spec.outputs, still quantised; the caller's own.

        The device's input and output buffers are overwritten before this returns.

        Args:
            tensor: exactly the shape and dtype of spec.input.

        Raises:
            AcceleratorError: wrong shape or dtype, or the device refused or vanished.
        """


class Detector(Protocol):
    """Finds faces."""

    def detect(self, image: Image) -> list[Face]:
        """Faces in pixels of `image`, best score first.

        Args:
            image: any size.
        """

    def forget(self) -> None:
        """Overwrite what is kept of the last picture between the layers of the model."""


class Embedder(Protocol):
    """Turns an aligned face into a vector."""

    @property
    def model_id(self) -> str:
        """ModelSpec.id: vectors of different ids must not be compared."""

    @property
    def dim(self) -> int:
        """Length of a Vector."""

    @property
    def side(self) -> int:
        """Pixels of the square crop that `embed` takes."""

    def embed(self, crop: Image) -> Vector:
        """The template of one face.

        Args:
            crop: (side, side, 3) uint8 RGB, aligned by vision.align.
        """

    def forget(self) -> None:
        """Overwrite what is kept of the last face between the layers of the model."""


class Link(AbstractContextManager["Link"], Protocol):
    """Questions to the controller. `request` may be called by several threads at once."""

    def request(self, message: bytes, timeout_s: float) -> bytes:
        """Send and wait for the controller's answer.

        Raises:
            LinkError: no answer in time; the controller may still have got it.
        """


class Lamps(AbstractContextManager["Lamps"], Protocol):
    """The LEDs themselves: no blinking in here, that is indicator/patterns.py."""

    def set(self, lit: Mapping[Lamp, bool]) -> None:
        """Light exactly the lamps that map to True.

        Raises:
            OSError: a lamp could not be driven; the caller must treat it as a fault.
        """


class Outbox(Protocol):
    """Sealed alerts that the next hop has not acknowledged. Thread-safe."""

    @property
    def depth(self) -> int:
        """Rows held."""

    def put(self, rows: Sequence[Row]) -> None:
        """Keep rows, all or none; when this returns they are kept as well as this outbox can.

        A row whose (boot, sequence) is held already is not kept twice: answers get lost, and the
        same rows come again.

        Raises:
            OutboxFullError: it holds as many as it may; nothing was kept.
        """

    def peek(self, most: int) -> tuple[Row, ...]:
        """The oldest rows, at most `most`; they stay."""

    def drop(self, rows: Sequence[Row]) -> None:
        """Forget these rows: the next hop has them. Rows that are not held are ignored."""

    def wait(self, timeout_s: float) -> bool:
        """True as soon as the outbox holds something, False after timeout_s without."""


class Clock(Protocol):
    """Time, as an argument rather than a habit."""

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME: never steps back, comparable within one boot, shared by processes."""

    def utc_ns(self) -> int | None:
        """Wall clock, or None until it is synchronised."""
