"""Photographs of squares become templates, or are named with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.controller.authority import assess
from appliance.controller.enrolment import Enroller, Photo, gather, read_picture
from appliance.controller.report import Report, read_counts, read_meta
from appliance.errors import PhotoError
from appliance.types import Image
from appliance.vision.occlusion import Hidden, Told
from appliance.vision.quality import QualityGate
from appliance.vision.simulated import SimulatedDetector, SimulatedEmbedder

RED, BLUE = (250, 40, 40), (40, 40, 250)


def enroller(*, min_sharpness: float = 0.0) -> Enroller:
    return Enroller(
        detector=SimulatedDetector(),
        embedder=SimulatedEmbedder(),
        gate=QualityGate(
            min_eye_distance_px=20.0, min_sharpness=min_sharpness, min_light=30.0,
            max_light=235.0, max_turn=0.8,
        ),
    )  # fmt: skip


def picture(*squares: tuple[int, int, int, tuple[int, int, int]]) -> Image:
    image = np.zeros((300, 400, 3), np.uint8)
    for x, y, side, colour in squares:
        image[y : y + side, x : x + side] = colour
    return image


def save(path: Path, image: Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image[..., ::-1])
    return path


def test_one_good_face_becomes_a_unit_vector(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture((50, 50, 120, RED)))
    enrolled = enroller().enrol(Photo("a", path))
    assert np.linalg.norm(enrolled.vectors["whole"]) == pytest.approx(1.0, abs=1e-5)
    assert enrolled.vectors["whole"][0] > abs(enrolled.vectors["whole"][1])
    assert enrolled.quality.refusal is None


def test_somebody_far_behind_is_no_second_face(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture((50, 50, 120, RED), (300, 200, 20, BLUE)))
    assert enroller().enrol(Photo("a", path)).vectors["whole"][0] > 0


@pytest.mark.parametrize(
    ("squares", "reason"),
    [
        ((), "no face found"),
        (((20, 50, 120, RED), (200, 50, 110, BLUE)), "2 faces; a photograph must show one person"),
        (((50, 50, 30, RED),), "eyes 9 px apart, at least 20 needed"),
        (((50, 50, 120, (5, 35, 5)),), "too dark: "),
    ],
)
def test_refuses_a_photograph_by_name_with_the_reason(
    tmp_path: Path, squares: tuple[tuple[int, int, int, tuple[int, int, int]], ...], reason: str
) -> None:
    path = save(tmp_path / "a.png", picture(*squares))
    with pytest.raises(PhotoError) as refused:
        enroller().enrol(Photo("a", path))
    assert str(refused.value).startswith(f"{path}: {reason}")


def test_refuses_a_blurred_face(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", picture((50, 50, 120, RED)))
    with pytest.raises(PhotoError, match="blurred"):
        enroller(min_sharpness=20.0).enrol(Photo("a", path))


def test_refuses_what_is_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with pytest.raises(PhotoError, match="cannot be read"):
        read_picture(path)
    path.write_bytes(b"")
    with pytest.raises(PhotoError, match="not a picture"):
        read_picture(path)
    os.truncate(path, 65 * 2**20)
    with pytest.raises(PhotoError, match="may have"):
        read_picture(path)


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(junk=st.binary(max_size=300), cut=st.integers(0, 400))
def test_hostile_bytes_are_an_error_by_name_or_a_picture(
    tmp_path: Path, junk: bytes, cut: int
) -> None:
    encoded = cv2.imencode(".png", picture((50, 50, 120, RED)))[1].tobytes()
    path = tmp_path / "hostile.png"
    for content in (junk, encoded[:cut] + junk + encoded[cut:]):
        path.write_bytes(content)
        try:
            read_picture(path)
        except PhotoError as e:
            named = str(path) in str(e)
        else:
            named = True
        assert named


def test_a_large_picture_is_reduced(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.full((100, 4096, 3), 90, np.uint8))
    assert read_picture(path).shape == (50, 2048, 3)


# Whose photograph it is


def test_a_folder_is_one_subject_and_so_is_a_file(tmp_path: Path) -> None:
    one = save(tmp_path / "photos" / "poi-1" / "a.png", picture())
    two = save(tmp_path / "photos" / "poi-1" / "b.jpg", picture())
    three = save(tmp_path / "photos" / "poi 2.png", picture())
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    assert sorted(gather([tmp_path / "photos"]), key=lambda p: str(p.path)) == [
        Photo("poi-2", three), Photo("poi-1", one), Photo("poi-1", two),
    ]  # fmt: skip
    assert {photo.subject for photo in gather([one, three], "x")} == {"x"}


def test_refuses_two_names_that_would_be_one_subject(tmp_path: Path) -> None:
    save(tmp_path / "poi 1.png", picture())
    save(tmp_path / "poi-1.png", picture())
    with pytest.raises(PhotoError, match="would both be subject poi-1"):
        gather([tmp_path])
    save(tmp_path / "long" / f"{'a' * 60}1.png", picture())
    save(tmp_path / "long" / f"{'a' * 60}2.png", picture())
    with pytest.raises(PhotoError, match="would both be subject"):
        gather([tmp_path / "long"])


def test_refuses_paths_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(PhotoError, match="holds no picture"):
        gather([tmp_path])
    with pytest.raises(PhotoError, match="no such file"):
        gather([tmp_path / "missing"])


# The report


def test_the_report_tells_of_each_photograph_and_of_subjects_that_were_lost(tmp_path: Path) -> None:
    save(tmp_path / "one" / "good.png", picture((50, 50, 120, RED)))
    save(tmp_path / "one" / "bad.png", picture())
    save(tmp_path / "two" / "bad.png", picture())
    counted: list[int] = []
    photos = gather([tmp_path])
    enrolled, outcomes = assess(enroller(), photos, progress=lambda: counted.append(1))
    assert len(counted) == 3
    assert [e.photo.subject for e in enrolled] == ["one"]
    report = Report(outcomes, {"one": {"category": "wanted", "source": "custody"}, "two": {}})
    assert (report.accepted, report.lost) == (1, ("two",))
    assert report.counts == {"category: wanted": 1, "source: custody": 1}
    lines = report.as_csv().splitlines()
    assert lines[0].startswith("subject,photo,accepted,reason,eye_distance_px")
    assert sum("no face found" in line for line in lines) == 2
    (tmp_path / "list.report.json").write_text(report.as_json())
    assert read_counts(tmp_path / "list.report.json") == report.counts
    assert "no face found" in report.as_table()


def test_a_report_that_is_none_is_refused_and_a_missing_one_counts_nothing(tmp_path: Path) -> None:
    assert read_counts(tmp_path / "missing") == {}
    for junk in (b"", b"[]", b'{"counts": {"a": "b"}}', b"{}", b"\xff\xfe"):
        (tmp_path / "junk").write_bytes(junk)
        with pytest.raises(PhotoError, match="not a report"):
            read_counts(tmp_path / "junk")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "subject, and category and source"),
        ("name\nx\n", "subject, and category and source"),
        ("subject,height\na,1\n", "subject, and category and source"),
        ("subject,category\na,wanted\na,missing\n", "'a' is there twice"),
        ("subject,category\na,wanted,more\n", "too many"),
        ("subject,category\na\n", "too few"),
        ('subject\n"a\n', "cannot be read"),
    ],
)
def test_refuses_a_meta_file_by_name(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "meta.csv"
    path.write_text(text)
    with pytest.raises(PhotoError, match=reason) as refused:
        read_meta(path)
    assert str(path) in str(refused.value)


def test_a_meta_file_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    path = tmp_path / "meta.csv"
    path.write_text("\ufeffsubject,source\r\na,custody\r\nb,\r\n")
    assert read_meta(path) == {"a": {"source": "custody"}, "b": {"source": ""}}


class Says:
    """A teller that says the same of every face."""

    def __init__(self, hidden: Hidden, probability: float = 1.0) -> None:
        self._told = Told(hidden, probability, "none")

    def tell(self, crop: Image) -> Told:
        del crop
        return self._told

    def forget(self) -> None:
        """Nothing is kept."""


def hiding(says: Says, *, accept_partial: bool = False) -> Enroller:
    return Enroller(
        detector=SimulatedDetector(),
        embedder=SimulatedEmbedder(),
        gate=QualityGate(min_eye_distance_px=20.0, min_sharpness=0.0),
        hidden=SimulatedEmbedder(),
        teller=says,
        accept_partial=accept_partial,
    )


def test_a_bare_face_gets_a_template_for_each_part_that_may_be_hidden(tmp_path: Path) -> None:
    photo = Photo("a", save(tmp_path / "a.png", picture((50, 50, 120, RED))))
    vectors = hiding(Says("none")).enrol(photo).vectors
    assert set(vectors) == {"whole", "lower", "eyes"}
    for vector in vectors.values():
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
        assert vector[0] > abs(vector[1])


def test_a_photograph_of_a_hidden_face_is_refused_with_the_reason(tmp_path: Path) -> None:
    photo = Photo("a", save(tmp_path / "a.png", picture((50, 50, 120, RED))))
    with pytest.raises(PhotoError, match=r"a.png: the face is part-hidden \(lower\)"):
        hiding(Says("lower")).enrol(photo)
    with pytest.raises(PhotoError, match="too much of the face is hidden"):
        hiding(Says("too-much"), accept_partial=True).enrol(photo)


def test_a_photograph_of_a_hidden_face_may_be_taken_for_what_it_shows(tmp_path: Path) -> None:
    photo = Photo("a", save(tmp_path / "a.png", picture((50, 50, 120, RED))))
    assert set(hiding(Says("eyes"), accept_partial=True).enrol(photo).vectors) == {"eyes"}


def test_a_photograph_is_not_refused_on_a_guess(tmp_path: Path) -> None:
    photo = Photo("a", save(tmp_path / "a.png", picture((50, 50, 120, RED))))
    assert "whole" in hiding(Says("lower", 0.6)).enrol(photo).vectors
