"""From a folder of pictures to a report, in the world of squares: a colour is a person."""

import json
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import EvaluationError, PhotoError
from appliance.evaluation.assess import Evaluation
from appliance.evaluation.cache import Cache, Sample
from appliance.evaluation.evaluate import Options, conclude
from appliance.evaluation.extract import NO_FACE, Extractor, extract
from appliance.evaluation.pictures import declared_pixels, decode, fingerprint
from appliance.evaluation.protocol import Protocol, Role, load
from appliance.interfaces import Embedder
from appliance.types import FalseMatch
from appliance.vision.quality import QualityGate
from appliance.vision.simulated import SimulatedDetector, SimulatedEmbedder

OPEN_GATE = QualityGate(
    min_eye_distance_px=0, min_sharpness=0, min_light=0, max_light=255, max_turn=10
)


def colour(person: int) -> np.ndarray:
    """A colour of a person's own: evenly spread over the sphere of colours."""
    rng = np.random.default_rng(person)
    direction = rng.standard_normal(3)
    return np.clip(127.75 + 110 * direction / np.linalg.norm(direction), 40, 250)


def picture(path: Path, person: int, take: int, at: tuple[int, int] = (30, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.zeros((120, 160, 3), np.uint8)
    noise = np.random.default_rng((person, take)).normal(0, 6, 3)
    image[at[1] : at[1] + 60, at[0] : at[0] + 60] = np.clip(colour(person) + noise, 33, 255)
    assert cv2.imwrite(str(path), image[:, :, ::-1])


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """60 people, half with three pictures, half with one."""
    folder = tmp_path / "faces"
    for person in range(60):
        for take in range(3 if person % 2 else 1):
            picture(folder / f"p{person:02}" / f"{take}.png", person, take)
    return folder


def samples_of(
    folder: Path, cache: Cache | None = None, embedder: Embedder | None = None
) -> tuple[Protocol, list[Sample]]:
    protocol = load(folder, seed=1)
    extractor = Extractor(
        detector=SimulatedDetector(), embedder=embedder or SimulatedEmbedder(), gate=OPEN_GATE
    )
    paths = [p.path for p in protocol.pictures]
    return protocol, list(extract(paths, extractor, cache, lambda _: None))


def evaluated(folder: Path, out: Path, **options: object) -> Evaluation:
    protocol, samples = samples_of(folder)
    chosen = Options(data=folder, out=out, **options)  # type: ignore[arg-type]  # the test's own words
    return conclude(chosen, protocol, samples, table=None, pipeline="squares")[0]


def test_a_folder_per_subject_becomes_a_report(faces: Path, tmp_path: Path) -> None:
    evaluation = evaluated(faces, tmp_path / "report")
    assert evaluation.subjects == 15
    assert evaluation.acquired["mated"].pictures == 30
    assert evaluation.rank_one.value > 0.8
    page = (tmp_path / "report/report.html").read_text()
    assert page.count("<svg") == 2
    record = json.loads((tmp_path / "report/report.json").read_text())
    assert record["evaluation"]["points"][0]["tpir"]["value"] == evaluation.points[0].tpir.value
    assert sorted(p.name for p in (tmp_path / "report").iterdir()) == ["report.html", "report.json"]


def test_the_same_seed_gives_the_same_report(faces: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        evaluated(faces, tmp_path / out)
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()


def test_the_report_shows_pictures_from_where_they_lie_and_only_when_asked(
    faces: Path, tmp_path: Path
) -> None:
    evaluated(faces, tmp_path / "report")
    assert "<img" not in (tmp_path / "report/report.html").read_text()
    evaluated(faces, tmp_path / "report", pictures=True)
    page = (tmp_path / "report/report.html").read_text()
    assert '<img loading=lazy src="../faces/p' in page
    assert "base64" not in page


def test_names_of_subjects_cannot_become_markup(faces: Path, tmp_path: Path) -> None:
    for take in range(3):
        picture(faces / "<script>x" / f"{take}.png", 77, take)
    evaluated(faces, tmp_path / "report")
    assert "<script>" not in (tmp_path / "report/report.html").read_text()


def test_pictures_that_give_no_probe_are_counted_and_named(faces: Path, tmp_path: Path) -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    cv2.imwrite(str(faces / "p00/0.png"), black)
    (faces / "p02/0.png").write_bytes(b"not a picture")
    (faces / "p99").mkdir()
    evaluation = evaluated(faces, tmp_path / "report")
    strangers = evaluation.acquired["nonmated"]
    assert (strangers.faceless, strangers.unreadable, strangers.failed) == (1, 1, 2)
    page = (tmp_path / "report/report.html").read_text()
    assert "p02/0.png: not a picture that can be decoded" in page
    assert "p99: holds no picture" in page


def test_of_several_faces_the_one_in_the_middle_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "two.png"
    image = np.zeros((200, 300, 3), np.uint8)
    image[10:50, 10:50] = (250, 40, 40)
    image[80:120, 130:170] = (40, 40, 250)
    cv2.imwrite(str(path), image[:, :, ::-1])
    extractor = Extractor(
        detector=SimulatedDetector(), embedder=SimulatedEmbedder(), gate=OPEN_GATE
    )
    sample = extractor.sample(path)
    assert sample.faces == 2
    assert sample.vector is not None
    assert sample.vector[2] > 0 > sample.vector[0]


def test_one_picture_under_two_subjects_is_found(faces: Path, tmp_path: Path) -> None:
    (faces / "p00/0.png").write_bytes((faces / "p01/1.png").read_bytes())
    evaluation = evaluated(faces, tmp_path / "report")
    assert any("the same picture under two subjects" in line for line in evaluation.duplicates)


def test_an_errata_file_leaves_pictures_out(faces: Path, tmp_path: Path) -> None:
    (faces / "errata.csv").write_text("image,what\np01/1.png,is somebody else\n")
    protocol = load(faces, seed=1)
    assert faces / "p01/1.png" not in {p.path for p in protocol.pictures}
    assert "errata.csv: 1 of the pictures left out" in protocol.findings
    del tmp_path


def test_metadata_is_broken_down_and_what_does_not_fit_is_said(faces: Path, tmp_path: Path) -> None:
    rows = "".join(f"p{n:02},{'east' if n % 3 else 'west'}\n" for n in range(59))
    (faces / "metadata.csv").write_text("subject,site\n" + rows + "nobody,east\n")
    evaluation = evaluated(faces, tmp_path / "report")
    assert [(g.column, g.value) for g in evaluation.groups] == [("site", "east"), ("site", "west")]
    page = (tmp_path / "report/report.html").read_text()
    assert "metadata.csv: a row without pictures: nobody" in page
    assert "no row in metadata.csv for: p59" in page


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ("role,subject\n", "no column 'image'"),
        ("role,subject,image\nx,a,a.png\n", "row 2: role is 'x'"),
        ("role,subject,image\ngallery,,a.png\n", "row 2: no subject"),
        ("role,subject,image\ngallery,a,../a.png\n", "outside the folder"),
        ("role,subject,image\ngallery,a\n", "row 2: not as many cells"),
        ("role,subject,image\nmated,a,a.png\n", "a has mated pictures and none in the gallery"),
        (
            "role,subject,image\ngallery,a,a.png\nnonmated,a,b.png\n",
            "a is in the gallery and a stranger as well",
        ),
        ("role,subject,image\ngallery,a,a.png\n", "no mated picture"),
        (
            "role,subject,image\ngallery,a,a.png\nmated,a,b.png\n",
            "without strangers there is no false-alert rate",
        ),
        ("role,subject,image\n", "holds neither"),
    ],
)
def test_a_protocol_that_cannot_be_used_is_refused(tmp_path: Path, rows: str, named: str) -> None:
    (tmp_path / "open_set.csv").write_text(rows)
    with pytest.raises(EvaluationError, match=named):
        load(tmp_path, seed=1)


@given(st.binary(max_size=300))
def test_any_bytes_as_a_protocol_are_read_or_refused(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "open_set.csv").write_bytes(b"role,subject,image\n" + content)
        with pytest.raises(EvaluationError):
            load(folder, seed=1)


def test_an_empty_or_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no such folder"):
        load(tmp_path / "x", seed=1)
    with pytest.raises(EvaluationError, match=r"holds neither open_set\.csv nor folders"):
        load(tmp_path, seed=1)


def test_one_picture_subjects_alone_cannot_be_measured(tmp_path: Path) -> None:
    for person in range(5):
        picture(tmp_path / f"p{person}" / "0.png", person, 0)
    with pytest.raises(EvaluationError, match="at least two pictures of one person"):
        load(tmp_path, seed=1)


def test_roles_are_drawn_by_the_seed(faces: Path) -> None:
    def listed(seed: int) -> set[str]:
        return {p.subject for p in load(faces, seed=seed).pictures if p.role is Role.GALLERY}

    assert listed(1) == listed(1)
    assert listed(1) != listed(2)


def test_an_interrupted_evaluation_goes_on_where_it_was(faces: Path, tmp_path: Path) -> None:
    class Counting(SimulatedEmbedder):
        count = 0

        def embed(self, crop: np.ndarray) -> np.ndarray:
            Counting.count += 1
            if Counting.count == 40:
                raise KeyboardInterrupt
            return super().embed(crop)

    path = tmp_path / "cache.sqlite"
    with pytest.raises(KeyboardInterrupt), Cache(path, pipeline="squares") as cache:
        samples_of(faces, cache, Counting())
    with Cache(path, pipeline="squares") as cache:
        _, resumed = samples_of(faces, cache, Counting())
    _, fresh = samples_of(faces)
    assert Counting.count == 40 + 120 - 39
    for a, b in zip(resumed, fresh, strict=True):
        assert a.vector is not None
        assert b.vector is not None
        assert np.array_equal(a.vector, b.vector)
    assert path.stat().st_mode & 0o077 == 0


def test_another_pipeline_remembers_nothing(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with Cache(path, pipeline="a") as cache:
        cache.put(Sample(b"1" * 32, 0, None, None, NO_FACE))
    with Cache(path, pipeline="a") as cache:
        found = cache.get(b"1" * 32)
        assert found is not None
        assert (found.failure, found.vector) == (NO_FACE, None)
    with Cache(path, pipeline="b") as cache:
        assert cache.get(b"1" * 32) is None


def test_a_file_that_is_no_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"x" * 4096)
    with pytest.raises(EvaluationError, match="cannot be used as a cache"):
        Cache(tmp_path / "cache", pipeline="a")


def test_a_picture_that_declares_a_giant_size_is_not_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(header))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk
    with pytest.raises(PhotoError, match="3600000000 pixels, at most 100000000"):
        decode(bomb, tmp_path / "bomb.png")


def test_the_size_in_a_jpeg_header_is_found(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((30, 50, 3), np.uint8))
    content, _ = fingerprint(tmp_path / "a.jpg")
    assert declared_pixels(content) == 1500
    assert decode(content, tmp_path / "a.jpg").shape == (30, 50, 3)


@given(st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]))
def test_any_bytes_as_a_picture_are_decoded_or_refused(content: bytes, prefix: bytes) -> None:
    try:
        image = decode(prefix + content, Path("x"))
    except PhotoError:
        return
    assert image.ndim == 3


def test_the_nodes_own_threshold_is_reported_where_the_model_is_calibrated(
    faces: Path, tmp_path: Path
) -> None:
    table = FalseMatch((0.0, 0.9), (0.5, 1e-4), 0.9, 1e-4, 300.0, 1000, 10**7, "made up")
    protocol, samples = samples_of(faces)
    options = Options(data=faces, out=tmp_path / "report")
    evaluation, page = conclude(options, protocol, samples, table=table, pipeline="squares")
    assert [p.asked_fpir for p in evaluation.points] == [0.01, 0.003, None, None]
    assert "threshold for 1 false alert in 6,000" in page.read_text()
    assert evaluation.promises
    assert "Does the node keep its word?" in page.read_text()
