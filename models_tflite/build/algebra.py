"""What may be changed in a network's weights without changing what it computes.

Each function returns a network whose outputs equal those of its argument in exact arithmetic;
they make its numbers fit into eight bits. The reasons are in models_tflite/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from graph import Conv, Graph, Layer, Pad, Weights, sources


def flip(graph: Graph) -> Graph:
    """Bring every PReLU slope into [-1, 1].

    PReLU_a(z) = -a * PReLU_{1/a}(-z): where |a| > 1 the channel's weights and bias are negated,
    the slope inverted, and whoever reads the channel multiplies it by -a.
    """
    factors = {}
    flipped: list[Layer] = []
    for layer in graph.layers:
        if isinstance(layer, Conv) and layer.slopes is not None:
            steep = np.abs(layer.slopes) > 1.0
            sign = np.where(steep, -1.0, 1.0)
            safe = np.where(steep, layer.slopes, 1.0)
            factors[layer.name] = np.where(steep, -safe, 1.0)
            layer = replace(  # noqa: PLW2901 - the same layer, rewritten
                layer,
                weights=_per_output(layer, sign),
                bias=layer.bias * sign,
                slopes=np.where(steep, 1.0 / safe, layer.slopes),
            )
        flipped.append(layer)
    return _scale_inputs(replace(graph, layers=tuple(flipped)), factors)


def merge(graph: Graph) -> Graph:
    """Make one convolution of two 1x1 convolutions in a row that nothing stands between."""
    for first, second in zip(graph.layers, graph.layers[1:], strict=False):
        if (
            isinstance(first, Conv)
            and isinstance(second, Conv)
            and _is_linear_point(first)
            and second.weights.shape[:2] == (1, 1)
            and not second.depthwise
            and second.source == first.name
            and graph.readers(first.name) == [second]
        ):
            # einsum and not matmul: the same sums in the same order on every machine.
            weights = np.einsum("im,mo->io", first.weights[0, 0], second.weights[0, 0])
            bias = np.einsum("m,mo->o", first.bias, second.weights[0, 0]) + second.bias
            merged = replace(second, source=first.source, weights=weights[None, None], bias=bias)
            kept = [merged if x is second else x for x in graph.layers if x is not first]
            return merge(replace(graph, layers=tuple(kept)))
    return graph


def equalise(graph: Graph, factors: Mapping[str, Weights]) -> Graph:
    """Divide the channels of some convolutions, and let their readers multiply them back.

    ReLU and PReLU let a positive factor pass.

    Args:
        graph: see equalisable().
        factors: for a convolution's name, what each of its channels is divided by; positive.
    """
    layers: list[Layer] = []
    for layer in graph.layers:
        if layer.name in factors and isinstance(layer, Conv):
            inverse = 1.0 / factors[layer.name]
            layer = replace(  # noqa: PLW2901 - the same layer, rewritten
                layer, weights=_per_output(layer, inverse), bias=layer.bias * inverse
            )
        layers.append(layer)
    return _scale_inputs(replace(graph, layers=tuple(layers)), factors)


def equalisable(graph: Graph) -> list[Conv]:
    """Convolutions all of whose readers are convolutions, maybe with zeros put around between."""
    return [
        layer
        for layer in graph.layers
        if isinstance(layer, Conv)
        and layer.name not in graph.outputs
        and all(isinstance(reader, Conv) for reader in _convolutions_after(graph, layer.name))
    ]


def _convolutions_after(graph: Graph, name: str) -> list[Layer]:
    """Readers of a tensor, looking through Pad."""
    found: list[Layer] = []
    for reader in graph.readers(name):
        found += _convolutions_after(graph, reader.name) if isinstance(reader, Pad) else [reader]
    return found


def _scale_inputs(graph: Graph, factors: Mapping[str, Weights]) -> Graph:
    """Multiply what the readers of some tensors make of each channel.

    Raises:
        ValueError: a reader is no convolution.
    """
    behind = dict(factors)
    layers: list[Layer] = []
    for layer in graph.layers:
        factor = None if not hasattr(layer, "source") else behind.get(layer.source)
        if isinstance(layer, Pad) and factor is not None:
            behind[layer.name] = factor
        elif isinstance(layer, Conv) and factor is not None:
            shape = (1, 1, -1, 1)
            layer = replace(layer, weights=layer.weights * factor.reshape(shape))  # noqa: PLW2901
        elif any(np.any(behind.get(name, 1.0) != 1.0) for name in sources(layer)):
            raise ValueError(f"{layer.name} reads a scaled tensor and is no convolution")
        layers.append(layer)
    return replace(graph, layers=tuple(layers))


def _per_output(layer: Conv, factor: Weights) -> Weights:
    """Weights of a convolution whose channels are multiplied by a factor each."""
    shape = (1, 1, -1, 1) if layer.depthwise else (1, 1, 1, -1)
    return layer.weights * factor.reshape(shape)


def _is_linear_point(layer: Conv) -> bool:
    plain = not layer.relu and layer.slopes is None and not layer.depthwise
    return plain and layer.weights.shape[:2] == (1, 1) and layer.stride == 1
