"""MobileFaceNet from the npm package: read as it is, repaired as README.md explains.

Enters: mobilefacenet.json and .bin, a TensorFlow.js graph model. Leaves: a Graph whose last
layer gives the embedding before its norm.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from graph import INPUT, Add, Conv, Flatten, Graph, Layer, Weights

SIDE = 112
SKIPS = 12
"""Residual additions that the network has; another number means another network."""

_CONVOLUTIONS = ("_FusedConv2D", "FusedDepthwiseConv2dNative")
_WIDTH_OF_DTYPE = {"float32": 4, "int32": 4}
_VALID = "VkFMSUQ="
"""Base64, as TensorFlow.js stores strings."""


def load(folder: Path) -> Graph:
    """The repaired network.

    Args:
        folder: holds mobilefacenet.json and mobilefacenet.bin.

    Raises:
        ValueError: the files hold another network.
    """
    document = json.loads((folder / "mobilefacenet.json").read_text())
    weights = _weights(document, (folder / "mobilefacenet.bin").read_bytes())
    convolutions = [n for n in document["modelTopology"]["node"] if n["op"] in _CONVOLUTIONS]
    layers: list[Layer] = []
    last, entry = INPUT, INPUT
    skips = 0
    for node in convolutions:
        conv = _convolution(node, weights, last, number=len(layers))
        if (
            node["name"].endswith("/Conv/BatchNorm/FusedBatchNorm")
            and "InvResBlock" in node["name"]
        ):
            entry = last
        layers.append(conv)
        last = conv.name
        if "/Conv_1/" in node["name"] and _may_skip(layers, conv):
            layers.append(Add(f"{conv.name}_skip", (entry, last)))
            last = layers[-1].name
            skips += 1
    if skips != SKIPS:
        raise ValueError(f"{skips} residual additions found, MobileFaceNet has {SKIPS}")
    layers.append(Flatten("embedding", last))
    return Graph(tuple(layers), (SIDE, SIDE), ("embedding",), ("embedding",))


def _weights(document: dict[str, Any], content: bytes) -> dict[str, Weights]:
    """Every constant by name: little-endian, one after the other in the manifest's order."""
    found, at = {}, 0
    for entry in document["weightsManifest"][0]["weights"]:
        count = int(np.prod(entry["shape"], dtype=int))
        raw = np.frombuffer(content, np.dtype(entry["dtype"]).newbyteorder("<"), count, at)
        found[entry["name"]] = raw.reshape(entry["shape"]).astype(np.float64)
        at += count * _WIDTH_OF_DTYPE[entry["dtype"]]
    if at != len(content):
        raise ValueError(f"{len(content)} bytes of weights, the graph names {at}")
    return found


def _convolution(node: dict[str, Any], weights: dict[str, Weights], last: str, number: int) -> Conv:
    """One layer, without the ReLU that the conversion fused where the PReLU belongs."""
    _, kernel, bias = node["input"]
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    scope = kernel.rpartition("/")[0]
    # The sign and the factor: the graph computes relu(z) + (z - |z|) * mul with the wrong sign.
    slopes = -2.0 * weights[f"{scope}/mul"] if f"{scope}/mul" in weights else None
    parts = scope.removeprefix("MobileFaceNet/").removeprefix("MobileFaceNet/").split("/")
    return Conv(
        name=f"{number:02}_{'_'.join(parts)}",
        source=last,
        weights=weights[kernel],
        bias=weights[bias],
        stride=stride,
        padding="VALID" if node["attr"]["padding"]["s"] == _VALID else "SAME",
        depthwise=node["op"] == "FusedDepthwiseConv2dNative",
        slopes=slopes,
    )


def _may_skip(layers: list[Layer], project: Conv) -> bool:
    """Whether a block's input has the shape of its output."""
    block = [x for x in layers if isinstance(x, Conv)][-3:]
    return all(conv.stride == 1 for conv in block) and block[0].weights.shape[2] == project.width
