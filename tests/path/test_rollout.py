"""A roll-out over real sockets: picketctl, the controller as a process, the link service as one.

RAUC and systemd are programs of our own on PATH.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from appliance.config import load
from appliance.controller.bundles import PART_BYTES
from appliance.controller.cli import main
from appliance.controller.workplace import workplace
from appliance.link import outcome
from appliance.link.part import FOLDER, READY
from appliance.services import trial
from appliance.services.join import join
from appliance.wire import Outcome
from tests.path.fleet_hands import LONG_S, Serving, wait_for

PARTS = 8
NOISE = random.Random(8).randbytes(PARTS * PART_BYTES - 50_000)  # noqa: S311 - bytes
RAUC = """#!/bin/sh
# A "bundle" tells its version in its last line, and is "signed" unless it says otherwise.
for last; do :; done
case $* in
  *install*) exit 0 ;;
  *) tail -n 1 "$last" ;;
esac
"""


@pytest.fixture(autouse=True)
def _programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "programs"
    folder.mkdir()
    for name, text in (("rauc", RAUC), ("systemctl", "#!/bin/sh\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def bundle(folder: Path, version: str, compatible: str = "picket-arm64") -> Path:
    path = folder / f"picket-{version}.raucb"
    told = json.dumps({"compatible": compatible, "version": version})
    path.write_bytes(b"hsqs" + NOISE + f"\n{told}\n".encode())
    return path


class Fleet:
    """A fleet folder, and an operator who types commands in this process."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder / "fleet", capsys
        self.updates = self.folder / "updates"
        assert main(["init", str(self.folder), "--name", "harbour"]) == 0
        capsys.readouterr()

    def does(self, *words: object) -> Any:
        return json.loads(self.says(*words, "--json"))

    def says(self, *words: object) -> str:
        status = main([*map(str, words), "--fleet", str(self.folder)])
        said = self._capsys.readouterr()
        assert status == 0, said.err
        return said.out

    def fails(self, *words: object) -> str:
        """The one line that says why."""
        status = 2
        with suppress(SystemExit):  # the command line's own way to say so
            status = main([*map(str, words), "--fleet", str(self.folder)])
        said = self._capsys.readouterr()
        assert status in {1, 2}
        assert said.out == ""
        assert status == 2 or len(said.err.splitlines()) == 1
        return said.err.splitlines()[-1]

    def at(self, node: str) -> str:
        return str(self.does("update", "status")["nodes"].get(node))


class Box:
    """A node that runs Picket's image: its link service as a process, and root's unit by hand."""

    def __init__(self, folder: Path, fleet: Fleet, serving: Serving, name: str) -> None:
        self.folder, self.name = folder / name, name
        fleet.does("node", "add", name, "--out", self.folder)
        path = self.folder / "node.toml"
        document = tomllib.loads(path.read_text())
        document["link"] |= {"controllers": [serving.url], "join": serving.join_url}
        document["local"] = {"run": "run"}
        document["updates"] = {"every_s": 0.5, "tried": "update", "release": "release"}
        document["camera"] = {"source": "scene", "path": "none.toml"}
        path.write_text(tomli_w.dumps(document))
        (self.folder / "run").mkdir()
        join(load(path), self.folder / "join.toml")
        self.places = trial.Places(
            Path(load(path).link.state), self.folder / "update", self.folder / "release"
        )
        self.runs("0.1.0")

    def runs(self, version: str) -> None:
        self.places.release.write_text(f"{version}\n")

    @property
    def update(self) -> Path:
        return self.places.state / FOLDER

    @property
    def ready(self) -> bool:
        return (self.update / READY).exists()

    def fetched(self) -> int:
        return sum(path.stat().st_size for path in self.update.glob("part-*"))

    @contextmanager
    def link(self) -> Iterator[subprocess.Popen[bytes]]:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "appliance", "run", "link"),
                *("--config", str(self.folder / "node.toml")),
            ]
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.terminate()
            child.wait(LONG_S)

    def installs(self, *, comes_up: bool) -> None:
        """What picket-update.service, the restart and picket-confirm.service do."""
        version = self.places.release.read_text()
        trial.try_offered(self.places, say=lambda _: None)
        assert outcome.read(self.places.own).outcome is Outcome.TRYING
        if comes_up:
            tried = outcome.read(self.places.own).version
            assert tried is not None
            version = ".".join(map(str, tried))
        self.runs(version.strip())
        trial.settle(self.places)


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fleet:
    return Fleet(tmp_path, capsys)


@pytest.fixture
def serving(fleet: Fleet) -> Iterator[Serving]:
    with Serving(fleet.folder) as serving:
        yield serving


