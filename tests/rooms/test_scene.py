from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.camera.motion import pose
from appliance.camera.scene import Scene, SceneCamera, Truth
from appliance.camera.script import Cover, Walker
from appliance.camera.street import street
from appliance.errors import CameraError, ConfigError
from appliance.system.clock import SimulatedClock
from appliance.types import Image

PHOTOS = Path(__file__).resolve().parents[1] / "photos"
STREET = PHOTOS / "street.toml"
SIZE = (640, 360)
FPS = 10.0
WALKER = {
    "photo": '"obama3.jpg"', "enters_s": "0.0", "leaves_s": "4.0", "from_x": "0.4", "to_x": "0.6",
    "from_px": "60", "to_px": "240",
}  # fmt: skip


def script(folder: Path, *walkers: dict[str, str], top: str = "") -> Path:
    """A script file; each walker is WALKER with some keys changed."""
    text = f'seconds = 4.0\nanatomy = "{PHOTOS / "faces.toml"}"\n{top}\n'
    for walker in walkers or ({},):
        table = WALKER | walker
        text += "[[walker]]\n" + "".join(f"{k} = {v}\n" for k, v in table.items())
    path = folder / "scene.toml"
    path.write_text(text, encoding="utf-8")
    return path


def frame_at(path: Path, t_s: float) -> tuple[Image, tuple[Truth, ...]]:
    """The frame and the truth t_s after the beginning."""
    scene = Scene.load(path)
    into = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    clock = SimulatedClock()
    with SceneCamera(
        scene, size=SIZE, fps=FPS, clock=clock, pace="flat-out", wait=clock.advance
    ) as camera:
        for _ in range(round(t_s * FPS) + 1):
            camera.read(into, 1.0)
    return into, scene.truth(t_s)


def crop(image: Image, box: tuple[float, float, float, float]) -> Image:
    x1, y1, x2, y2 = (round(v * SIZE[i % 2]) for i, v in enumerate(box))
    return image[max(0, y1) : y2, max(0, x1) : x2]


@pytest.mark.parametrize(
    ("walker", "top", "names"),
    [
        ({"colour": '"red"'}, "", r"colour.*\$\.walker\[0\]"),
        ({"from_px": "1"}, "", r"\$\.walker\[0\]\.from_px"),
        ({"cover": '"hat"'}, "", r"\$\.walker\[0\]\.cover"),
        ({"light": "[1.0]"}, "", r"\$\.walker\[0\]\.light"),
        ({"leaves_s": "9.0"}, "", r"walker\[0\]\.leaves_s: 9\.0 is not between"),
        ({"enters_s": "4.0"}, "", r"walker\[0\]\.leaves_s"),
        ({"photo": '"nobody.jpg"'}, "", r"walker\[0\]\.photo: 'nobody\.jpg' is not in"),
        ({}, 'background = "beach"', r"\$\.background"),
        ({}, "weather = 1", "weather"),
        ({}, "seed = [", "not TOML"),
    ],
)
def test_a_broken_script_is_refused_by_path_and_key(
    tmp_path: Path, walker: dict[str, str], top: str, names: str
) -> None:
    path = script(tmp_path, walker, top=top)
    with pytest.raises(ConfigError, match=names) as caught:
        Scene.load(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_script_and_a_missing_anatomy_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read: No such file"):
        Scene.load(tmp_path / "no.toml")
    (tmp_path / "a.toml").write_text('seconds = 1.0\nanatomy = "b.toml"\nwalker = []\n')
    with pytest.raises(ConfigError, match=r"b\.toml: cannot be read"):
        Scene.load(tmp_path / "a.toml")


@given(junk=st.binary(max_size=400))
def test_any_bytes_are_a_script_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("junk") / "scene.toml"
    path.write_bytes(junk)
    with pytest.raises(ConfigError, match=r"scene\.toml: "):
        Scene.load(path)


def test_a_photograph_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "faces.toml").write_bytes((PHOTOS / "faces.toml").read_bytes())
    path = script(tmp_path)
    path.write_text(path.read_text().replace(str(PHOTOS / "faces.toml"), "faces.toml"))
    with pytest.raises(CameraError, match=r"obama3\.jpg: not a photograph"):
        frame_at(path, 0.0)


FRACTIONS = st.floats(min_value=-0.5, max_value=1.5)
SIZES = st.floats(min_value=10, max_value=300)


