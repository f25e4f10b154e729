"""Pictures to vectors, by the very steps that the node takes.

Enters: a protocol. Leaves: one Sample per picture, in order. Several faces on a picture: the one
whose centre is nearest to the picture's is taken to be the subject. The quality gate is applied,
and what it says is kept beside the vector: whoever evaluates decides what a refusal means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from appliance.errors import PhotoError
from appliance.evaluation.cache import Cache, Sample
from appliance.evaluation.pictures import decode, fingerprint
from appliance.interfaces import Detector, Embedder
from appliance.types import Face, Image, Vector
from appliance.vision.align import align
from appliance.vision.quality import QualityGate

NO_FACE = "no face found"

Transform = Callable[[Image], Image]


class Extractor:
    """A picture to a sample.

    Args:
        detector: as the node's.
        embedder: as the node's.
        gate: as the node's.
        flip: the vector is the mean with that of the mirrored crop; costs a second embedding.
        transform: what is done to a picture before anything is looked for in it, None for
            nothing; for studies of what hides or spoils faces.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        embedder: Embedder,
        gate: QualityGate,
        flip: bool = False,
        transform: Transform | None = None,
    ) -> None:
        self._detector, self._embedder, self._gate = detector, embedder, gate
        self._flip, self._transform = flip, transform

    def sample(self, path: Path, cache: Cache | None = None) -> Sample:
        """What a picture gives; whatever is wrong with it is in the sample's `failure`."""
        try:
            content, sha256 = fingerprint(path)
        except PhotoError as e:
            return Sample(None, 0, None, None, str(e))
        known = cache.get(sha256) if cache else None
        if known is not None:
            return self._judged(known)
        try:
            sample = self._look(decode(content, path), sha256)
        except PhotoError as e:
            sample = Sample(sha256, 0, None, None, str(e))
        if cache is not None:
            cache.put(sample)
        return sample

    def _judged(self, sample: Sample) -> Sample:
        """What was measured before, by today's gate."""
        quality = sample.quality
        if quality is None:
            return sample
        refusal = self._gate.refusal(
            quality.eye_distance_px, quality.sharpness, quality.light, quality.turn
        )
        return replace(sample, quality=replace(quality, refusal=refusal))

    def _look(self, image: Image, sha256: bytes) -> Sample:
        if self._transform is not None:
            image = self._transform(image)
        faces = self._detector.detect(image)
        if not faces:
            return Sample(sha256, 0, None, None, NO_FACE)
        face = central(faces, image)
        crop = align(image, face.landmarks, side=self._embedder.side)
        quality = self._gate.assess(crop, face)
        return Sample(sha256, len(faces), self._embed(crop), quality, "")

    def _embed(self, crop: Image) -> Vector:
        vector = self._embedder.embed(crop)
        if not self._flip:
            return vector
        both = vector + self._embedder.embed(np.ascontiguousarray(crop[:, ::-1]))
        return np.asarray(both / np.linalg.norm(both), np.float32)


def central(faces: Sequence[Face], image: Image) -> Face:
    """The face whose centre is nearest to the picture's."""
    middle = np.array([image.shape[1], image.shape[0]]) / 2

    def distance(face: Face) -> float:
        return float(np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - middle))

    return min(faces, key=distance)


def extract(
    paths: Sequence[Path],
    extractor: Extractor,
    cache: Cache | None,
    progress: Callable[[int], None],
) -> Iterator[Sample]:
    """Samples of pictures, in order.

    Args:
        paths: of the pictures.
        extractor: looks at those that are not in the cache.
        cache: asked first and told after; None looks at every picture.
        progress: told how many are done, after each.
    """
    for done, path in enumerate(paths, 1):
        yield extractor.sample(path, cache)
        progress(done)
