"""A Graph to a .tflite file, in float32 or in int8.

Enters: layers and, for int8, the range of every activation. Leaves: bytes, always the same for
the same arguments. What was chosen here and why: models_tflite/README.md, "Form".

Source of the int8 rules: the TensorFlow Lite 8-bit quantisation specification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from graph import INPUT, Add, Conv, Deconv, Flatten, Graph, Layer, Pad, Sigmoid, Weights
from tflite_file import Quantisation, TfliteFile

Ranges = Mapping[str, tuple[float, float]]
"""Least and greatest real value of each activation; see activations()."""

_LEVELS = 255
_LOWEST, _HIGHEST = -128, 127
_SIGMOID = Quantisation((1 / 256,), (-128,))
"""The one that the operator prescribes."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    index: int
    shape: tuple[int, ...]
    quantisation: Quantisation | None


def before_prelu(layer: str) -> str:
    """The name of a PReLU's input."""
    return f"{layer}/z"


def correction(layer: str) -> str:
    """The name of what a PReLU adds to its input: RELU((slope - 1) * z)."""
    return f"{layer}/c"


def write(
    graph: Graph,
    title: str,
    *,
    ranges: Ranges | None = None,
    input_quantisation: Quantisation | None = None,
    plain_prelu: bool = False,
) -> bytes:
    """The file.

    Args:
        graph: for int8 no slope of a PReLU is above 1.
        title: of the graph in the file.
        ranges: of every activation for int8; None writes float32.
        input_quantisation: of the picture, with ranges.
        plain_prelu: in float32, write PReLUs as the operator of that name.
    """
    return _Writer(graph, title, ranges, input_quantisation, plain_prelu=plain_prelu).write()


