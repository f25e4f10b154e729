"""What the committed models are made of, and what their stored answers can tell.

The Edge TPU compiler refuses a file whole if it holds an operator version that it does not know,
and leaves on the CPU what breaks a limit of its list. So every operator, its version and those
limits are checked here; whether the compiler agrees only the compiler can tell, see
models_tflite/README.md.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from appliance.accelerator import golden
from appliance.accelerator.manifest import Manifest, ModelFile
from appliance.errors import AcceleratorError
from appliance.types import Tensor

FOLDER = Path(__file__).parents[2] / "models_tflite"
MANIFEST = Manifest.load(FOLDER)
MODELS = MANIFEST.models
MAX_BYTES = 15 * 1024 * 1024

EDGE_TPU = {
    "ADD": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 3,
    "LOGISTIC": 2,
    "MAXIMUM": 2,
    "MUL": 2,
    "PAD": 2,
    "PRELU": 1,
    "RELU": 2,
    "RESHAPE": 1,
    "TRANSPOSE_CONV": 3,
}
"""Operators of the compiler's published list that networks like ours need, each with the oldest
version that can say int8 with weights per channel. Reported of versions: TRANSPOSE_CONV 4 and
CONV_2D 6 are refused by compiler 16 (google-coral/edgetpu #845, #631), TRANSPOSE_CONV 3 is refused
by compiler 2 and read by 15 (#358)."""


@dataclass(frozen=True)
class Graph:
    """The one subgraph of a file, and the schema to read it with."""

    schema: Any
    file: Any
    graph: Any

    def operators(self) -> list[tuple[str, int, Any]]:
        """Name, version and operator, in order."""
        kinds = {
            value: name
            for name, value in vars(self.schema.BuiltinOperator).items()
            if isinstance(value, int)
        }
        codes = [(kinds[code.builtinCode], code.version) for code in self.file.operatorCodes]
        return [(*codes[op.opcodeIndex], op) for op in self.graph.operators]

    def type_of(self, index: int) -> str:
        names = {
            value: name
            for name, value in vars(self.schema.TensorType).items()
            if isinstance(value, int)
        }
        return str(names[self.graph.tensors[index].type])


@pytest.fixture(params=MODELS, ids=lambda model: model.spec.name)
def model(request: pytest.FixtureRequest) -> ModelFile:
    found: ModelFile = request.param
    return found


@pytest.fixture
def graph(model: ModelFile) -> Graph:
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    file = schema.ModelT.InitFromPackedBuf(model.verify(), 0)
    (only,) = file.subgraphs
    return Graph(schema, file, only)


def test_every_operator_and_its_version_is_one_that_the_edge_tpu_compiler_takes(
    graph: Graph,
) -> None:
    beyond = {
        (kind, version) for kind, version, _ in graph.operators() if version > EDGE_TPU.get(kind, 0)
    }
    assert not beyond


def test_no_transposed_convolution_has_an_activation_of_its_own(graph: Graph) -> None:
    none = graph.schema.ActivationFunctionType.NONE
    for kind, _, operator in graph.operators():
        if kind == "TRANSPOSE_CONV":
            assert operator.builtinOptions.fusedActivationFunction == none
            (output,) = operator.outputs
            # Its ReLU is the saturation of a range that begins at zero.
            assert list(graph.graph.tensors[output].quantization.zeroPoint) == [-128]


def test_every_tensor_is_eight_bits_or_a_bias_and_of_one_batch(graph: Graph) -> None:
    constants = {i for i, t in enumerate(graph.graph.tensors) if t.buffer}
    shapes = set()
    for kind, _, operator in graph.operators():
        if kind in ("RESHAPE", "PAD"):
            shapes.add(operator.inputs[1])
        elif kind == "TRANSPOSE_CONV":
            shapes.add(operator.inputs[0])
    for index, tensor in enumerate(graph.graph.tensors):
        kind = graph.type_of(index)
        if index in shapes:
            assert kind == "INT32"
        elif kind == "INT32":
            assert index in constants
            assert not np.any(tensor.quantization.zeroPoint)
        else:
            assert kind == "INT8", tensor.name
            assert index in constants or tensor.shape[0] == 1
            assert (np.asarray(tensor.quantization.scale) > 0).all()


def test_weights_are_quantised_per_channel_and_symmetrically(graph: Graph) -> None:
    place = {"CONV_2D": (1, 0), "DEPTHWISE_CONV_2D": (1, 3), "TRANSPOSE_CONV": (1, 0)}
    for kind, _, operator in graph.operators():
        if kind not in place:
            continue
        which, axis = place[kind]
        weights = graph.graph.tensors[operator.inputs[which]]
        quantised = weights.quantization
        assert quantised.quantizedDimension == axis
        assert len(quantised.scale) == weights.shape[axis]
        assert not np.any(quantised.zeroPoint)


def test_padding_stays_out_of_batch_and_channels(graph: Graph) -> None:
    for kind, _, operator in graph.operators():
        if kind == "PAD":
            around = graph.graph.tensors[operator.inputs[1]]
            values = np.asarray(graph.file.buffers[around.buffer].data, np.uint8).view(np.int32)
            assert not values.reshape(4, 2)[[0, 3]].any()


def test_factors_of_a_product_lie_along_the_channels_only(graph: Graph) -> None:
    for kind, _, operator in graph.operators():
        if kind == "MUL":
            tensor, factor = (graph.graph.tensors[i] for i in operator.inputs)
            assert list(factor.shape) == [tensor.shape[-1]]


def test_constants_lie_at_sixteen_bytes_as_the_schema_wants(model: ModelFile, graph: Graph) -> None:
    content = model.verify()
    root = graph.schema.Model.GetRootAs(content, 0)
    for index in range(root.BuffersLength()):
        buffer = root.Buffers(index)
        if buffer.DataLength():
            start = buffer._tab.Vector(buffer._tab.Offset(4))
            assert start % 16 == 0


class OtherKernels:
    """The runtime's plain kernels, which round otherwise than the fast ones: another device."""

    def __init__(self, model: ModelFile, *, swap_colours: bool = False) -> None:
        runtime: Any = importlib.import_module("ai_edge_litert.interpreter")
        plain = runtime.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.spec = model.spec
        self._swap = swap_colours
        self._interpreter = runtime.Interpreter(
            model_content=model.verify(), experimental_op_resolver_type=plain
        )
        self._interpreter.allocate_tensors()

    def run(self, tensor: Tensor) -> tuple[Tensor, ...]:
        interpreter = self._interpreter
        tensor = tensor[..., ::-1] if self._swap else tensor
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], tensor)
        interpreter.invoke()
        return tuple(interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


SMALL = [MANIFEST.model(name) for name in ("mobilefacenet-112", "centerface-320x192")]


@pytest.mark.parametrize("small", SMALL, ids=lambda model: model.spec.name)
def test_stored_answers_hold_for_another_implementation(small: ModelFile) -> None:
    least = golden.check(small, OtherKernels(small), min_cosine=small.golden.min_cosine, inputs=100)
    assert least < 1.0


@pytest.mark.parametrize("small", SMALL, ids=lambda model: model.spec.name)
def test_stored_answers_tell_a_device_that_swaps_colours(small: ModelFile) -> None:
    swapped = OtherKernels(small, swap_colours=True)
    with pytest.raises(AcceleratorError, match="at cosine"):
        golden.check(small, swapped, min_cosine=small.golden.min_cosine)


def test_each_model_has_a_card_and_the_folder_stays_small(model: ModelFile) -> None:
    card = model.card.read_text(encoding="utf-8")
    for told in ("trained on", "must not be used", "Measured", "Licence"):
        assert told in card, f"{model.card.name} does not say '{told}'"
    files = [*FOLDER.glob("*.tflite"), *FOLDER.glob("golden/*.npz"), *FOLDER.glob("*.md")]
    assert sum(file.stat().st_size for file in files) < MAX_BYTES


def test_detectors_share_their_quantisation_so_that_a_threshold_means_the_same_in_all() -> None:
    detectors = [m.spec for m in MODELS if m.spec.role == "detector"]
    said = {
        tuple((o.name, o.scale, o.zero_point) for o in (d.input, *d.outputs)) for d in detectors
    }
    assert len(detectors) > 1
    assert len(said) == 1


def test_the_embedder_knows_how_often_strangers_match() -> None:
    table = MANIFEST.model("mobilefacenet-112").false_match
    assert table is not None
    assert table.similarity[0] < 0.1
    assert 0.3 < table.tail_similarity < 0.8
    assert table.tail_rate < 1e-3
    assert table.comparisons > 1_000_000