@pytest.mark.slow
def test_an_update_is_fetched_installed_and_one_that_rolls_back_pauses_the_rollout(
    fleet: Fleet, serving: Serving, tmp_path: Path
) -> None:
    box = Box(tmp_path, fleet, serving, "cam-1")
    path = bundle(tmp_path, "0.2.0")
    with box.link() as first:
        begun = fleet.does("update", "start", path, "--stages", "100")
        assert (begun["version"], begun["nodes"]) == ("0.2.0", 1)
        wait_for(lambda: box.fetched() > PART_BYTES)
        first.send_signal(signal.SIGKILL)
        first.wait(LONG_S)
    kept = box.fetched()
    assert 0 < kept < path.stat().st_size
    wait_for(lambda: fleet.at("cam-1") == "fetching")
    asked = len(serving.events)
    with box.link():
        wait_for(lambda: box.ready)
        assert (box.update / READY).read_bytes() == path.read_bytes()
        serving.told("update", node="cam-1", step="installing")
    assert len(serving.events) > asked
    box.installs(comes_up=True)
    with box.link():  # as after the restart
        serving.told("update", node="cam-1", step="installed")
    wait_for(lambda: fleet.at("cam-1") == "installed")
    assert "1 of 1 run it (100%)" in fleet.says("update", "status")

    second = bundle(tmp_path, "0.3.0")
    assert fleet.does("update", "start", second)["version"] == "0.3.0"  # takes over by itself
    with box.link():
        wait_for(lambda: box.ready)
        box.installs(comes_up=False)
        told = serving.told("update", node="cam-1", step="rolled-back")
        assert "it did not start" in told["reason"]
        assert serving.told("paused")["reason"] == "1 node failed, at most 0 may"
        text = fleet.says("update", "status")
        assert "paused, because 1 node failed, at most 0 may" in text
        assert "cam-1: rolled back: it did not start" in text
    assert "resume` first" in fleet.fails("update", "next")
    assert not list(fleet.updates.glob(f"{begun['sha256']}*"))
    kinds = [line["kind"] for line in fleet.does("record") if line["kind"].startswith("update")]
    assert kinds == [
        "update-started", "update-installed", "update-stopped", "update-started",
        "update-rolled-back", "update-paused",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_bundle_that_was_changed_on_its_way_is_never_handed_over(
    fleet: Fleet, serving: Serving, tmp_path: Path
) -> None:
    box = Box(tmp_path, fleet, serving, "cam-1")
    begun = fleet.does("update", "start", bundle(tmp_path, "0.2.0"))
    with box.link():
        serving.told("update", node="cam-1", step="fetching")  # the controller has checked it
        with (fleet.updates / f"{begun['sha256']}.raucb").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        told = serving.told("update", node="cam-1", step="refused")
        assert "another SHA-256" in told["reason"]
        serving.told("paused")
    assert not box.ready
    assert box.fetched() == 0


def test_bad_input_is_one_line_and_changes_nothing(fleet: Fleet, tmp_path: Path) -> None:
    good = bundle(tmp_path, "0.2.0")
    noise = tmp_path / "noise"
    noise.write_bytes(b"nothing of the kind")
    silent = tmp_path / "silent.raucb"
    silent.write_bytes(b"hsqs\nno manifest at all\n")
    nameless = tmp_path / "nameless.raucb"
    nameless.write_bytes(b'hsqs\n{"compatible": "picket-arm64"}\n')
    for words, why in (
        ((tmp_path / "none.raucb",), "cannot be read: No such file or directory"),
        ((tmp_path,), "cannot be read: Is a directory"),
        ((noise,), "is no RAUC bundle"),
        ((silent,), "rauc does not tell what it is"),
        ((nameless,), "its manifest has no version"),
        ((bundle(tmp_path, "0.2.0-rc1"),), "'0.2.0-rc1' is no version"),
        ((bundle(tmp_path, "9.0", "toaster"),), "is for 'toaster', no kind of picket-arm64"),
        ((good, "--stages", "10,5,100"), "rising percentages up to 100"),
        ((good, "--stages", "10,101"), "rising percentages up to 100"),
        ((good, "--stages", "0,50"), "rising percentages up to 100"),
        ((good, "--stages", "1,x"), "rising percentages up to 100"),
        ((good, "--stages", ""), "rising percentages up to 100"),
        ((good, "--stages", "nan"), "rising percentages up to 100"),
        ((good, "--stop-after", "-1"), "--stop-after"),
    ):
        assert why in fleet.fails("update", "start", *words), words
    for order in ("next", "pause", "resume", "stop"):
        assert "no update is being rolled out" in fleet.fails("update", order)
    assert fleet.says("update", "status") == "no update was ever rolled out\n"
    assert not fleet.updates.exists()
    fleet.does("update", "start", good)
    assert "this is the last stage" in fleet.fails("update", "next")
    assert fleet.does("update", "pause", "--why", "market day")["changed"]
    assert "paused, because market day" in fleet.says("update", "status")
    again = fleet.fails("update", "start", bundle(tmp_path, "0.3.0"))
    assert "0.2.0 is being rolled out: `picketctl update stop` ends that" in again
    assert "was paused already" in fleet.says("update", "pause")
    assert "goes on" in fleet.says("update", "resume")
    assert "is stopped" in fleet.says("update", "stop")
    assert len(list(fleet.updates.iterdir())) == 1


def test_what_is_older_than_a_node_has_accepted_is_refused_before_any_node_hears_of_it(
    fleet: Fleet, serving: Serving, tmp_path: Path
) -> None:
    box = Box(tmp_path, fleet, serving, "cam-1")
    box.runs("0.5.0")
    older = bundle(tmp_path, "0.4.9")
    with box.link():
        wait_for(lambda: _runs(fleet) == {"cam-1"})
        why = fleet.fails("update", "start", older)
        assert "version 0.4.9 is older than 0.5.0, which cam-1 runs" in why
    fleet.does("revoke", "cam-1")  # a node that lies holds nothing up
    assert fleet.does("update", "start", older)["nodes"] == 0


def _runs(fleet: Fleet) -> set[str]:
    with workplace(fleet.folder) as (_, store):
        return set(store.rollouts.runs())
