"""The real watch service as a process of its own, with real models on real faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.path.enrolled import PHOTOS, model_id, template
from tests.path.other_end import OtherEnd, WatchProcess

WALKER = (
    '[[walker]]\nphoto = "{photo}"\nwho = "{who}"\nenters_s = {enters}\nleaves_s = {leaves}\n'
    "from_x = {x}\nto_x = {x}\nfrom_px = 70\nto_px = 160\n"
)


def scene(folder: Path, *walkers: str, seconds: float = 2.0) -> dict[str, object]:
    """The [camera] table for a street with these people on it."""
    path = folder / "scene.toml"
    head = f'seconds = {seconds}\nanatomy = "{PHOTOS / "faces.toml"}"\n'
    path.write_text(head + "".join(walkers), encoding="utf-8")
    return {"source": "scene", "path": str(path), "fps": 15.0, "pace": "flat-out"}


@pytest.fixture
def end(tmp_path: Path) -> Iterator[OtherEnd]:
    vectors = np.stack([template("obama.jpg")])
    with OtherEnd(tmp_path, subjects=["wanted"], vectors=vectors, model=model_id()) as other:
        yield other


@pytest.mark.slow
def test_the_wanted_are_found_and_strangers_are_erased(end: OtherEnd, tmp_path: Path) -> None:
    camera = scene(
        tmp_path,
        WALKER.format(photo="obama3.jpg", who="wanted", enters=0.2, leaves=1.8, x=0.3),
        WALKER.format(photo="biden.jpg", who="", enters=0.2, leaves=1.8, x=0.7),
    )
    with WatchProcess(end.config(camera=camera)) as watch:
        status = watch.child.wait(60)
        assert status == 0, watch.errors()
    assert [alert.subject for alert in end.alerts] == ["wanted"]
    alert = end.alerts[0]
    assert alert.sequence == 1
    assert alert.similarity >= alert.threshold
    assert alert.box[2] < 0.5, "it was the one on the left"
    last = end.healths[-1]
    # On a machine that is busy for longer than a track's patience, one person is several tracks.
    assert last.faces_seen == last.faces_erased + last.faces_alerted >= 2
    assert last.faces_held == 0
    assert last.frames == 30
    assert last.dropped == 0


@pytest.mark.slow
def test_the_camera_lamp_is_lit_before_the_camera_and_dark_at_the_end(
    end: OtherEnd, tmp_path: Path
) -> None:
    stranger = WALKER.format(photo="biden.jpg", who="", enters=0.1, leaves=0.6, x=0.5)
    with WatchProcess(end.config(camera=scene(tmp_path, stranger, seconds=0.8))) as watch:
        assert watch.child.wait(60) == 0
    told = [show.camera_on for show in end.shows]
    assert True in told
    assert told[0] is False
    assert told[-1] is False
    assert end.healths[-1].camera_since_boot_ns is None


@pytest.mark.slow
def test_without_a_list_the_camera_stays_off(end: OtherEnd, tmp_path: Path) -> None:
    end.grants = False
    stranger = WALKER.format(photo="biden.jpg", who="", enters=0.1, leaves=0.6, x=0.5)
    with WatchProcess(end.config(camera=scene(tmp_path, stranger))) as watch:
        end.wait_for("idle", lambda: any(h.state == "idle" for h in end.healths))
        polls = len(end.sent)
        end.wait_for("a second's worth of questions", lambda: len(end.sent) > polls + 20)
        assert watch.end() == 0
    assert not any(show.camera_on for show in end.shows)
    assert end.healths[-1].frames == 0


@pytest.mark.slow
def test_nothing_that_is_sent_holds_a_template(end: OtherEnd, tmp_path: Path) -> None:
    camera = scene(
        tmp_path, WALKER.format(photo="obama3.jpg", who="x", enters=0.2, leaves=1.8, x=0.3)
    )
    with WatchProcess(end.config(camera=camera)) as watch:
        assert watch.child.wait(60) == 0
    sent = b"".join(end.sent)
    vector = template("obama.jpg")
    for kind in (np.float32, np.float16):
        needle = vector.astype(kind)[:8].tobytes()
        assert needle not in sent
    assert len(end.alerts) == 1


@pytest.fixture
def link_only(tmp_path: Path) -> Iterator[OtherEnd]:
    with OtherEnd(
        tmp_path,
        subjects=["wanted"],
        vectors=np.stack([template("obama.jpg")]),
        model=model_id(),
        sockets=("link",),
    ) as other:
        yield other


@pytest.mark.slow
def test_nothing_is_filmed_while_the_indicator_is_dead(link_only: OtherEnd, tmp_path: Path) -> None:
    stranger = WALKER.format(photo="biden.jpg", who="", enters=0.1, leaves=1.5, x=0.5)
    camera = scene(tmp_path, stranger) | {"pace": "realtime", "loop": True, "fps": 5.0}
    config = link_only.config(camera=camera, lamps={"driver": "none"})

    def filming() -> bool:
        return bool(link_only.healths) and link_only.healths[-1].camera_since_boot_ns is not None

    with WatchProcess(config) as watch:
        link_only.wait_for("a list in use", lambda: any(h.list_version for h in link_only.healths))
        assert not any(h.camera_since_boot_ns for h in link_only.healths)
        with WatchProcess(config, service="indicator") as indicator:
            link_only.wait_for("filming", filming)
            indicator.kill()
            link_only.wait_for("not filming any more", lambda: not filming())
        with WatchProcess(config, service="indicator"):
            link_only.wait_for("filming again", filming)
            assert watch.end() == 0


@pytest.mark.slow
def test_a_watch_service_that_was_killed_begins_anew_with_another_boot(
    end: OtherEnd, tmp_path: Path
) -> None:
    wanted = WALKER.format(photo="obama3.jpg", who="wanted", enters=0.2, leaves=1.8, x=0.3)
    config = end.config(camera=scene(tmp_path, wanted))
    with WatchProcess(config) as watch:
        end.wait_for("an alert", lambda: len(end.alerts) == 1)
        watch.kill()
    with WatchProcess(config) as watch:
        assert watch.child.wait(60) == 0
    first, second = end.alerts
    assert first.boot != second.boot
    assert first.sequence == second.sequence == 1
