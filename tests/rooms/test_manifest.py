import hashlib
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from appliance.accelerator.manifest import MAX_FILE_BYTES, Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.errors import ModelError

CONTENT = b"not a model, but the right bytes"


def entry(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "in", "shape": [1, 8, 8, 3], "dtype": "int8", "scale": 1.0, "zero_point": 0}
    return {
        "name": "toy-8",
        "role": "embedder",
        "file": "toy.tflite",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "licence": "MIT",
        "origin": "made here",
        "card": "toy.md",
        "calibration": "none",
        "pixel_mean": 127.5,
        "pixel_std": 128.0,
        "input": tensor,
        "outputs": [tensor | {"name": "out", "shape": [1, 4]}],
        "golden": {"file": "golden/toy-8.npz", "sha256": "0" * 64, "min_cosine": 0.999},
    } | changes


def false_match(**changes: Any) -> dict[str, Any]:
    return {
        "similarity": [0.2, 0.4, 0.6],
        "rate": [0.1, 0.01, 0.001],
        "tail_similarity": 0.6,
        "tail_rate": 0.001,
        "tail_slope": 20.0,
        "probes": 10,
        "comparisons": 1000,
        "source": "made up",
    } | changes


def hailo(**changes: Any) -> dict[str, Any]:
    return {
        "file": "toy.hef",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "architecture": "hailo8l",
        "outputs": ["toy/fc1"],
    } | changes


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / "manifest.toml").write_text(tomli_w.dumps({"model": list(entries)}))
    (folder / "toy.tflite").write_bytes(CONTENT)
    return folder


def test_a_model_is_found_by_name_with_all_that_is_said_of_it(tmp_path: Path) -> None:
    folder = write(tmp_path, entry(false_match=false_match()), entry(name="other"))
    model = Manifest.load(folder).model("toy-8")
    assert model.spec.id == f"toy-8@{model.spec.sha256[:12]}"
    assert model.spec.input.shape == (1, 8, 8, 3)
    assert model.spec.outputs[0].name == "out"
    assert model.golden.path == tmp_path / "golden/toy-8.npz"
    assert model.false_match is not None
    assert model.false_match.rate == (0.1, 0.01, 0.001)
    assert model.verify() == CONTENT


def test_a_model_may_have_files_for_accelerators_with_hashes_of_their_own(tmp_path: Path) -> None:
    coral = {"file": "toy_edgetpu.tflite", "sha256": "0" * 64, "min_cosine": 0.9}
    folder = write(tmp_path, entry(coral=coral, hailo=hailo()), entry(name="other"))
    manifest = Manifest.load(folder)
    model = manifest.model("toy-8")
    assert model.coral is not None
    assert model.hailo is not None
    assert (model.coral.path, model.coral.min_cosine) == (tmp_path / "toy_edgetpu.tflite", 0.9)
    assert (model.hailo.architecture, model.hailo.outputs) == ("hailo8l", ("toy/fc1",))
    assert model.hailo.min_cosine == model.golden.min_cosine
    assert (manifest.model("other").coral, manifest.model("other").hailo) == (None, None)
    model.hailo.path.write_bytes(CONTENT)
    assert model.hailo.verify() == CONTENT
    with pytest.raises(ModelError, match=r"toy_edgetpu\.tflite: the model file is missing"):
        model.coral.verify()
    model.coral.path.write_bytes(CONTENT)
    with pytest.raises(ModelError, match=r"toy_edgetpu\.tflite: SHA-256 is"):
        model.coral.verify()


def test_an_unknown_name_lists_those_that_exist(tmp_path: Path) -> None:
    manifest = Manifest.load(write(tmp_path, entry(), entry(name="other")))
    with pytest.raises(ModelError, match="no model 'x'; there are toy-8, other"):
        manifest.model("x")


def test_a_changed_file_is_refused_with_both_hashes(tmp_path: Path) -> None:
    model = Manifest.load(write(tmp_path, entry())).model("toy-8")
    model.path.write_bytes(CONTENT + b"!")
    found = hashlib.sha256(CONTENT + b"!").hexdigest()
    with pytest.raises(ModelError, match=f"toy.tflite: SHA-256 is {found}.*{model.spec.sha256}"):
        model.verify()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    model = Manifest.load(write(tmp_path, entry())).model("toy-8")
    model.path.unlink()
    with pytest.raises(ModelError, match=r"toy\.tflite: the model file is missing"):
        model.verify()


