"""Tensors and operators to the bytes of a .tflite file: the schema's bookkeeping and nothing more.

Bytes depend on the arguments alone: no time, no version string, no order of a set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

_FILE_ID = b"TFL3"
_SCHEMA_VERSION = 3
_LAST_SMALL_CODE = 127
_ALIGNMENT = 16
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int32": schema.TensorType.INT32,
    "int8": schema.TensorType.INT8,
}


@dataclass(frozen=True, slots=True)
class Quantisation:
    """real = scale * (quantised - zero_point), per tensor or along one axis."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int = 0


class _Buffer(schema.BufferT):  # type: ignore[misc]  # generated code has no types
    """The generated class forgets the schema's alignment of 16 bytes."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 - overrides
        data = b"" if self.data is None else self.data.tobytes()
        if not data:
            schema.BufferStart(builder)
            return int(schema.BufferEnd(builder))
        builder.StartVector(1, len(data), _ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        schema.BufferStart(builder)
        schema.BufferAddData(builder, vector)
        return int(schema.BufferEnd(builder))


class TfliteFile:
    """Collects tensors and operators in the order of their computation.

    Args:
        title: the graph's name in the file.
    """

    def __init__(self, title: str) -> None:
        self._title = title
        self._tensors: list[Any] = []
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}
        self._buffers: list[_Buffer] = [_buffer(None)]  # the first one is empty by convention

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        *,
        quantisation: Quantisation | None = None,
        constant: npt.NDArray[Any] | None = None,
    ) -> int:
        """Declare a tensor; a constant brings its values.

        Returns:
            Its index.
        """
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), _TYPES[dtype]
        tensor.buffer = 0
        if constant is not None:
            if constant.dtype != np.dtype(dtype) or list(constant.shape) != list(shape):
                raise ValueError(f"{name}: {constant.dtype} {constant.shape} is not as declared")
            tensor.buffer = len(self._buffers)
            self._buffers.append(_buffer(constant))
        if quantisation is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = list(quantisation.scale)
            tensor.quantization.zeroPoint = list(quantisation.zero_point)
            tensor.quantization.quantizedDimension = quantisation.axis
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def operator(
        self,
        kind: str,
        version: int,
        inputs: Sequence[int],
        output: int,
        options: Any = None,  # noqa: ANN401 - generated classes
    ) -> None:
        """Append an operator.

        Args:
            kind: of schema.BuiltinOperator.
            version: least runtime semantics that it needs.
            inputs: tensor indices.
            output: a tensor index.
            options: of schema, its name says the union member.
        """
        code = getattr(schema.BuiltinOperator, kind)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault((code, version), len(self._codes))
        operator.inputs, operator.outputs = list(inputs), [output]
        if options is not None:
            operator.builtinOptions = options
            member = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, member)
        self._operators.append(operator)

    def pack(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file."""
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = self._title, self._tensors, self._operators
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        model = schema.ModelT()
        model.version, model.description = _SCHEMA_VERSION, "Picket"
        model.subgraphs, model.buffers = [graph], self._buffers
        model.operatorCodes = [_code(*key) for key in self._codes]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=_FILE_ID)
        return bytes(builder.Output())


def _buffer(data: npt.NDArray[Any] | None) -> _Buffer:
    buffer = _Buffer()
    buffer.data = None if data is None else np.ascontiguousarray(data)
    return buffer


def _code(builtin: int, version: int) -> Any:  # noqa: ANN401 - generated classes
    code = schema.OperatorCodeT()
    code.builtinCode, code.version = builtin, version
    code.deprecatedBuiltinCode = min(builtin, _LAST_SMALL_CODE)
    return code
