"""Trained weights to where `make models` finds them: python export.py WORK.

Enters: WORK/hidden.npz, WORK/occlusion.npz, WORK/prepared. Leaves: weights/hidden.npz and
weights/occlusion.npz beside this file, in float16, of the embedder only the layers that were
trained; and what it is rounded to int8 by, ../build/calibration/mobilefacenet-hidden.json. build/
makes the int8 files of them, as it does of the registry packages.

The calibration is of filled faces of people trained on. The eight photographs of tests/photos,
which do for the other networks, are too few people: cosine to float32 0.992, of these 0.995.
"""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import numpy.typing as npt
import recipes
import sources
from graph import Conv, Graph
from recipes import HIDDEN
from train import CUT, base
from views import Views

from appliance.types import Image
from appliance.vision.reader import COLUMNS

WEIGHTS = Path(__file__).parent / "weights"
_CROPS, _PAIRS, _SEED = 400, 10, 3
_WITHIN = 98.0
_EPOCH = (1980, 1, 1, 0, 0, 0)


def export(work: Path) -> None:
    """Write both files."""
    WEIGHTS.mkdir(exist_ok=True)
    graph = base(work / "sources")
    trained = _behind(graph, CUT)
    for name, kept in (("hidden", trained), ("occlusion", None)):
        with np.load(work / f"{name}.npz") as stored:
            arrays = {
                key: stored[key].astype(np.float16)
                for key in stored.files
                if kept is None or key.partition("/")[0] in kept
            }
        path = WEIGHTS / f"{name}.npz"
        path.write_bytes(_npz(arrays))
        print(f"{path}: {path.stat().st_size:,} bytes, {len(arrays)} arrays")
    sources.fetch(sources.MOBILEFACENET, recipes.SOURCES)
    views = Views(work / "prepared", pairs=_PAIRS, seed=_SEED)
    numbers = recipes.measured(HIDDEN, list(_crops(views)), None, _WITHIN)
    path = recipes.CALIBRATION / f"{HIDDEN.key}.json"
    path.write_text(recipes.as_json(numbers), encoding="utf-8")
    print(f"{path}: calibrated on {_CROPS} crops")


def _crops(views: Views) -> Iterator[Image]:
    """Filled faces, half of them as on enrolment photographs, half as on a street."""
    found = 0
    for number in count():
        batch = views.batch(number)
        if batch.part not in COLUMNS:
            continue
        for crop in batch.crops:
            if found == _CROPS:
                return
            yield crop
            found += 1


def _behind(graph: Graph, cut: str) -> set[str]:
    names = [layer.name for layer in graph.layers]
    return {layer.name for layer in graph.layers[names.index(cut) + 1 :] if isinstance(layer, Conv)}


def _npz(arrays: dict[str, npt.NDArray[np.float16]]) -> bytes:
    """As numpy.savez, but without the time of day in it: the same weights are the same bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return out.getvalue()


if __name__ == "__main__":
    export(Path(sys.argv[1]))