class _Writer:
    def __init__(
        self,
        graph: Graph,
        title: str,
        ranges: Ranges | None,
        input_quantisation: Quantisation | None,
        *,
        plain_prelu: bool,
    ) -> None:
        self._graph, self._ranges, self._plain = graph, ranges, plain_prelu
        self._input_quantisation = input_quantisation
        self._file = TfliteFile(title)
        self._tensors: dict[str, _Tensor] = {}
        self._titles = dict(zip(graph.outputs, graph.titles, strict=True))

    def write(self) -> bytes:
        height, width = self._graph.size
        self._declare(INPUT, (1, height, width, 3), self._input_quantisation)
        for layer in self._graph.layers:
            self._lower(layer)
        outputs = [self._tensors[name].index for name in self._graph.outputs]
        return self._file.pack([self._tensors[INPUT].index], outputs)

    @property
    def _int8(self) -> bool:
        return self._ranges is not None

    def _lower(self, layer: Layer) -> None:
        match layer:
            case Conv():
                self._conv(layer)
            case Deconv():
                self._deconv(layer)
            case Add():
                a, b = (self._tensors[name] for name in layer.sources)
                self._add(layer.name, a, b)
            case Pad():
                self._pad(layer)
            case Sigmoid():
                source = self._tensors[layer.source]
                out = self._declare(layer.name, source.shape, _SIGMOID)
                self._operate("LOGISTIC", 2, (source.index,), out)
            case Flatten():
                source = self._tensors[layer.source]
                shape = (1, source.shape[3])
                out = self._declare(layer.name, shape, source.quantisation)
                options = schema.ReshapeOptionsT()
                options.newShape = list(shape)
                inputs = (source.index, self._ints(f"{layer.name}/shape", shape))
                self._operate("RESHAPE", 1, inputs, out, options)

    def _declare(
        self, name: str, shape: tuple[int, ...], quantisation: Quantisation | None = None
    ) -> _Tensor:
        """An activation; its quantisation follows from its range if none is given."""
        if self._ranges is None:
            quantisation = None
        elif quantisation is None:
            quantisation = of_range(*self._ranges[name])
        dtype = "int8" if self._int8 else "float32"
        title = self._titles.get(name, name)
        index = self._file.tensor(title, shape, dtype, quantisation=quantisation)
        self._tensors[name] = _Tensor(index, shape, quantisation)
        return self._tensors[name]

    def _operate(
        self,
        kind: str,
        version_int8: int,
        inputs: tuple[int, ...],
        out: _Tensor,
        options: Any = None,  # noqa: ANN401 - generated classes
    ) -> None:
        self._file.operator(kind, version_int8 if self._int8 else 1, inputs, out.index, options)

    def _ints(self, name: str, values: tuple[int, ...] | npt.NDArray[Any]) -> int:
        array = np.asarray(values, np.int32)
        return self._file.tensor(name, array.shape, "int32", constant=array)

    def _conv(self, layer: Conv) -> None:
        source = self._tensors[layer.source]
        rows, columns = (
            _shrunk(length, layer.weights.shape[0], layer.stride, layer.padding)
            for length in source.shape[1:3]
        )
        name = layer.name if layer.slopes is None else before_prelu(layer.name)
        out = self._declare(name, (1, rows, columns, layer.width))
        if layer.depthwise:
            kernel, axis = layer.weights.transpose(3, 0, 1, 2), 3  # (1, kh, kw, channels)
            options = schema.DepthwiseConv2DOptionsT()
            options.depthMultiplier = 1
        else:
            kernel, axis = layer.weights.transpose(3, 0, 1, 2), 0  # (out, kh, kw, in)
            options = schema.Conv2DOptionsT()
        options.padding = getattr(schema.Padding, layer.padding)
        options.strideH = options.strideW = layer.stride
        options.dilationHFactor = options.dilationWFactor = 1
        if layer.relu:
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        inputs = (source.index, *self._parameters(layer.name, kernel, layer.bias, source, axis))
        self._operate(
            "DEPTHWISE_CONV_2D" if layer.depthwise else "CONV_2D", 3, inputs, out, options
        )
        if layer.slopes is not None:
            self._prelu(layer.name, out, layer.slopes)

    def _prelu(self, name: str, z: _Tensor, slopes: Weights) -> None:
        """PReLU as z + RELU((slope - 1) * z): exactly that, for slopes of at most 1."""
        if self._plain or slopes.max() > 1.0:
            self._plain_prelu(name, z, slopes)
            return
        factor = self._factors(f"{name}/slopes", slopes - 1.0)
        below = self._declare(correction(name), z.shape)
        options = schema.MulOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.RELU
        self._operate("MUL", 2, (z.index, factor), below, options)
        self._add(name, z, below)

    def _plain_prelu(self, name: str, z: _Tensor, slopes: Weights) -> None:
        """The operator of that name, in float32 only: int8 has no fast path for it."""
        if self._int8:
            raise ValueError(f"{name}: a slope of {slopes.max()}, int8 takes at most 1")
        alpha = self._factors(f"{name}/slopes", slopes.reshape(1, 1, -1))
        self._operate("PRELU", 1, (z.index, alpha), self._declare(name, z.shape))

    def _factors(self, name: str, values: Weights) -> int:
        """One constant per channel, for a product along the last axis."""
        if not self._int8:
            return self._file.tensor(
                name, values.shape, "float32", constant=values.astype(np.float32)
            )
        quantisation = of_range(float(values.min()), float(values.max()))
        levels = np.rint(values / quantisation.scale[0]) + quantisation.zero_point[0]
        constant = np.clip(levels, _LOWEST, _HIGHEST).astype(np.int8)
        return self._file.tensor(
            name, values.shape, "int8", quantisation=quantisation, constant=constant
        )

    def _add(self, name: str, a: _Tensor, b: _Tensor) -> None:
        if a.shape != b.shape:
            raise ValueError(f"{name}: adds {a.shape} and {b.shape}")
        out = self._declare(name, a.shape)
        self._operate("ADD", 2, (a.index, b.index), out, schema.AddOptionsT())

    def _deconv(self, layer: Deconv) -> None:
        source = self._tensors[layer.source]
        side = layer.weights.shape[0]
        shape = (1, source.shape[1] * side, source.shape[2] * side, len(layer.bias))
        out = self._declare(layer.name, shape)
        options = schema.TransposeConvOptionsT()
        options.padding = schema.Padding.VALID
        options.strideH = options.strideW = side
        version = 3
        if not self._int8:
            # In int8 the range begins at 0: saturation *is* the ReLU, bit for bit, and the
            # operator keeps the version without a fused one, which the Edge TPU compiler takes.
            options.fusedActivationFunction = schema.ActivationFunctionType.RELU
            version = 4
        elif out.quantisation is None or out.quantisation.zero_point != (_LOWEST,):
            raise ValueError(f"{layer.name}: its range must begin at 0")
        kernel = layer.weights.transpose(3, 0, 1, 2)  # (out, kh, kw, in)
        weights, bias = self._parameters(layer.name, kernel, layer.bias, source, axis=0)
        inputs = (self._ints(f"{layer.name}/shape", shape), weights, source.index, bias)
        self._file.operator("TRANSPOSE_CONV", version, inputs, out.index, options)

    def _pad(self, layer: Pad) -> None:
        source = self._tensors[layer.source]
        around = np.array(
            [[0, 0], [layer.before, layer.after], [layer.before, layer.after], [0, 0]]
        )
        shape = tuple(int(n) for n in np.array(source.shape) + around.sum(axis=1))
        out = self._declare(layer.name, shape, source.quantisation)
        inputs = (source.index, self._ints(f"{layer.name}/around", around))
        self._operate("PAD", 2, inputs, out, schema.PadOptionsT())

    def _parameters(
        self, name: str, kernel: Weights, bias: Weights, source: _Tensor, axis: int
    ) -> tuple[int, int]:
        """Weights and bias; in int8 symmetric per output channel, the bias in their product."""
        if source.quantisation is None:
            return (
                self._file.tensor(
                    f"{name}/weights", kernel.shape, "float32", constant=kernel.astype(np.float32)
                ),
                self._file.tensor(
                    f"{name}/bias", bias.shape, "float32", constant=bias.astype(np.float32)
                ),
            )
        others = tuple(n for n in range(kernel.ndim) if n != axis)
        greatest = np.maximum(np.abs(kernel).max(axis=others), 1e-9)
        scale = (greatest / _HIGHEST).astype(np.float32).astype(np.float64)
        along = scale.reshape([-1 if n == axis else 1 for n in range(kernel.ndim)])
        levels = np.clip(np.rint(kernel / along), -_HIGHEST, _HIGHEST).astype(np.int8)
        product = (scale * source.quantisation.scale[0]).astype(np.float32).astype(np.float64)
        zeros = (0,) * len(scale)
        weights = self._file.tensor(
            f"{name}/weights",
            levels.shape,
            "int8",
            quantisation=Quantisation(tuple(scale.tolist()), zeros, axis),
            constant=levels,
        )
        offsets = np.clip(np.rint(bias / product), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        return weights, self._file.tensor(
            f"{name}/bias",
            offsets.shape,
            "int32",
            quantisation=Quantisation(tuple(product.tolist()), zeros),
            constant=offsets,
        )


def of_range(low: float, high: float) -> Quantisation:
    """The int8 quantisation of [low, high], widened so that zero is exactly a level."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-6) / _LEVELS))
    zero_point = int(np.clip(np.rint(_LOWEST - low / scale), _LOWEST, _HIGHEST))
    return Quantisation((scale,), (zero_point,))


def _shrunk(length: int, kernel: int, stride: int, padding: str) -> int:
    """Rows or columns that a convolution leaves."""
    reach = length if padding == "SAME" else length - kernel + 1
    return -(-reach // stride)
