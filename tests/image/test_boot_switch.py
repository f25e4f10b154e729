"""The switch between two slots, against a folder: whatever tears autoboot.txt, something starts."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "image-build/overlay/usr/lib/picket/rauc-boot"


def content(first: int, second: int) -> bytes:
    text = f"[all]\ntryboot_a_b=1\nboot_partition={first}\n[tryboot]\nboot_partition={second}\n"
    return text.encode()


A, B = content(2, 3), content(3, 2)


class Box:
    """A node's first partition and data partition, and the slot that it runs."""

    def __init__(self, folder: Path) -> None:
        self.boot, self.state = folder / "boot", folder / "state"
        self.boot.mkdir()
        self.file = self.boot / "autoboot.txt"
        self.file.write_bytes(A)
        self.slot = "a"

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PICKET_BOOT": str(self.boot),
            "PICKET_STATE": str(self.state),
            "PICKET_SLOT": self.slot,
        }

    def says(self, *words: str) -> str:
        done = subprocess.run(
            [str(SCRIPT), *words], env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def starts(self, *, tryboot: bool = False) -> str | None:
        """As the firmware: which slot, None for nothing."""
        found: dict[str, str] = {}
        section = ""
        for line in (
            self.file.read_text(errors="replace").splitlines() if self.file.exists() else []
        ):
            section = line if line.startswith("[") else section
            key, _, number = line.partition("=")
            if key == "boot_partition":
                found[section] = number
        partition = found.get("[tryboot]" if tryboot else "[all]", "")
        slot = {"2": "a", "3": "b"}.get(partition)
        self.slot = slot or self.slot
        return slot


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def installed(box: Box) -> None:
    """As RAUC does: the other slot is bad while it is written, then the one to come."""
    box.says("set-state", "b", "bad")
    box.says("set-primary", "b")


def test_a_new_box_starts_its_first_slot(box: Box) -> None:
    assert (box.says("get-current"), box.says("get-primary")) == ("a", "a")
    assert (box.says("get-state", "a"), box.says("get-state", "b")) == ("good", "good")
    assert len(A) == len(B) < 512


def test_an_update_is_tried_once_and_kept_when_it_is_good(box: Box) -> None:
    installed(box)
    assert box.file.read_bytes() == A, "noted, and nothing else yet"
    assert (box.says("get-primary"), box.says("get-state", "b")) == ("b", "good")
    assert box.starts(tryboot=True) == "b"
    assert box.says("repair") == ""
    before = box.file.stat()
    box.says("set-state", "b", "good")
    assert box.file.read_bytes() == B
    after = box.file.stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size), "written in place"
    assert box.starts() == "b"
    assert box.says("get-primary") == "b"
    assert [p.name for p in box.state.iterdir()] == []


def test_an_update_that_does_not_come_up_is_left_and_said_to_be_bad(box: Box) -> None:
    installed(box)
    assert box.starts(tryboot=True) == "b"
    assert box.starts() == "a", "the next start without a word is the old one"
    assert "did not prove itself" in box.says("repair")
    assert (box.says("get-primary"), box.says("get-state", "b")) == ("a", "bad")
    assert box.file.read_bytes() == A


def test_a_slot_that_does_not_run_never_becomes_the_default(box: Box) -> None:
    installed(box)
    box.says("set-state", "b", "good")
    assert box.file.read_bytes() == A


@pytest.mark.parametrize("torn", [b"", bytes(61), A[:30], b"\xff" * 61, B[:-2] + b"\0\n", A * 9])
def test_a_torn_file_is_mended_by_whatever_slot_runs(box: Box, torn: bytes) -> None:
    box.slot = "b"
    box.file.write_bytes(torn)
    assert box.says("get-primary") == "b"
    assert "was torn" in box.says("repair")
    assert box.file.read_bytes() == B


def test_a_file_that_is_gone_is_mended(box: Box) -> None:
    box.file.unlink()
    box.says("repair")
    assert box.file.read_bytes() == A
    assert {p.name for p in box.boot.iterdir()} == {"autoboot.txt"}


@pytest.mark.parametrize("words", [[], ["set-state", "a"], ["set-state", "c", "good"],
                                   ["set-primary", "../x"], ["get-state"]])  # fmt: skip
def test_nonsense_is_refused(box: Box, words: list[str]) -> None:
    done = subprocess.run(
        [str(SCRIPT), *words], env=box.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("rauc-boot: ")


@pytest.mark.slow
def test_power_cuts_in_every_step_of_the_switch_leave_a_box_that_starts(box: Box) -> None:
    """Killed at random moments of install, trial and confirmation; what starts is a or b, whole."""
    chance = random.Random(3)  # noqa: S311 - moments, not secrets
    loop = (
        '"$0" set-state b bad; "$0" set-primary b; PICKET_SLOT=b "$0" set-state b good;'
        '"$0" set-state a bad; "$0" set-primary a; PICKET_SLOT=a "$0" set-state a good'
    )
    for _ in range(12):
        child = subprocess.Popen(
            ["/bin/sh", "-c", f"while :; do {loop}; done", str(SCRIPT)],
            env=box.environment, start_new_session=True,
        )  # fmt: skip
        time.sleep(chance.uniform(0.02, 0.2))
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert box.file.read_bytes() in {A, B}
        assert box.starts() in {"a", "b"}
        box.says("repair")
        assert box.says("get-primary") == box.slot


SHELLCHECK = shutil.which("shellcheck")


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is missing")
def test_the_images_scripts_are_clean() -> None:
    folder = SCRIPT.parents[4]
    shell = [p for p in SCRIPT.parent.iterdir() if p.read_bytes().startswith(b"#!/bin/sh")]
    scripts = [*shell, folder / "tree.sh", folder / "init"]
    done = subprocess.run(
        [str(SHELLCHECK), *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