def test_a_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    model = Manifest.load(write(tmp_path, entry())).model("toy-8")
    with model.path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ModelError, match="longer than"):
        model.verify()


def test_rubbish_with_the_right_hash_is_one_line(tmp_path: Path) -> None:
    model = Manifest.load(write(tmp_path, entry())).model("toy-8")
    with pytest.raises(ModelError, match=r"toy\.tflite: cannot be loaded") as refused:
        TfliteAccelerator(model, threads=1)
    assert "\n" not in str(refused.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"manifest\.toml: cannot be read: No such file"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"colour": "red"}, "colour"),
        ({"role": "oracle"}, "role"),
        ({"file": "../toy.tflite"}, "file"),
        ({"file": "/etc/passwd"}, "file"),
        ({"file": "a/../../toy.tflite"}, "file"),
        ({"file": ".hidden"}, "file"),
        ({"card": "..\\toy.md"}, "card"),
        ({"sha256": "abc"}, "sha256"),
        ({"name": "a name"}, "name"),
        ({"name": "n" * 52}, "name"),
        ({"pixel_std": 0.0}, "pixel_std"),
        ({"pixel_mean": float("nan")}, "pixel_mean"),
        ({"outputs": []}, "outputs"),
        ({"input": entry()["input"] | {"shape": [1, 8, 3]}}, "must be"),
        ({"input": entry()["input"] | {"dtype": "float32"}}, "dtype"),
        ({"input": entry()["input"] | {"zero_point": 200}}, "no int8"),
        ({"input": entry()["input"] | {"scale": float("inf")}}, "scale"),
        ({"input": entry()["input"] | {"scale": float("nan")}}, "scale"),
        ({"false_match": false_match(rate=[0.1])}, "1 rates for 3"),
        ({"false_match": false_match(rate=[0.1, 0.2, 0.3])}, "rate: must fall"),
        ({"false_match": false_match(similarity=[0.2, 0.2, 0.3])}, "must increase"),
        ({"role": "detector", "false_match": false_match()}, "belongs to an embedder"),
        ({"coral": {"file": "../toy_edgetpu.tflite", "sha256": "0" * 64}}, "file"),
        ({"coral": {"file": "toy_edgetpu.tflite", "sha256": "0"}}, "sha256"),
        ({"coral": {"file": "toy_edgetpu.tflite"}}, "sha256"),
        ({"hailo": hailo(architecture="hailo15h")}, "hailo15h"),
        ({"hailo": hailo(outputs=[])}, "outputs"),
        ({"hailo": hailo(outputs=["toy/a", "toy/b"])}, "2 names for 1 outputs"),
        ({"hailo": hailo(min_cosine=1.5)}, "min_cosine"),
    ],
)
def test_refuses_a_broken_bound(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    write(tmp_path, entry(**changes))
    with pytest.raises(ModelError, match=says) as refused:
        Manifest.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_an_embedder_for_hidden_faces_has_a_table_for_each_column(tmp_path: Path) -> None:
    tables = {"lower": false_match(), "eyes": false_match(tail_slope=10.0)}
    model = Manifest.load(write(tmp_path, entry(columns=tables))).model("toy-8")
    assert model.false_match is None
    assert {name: table.tail_slope for name, table in model.columns.items()} == {
        "lower": 20.0,
        "eyes": 10.0,
    }


def test_refuses_tables_of_a_model_that_embeds_nothing(tmp_path: Path) -> None:
    folder = write(tmp_path, entry(role="occlusion", columns={"lower": false_match()}))
    with pytest.raises(ModelError, match=r"columns\.lower: belongs to an embedder, not to a occl"):
        Manifest.load(folder)


def test_refuses_two_models_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="same name"):
        Manifest.load(write(tmp_path, entry(), entry()))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_hostile_bytes_raise_our_error_only(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "manifest.toml").write_bytes(content)
    with pytest.raises(ModelError):
        Manifest.load(folder)
