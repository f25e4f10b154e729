"""Are several faces in one invoke faster? Same model, same answers, 4 x 1 against 1 x 4.

    models_tflite/build/.venv/bin/python models_tflite/build/batch.py

The shipped file takes one face: its last RESHAPE names a batch of one. Here that number becomes
"whatever comes" in memory, and the input is resized; nothing is written. Times are the fastest
tenth of the rounds: CPU time with one thread, wall clock with two.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter

FOLDER = Path(__file__).resolve().parents[1]
FACES, ROUNDS = 4, 150
_DIM = 192

Faces = npt.NDArray[np.int8]


def batched(content: bytes) -> bytes:
    """The model with its RESHAPE open to any batch: the one place whose change makes it so.

    Raises:
        SystemExit: there is no such place.
    """
    fixed, open_ = struct.pack("<ii", 1, _DIM), struct.pack("<ii", -1, _DIM)
    at = content.find(fixed)
    while at >= 0:
        changed = content[:at] + open_ + content[at + len(fixed) :]
        try:
            if _outputs(_interpreter(changed, FACES, 1))[0] == FACES:
                return changed
        except (RuntimeError, ValueError):  # another number of that value
            pass
        at = content.find(fixed, at + 1)
    raise SystemExit("no RESHAPE to a batch of one was found")


def main() -> int:
    """Compare and print; exit status 1 if the answers differ."""
    content = (FOLDER / "mobilefacenet-112.tflite").read_bytes()
    faces: Faces = np.load(FOLDER / "golden" / "mobilefacenet-112.npz")["input"][:FACES]
    opened = batched(content)
    singly = np.concatenate(
        [_run(_interpreter(content, 1, 1), faces[n : n + 1]) for n in range(FACES)]
    )
    together = _run(_interpreter(opened, FACES, 1), faces)
    equal = bool((singly == together).all())
    print(f"{FACES} faces in one invoke: answers {'equal, bit for bit' if equal else 'DIFFER'}")
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        one, many = _interpreter(content, 1, threads), _interpreter(opened, FACES, threads)
        apart_ms, together_ms = _compared(one, many, faces, clock)
        print(
            f"{threads} thread(s): {FACES} x 1 {apart_ms:.1f} ms, 1 x {FACES} {together_ms:.1f} ms,"
            f" ratio {together_ms / apart_ms:.2f}"
        )
    return 0 if equal else 1


def _interpreter(content: bytes, batch: int, threads: int) -> Any:  # noqa: ANN401 - no types
    made = Interpreter(model_content=content, num_threads=threads)
    if batch > 1:
        made.resize_tensor_input(made.get_input_details()[0]["index"], [batch, 112, 112, 3])
    made.allocate_tensors()
    return made


def _outputs(interpreter: Any) -> tuple[int, ...]:  # noqa: ANN401 - no types
    return tuple(int(n) for n in interpreter.get_output_details()[0]["shape"])


def _run(interpreter: Any, faces: Faces) -> npt.NDArray[np.int8]:  # noqa: ANN401 - no types
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], faces)
    interpreter.invoke()
    answers: npt.NDArray[np.int8] = interpreter.get_tensor(
        interpreter.get_output_details()[0]["index"]
    )
    return answers


def _compared(
    one: Any,  # noqa: ANN401 - no types
    many: Any,  # noqa: ANN401 - same
    faces: Faces,
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Milliseconds for all faces, singly and together, in turns; the fastest tenth of each."""
    apart: list[float] = []
    together: list[float] = []
    for _ in range(ROUNDS):
        began = clock()
        for face in faces:
            _run(one, face[np.newaxis])
        between = clock()
        _run(many, faces)
        ended = clock()
        apart.append(between - began)
        together.append(ended - between)
    return float(np.percentile(apart, 10)) * 1e3, float(np.percentile(together, 10)) * 1e3


if __name__ == "__main__":
    sys.exit(main())
