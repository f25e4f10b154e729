"""Train the embedder for hidden faces: python train.py DATA MODELS WORK [--pictures N].

Enters: face pictures by subject (split.py), the repaired MobileFaceNet, the node's models. Leaves:
WORK/hidden.npz, the trained weights, for export.py. A run that is interrupted goes on where its
last checkpoint is.

Recipe: the filled crop must land where the bare embedder puts the whole face (template-level
distillation, Huber et al., "MaskInv", arXiv:2112.05646), nearest its own subject's centre among
all subjects, and nearest its own pair within the batch: enrolment and street, filled alike. The
first layers keep their weights, and run in the TFLite runtime.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import algebra
import mobilefacenet
import numpy as np
import numpy.typing as npt
import sources
import torch
from ai_edge_litert.interpreter import Interpreter
from graph import Conv, Graph
from network import Back, front
from prepare import prepare
from torch import Tensor
from torch.nn import functional
from views import HARD, LONG, PLAIN, Batch, Recipe, Views
from writer import write

CUT = "24_Conv2d_3_InvResBlock_0_Conv_1"
"""Layers up to this one stay as they are in both passes."""

RECENT = 60

WORKERS = 2
"""Batches per step, each on a thread of its own."""

PAIRS = 32
WARM_UP = 0.06
SMOOTHING = 0.994
"""Of the averaged weights, which are what is kept."""

SCALE, MARGIN = 24.0, 0.1
DISTIL, CENTRES, PAIRED = 4.0, 0.4, 0.4
"""Weights of the three losses."""

CHECKPOINT_STEPS = 50


@dataclass(frozen=True, slots=True)
class Pass:
    """One of the passes.

    Attributes:
        name: of its files.
        seed: of its batches.
        cut: layers up to this one keep their weights.
        echo: how often a batch is used, in the order of a draw among the last RECENT: what the
            frozen layers made of it is kept, and takes about as long to make anew as a step.
        rate: greatest step width.
        pictures: seen, all told.
        recipe: see Views.
    """

    name: str
    seed: int
    cut: str
    echo: int
    rate: float
    pictures: int
    recipe: Recipe


SEED = 11
PASSES = (
    Pass("first", SEED, "39_Conv2d_4_InvResBlock_3_Conv_1_skip", 3, 8e-4, 90_000, PLAIN),
    Pass("second", SEED, CUT, 2, 6e-4, 66_000, HARD),
    Pass("third", SEED + 1, CUT, 2, 6e-4, 96_000, LONG),
)
"""The first trains six tenths of the weights in little time, the others nine tenths, on people who
do not exist as well. Each begins at the mean of those before it, and makes errors of its own: the
mean of all is what is kept."""

_Vectors = npt.NDArray[np.float32]


class Float:
    """A Graph in the TFLite runtime, in float32, on (n, 112, 112, 3) uint8 crops."""

    def __init__(self, graph: Graph) -> None:
        self._interpreter = Interpreter(model_content=write(graph, "float"), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def __call__(self, crops: npt.NDArray[np.uint8]) -> _Vectors:
        found = []
        for crop in crops:
            self._interpreter.set_tensor(self._input, ((crop - np.float32(127.5)) / 128)[None])
            self._interpreter.invoke()
            found.append(self._interpreter.get_tensor(self._output)[0])
        return np.stack(found)


def base(folder: Path) -> Graph:
    """The bare embedder, every slope at most 1.

    Args:
        folder: where the source package is, or is fetched to.
    """
    sources.fetch(sources.MOBILEFACENET, folder)
    return algebra.merge(algebra.flip(mobilefacenet.load(folder)))


def teach(graph: Graph, views: Views, out: Path) -> Tensor:
    """What the bare embedder says of each whole face and its mirror image, (n, dim), once."""
    if not out.exists():
        embed = Float(graph)
        vectors = []
        for index in range(len(views.subjects)):
            crop = views.clean(index)
            both = embed(np.stack([crop, crop[:, ::-1]]))
            vectors.append((both / np.linalg.norm(both, axis=1, keepdims=True)).sum(axis=0))
            if index % 1000 == 0:
                print(f"teacher: {index} of {len(views.subjects)}", flush=True)
        np.save(out, np.stack(vectors))
    return functional.normalize(torch.from_numpy(np.load(out)))


class Loss:
    """See the module.

    Args:
        taught: (n, dim) the teacher's vector of each picture.
        subjects: (n,) their subjects' numbers.
    """

    def __init__(self, taught: Tensor, subjects: npt.NDArray[np.intp]) -> None:
        self._taught = taught
        self._subjects = torch.from_numpy(subjects)
        centres = torch.zeros(int(subjects.max()) + 1, taught.shape[1])
        self._centres = functional.normalize(centres.index_add(0, self._subjects, taught))

    def __call__(
        self, vectors: Tensor, batch: Batch, morphs: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The loss, and the mean cosine to the teacher.

        Args:
            vectors: (2n, dim).
            batch: that they are of.
            morphs: (n, dim) what the teacher says of the batch's morphs; None of real people.
        """
        indices = torch.from_numpy(batch.indices)
        unit = functional.normalize(vectors)
        if morphs is None:
            subjects = self._subjects[indices]
            taught = self._taught[indices]
            near = _classify(unit @ self._centres.T, subjects)
        else:
            subjects = indices
            taught = torch.cat([morphs, morphs])
            every = torch.cat([morphs, self._centres])
            near = _classify(unit @ every.T, torch.arange(len(morphs)).repeat(2))
        cosine = (unit * taught).sum(dim=1).mean()
        enrolled, seen = unit.chunk(2)
        alike = seen @ enrolled.T
        own = torch.arange(len(seen))
        # Another pair of the same person is no stranger.
        same = subjects[: len(seen), None] == subjects[None, : len(seen)]
        alike = alike.masked_fill(same & ~torch.eye(len(seen), dtype=torch.bool), -1.0)
        paired = (_classify(alike, own) + _classify(alike.T, own)) / 2
        return DISTIL * (1 - cosine) + CENTRES * near + PAIRED * paired, cosine.detach()


