"""The world of squares: a street of coloured squares, and a list with one colour on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from appliance.alerts.policy import Policy
from appliance.interfaces import Embedder
from appliance.services.watch import Watch
from appliance.system.clock import SimulatedClock
from appliance.system.erasure import Ledger
from appliance.system.secret import SecretBuffer
from appliance.tracking.tracker import Tracker
from appliance.types import FalseMatch, Frame, Image, Sighting
from appliance.vision.quality import QualityGate
from appliance.vision.simulated import SimulatedDetector, SimulatedEmbedder
from appliance.watchlist.match import Watchlist, watchlist_of

SIZE = (320, 180)
FPS = 10.0
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
TABLE = FalseMatch(
    similarity=(0.0, 0.5),
    rate=(0.5, 1e-6),
    tail_similarity=0.5,
    tail_rate=1e-6,
    tail_slope=30.0,
    probes=1000,
    comparisons=1_000_000,
    source="squares: made up",
)


def vector(colour: tuple[int, int, int]) -> np.ndarray:
    """What the simulated embedder makes of a colour."""
    return SimulatedEmbedder().embed(np.full((112, 112, 3), colour, np.uint8))


def wanted(*colours: tuple[int, int, int]) -> Watchlist:
    """A list with these colours on it."""
    return watchlist_of(
        list_id="squares",
        version=1,
        deployment="test",
        subjects=[f"subject-{n}" for n in range(len(colours))],
        counts=[1] * len(colours),
        vectors=np.stack([vector(colour) for colour in colours]),
        model=SimulatedEmbedder.model_id,
        table=TABLE,
        target_fpir=0.001,
        threshold_floor=0.9,
        lease_end_ns=2**62,
        allocate=SecretBuffer,
    )


def street(*squares: tuple[int, int, int, tuple[int, int, int]]) -> Image:
    """A frame with squares at (x, y, side) in a colour."""
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    for x, y, side, colour in squares:
        image[y : y + side, x : x + side] = colour
    return image


@dataclass
class Node:
    """The true path of a frame over squares, with what it reported."""

    embeddings: int = 3
    cooldown_s: float = 60.0
    hold_s: float = 1.0
    rest_s: float = 0.0
    fps: float = FPS
    clock: SimulatedClock = field(default_factory=SimulatedClock)
    ledger: Ledger = field(default_factory=Ledger)
    sightings: list[Sighting] = field(default_factory=list)
    frames: int = 0
    embedder: Embedder = field(default_factory=SimulatedEmbedder)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.watch = Watch(
            detector=SimulatedDetector(),
            embedder=self.embedder,
            gate=QualityGate(
                min_eye_distance_px=5.0, min_sharpness=0.0, min_light=0.0, max_light=256.0
            ),
            tracker=Tracker(patience_s=0.25),
            policy=Policy(cooldown_s=self.cooldown_s),
            ledger=self.ledger,
            clock=self.clock,
            report=lambda sighting, _list: self.sightings.append(sighting),
            embeddings=self.embeddings,
            interval_s=0.05,
            hold_s=self.hold_s,
            rest_s=self.rest_s,
            **self.options,
        )

    def see(self, watchlist: Watchlist, image: Image) -> None:
        """The next frame."""
        self.clock.advance(1 / self.fps)
        self.frames += 1
        self.watch.step(Frame(self.frames, self.clock.boot_ns(), image), watchlist)