@given(
    ends=st.tuples(FRACTIONS, FRACTIONS), from_px=SIZES, grown=SIZES,
    way=st.floats(min_value=0, max_value=0.999), sway=st.floats(min_value=0, max_value=5),
)  # fmt: skip
def test_a_walker_comes_nearer_on_a_straight_line(
    ends: tuple[float, float], from_px: float, grown: float, way: float, sway: float
) -> None:
    from_x, to_x = ends
    walker = Walker(
        photo="x", enters_s=1.0, leaves_s=3.0, from_x=from_x, to_x=to_x,
        from_px=from_px, to_px=from_px + grown, sway=sway, light=(0.8, 1.2),
    )  # fmt: skip
    at = pose(walker, 1.0 + 2 * way)
    later = pose(walker, min(2.999, 1.0 + 2 * way + 0.1))
    assert at is not None
    assert later is not None
    assert from_px <= at.face_px <= later.face_px <= from_px + grown
    assert min(from_x, to_x) - 1e-9 <= at.x <= max(from_x, to_x) + 1e-9
    assert abs(at.angle) <= sway
    assert 0.8 <= at.light <= 1.2 + 1e-9
    assert 0 <= at.presence <= 1


def test_a_walker_is_there_from_entering_until_leaving() -> None:
    walker = Walker(
        photo="x", enters_s=1.0, leaves_s=3.0, from_x=0.2, to_x=0.8, from_px=40, to_px=160
    )
    assert pose(walker, 0.999) is None
    assert pose(walker, 3.0) is None
    first, last = pose(walker, 1.0), pose(walker, 3.0 - 1e-6)
    assert first is not None
    assert last is not None
    assert (first.x, first.face_px) == (0.2, 40)
    assert last.x == pytest.approx(0.8, abs=1e-4)
    assert last.face_px == pytest.approx(160, abs=0.01)


