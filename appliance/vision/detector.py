"""Faces in a picture: letterbox, quantise, run, decode, and back to the picture's pixels."""

from __future__ import annotations

import numpy as np

from appliance.errors import ModelError
from appliance.interfaces import Accelerator
from appliance.types import Face, Image, ModelSpec, Tensor
from appliance.vision.align import alignable
from appliance.vision.decode import STRIDE, decode
from appliance.vision.letterbox import Letterbox
from appliance.vision.quantise import quantise

_CHANNELS = (1, 2, 2, 10)
"""Of the heat map, scale, offset and landmarks."""


class FaceDetector:
    """CenterFace on any accelerator. Used by one thread.

    Holds one copy of the picture at the model's size and one of its quantised form; both are
    overwritten before `detect` returns.

    Args:
        accelerator: runs a detector of the manifest.
        min_score: least score of a face, in [0, 1].
        max_faces: per picture, the best ones.

    Raises:
        ModelError: the model is no CenterFace.
    """

    def __init__(self, accelerator: Accelerator, *, min_score: float, max_faces: int) -> None:
        _check(accelerator.spec)
        self._accelerator = accelerator
        self._min_score, self._max_faces = min_score, max_faces
        _, height, width, _ = accelerator.spec.input.shape
        self._target = (width, height)
        self._letterbox = Letterbox(source=self._target, target=self._target)
        self._source = self._target
        self._tensor: Tensor = np.zeros(accelerator.spec.input.shape, accelerator.spec.input.dtype)

    def detect(self, image: Image) -> list[Face]:
        spec = self._accelerator.spec
        letterbox = self._letterbox_for(image)
        try:
            quantise(letterbox.fit(image), spec, out=self._tensor)
            outputs = self._accelerator.run(self._tensor)
        finally:
            letterbox.wipe()
            self._tensor.fill(0)
        found = decode(outputs, spec.outputs, min_score=self._min_score, max_faces=self._max_faces)
        boxes = letterbox.to_source(found.boxes.reshape(-1, 2, 2))
        np.clip(boxes, 0, self._source, out=boxes)
        landmarks = letterbox.to_source(found.landmarks)
        return [
            Face(box=box.reshape(4), landmarks=points, score=score)
            for box, points, score in zip(boxes, landmarks, found.scores.tolist(), strict=True)
            # What cannot be aligned is no face: nothing after the detector could use it.
            if alignable(points)
        ]

    def forget(self) -> None:
        """See interfaces.Detector. A runtime overwrites its inside only by its next run.

        Raises:
            AcceleratorError: the device failed.
        """
        for output in self._accelerator.run(self._tensor):  # zeros, see detect
            output.fill(0)

    def _letterbox_for(self, image: Image) -> Letterbox:
        """Kept while pictures keep their size, as a camera's do."""
        source = (image.shape[1], image.shape[0])
        if source != self._source:
            self._letterbox = Letterbox(source=source, target=self._target)
            self._source = source
        return self._letterbox


def _check(spec: ModelSpec) -> None:
    if spec.role != "detector":
        raise ModelError(f"{spec.id}: is a {spec.role}, a detector is needed")
    _, height, width, _ = spec.input.shape
    wanted = [(1, height // STRIDE, width // STRIDE, channels) for channels in _CHANNELS]
    found = [output.shape for output in spec.outputs]
    if found != wanted:
        raise ModelError(f"{spec.id}: outputs are {found}, CenterFace's are {wanted}")
