"""A Graph of build/ as a PyTorch module, and a trained module back as a Graph.

Enters: the repaired MobileFaceNet (build/mobilefacenet.py), cut in two. Leaves: the second part as
a function whose weights can be trained, and the whole Graph that holds them afterwards. Batch norm
is already part of the biases; PReLU slopes are trained too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from graph import INPUT, Add, Conv, Flatten, Graph, Layer
from torch import Tensor, nn
from torch.nn import functional


def front(graph: Graph, cut: str) -> Graph:
    """The layers up to one, which becomes the output: they keep their weights."""
    names = [layer.name for layer in graph.layers]
    kept = graph.layers[: names.index(cut) + 1]
    return replace(graph, layers=kept, outputs=(cut,), titles=("front",))


class Back(nn.Module):
    """The function of the layers behind one, whose weights are trained.

    Args:
        graph: the whole network; no slope is above 1 (algebra.flip).
        cut: name of the layer whose output comes in; INPUT trains all of them.
    """

    def __init__(self, graph: Graph, cut: str) -> None:
        super().__init__()
        self._graph, self._cut = graph, cut
        names = [layer.name for layer in graph.layers]
        self._trained = graph.layers[0 if cut == INPUT else names.index(cut) + 1 :]
        self.blocks = nn.ModuleDict()
        for layer in self._trained:
            if isinstance(layer, Conv):
                self.blocks[layer.name] = _Block(layer)
            elif not isinstance(layer, Add | Flatten):
                raise TypeError(f"{layer.name}: a {type(layer).__name__} cannot be trained here")

    def forward(self, features: Tensor) -> Tensor:
        """Embeddings, (n, dim), not normalised.

        Args:
            features: (n, channels, h, w), the output of the layer `cut`.
        """
        at = {self._cut: features}
        for layer in self._trained:
            if isinstance(layer, Conv):
                at[layer.name] = self.blocks[layer.name](at[layer.source])
            elif isinstance(layer, Add):
                first, second = layer.sources
                at[layer.name] = at[first] + at[second]
            elif isinstance(layer, Flatten):
                at[layer.name] = at[layer.source].flatten(1)
        return at[self._graph.outputs[0]]

    def trained(self) -> Graph:
        """The graph with the weights as they are now."""
        layers: tuple[Layer, ...] = tuple(
            self.blocks[layer.name].layer() if layer.name in self.blocks else layer
            for layer in self._graph.layers
        )
        return replace(self._graph, layers=layers)


class _Block(nn.Module):
    """One convolution and what follows it: PReLU, ReLU or nothing."""

    def __init__(self, layer: Conv) -> None:
        super().__init__()
        self._layer = layer
        # (kh, kw, in, out) or, depthwise, (kh, kw, channels, 1): both are out-first in PyTorch.
        axes = (2, 3, 0, 1) if layer.depthwise else (3, 2, 0, 1)
        self.weight = nn.Parameter(torch.from_numpy(layer.weights.transpose(axes).copy()).float())
        self.bias = nn.Parameter(torch.from_numpy(layer.bias.copy()).float())
        slopes = layer.slopes
        self.slopes = None if slopes is None else nn.Parameter(torch.from_numpy(slopes).float())
        self._groups = layer.width if layer.depthwise else 1

    def forward(self, x: Tensor) -> Tensor:
        if self._layer.padding == "SAME" and self.weight.shape[2] > 1:
            x = functional.pad(x, self._around(x.shape[3]) + self._around(x.shape[2]))
        stride = self._layer.stride
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        z = self._convolved(x, weight, bias, stride)
        if self.slopes is None:
            return functional.relu(z) if self._layer.relu else z
        # PReLU for slopes of at most 1, in the form that is differentiated fastest; see layer().
        return z + functional.relu(z * (self.slopes - 1.0).to(z.dtype).reshape(1, -1, 1, 1))

    def _convolved(self, x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
        """What conv2d gives; two depthwise cases in a form whose gradient is ten times as fast."""
        if self._groups > 1 and weight.shape[2:] == x.shape[2:]:
            return (x * weight[:, 0]).sum(dim=(2, 3), keepdim=True) + bias.reshape(1, -1, 1, 1)
        if self._groups > 1 and stride > 1:
            z = functional.conv2d(x, weight, bias, groups=self._groups)
            return z[:, :, ::stride, ::stride]
        return functional.conv2d(x, weight, bias, stride=stride, groups=self._groups)

    def _around(self, length: int) -> tuple[int, int]:
        """TensorFlow's SAME: what is odd goes after."""
        stride, kernel = self._layer.stride, self.weight.shape[2]
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        return total // 2, total - total // 2

    def layer(self) -> Conv:
        """As the graph keeps it."""
        axes = (2, 3, 0, 1) if self._layer.depthwise else (2, 3, 1, 0)
        weights = self.weight.detach().double().numpy().transpose(axes).copy()
        slopes = None if self.slopes is None else self.slopes.detach().double().numpy()
        bias = self.bias.detach().double().numpy()
        if slopes is not None:
            # A slope above 1 does here what 1 / slope does to a channel that is so much stronger.
            factor = np.maximum(slopes, 1.0)
            weights *= factor.reshape((1, 1, -1, 1) if self._layer.depthwise else (1, 1, 1, -1))
            bias, slopes = bias * factor, np.where(slopes > 1.0, 1.0 / factor, slopes)
        return replace(self._layer, weights=weights, bias=bias, slopes=slopes)
