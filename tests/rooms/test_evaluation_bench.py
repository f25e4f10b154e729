import json
import sys
from pathlib import Path

import numpy as np
import pytest

from appliance.evaluation import peer_worker
from appliance.evaluation.bench import overlap, random_list
from appliance.evaluation.compare import Gallery
from appliance.evaluation.frames import walk
from appliance.evaluation.peers import AbsentError, Workshop, _as_products
from appliance.evaluation.peers_report import (
    EVERYONE,
    OUR_DETECTOR,
    OURS,
    Row,
    page,
    skipped,
    tables,
)
from appliance.evaluation.svg import Axis, Chart

SMALL = (320, 180)


def test_a_walk_shows_the_faces_where_it_says() -> None:
    scene = walk(4, face_px=30, frames=3, size=SMALL)
    empty = walk(0, frames=1, size=SMALL)
    assert scene.frames.shape == (3, 180, 320, 3)
    assert scene.boxes.shape == (3, 4, 4)
    widths = scene.boxes[..., 2] - scene.boxes[..., 0]
    assert np.allclose(widths, 30, atol=1e-3)
    for box in scene.boxes[0].round().astype(int):
        x1, y1, x2, y2 = np.clip(box, 0, (320, 180, 320, 180))
        assert (scene.frames[0, y1:y2, x1:x2] != empty.frames[0, y1:y2, x1:x2]).mean() > 0.5
    assert np.abs(np.diff(scene.boxes, axis=0)).max() < 4  # nobody jumps


def test_a_random_list_is_searched_like_any_other() -> None:
    watchlist = random_list(50, dim=16)
    match = watchlist.nearest(np.array(next(iter(watchlist.columns.values())).rows[7]))
    assert match.subject == "s7"
    assert match.similarity == pytest.approx(1.0, abs=1e-5)


def test_overlap_is_that_of_the_boxes() -> None:
    a, b = np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])
    assert overlap(a, a) == 1.0
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, b + 5) == 0.0


def test_distances_become_inner_products() -> None:
    vectors = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    left, right = _as_products(vectors)
    found = Gallery(left[:3], np.arange(3)).compare(right[3:], np.full(3, -1))
    wanted = -((vectors[3:, None] - vectors[None, :3]) ** 2).sum(axis=2).min(axis=1)
    assert found.other == pytest.approx(wanted, abs=1e-4)


class Toy:
    """A peer that finds one box, the whole picture, if the picture is not black."""

    dim = 2

    def detect(self, image: np.ndarray) -> list[tuple[float, float, float, float]]:
        return [(0.0, 0.0, float(image.shape[1]), float(image.shape[0]))] if image.any() else []

    def embed(self, image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
        return np.array([image.mean(), box[2]])


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    import cv2

    for name, level in (("a", 10), ("b", 0), ("c", 30)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 6, 3), level, np.uint8))
    listing = tmp_path / "list.txt"
    paths = [f"{tmp_path}/{name}.png\n" for name in ("a", "b", "c", "missing")]
    listing.write_text("".join(paths))
    return listing


def test_a_peer_embeds_what_it_finds_and_leaves_the_rest_empty(pictures: Path) -> None:
    out = pictures.with_name("vectors.npz")
    peer_worker.embed(Toy(), pictures, out)
    with np.load(out) as found:
        assert found["found"].tolist() == [True, False, True, False]
        assert found["vectors"][2].tolist() == [30, 6]


def test_a_peer_goes_on_where_it_was_interrupted(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tired(Toy):
        def embed(self, image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
            if image.mean() > 20:
                raise KeyboardInterrupt
            return super().embed(image, box)

    monkeypatch.setattr(peer_worker, "_SAVE_EVERY", 1)
    out = pictures.with_name("vectors.npz")
    with pytest.raises(KeyboardInterrupt):
        peer_worker.embed(Tired(), pictures, out)
    assert not out.exists()
    (pictures.parent / "a.png").unlink()  # seen before: not opened again
    peer_worker.embed(Toy(), pictures, out)
    with np.load(out) as found:
        assert found["found"].tolist() == [True, False, True, False]


def test_a_peer_is_timed_on_sets_of_frames(tmp_path: Path) -> None:
    frames = tmp_path / "frames.npz"
    np.savez(
        frames,
        rounds=np.array(2),
        **{"0": np.zeros((2, 4, 4, 3), np.uint8), "1": np.ones((2, 4, 4, 3), np.uint8)},  # type: ignore[arg-type]  # numpy's stub
    )
    peer_worker.speed(Toy(), frames, tmp_path / "out.json")
    report = json.loads((tmp_path / "out.json").read_text())
    assert (report["0"]["faces"], report["1"]["faces"]) == (0, 1)
    assert report["peak_rss_mib"] > 1


def test_a_peer_that_is_not_installed_is_absent_with_a_reason(tmp_path: Path) -> None:
    workshop = Workshop(
        python=tmp_path / "none/python", weights=None, folder=tmp_path, kept=tmp_path
    )
    with pytest.raises(AbsentError, match="no environment of peers"):
        workshop.speed("dlib", tmp_path / "frames.npz")
    here = Workshop(python=Path(sys.executable), weights=None, folder=tmp_path, kept=tmp_path)
    with pytest.raises(AbsentError, match=r"absent: yunet_n_640_640\.onnx"):
        here.speed("yunet", tmp_path / "frames.npz")


def test_a_skipped_peer_is_in_the_table_with_its_reason() -> None:
    def row(name: str, ms: float) -> Row:
        counts = {0: ms, 1: ms, 4: ms, 16: ms}
        small = {20: 0.1, 28: 0.5, 40: 1.0, 56: 1.0}
        return Row(
            name,
            ms=counts,
            best_ms=counts,
            cpu_ms=counts,
            faces=counts,
            small=small,
            peak_rss_mib=100.0,
        )

    rows = [row(OURS, 20), row(OUR_DETECTOR, 10), row("yunet", 5), Row("dlib", absent="not here")]
    speed, _ = tables(rows)
    shown = [list(column.cells) for column in speed.columns]
    assert skipped(rows) == ["skipped: face_recognition: not here"]
    assert shown[5][2] == "0.50"  # half of our detector's time: it says so
    html = page(rows)
    assert "not here" in html
    assert EVERYONE["yunet"] in html
    assert html.count("<svg") == 2


def test_a_chart_is_well_formed_and_escapes_its_words() -> None:
    import xml.etree.ElementTree as ET

    chart = Chart("a < b", Axis("x", 1e-3, 1.0, log=True, percent=True), Axis("y & z", 0.0, 5.0))
    chart.line([(0.01, 1.0), (0.5, 9.0)], "<series>", marked=True)
    chart.band([(0.01, 1.0), (0.5, 2.0)], [2.0, 3.0], "band")
    chart.steps([0.01, 0.1, 1.0], [1.0, 2.0], "steps")
    chart.whisker(1.0, 0.1, 0.01, 0.5, "<name>")
    root = ET.fromstring(chart.svg())  # noqa: S314 - our own text
    assert root.tag.endswith("svg")
