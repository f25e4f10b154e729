"""How far each activation reaches on given pictures, and what its channels should be divided by.

Enters: a Graph and real-valued inputs. Leaves: plain numbers, which build/calibration/*.json
keeps so that a rebuild depends on no machine's floating point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from algebra import equalisable
from graph import INPUT, Add, Conv, Deconv, Graph
from writer import Ranges, before_prelu, correction, write

STEPS_PER_DOUBLING = 4
"""Factors are kept as whole numbers of quarter doublings: small to store, and exact."""

MOST_STEPS = 24
"""Of one channel: a factor of 64, up or down."""

_Array = npt.NDArray[np.float64]


@dataclass(slots=True)
class Reach:
    """Least and greatest value per channel and picture."""

    low: list[_Array] = field(default_factory=list)
    high: list[_Array] = field(default_factory=list)


def activations(graph: Graph) -> list[str]:
    """Names of all tensors whose quantisation follows from a range."""
    names = [INPUT]
    for layer in graph.layers:
        if isinstance(layer, Conv) and layer.slopes is not None:
            names += [before_prelu(layer.name), correction(layer.name)]
        if isinstance(layer, Conv | Deconv | Add):
            names.append(layer.name)
    return names


def reach(graph: Graph, inputs: Iterable[npt.NDArray[np.float32]]) -> dict[str, Reach]:
    """Run the network in float32 and note where every activation goes.

    Args:
        graph: at the inputs' size.
        inputs: (1, height, width, 3) each, real values.
    """
    interpreter = Interpreter(
        model_content=write(graph, "calibration"),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
        num_threads=2,
    )
    interpreter.allocate_tensors()
    by_title = {detail["name"]: detail["index"] for detail in interpreter.get_tensor_details()}
    titles = dict(zip(graph.outputs, graph.titles, strict=True))
    indices = {name: by_title[titles.get(name, name)] for name in activations(graph)}
    found = {name: Reach() for name in indices}
    for tensor in inputs:
        interpreter.set_tensor(indices[INPUT], tensor)
        interpreter.invoke()
        for name, index in indices.items():
            values = interpreter.get_tensor(index).reshape(-1, found_width(interpreter, index))
            found[name].low.append(values.min(axis=0).astype(np.float64))
            found[name].high.append(values.max(axis=0).astype(np.float64))
    return found


def found_width(interpreter: Interpreter, index: int) -> int:
    """Channels of a tensor."""
    return int(interpreter.get_tensor(index).shape[-1])


def ranges(reached: Mapping[str, Reach], within: float = 100.0) -> Ranges:
    """The least and greatest value of each activation, to four digits.

    Args:
        reached: see reach().
        within: of a hundred pictures so many reach no further: the rarest values would make every
            level coarser.
    """
    return {
        name: (
            _rounded(np.percentile(np.min(r.low, axis=1), 100.0 - within)),
            _rounded(np.percentile(np.max(r.high, axis=1), within)),
        )
        for name, r in reached.items()
    }


def steps(graph: Graph, reached: Mapping[str, Reach], share: float) -> dict[str, list[int]]:
    """What each channel of each equalisable convolution should be divided by, in steps.

    Args:
        graph: not yet equalised.
        reached: of that graph.
        share: where a 1x1 convolution reads the channels, the part of their inequality (as an
            exponent) that is levelled: what the activations gain there, its weights lose.
    """
    found = {}
    for layer in equalisable(graph):
        name = layer.name if layer.slopes is None else before_prelu(layer.name)
        low, high = np.min(reached[name].low, axis=0), np.max(reached[name].high, axis=0)
        greatest = np.maximum(np.maximum(-low, high), 1e-6)
        unequal = np.log2(greatest / np.median(greatest))
        readers = graph.readers(layer.name)
        if any(isinstance(r, Conv) and not r.depthwise for r in readers):
            unequal = unequal * share
        counted = np.clip(np.rint(unequal * STEPS_PER_DOUBLING), -MOST_STEPS, MOST_STEPS)
        found[layer.name] = [int(n) for n in counted]
    return found


def factors(counted: Mapping[str, list[int]]) -> dict[str, _Array]:
    """Steps as what algebra.equalise takes."""
    return {
        name: np.array([2.0 ** (n / STEPS_PER_DOUBLING) for n in steps])
        for name, steps in counted.items()
    }


def _rounded(value: np.floating) -> float:
    return float(f"{value:.4g}")
