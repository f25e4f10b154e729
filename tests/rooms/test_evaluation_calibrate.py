import json
from pathlib import Path

import numpy as np
import pytest
import tomli_w

from appliance.errors import ModelError, ThresholdError
from appliance.evaluation.cache import Sample
from appliance.evaluation.calibrate import (
    People,
    accuracy,
    check,
    pairs,
    probes_of,
    table_of,
    templates_of,
)
from appliance.evaluation.persons import mean
from appliance.evaluation.protocol import Picture, Protocol, Role
from appliance.evaluation.samples import Samples
from appliance.evaluation.study import compared, normalised, per_person, per_picture, templates
from appliance.evaluation.threshold import ACCURACY, advise
from appliance.types import Quality

FOLDER = Path("somewhere")


def samples(people: int = 300, *, spread: float = 0.6, dim: int = 24) -> Samples:
    """People about directions of their own; every third has seven pictures, the others one."""
    rng = np.random.default_rng(1)
    pictures: list[Picture] = []
    found: list[Sample] = []
    for person in range(people):
        centre = rng.standard_normal(dim)
        for take in range(7 if person % 3 == 0 else 1):
            vector = centre + spread * rng.standard_normal(dim)
            role = Role.NONMATED if person % 3 else Role.MATED if take else Role.GALLERY
            path = FOLDER / f"{person}" / f"{take}.jpg"
            pictures.append(Picture(role, f"p{person:03}", path))
            unit = np.asarray(vector / np.linalg.norm(vector), np.float32)
            quality = Quality(40.0, 100.0 + take, 100.0, 0.1, None)
            found.append(Sample(str(path).encode(), 1, unit, quality, ""))
    protocol = Protocol(FOLDER, tuple(pictures), "made up")
    return Samples.of(protocol, found, gated=False)


def test_nobody_is_compared_with_herself() -> None:
    vectors = np.eye(4, dtype=np.float32)
    found = pairs(People(vectors, np.array([1, 2, 3, 4])), People(vectors, np.array([1, 2, 2, 4])))
    assert found.counts.sum() == 16 - 4
    assert len(found.cosine) == 1  # person 3's probe is person 2's second template
    assert (found.left[0], found.right[0]) == (3, 2)


def test_probes_are_fused_and_templates_single() -> None:
    lined = samples(30)
    probes, singles = probes_of(lined), templates_of(lined)
    assert len(probes.whose) == 10
    first = lined.vectors[lined.people == probes.whose[0]][:5]
    assert np.allclose(probes.vectors[0], mean(first))
    assert np.bincount(singles.whose).max() == 3


def test_a_table_made_of_one_half_of_the_people_tells_the_false_alerts_of_the_other() -> None:
    lined = samples(900)
    results = check(probes_of(lined), templates_of(lined), seed=1)
    assert len(results) == 20
    assert sum(result.held for result in results) >= 18


def test_the_slope_of_people_is_less_certain_than_that_of_pairs() -> None:
    lined = samples(300)
    table = table_of(probes_of(lined), templates_of(lined), source="made up", seed=1)
    independent = table.tail_slope / np.sqrt(table.tail_rate * table.comparisons)
    assert table.tail_slope_error > independent


def models(folder: Path, *, table: bool = True) -> Path:
    """A manifest with one embedder whose strangers are known; the file itself is not needed."""
    tensor = {"name": "in", "shape": [1, 8, 8, 3], "dtype": "int8", "scale": 1.0, "zero_point": 0}
    entry = {
        "name": "toy-8",
        "role": "embedder",
        "file": "toy.tflite",
        "sha256": "0" * 64,
        "licence": "MIT",
        "origin": "made here",
        "card": "toy.md",
        "calibration": "none",
        "pixel_mean": 127.5,
        "pixel_std": 128.0,
        "input": tensor,
        "outputs": [tensor | {"name": "out", "shape": [1, 24]}],
        "golden": {"file": "golden.npz", "sha256": "0" * 64, "min_cosine": 0.99},
    }
    if table:
        entry["false_match"] = {
            "similarity": [0.0, 0.5],
            "rate": [0.5, 1e-4],
            "tail_similarity": 0.5,
            "tail_rate": 1e-4,
            "tail_slope": 40.0,
            "tail_slope_error": 3.0,
            "probes": 1000,
            "comparisons": 5_000_000,
            "source": "made up, for a test",
        }
    folder.mkdir(exist_ok=True)
    (folder / "manifest.toml").write_text(tomli_w.dumps({"model": [entry]}))
    return folder


def test_a_threshold_is_told_with_its_reach_and_its_cost(tmp_path: Path) -> None:
    folder = models(tmp_path)
    record = accuracy(samples(300), model="toy-8@000000000000", source="squares, small", seed=1)
    (folder / ACCURACY).write_text(json.dumps(record))
    said = advise(
        subjects=1000, templates=2, false_alerts=1 / 1000, folder=folder, embedder="toy-8"
    )
    assert "1,000 subjects, 2,000 templates, 1 in 1,000 passers-by" in said
    assert "threshold       cosine 0.632" in said
    assert "of the listed by one picture" in said
    assert "by 5 fused (squares; a street is harder)" in said
    further = advise(
        subjects=10_000, templates=1, false_alerts=1 / 6000, folder=folder, embedder="toy-8"
    )
    assert "extrapolated 12.0 times beyond them" in further


def test_figures_of_another_model_are_not_given_for_this_one(tmp_path: Path) -> None:
    folder = models(tmp_path)
    record = accuracy(samples(300), model="other@000000000000", source="squares", seed=1)
    (folder / ACCURACY).write_text(json.dumps(record))
    said = advise(subjects=10, templates=1, false_alerts=0.01, folder=folder, embedder="toy-8")
    assert "not measured for this model" in said


def test_what_cannot_be_served_or_is_not_calibrated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ThresholdError, match=r"1000000 templates at 1 in 1e\+06"):
        advise(
            subjects=10**6,
            templates=1,
            false_alerts=1e-6,
            folder=models(tmp_path),
            embedder="toy-8",
        )
    with pytest.raises(ModelError, match="not calibrated"):
        advise(
            subjects=1,
            templates=1,
            false_alerts=0.1,
            folder=models(tmp_path, table=False),
            embedder="toy-8",
        )


def test_a_record_of_accuracy_that_is_none_is_refused(tmp_path: Path) -> None:
    folder = models(tmp_path)
    (folder / ACCURACY).write_text('{"model": 3}')
    with pytest.raises(ModelError, match=r"accuracy\.json"):
        advise(subjects=10, templates=1, false_alerts=0.01, folder=folder, embedder="toy-8")


def test_variants_are_compared_on_the_same_people() -> None:
    lined = samples(240, spread=1.3)
    told = {
        variant.name: variant
        for group, variants in (
            ("picture", per_picture(lined, lined, lined)),
            ("cohort", normalised(lined)),
            ("templates", templates(lined)),
            ("person", per_person(lined, pictures=3)),
        )
        for variant in compared(group, variants, resamples=40)
    }
    same = told["mean with the mirrored face"]  # given the same samples: no gain, and no doubt
    assert same.gain == ((0.0, 0.0, 0.0),) * 2
    gain, low, _ = told["three pictures fused into one template"].gain[0]
    assert gain > low > 0
    alone, _, _ = told["only one of them"].gain[0]
    assert alone < 0
