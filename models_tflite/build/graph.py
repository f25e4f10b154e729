"""A network as plain layers: what the source packages are read into and the writer reads out of.

Tensors are NHWC and named after the layer that makes them; "input" is the picture. Weights are
float64, so that the algebra on them (see algebra.py) costs nothing. Nothing here knows a file
format.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
Padding = Literal["SAME", "VALID"]

INPUT = "input"


@dataclass(frozen=True, slots=True, eq=False)
class Conv:
    """A convolution, then ReLU, PReLU or nothing.

    Attributes:
        weights: (kh, kw, in, out); of a depthwise one (kh, kw, channels, 1).
        bias: (out,).
        stride: in both directions.
        slopes: (out,) of the PReLU, None if there is none.
    """

    name: str
    source: str
    weights: Weights
    bias: Weights
    stride: int = 1
    padding: Padding = "VALID"
    depthwise: bool = False
    relu: bool = False
    slopes: Weights | None = None

    @property
    def width(self) -> int:
        """Channels that come out."""
        return len(self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Deconv:
    """A transposed convolution whose stride is its kernel's side, then ReLU.

    Attributes:
        weights: (kh, kw, in, out), kh == kw == stride.
        bias: (out,).
    """

    name: str
    source: str
    weights: Weights
    bias: Weights


@dataclass(frozen=True, slots=True)
class Add:
    """The sum of two tensors of one shape."""

    name: str
    sources: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Pad:
    """Zeros around: (before, after), the same for rows and columns."""

    name: str
    source: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """Logits to (0, 1)."""

    name: str
    source: str


@dataclass(frozen=True, slots=True)
class Flatten:
    """(1, 1, 1, c) to (1, c)."""

    name: str
    source: str


Layer = Conv | Deconv | Add | Pad | Sigmoid | Flatten


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Layers in an order in which they can be computed.

    Attributes:
        size: (height, width) of the picture.
        outputs: names of layers, in the order in which the model gives them.
        titles: what the outputs are called in the file.
    """

    layers: tuple[Layer, ...]
    size: tuple[int, int]
    outputs: tuple[str, ...]
    titles: tuple[str, ...] = field(default=())

    def at(self, size: tuple[int, int]) -> Graph:
        """The same network for pictures of another (height, width)."""
        return replace(self, size=size)

    def layer(self, name: str) -> Layer:
        """The layer of that name.

        Raises:
            KeyError: there is none.
        """
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def readers(self, name: str) -> list[Layer]:
        """Layers that take the tensor of that name."""
        return [layer for layer in self.layers if name in sources(layer)]


def sources(layer: Layer) -> tuple[str, ...]:
    """Names of the tensors that a layer takes."""
    return layer.sources if isinstance(layer, Add) else (layer.source,)
