"""What flows: a Frame enters, Faces become Tracks, a fused template becomes a Match, then an alert.

Every room speaks these types and no others. They are frozen; arrays inside them are never
written to after the constructor, except by the pool that overwrites a frame's pixels when its
last use is over. Types that hold arrays compare by identity (`==` on arrays is no truth value).
Boxes and landmarks are in pixels of the Frame they came from, x to the right, y down.

Arrays are named here, and NumPy is not loaded: of the node's three processes only the one that sees
frames needs it, and loading it is a quarter of a second of a Pi's start.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    import numpy.typing as npt

Image: TypeAlias = "npt.NDArray[np.uint8]"
"""(height, width, 3) uint8, RGB, C-contiguous."""

Vector: TypeAlias = "npt.NDArray[np.float32]"
"""(dim,) float32, L2 norm 1: one template or probe."""

Vectors: TypeAlias = "npt.NDArray[np.float32]"
"""(n, dim) float32, rows of L2 norm 1, C-contiguous."""

Points: TypeAlias = "npt.NDArray[np.float32]"
"""(5, 2) float32 pixels: left eye, right eye, nose tip, left and right mouth corner, as seen."""

Tensor: TypeAlias = "npt.NDArray[Any]"
"""What an accelerator takes and gives: dtype and shape as its TensorSpec says, still quantised."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture from the sensor.

    Attributes:
        sequence: counts every frame that the sensor delivered; a gap is a drop.
        boot_ns: CLOCK_BOOTTIME when the first row was exposed, nanoseconds
            (libcamera's SensorTimestamp).
        image: see Image.
    """

    sequence: int
    boot_ns: int
    image: Image


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face found in one frame.

    Attributes:
        box: (4,) float32 pixels: x1 y1 x2 y2.
        landmarks: see Points.
        score: detector confidence in [0, 1].
    """

    box: npt.NDArray[np.float32]
    landmarks: Points
    score: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How much a face can tell; the gate before the embedder.

    Attributes:
        eye_distance_px: between the eyes, in pixels of the frame.
        sharpness: variance of the Laplacian of the aligned crop's luma; 0 is flat.
        light: mean luma of the aligned crop, 0 to 255.
        turn: 0 when the nose is midway between the eyes, 1 when it is over one of them.
        refusal: None, or the first bound that the face broke, in words.
    """

    eye_distance_px: float
    sharpness: float
    light: float
    turn: float
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Track:
    """One face followed across frames.

    Attributes:
        id: never reused within a boot, increasing from 1.
        face: as last seen.
        first_seen_ns: Frame.boot_ns when the track began.
        last_seen_ns: Frame.boot_ns of `face`.
        hits: frames in which the face was found.
    """

    id: int
    face: Face
    first_seen_ns: int
    last_seen_ns: int
    hits: int


@dataclass(frozen=True, slots=True)
class Match:
    """The watchlist subject nearest to a probe, and how near the next one is.

    Attributes:
        subject: opaque reference given by the authority; never a name.
        similarity: cosine in [-1, 1].
        runner_up: cosine of the best other subject, -1 if there is none.
    """

    subject: str
    similarity: float
    runner_up: float


@dataclass(frozen=True, slots=True)
class Sighting:
    """A subject seen: what the policy made of one track's fused template.

    Attributes:
        track: as it was when it was decided.
        match: the subject and the similarity.
        threshold: similarity from which a match is an alert.
        false_alert_rate: chance that a passer-by who is not on the list scores this high.
        frames_fused: embeddings in the fused template that was matched, 1 or more.
        quality: of the last face fused.
        decided_ns: CLOCK_BOOTTIME of the decision.
        hidden: which part of the face was, in most frames: "none", "lower", "eyes", "upper";
            "unknown" if nobody looked.
        column: of the watchlist, in which it was matched.
    """

    track: Track
    match: Match
    threshold: float
    false_alert_rate: float
    frames_fused: int
    quality: Quality
    decided_ns: int
    hidden: str = "unknown"
    column: str = "whole"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: real = scale * (quantised - zero_point)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What models_tflite/manifest.toml says of one model file.

    Attributes:
        name: unique in the manifest.
        role: "detector", "embedder", or "occlusion": the classifier of hidden parts.
        id: name@first 12 hex digits of the file's SHA-256; what a watchlist is bound to.
        sha256: of the file, 64 hex digits.
        pixel_mean, pixel_std: real input = (pixel - pixel_mean) / pixel_std.
        input: shape is (1, height, width, 3).
        outputs: in the order in which Accelerator.run returns them.
    """

    name: str
    role: str
    id: str
    sha256: str
    pixel_mean: float
    pixel_std: float
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class FalseMatch:
    """How often two strangers reach a similarity: measured for one embedder, kept in the manifest.

    Attributes:
        similarity: cosines, increasing.
        rate: at the same index, the fraction of stranger-template comparisons at or above that
            cosine; decreasing.
        tail_similarity, tail_rate, tail_slope: beyond tail_similarity the rate is extrapolated as
            tail_rate * exp(-tail_slope * (similarity - tail_similarity)).
        probes, comparisons: what it was measured on.
        source: data set and protocol, one line.
        tail_slope_error: standard error of tail_slope, by resampling people; 0 if that was not
            measured, and the comparisons are taken for independent.
    """

    similarity: tuple[float, ...]
    rate: tuple[float, ...]
    tail_similarity: float
    tail_rate: float
    tail_slope: float
    probes: int
    comparisons: int
    source: str
    tail_slope_error: float = 0.0


class NodeState(StrEnum):
    """What the node is doing, as the LEDs and the health message tell it."""

    STARTING = "starting"
    IDLE = "idle"
    WATCHING = "watching"
    ALERT = "alert"
    NO_WATCHLIST = "no-watchlist"
    OFFLINE = "offline"
    UPDATING = "updating"
    HOT = "hot"
    FAULT = "fault"


class Lamp(StrEnum):
    """The LEDs of the box. CAMERA is lit for as long as frames are taken, in every state."""

    CAMERA = "camera"
    STATUS = "status"
    ALERT = "alert"
