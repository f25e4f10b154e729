"""Train the classifier of hidden parts: python tell.py WORK [--pictures N].

Enters: what prepare.py left in WORK/prepared. Leaves: WORK/occlusion.npz. Faces are hidden by
disguise.py, whose shapes get a cloth here: grain, stripes, folds. Five answers, in the order of
appliance.vision.occlusion.Hidden.
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import disguise
import numpy as np
import numpy.typing as npt
import torch
from graph import INPUT, Conv, Flatten, Graph, Layer
from network import Back
from prepare import MARGIN
from torch import Tensor
from torch.nn import functional
from train import save
from views import Views, moved

from appliance.types import Image
from appliance.vision.occlusion import HIDDEN, PARTS, Hidden

SEED = 12
BATCH = 96
RATE = 2e-3
SHARES: dict[Hidden, float] = {
    "none": 0.36,
    "lower": 0.2,
    "eyes": 0.18,
    "upper": 0.12,
    "too-much": 0.14,
}
WIDTHS = (12, 24, 48, 64)
"""Channels at 56, 28, 14 and 7 pixels."""

_TO_WIDE = np.array([[1.0, 0.0, MARGIN], [0.0, 1.0, MARGIN]])


def architecture(rng: np.random.Generator) -> Graph:
    """Four halvings, then one look at the whole face; weights drawn after He."""
    layers: list[Layer] = []

    def add(name: str, shape: tuple[int, int, int, int], *, stride: int, relu: bool) -> None:
        depthwise = shape[3] == 1 and shape[0] == 3 and bool(layers)  # noqa: PLR2004 - 3x3
        fan_in = shape[0] * shape[1] * (1 if depthwise else shape[2])
        layers.append(
            Conv(
                name=name,
                source=layers[-1].name if layers else INPUT,
                weights=rng.normal(0.0, np.sqrt(2 / fan_in), shape),
                bias=np.zeros(shape[2] if depthwise else shape[3]),
                stride=stride,
                padding="VALID" if shape[0] == 7 else "SAME",  # noqa: PLR2004 - the last one
                depthwise=depthwise,
                relu=relu,
            )
        )

    add("first", (3, 3, 3, WIDTHS[0]), stride=2, relu=True)
    for place, (narrow, wide) in enumerate(pairwise(WIDTHS)):
        add(f"look_{place}", (3, 3, narrow, 1), stride=2, relu=True)
        add(f"mix_{place}", (1, 1, narrow, wide), stride=1, relu=True)
        add(f"again_{place}", (3, 3, wide, 1), stride=1, relu=True)
        add(f"more_{place}", (1, 1, wide, wide), stride=1, relu=True)
    add("whole", (7, 7, WIDTHS[-1], len(HIDDEN)), stride=1, relu=False)
    layers.append(Flatten("logits", "whole"))
    return Graph(tuple(layers), (112, 112), ("logits",), ("logits",))


def example(views: Views, rng: np.random.Generator) -> tuple[Image, int]:
    """A crop, and which of HIDDEN it is."""
    label = list(SHARES)[rng.choice(len(SHARES), p=list(SHARES.values()))]
    face = views.wide(int(rng.integers(len(views.subjects))))
    part = PARTS[rng.integers(len(PARTS))]
    if label == "too-much":
        if rng.random() < 0.6:  # noqa: PLR2004 - the recipe
            for each in ("lower", "eyes"):
                face = _veiled(face, lambda canvas, e=each: _drawn(canvas, e, rng), rng)
            part = "lower"
        else:
            face = _veiled(face, lambda canvas: _slab(canvas, rng), rng)
    elif label != "none":
        part = label
        face = _veiled(face, lambda canvas: _drawn(canvas, part, rng), rng)
    return moved(face, views.moves(part) if label != "none" else None, rng), HIDDEN.index(label)


def _drawn(canvas: Image, part: str, rng: np.random.Generator) -> None:
    if part == "lower" and rng.random() < 0.45:  # noqa: PLR2004 - the recipe
        _shroud(canvas, rng)
        return
    disguise.draw(canvas, _TO_WIDE, part, rng)  # type: ignore[arg-type]  # one of PARTS


def _shroud(canvas: Image, rng: np.random.Generator) -> None:
    """All that is below a line between the eyes and the mouth: a scarf, a collar, a counter."""
    left, right = rng.uniform(72, 98, 2)
    outline = np.array([[-10.0, left], [154.0, right], [154.0, 160.0], [-10.0, 160.0]])
    if rng.random() < 0.5:  # noqa: PLR2004 - higher over the nose
        outline = np.insert(outline, 1, [[60.0, left - 8], [84.0, right - 8]], axis=0)
    colour = np.full(3, rng.uniform(5, 250)) if rng.random() < 0.4 else rng.uniform(0, 255, 3)  # noqa: PLR2004
    cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], colour.tolist(), cv2.LINE_AA)


def _slab(canvas: Image, rng: np.random.Generator) -> None:
    """One side of a line through the face, or all but a strip of it: a hand, a wall, a shoulder."""
    turn = rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-away[1], away[0]])
    # Past the face's middle, so that more than half of it is gone.
    middle = np.array([72.0, 84.0]) - away * rng.uniform(2, 22)
    corners = [middle - 300 * across, middle + 300 * across]
    outline = np.array([*corners, corners[1] + 300 * away, corners[0] + 300 * away])
    colour = np.full(3, rng.uniform(5, 250)) if rng.random() < 0.5 else rng.uniform(0, 255, 3)  # noqa: PLR2004
    cv2.fillPoly(canvas, [np.rint(outline).astype(np.int32)], colour.tolist(), cv2.LINE_AA)


def _veiled(face: Image, drawn: disguise.Drawn, rng: np.random.Generator) -> Image:
    """A face behind what `drawn` paints, which is given a cloth.

    Painted on black and on white by the same draws: their difference is how much shows through.
    """
    state = rng.bit_generator.state
    black, white = np.zeros_like(face), np.full_like(face, 255)
    drawn(black)
    rng.bit_generator.state = state
    drawn(white)
    through = (white.astype(np.float32) - black).max(axis=2, keepdims=True) / 255.0
    cloth = black * _cloth(face.shape[0], rng)[..., None]
    if rng.random() < 0.3:  # noqa: PLR2004 - skin and what has its colour
        skin = np.median(face[70:100, 56:90].reshape(-1, 3), axis=0)
        cloth = cloth * 0.2 + skin * (1 - through) * _cloth(face.shape[0], rng)[..., None] * 0.8
    mixed = face * through + cloth + rng.normal(0, rng.uniform(0, 6), face.shape)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _cloth(side: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How bright each place of a cloth is, about 1."""
    shade = np.ones((side, side), np.float32)
    coarse = rng.normal(0, rng.uniform(0, 0.25), (int(rng.integers(3, 12)),) * 2)
    shade += cv2.resize(coarse.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    if rng.random() < 0.5:  # noqa: PLR2004 - every second one
        turn, period = rng.uniform(0, np.pi), rng.uniform(4, 24)
        rows, columns = np.mgrid[:side, :side]
        wave = np.sin(2 * np.pi * (np.cos(turn) * columns + np.sin(turn) * rows) / period)
        if rng.random() < 0.5:  # noqa: PLR2004 - stripes instead of folds
            wave = np.sign(wave)
        shade += np.float32(rng.uniform(0, 0.35)) * wave.astype(np.float32)
    return np.clip(shade, 0.0, 2.0)


def batch(views: Views, number: int) -> tuple[Image, npt.NDArray[np.int64]]:
    """The batch of that number, always the same one."""
    rng = np.random.default_rng((SEED, number))
    crops, labels = zip(*(example(views, rng) for _ in range(BATCH)), strict=True)
    return np.stack(crops), np.array(labels)


def tensor(crops: Image) -> Tensor:
    """As the network takes them, (n, 3, 112, 112)."""
    real = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    return ((real - 127.5) / 128).contiguous(memory_format=torch.channels_last)


def train(views: Views, out: Path, steps: int) -> None:
    """Run to the end and leave the weights."""
    torch.set_num_threads(1)
    network = Back(architecture(np.random.default_rng(SEED)), INPUT)
    network = network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1)
    began, right, losses = time.monotonic(), [], []
    for step in range(steps):
        crops, labels = batch(views, step)
        wanted = torch.from_numpy(labels)
        logits = network(tensor(crops))
        loss = functional.cross_entropy(logits, wanted, label_smoothing=0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        right.append((logits.argmax(dim=1) == wanted).float().mean().item())
        losses.append(loss.item())
        if (step + 1) % 25 == 0:
            pace = (time.monotonic() - began) / (step + 1)
            print(
                f"step {step + 1} of {steps}: loss {np.mean(losses[-25:]):.3f}, right"
                f" {np.mean(right[-25:]):.3f}, {pace * (steps - step) / 60:.0f} min left",
                flush=True,
            )
            save(network.trained(), out)
    save(network.trained(), out)


def main(arguments: list[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path, help="where train.py worked")
    parser.add_argument("--pictures", type=int, default=38_400)
    chosen = parser.parse_args(arguments)
    views = Views(chosen.work / "prepared", pairs=1, seed=SEED)
    train(views, chosen.work / "occlusion.npz", chosen.pictures // BATCH)


if __name__ == "__main__":
    main(sys.argv[1:])
