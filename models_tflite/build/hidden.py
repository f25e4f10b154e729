"""The two networks that training/ left: weights that no registry package has.

Enters: training/weights/*.npz, committed. Leaves: Graphs. The embedder for hidden faces is
MobileFaceNet with other weights behind a certain layer; the classifier of hidden parts is small and
all its own.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from graph import INPUT, Conv, Flatten, Graph, Layer

_KINDS = ("weights", "bias", "slopes")


def trained(graph: Graph, path: Path) -> Graph:
    """A graph, with those weights replaced that the file has.

    Args:
        graph: of the same architecture.
        path: what training/export.py kept.

    Raises:
        ValueError: the file has weights of a layer that the graph has not.
    """
    found = _arrays(path)
    names = {layer.name for layer in graph.layers}
    strange = {name.partition("/")[0] for name in found} - names
    if strange:
        raise ValueError(f"{path}: layers {sorted(strange)}: the graph has none of that name")
    return replace(graph, layers=tuple(_layer(layer, found) for layer in graph.layers))


def classifier(path: Path) -> Graph:
    """The classifier of hidden parts: halving, looking, mixing, and one look at the whole.

    Args:
        path: what training/export.py kept; its order is that of the layers.
    """
    found = _arrays(path)
    layers: list[Layer] = []
    for name in dict.fromkeys(key.partition("/")[0] for key in found):
        weights = found[f"{name}/weights"]
        layers.append(
            Conv(
                name=name,
                source=layers[-1].name if layers else INPUT,
                weights=weights,
                bias=found[f"{name}/bias"],
                stride=2 if name == "first" or name.startswith("look") else 1,
                padding="VALID" if name == "whole" else "SAME",
                depthwise=name.startswith(("look", "again")),
                relu=name != "whole",
            )
        )
    layers.append(Flatten("logits", layers[-1].name))
    return Graph(tuple(layers), (112, 112), ("logits",), ("logits",))


def _arrays(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    with np.load(path) as stored:
        return {name: stored[name].astype(np.float64) for name in stored.files}


def _layer(layer: Layer, found: dict[str, npt.NDArray[np.float64]]) -> Layer:
    if not isinstance(layer, Conv) or f"{layer.name}/weights" not in found:
        return layer
    new = {
        kind: found[f"{layer.name}/{kind}"] for kind in _KINDS if f"{layer.name}/{kind}" in found
    }
    return replace(layer, **new)
