"""Trained weights to where `make models` finds them: python export.py WORK.

Enters: WORK/hidden.npz and WORK/occlusion.npz. Leaves: weights/hidden.npz and
weights/occlusion.npz beside this file, in float16, of the embedder only the layers that were
trained. build/ makes the int8 files of them, as it does of the registry packages.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from graph import Conv, Graph
from train import CUT, base

WEIGHTS = Path(__file__).parent / "weights"
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
