"""CenterFace from the PyPI package: the ONNX graph as layers, for any picture size.

Enters: centerface.onnx, exported for one fixed size. Leaves: a Graph with four outputs: heat map
after the sigmoid, scale, offset, landmarks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from graph import INPUT, Add, Conv, Deconv, Graph, Layer, Pad, Sigmoid, Weights
from onnx import numpy_helper

SIZE_MULTIPLE = 32
OUTPUTS = ("537", "538", "539", "540")
TITLES = ("heatmap", "scale", "offset", "landmarks")


def load(path: Path) -> Graph:
    """The network; its size must be set with Graph.at.

    Raises:
        ValueError: the file holds an operator that CenterFace does not have.
    """
    model = onnx.load(path).graph
    constants = {
        tensor.name: numpy_helper.to_array(tensor).astype(np.float64)
        for tensor in model.initializer
    }
    reader = _Reader(constants)
    for node in model.node:
        reader.read(node)
    outputs = tuple(reader.name(output) for output in OUTPUTS)
    return Graph(tuple(reader.layers), (SIZE_MULTIPLE, SIZE_MULTIPLE), outputs, TITLES)


class _Reader:
    """Turns nodes into layers; what only decorates a layer is folded into it."""

    def __init__(self, constants: dict[str, Weights]) -> None:
        self.layers: list[Layer] = []
        self._constants = constants
        self._names = {"input.1": INPUT}

    def name(self, tensor: str) -> str:
        """The layer that makes a tensor of the ONNX graph."""
        return self._names[tensor]

    def read(self, node: Any) -> None:  # noqa: ANN401 - onnx has no types
        """Append the layer that a node is, or fold it into the one before."""
        match node.op_type:
            case "Conv":
                self._convolution(node)
            case "ConvTranspose":
                weights = self._constants[node.input[1]].transpose(2, 3, 0, 1)
                source, bias = self._names[node.input[0]], np.zeros(weights.shape[3])
                self._append(node, Deconv(f"up_{node.output[0]}", source, weights, bias))
            case "BatchNormalization":
                self._fold_norm(node)
            case "Relu":
                self._fold_relu(node)
            case "Add":
                a, b = (self._names[tensor] for tensor in node.input)
                self._append(node, Add(f"add_{node.output[0]}", (a, b)))
            case "Sigmoid":
                source = self._names[node.input[0]]
                self._append(node, Sigmoid(f"sigmoid_{node.output[0]}", source))
            case other:
                raise ValueError(f"operator {other} of {node.output[0]}: not one of CenterFace's")

    def _append(self, node: Any, layer: Layer) -> None:  # noqa: ANN401 - onnx has no types
        self.layers.append(layer)
        self._names[node.output[0]] = layer.name

    def _convolution(self, node: Any) -> None:  # noqa: ANN401 - onnx has no types
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        raw = self._constants[node.input[1]]  # (out, in / group, kh, kw)
        depthwise = attributes["group"] > 1
        stride, side = attributes["strides"][0], raw.shape[2]
        source = self._names[node.input[0]]
        if stride > 1 and attributes["pads"][0]:
            # One row before *and* after: TensorFlow's SAME has it only after, on even sizes.
            pad = Pad(f"pad_{node.output[0]}", source, 1, 1)
            self.layers.append(pad)
            source = pad.name
        layer = Conv(
            name=f"conv_{node.output[0]}",
            source=source,
            weights=raw.transpose(2, 3, 0, 1) if depthwise else raw.transpose(2, 3, 1, 0),
            bias=self._constants[node.input[2]],
            stride=stride,
            padding="SAME" if side > 1 and stride == 1 else "VALID",
            depthwise=depthwise,
        )
        self._append(node, layer)

    def _last(self, node: Any) -> Layer:  # noqa: ANN401 - onnx has no types
        last = self.layers[-1]
        if self._names[node.input[0]] != last.name:
            raise ValueError(f"{node.op_type} of {node.output[0]} does not follow its source")
        self._names[node.output[0]] = last.name
        return last

    def _fold_norm(self, node: Any) -> None:  # noqa: ANN401 - onnx has no types
        last = self._last(node)
        if not isinstance(last, Deconv):
            raise ValueError(  # noqa: TRY004 - the file is wrong, not a type
                f"a batch norm follows {last.name}, which is no transposed convolution"
            )
        gain, shift, mean, variance = (self._constants[name] for name in node.input[1:])
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        factor = gain / np.sqrt(variance + epsilon)
        bias = shift - mean * factor
        self.layers[-1] = replace(last, weights=last.weights * factor, bias=bias)

    def _fold_relu(self, node: Any) -> None:  # noqa: ANN401 - onnx has no types
        last = self._last(node)
        if isinstance(last, Conv):
            self.layers[-1] = replace(last, relu=True)
        elif not isinstance(last, Deconv):
            raise ValueError(  # noqa: TRY004 - the file is wrong, not a type
                f"a ReLU follows {last.name}, which is no convolution"
            )