def test_a_face_is_drawn_where_the_truth_says(tmp_path: Path) -> None:
    empty = street(SIZE, 1)
    frame, (truth,) = frame_at(script(tmp_path), 3.0)
    inside = np.abs(crop(frame, truth.box).astype(int) - crop(empty, truth.box))
    assert np.median(inside) > 10
    assert np.array_equal(frame[:, : SIZE[0] // 5], empty[:, : SIZE[0] // 5])
    assert (truth.walker, truth.who, truth.covered, truth.visible) == (0, "", False, 1.0)


def test_the_face_keeps_the_colours_of_the_photograph(tmp_path: Path) -> None:
    """Skin is redder than blue: an exchange of channels would be seen here."""
    frame, (truth,) = frame_at(script(tmp_path), 3.0)
    red, _, blue = crop(frame, truth.box).reshape(-1, 3).mean(axis=0)
    assert red > blue + 20


@pytest.mark.parametrize("cover", ["scarf", "mask"])
def test_a_cover_hides_the_mouth_and_leaves_the_eyes(tmp_path: Path, cover: Cover) -> None:
    bare, (truth,) = frame_at(script(tmp_path), 3.0)
    covered, (covered_truth,) = frame_at(script(tmp_path, {"cover": f'"{cover}"'}), 3.0)
    assert covered_truth.covered
    assert covered_truth.box == truth.box
    x1, y1, x2, y2 = truth.box
    eyes = (x1, y1, x2, y1 + 0.40 * (y2 - y1))
    mouth = (x1 + 0.25 * (x2 - x1), y1 + 0.62 * (y2 - y1), x2 - 0.25 * (x2 - x1), y2)
    difference = np.abs(bare.astype(int) - covered)
    assert np.median(crop(difference.astype(np.uint8), eyes)) == 0
    assert np.percentile(crop(difference.astype(np.uint8), mouth).max(axis=2), 10) > 10


def test_sunglasses_hide_the_eyes_and_leave_the_mouth(tmp_path: Path) -> None:
    bare, (truth,) = frame_at(script(tmp_path), 3.0)
    covered, (covered_truth,) = frame_at(script(tmp_path, {"cover": '"sunglasses"'}), 3.0)
    assert covered_truth.covered
    assert covered_truth.box == truth.box
    x1, y1, x2, y2 = truth.box
    eyes = (
        x1 + 0.2 * (x2 - x1),
        y1 + 0.24 * (y2 - y1),
        x2 - 0.2 * (x2 - x1),
        y1 + 0.42 * (y2 - y1),
    )
    mouth = (x1, y1 + 0.60 * (y2 - y1), x2, y2)
    difference = np.abs(bare.astype(int) - covered).astype(np.uint8)
    assert np.median(crop(difference, eyes).max(axis=2)) > 25
    assert not crop(difference, mouth).any()


def test_whoever_is_nearer_is_in_front_and_hides(tmp_path: Path) -> None:
    near = {"photo": '"biden.jpg"', "who": '"b"', "from_px": "150", "to_px": "290"}
    path = script(tmp_path, near, {"to_px": "150"})
    frame, (far_truth, near_truth) = frame_at(path, 2.0)
    assert (far_truth.walker, near_truth.walker) == (1, 0)
    assert near_truth.visible == 1.0
    assert far_truth.visible < 0.5
    alone, _ = frame_at(script(tmp_path, near), 2.0)
    x1, y1, x2, y2 = near_truth.box
    skin = (0.7 * x1 + 0.3 * x2, 0.7 * y1 + 0.3 * y2, 0.3 * x1 + 0.7 * x2, 0.3 * y1 + 0.7 * y2)
    assert np.array_equal(crop(frame, skin), crop(alone, skin))


def test_more_light_is_brighter_and_blur_is_softer(tmp_path: Path) -> None:
    plain, (truth,) = frame_at(script(tmp_path), 3.0)
    bright, _ = frame_at(script(tmp_path, {"light": "[1.4, 1.4]"}), 3.0)
    blurred, _ = frame_at(script(tmp_path, {"blur_px": "24"}), 3.0)

    def edges(image: Image) -> float:
        return float(np.abs(np.diff(crop(image, truth.box).astype(int), axis=1)).mean())

    assert crop(bright, truth.box).mean() > 1.15 * crop(plain, truth.box).mean()
    assert edges(blurred) < 0.7 * edges(plain)


def test_a_face_outside_of_the_frame_is_not_in_view(tmp_path: Path) -> None:
    scene = Scene.load(script(tmp_path, {"from_x": "-0.9", "to_x": "-0.5"}))
    assert scene.truth(2.0) == ()


def test_the_same_seed_is_the_same_street_and_another_is_another() -> None:
    assert np.array_equal(street(SIZE, 3), street(SIZE, 3))
    assert not np.array_equal(street(SIZE, 3), street(SIZE, 4))


@pytest.fixture(scope="module")
def demo() -> Scene:
    return Scene.load(STREET)


def test_the_demos_person_of_interest_walks_by_four_times_and_twice_covered(demo: Scene) -> None:
    shown = [w for w in demo.script.walker if w.who == "obama"]
    assert sorted((w.photo, bool(w.cover)) for w in shown) == [
        ("obama2.jpg", False), ("obama2.jpg", True), ("obama3.jpg", False), ("obama3.jpg", True),
    ]  # fmt: skip
    assert demo.appearances.count("obama") == 4
    assert demo.appearances.count("") == len(demo.appearances) - 4
    assert all(not w.photo.startswith("obama") for w in demo.script.walker if not w.who)


def test_the_demos_photograph_that_is_enrolled_is_not_shown(demo: Scene) -> None:
    assert "obama.jpg" not in demo.anatomies
    assert all(w.photo in demo.anatomies for w in demo.script.walker)


def test_everybody_in_the_demo_is_seen_for_long_enough(demo: Scene) -> None:
    moments = [n / 15 for n in range(math.floor(demo.seconds * 15))]
    there = [demo.truth(t_s) for t_s in moments]
    assert max(len(truths) for truths in there) == 3
    for walker in range(len(demo.appearances)):
        clear = [
            truth.box[2] - truth.box[0]
            for truths in there for truth in truths
            if truth.walker == walker and truth.visible > 0.9
        ]  # fmt: skip
        assert 2.5 <= len(clear) / 15 <= 5
        assert max(clear) * 1280 > 90
        assert min(clear) * 1280 < 90


@given(t_s=st.floats(min_value=-1, max_value=40))
def test_the_truth_is_plausible_at_any_time(t_s: float) -> None:
    demo = Scene.load(STREET)
    truths = demo.truth(t_s)
    assert len({truth.walker for truth in truths}) == len(truths)
    for truth in truths:
        x1, y1, x2, y2 = truth.box
        assert x1 < x2
        assert y1 < y2
        assert 0 <= truth.visible <= 1
        assert truth.who == demo.appearances[truth.walker]
    widths = [truth.box[2] - truth.box[0] for truth in truths]
    assert widths == sorted(widths)