def _classify(cosines: Tensor, right: Tensor) -> Tensor:
    margin = MARGIN * functional.one_hot(right, cosines.shape[1])
    return functional.cross_entropy(SCALE * (cosines - margin), right)


class Echoes:
    """One worker's batches, each used ECHO times, with what the frozen layers make of them.

    Args:
        embed: the frozen layers.
        teacher: the bare embedder, for morphs.
        views: makes the batches.
        worker: its batches have numbers of their own.
        echo: see Pass.
    """

    def __init__(self, embed: Float, teacher: Float, views: Views, worker: int, echo: int) -> None:
        self._embed, self._teacher = embed, teacher
        self._views, self._worker, self._echo = views, worker, echo
        self._kept: dict[int, tuple[Tensor, Batch, Tensor | None]] = {}

    def at(self, step: int) -> tuple[Tensor, Batch, Tensor | None]:
        """Features and batch of a step, and the teacher's word on morphs; always the same ones."""
        newest = step // self._echo
        number = newest
        if step % self._echo:
            rng = np.random.default_rng((SEED, self._worker, step))
            number = int(rng.integers(max(0, newest - RECENT), newest + 1))
        if number not in self._kept:
            batch = self._views.batch(number * WORKERS + self._worker)
            features = torch.from_numpy(self._embed(batch.crops)).permute(0, 3, 1, 2)
            morphs = None
            if batch.morphs is not None:
                morphs = functional.normalize(torch.from_numpy(self._teacher(batch.morphs)))
            self._kept[number] = features.bfloat16(), batch, morphs
            self._kept.pop(newest - RECENT - 1, None)
        return self._kept[number]


class Training:
    """All that goes on from step to step, and into a checkpoint."""

    def __init__(self, network: Back, steps: int, rate: float) -> None:
        self.step = 0
        self.steps = steps
        self._network, self._rate = network, rate
        self.parameters = list(network.parameters())
        self._optimiser = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=1e-4)
        self._mean = [p.detach().clone() for p in self.parameters]

    def learn(self, gradients: list[tuple[Tensor, ...]]) -> None:
        """One step along the mean of the workers' gradients."""
        for parameter, *each in zip(self.parameters, *gradients, strict=True):
            parameter.grad = torch.stack(each).mean(dim=0)
        torch.nn.utils.clip_grad_norm_(self.parameters, 5.0)
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate * _pace(self.step / self.steps)
        self._optimiser.step()
        self.step += 1
        keep = min(SMOOTHING, self.step / (self.step + 10))
        for mean, parameter in zip(self._mean, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - keep)

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        part = path.with_suffix(".part")
        state = (self.step, self._network.state_dict(), self._optimiser.state_dict(), self._mean)
        torch.save(state, part)
        part.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint if there is one."""
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.step, weights, optimiser, self._mean = state
            self._network.load_state_dict(weights)
            self._optimiser.load_state_dict(optimiser)

    def averaged(self) -> Graph:
        """The network with the averaged weights."""
        kept = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for parameter, mean in zip(self.parameters, self._mean, strict=True):
                parameter.copy_(mean)
            graph = self._network.trained()
            for parameter, value in zip(self.parameters, kept, strict=True):
                parameter.copy_(value)
        return graph


def _pace(done: float) -> float:
    """Warm up, then a cosine down to nothing."""
    if done < WARM_UP:
        return (done + 0.001) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def train(bare: Graph, graph: Graph, taught: Tensor, work: Path, plan: Pass) -> Graph:
    """Run one pass to its end and leave work/hidden-NAME.npz.

    Args:
        bare: the teacher.
        graph: to begin with.
        taught: see teach().
        work: the working folder.
        plan: see Pass.
    """
    torch.set_num_threads(1)
    views = Views(work / "prepared", pairs=PAIRS, seed=plan.seed, recipe=plan.recipe)
    network = Back(graph, plan.cut).to(memory_format=torch.channels_last)
    training = Training(network, plan.pictures // (2 * PAIRS * WORKERS), plan.rate)
    training.resume(work / f"checkpoint-{plan.name}.pt")
    loss = Loss(taught, views.subjects)
    echoes = [
        Echoes(Float(front(graph, plan.cut)), Float(bare), views, worker, plan.echo)
        for worker in range(WORKERS)
    ]

    def work_on(worker: int) -> tuple[tuple[Tensor, ...], float, float]:
        features, batch, morphs = echoes[worker].at(training.step)
        vectors = network(features).float()
        total, cosine = loss(vectors, batch, morphs)
        gradients = torch.autograd.grad(total, training.parameters)
        return gradients, total.item(), cosine.item()

    with ThreadPoolExecutor(WORKERS) as pool:
        _loop(training, plan, work, lambda: list(pool.map(work_on, range(WORKERS))))
    trained = training.averaged()
    save(trained, _result(work, plan))
    return trained


def _loop(
    training: Training,
    plan: Pass,
    work: Path,
    worked: Callable[[], list[tuple[tuple[Tensor, ...], float, float]]],
) -> None:
    began, first, steps = time.monotonic(), training.step, training.steps
    recent: list[tuple[float, float]] = []
    while training.step < steps:
        results = worked()
        training.learn([gradients for gradients, _, _ in results])
        recent += [(total, cosine) for _, total, cosine in results]
        if training.step % CHECKPOINT_STEPS == 0:
            training.save(work / f"checkpoint-{plan.name}.pt")
            total, cosine = np.mean(recent, axis=0)
            pace = (time.monotonic() - began) / (training.step - first)
            print(
                f"{plan.name} pass, step {training.step} of {steps}: loss {total:.3f},"
                f" cosine to teacher {cosine:.3f}, {pace:.2f} s a step,"
                f" {pace * (steps - training.step) / 60:.0f} min left",
                flush=True,
            )
            recent.clear()


def save(graph: Graph, path: Path) -> None:
    """The weights of every convolution, as export.py reads them; whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    arrays = {
        f"{layer.name}/{key}": np.asarray(getattr(layer, key), np.float32)
        for layer in graph.layers
        for key in ("weights", "bias", "slopes")
        if getattr(layer, key, None) is not None
    }
    with part.open("wb") as file:
        np.savez(file, **arrays)
    part.replace(path)


def loaded(graph: Graph, path: Path) -> Graph:
    """A graph with the weights that save() left."""
    with np.load(path) as arrays:
        layers = tuple(
            replace(
                layer,
                **{
                    key: arrays[f"{layer.name}/{key}"].astype(np.float64)
                    for key in ("weights", "bias", "slopes")
                    if getattr(layer, key) is not None
                },
            )
            if isinstance(layer, Conv)
            else layer
            for layer in graph.layers
        )
    return replace(graph, layers=layers)


def main(arguments: list[str]) -> None:
    """Prepare, teach, train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="images/SUBJECT/*.jpg, open_set.csv, errata.csv")
    parser.add_argument("models", type=Path, help="the folder models_tflite")
    parser.add_argument("work", type=Path, help="outside the repository; some 400 MB")
    parser.add_argument("--share", type=float, default=1.0, help="of the passes' pictures")
    chosen = parser.parse_args(arguments)
    prepared = chosen.work / "prepared"
    prepare(chosen.data, chosen.models, prepared)
    graph = base(chosen.work / "sources")
    views = Views(prepared, pairs=PAIRS, seed=SEED)
    taught = teach(graph, views, prepared / "teacher.npy")

    def run(plan: Pass, start: Graph) -> Graph:
        done = _result(chosen.work, plan)
        if done.exists():
            return loaded(graph, done)
        shared = replace(plan, pictures=round(chosen.share * plan.pictures))
        return train(graph, start, taught, chosen.work, shared)

    start = graph
    for number, plan in enumerate(PASSES, 1):
        run(plan, start)
        start = loaded(graph, _mean(chosen.work, PASSES[:number]))


def _result(work: Path, plan: Pass) -> Path:
    return work / f"hidden-{plan.name}.npz"


def _mean(work: Path, passes: Sequence[Pass]) -> Path:
    """WORK/hidden.npz, the mean of some passes' weights: it finds more than any of them."""
    total: dict[str, _Vectors] = {}
    for plan in passes:
        with np.load(_result(work, plan)) as arrays:
            for name in arrays.files:
                total[name] = total.get(name, np.float32(0)) + arrays[name] / np.float32(
                    len(passes)
                )
    path = work / "hidden.npz"
    np.savez(path, **total)
    return path


if __name__ == "__main__":
    main(sys.argv[1:])
