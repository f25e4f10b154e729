"""Root and what the link service left for it: taken, refused, tried, settled; and never led astray.

RAUC and systemd are programs of our own here; the link service's folder is as hostile as a link
service that was taken over can make it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from appliance.errors import UpdateError
from appliance.link import outcome
from appliance.link.outcome import Tried
from appliance.link.part import FOLDER, READY
from appliance.services import handover, trial
from appliance.services.link import _ANSWERED
from appliance.wire import BUNDLE_MAX_BYTES, Outcome

OVERLAY = Path(__file__).resolve().parents[2] / "image-build/overlay"
RAUC = """#!/bin/sh
echo "rauc $*" >>"$0.log"
case $1 in
  info) grep -q unsigned "$3" && { echo "signature verification failed" >&2; exit 1; }; cat "$3" ;;
  install) grep -q broken "$2" && { echo "LastError: no space" >&2; exit 1; }; cp "$2" "$0.got" ;;
esac
exit 0
"""


class Box:
    """A node: the link service's folder, root's, and the version that runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places = trial.Places(folder / "link", folder / "update", folder / "release")
        self.places.state.mkdir()
        self.inner = self.places.state / FOLDER
        self.inner.mkdir()
        self.runs("0.1.0")
        self.restarts = 0

    def runs(self, version: str) -> None:
        self.places.release.write_text(f"{version}\n")

    @property
    def ready(self) -> Path:
        return self.inner / READY

    @property
    def tried(self) -> Tried:
        return outcome.read(self.places.own)

    def offer(self, version: str = "0.2.0", more: str = "") -> bytes:
        text = f'{{"compatible": "picket-arm64", "version": "{version}"{more}}}\n'
        self.ready.write_text(text)
        return text.encode()

    def came_to(self) -> Outcome:
        return self.tried.outcome

    def tries(self) -> str:
        said: list[str] = []
        trial.try_offered(self.places, say=said.append, restart=self._restart)
        return said[-1]

    def refuses(self, why: str) -> None:
        with pytest.raises(UpdateError, match=why):
            self.tries()
        assert self.restarts == 0
        assert not (self.folder / "rauc.got").exists()
        assert not (self.places.own / trial.COPY).exists()

    def ran(self) -> list[str]:
        path = self.folder / "rauc.log"
        return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []

    def _restart(self) -> None:
        assert self.tried.outcome is Outcome.TRYING  # on the card before the power may go
        assert not self.ready.exists()
        self.restarts += 1


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    (tmp_path / "rauc").write_text(RAUC)
    (tmp_path / "rauc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Box(tmp_path)


def test_what_was_fetched_is_installed_and_tried_from_a_copy_of_roots_own(box: Box) -> None:
    content = box.offer()
    assert box.tries() == "0.2.0 is installed; it is kept if its services come up"
    assert (box.folder / "rauc.got").read_bytes() == content
    assert box.restarts == 1
    log = (box.folder / "rauc.log").read_text()
    assert str(box.places.own / trial.COPY) in log
    assert str(box.inner) not in log
    name = hashlib.sha256(content).hexdigest()
    assert (box.tried.sha256, box.tried.version) == (name, (0, 2, 0, 0))
    assert box.tried.times(name) == 1
    assert sorted(p.name for p in box.places.own.iterdir()) == [trial.LOCK, outcome.FILE]
    assert box.places.own.stat().st_mode & 0o777 == 0o755


def test_settled_it_was_kept_or_rolled_back_by_the_version_that_runs(box: Box) -> None:
    box.offer()
    box.tries()
    assert trial.interrupted(box.places) == "there is nothing to settle"  # it is, and goes on
    assert box.came_to() is Outcome.TRYING
    (box.places.own / trial.WHY).write_text("its services did not stay up: picket-watch\n")
    assert trial.settle(box.places) == "rolled-back: its services did not stay up: picket-watch"
    assert box.came_to() is Outcome.ROLLED_BACK
    assert trial.settle(box.places) == "there is nothing to settle"
    box.offer()
    box.tries()
    box.runs("0.2.0")
    assert trial.settle(box.places) == "installed"
    assert (box.came_to(), box.tried.why) == (Outcome.INSTALLED, "")


def test_nothing_to_settle_makes_nothing(box: Box) -> None:
    assert trial.settle(box.places) == "no update was tried"
    assert not box.places.own.exists()
    assert box.tries() == "there is no update"
    assert not box.ran()
    assert box.tried == Tried()
    box.inner.rmdir()
    assert box.tries() == "there is no update"


@pytest.mark.parametrize("at", ["settle", "interrupted"])
def test_an_installation_that_was_interrupted_is_no_fault_of_the_bundle(box: Box, at: str) -> None:
    box.places.own.mkdir()
    name = "ab" * 32
    outcome.write(box.places.own, Tried(sha256=name, outcome=Outcome.INSTALLING).again(name))
    (box.places.own / trial.COPY).write_bytes(b"half")
    said = getattr(trial, at)(box.places)
    assert said == "interrupted while it was installed"
    assert box.came_to() is Outcome.NONE
    assert not (box.places.own / trial.COPY).exists()
    assert box.tried.times(name) == 1  # it counts all the same: no box restarts for ever


@pytest.mark.parametrize(
    ("version", "more", "why", "ran"),
    [
        ("0.0.9", "", "version 0.0.9 is older than 0.1.0", ["info"]),
        ("0.2.0", ', "is": "unsigned"', "signature verification failed", ["info"]),
        ("0.2.0", ', "is": "broken"', "LastError: no space", ["info", "install"]),
        ("0.2-evil", "", "is no version", ["info"]),
    ],
)
def test_what_is_refused_is_told_and_removed(
    box: Box, version: str, more: str, why: str, ran: list[str]
) -> None:
    content = box.offer(version, more)
    box.refuses(why)
    assert box.ran() == ran
    assert not box.ready.exists()
    assert box.came_to() is Outcome.REFUSED
    assert box.tried.sha256 == hashlib.sha256(content).hexdigest()
    assert why in box.tried.why
    assert str(box.folder) not in box.tried.why


def test_what_runs_already_is_not_written_again(box: Box) -> None:
    box.offer("0.1.0")
    assert box.tries() == "0.1.0 runs already"
    assert box.ran() == ["info"]
    assert box.came_to() is Outcome.INSTALLED


def test_a_bundle_is_tried_three_times_and_not_for_ever(box: Box) -> None:
    for _ in range(3):
        box.offer()
        box.tries()
        trial.settle(box.places)
    (box.folder / "rauc.got").unlink()
    box.offer()
    box.restarts = 0
    box.refuses("was tried 3 times")


def test_while_one_is_on_trial_no_other_is_installed_and_the_trial_is_not_forgotten(
    box: Box,
) -> None:
    box.offer()
    box.tries()
    before = box.tried
    (box.folder / "rauc.got").unlink()
    box.restarts = 0
    box.offer("0.3.0")
    box.refuses("another update is on trial")
    assert box.tried == before
    assert not box.ready.exists()


# A link service that was taken over


def test_no_symbolic_link_is_followed(box: Box) -> None:
    secret = box.folder / "secret"
    secret.write_text("of root's")
    box.ready.symlink_to(secret)
    box.refuses("cannot be opened")
    assert not box.ready.is_symlink()
    assert secret.read_text() == "of root's"
    box.inner.rmdir()
    elsewhere = box.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / READY).write_text("keep me")
    box.inner.symlink_to(elsewhere)
    box.refuses("no folder of the link service's")
    assert (elsewhere / READY).read_text() == "keep me"


def test_a_second_name_of_another_file_is_refused(box: Box) -> None:
    other = box.folder / "other"
    other.write_text('{"compatible": "picket-arm64", "version": "0.2.0"}')
    os.link(other, box.ready)
    box.refuses("somebody else's file")
    assert other.exists()


def test_neither_a_pipe_nor_a_socket_nor_a_folder_holds_root_up(box: Box) -> None:
    os.mkfifo(box.ready)
    box.refuses("is no regular file")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(box.ready))
        box.refuses("cannot be opened")
    box.ready.mkdir()
    box.refuses("cannot be removed|is no regular file")


@pytest.mark.parametrize("size", [0, BUNDLE_MAX_BYTES + 1])
def test_nothing_longer_than_a_bundle_is_copied(box: Box, size: int) -> None:
    with box.ready.open("wb") as file:
        file.truncate(size)  # a hole: no room is needed to say so
    box.refuses("a bundle has 1 to")


def test_the_card_is_not_filled(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "ROOM_BYTES", 2**60)
    box.offer()
    box.refuses("MiB are needed")


def test_what_grows_while_it_is_copied_is_refused(box: Box) -> None:
    box.places.own.mkdir()
    with box.ready.open("wb") as file:
        file.truncate(4 << 20)
    stop = threading.Event()

    def grow() -> None:
        while not stop.is_set():
            with box.ready.open("ab") as file:
                file.write(bytes(1 << 20))

    writer = threading.Thread(target=grow)
    # What is written after the size was looked at is never more than one block on the card.
    found = box.ready.stat().st_size - 1
    writer.start()
    reading = os.open(box.ready, os.O_RDONLY)
    try:
        with pytest.raises(UpdateError, match="changed while it was copied"):
            handover._copied(reading, found, box.places.own / trial.COPY)
    finally:
        stop.set()
        writer.join()
        os.close(reading)


def test_what_is_written_after_the_check_does_not_reach_rauc(box: Box) -> None:
    content = box.offer()
    with box.ready.open("r+b") as still_open:
        box.tries()
        still_open.write(b"evil")
        still_open.flush()
    assert (box.folder / "rauc.got").read_bytes() == content


CHILD = """
import sys; from pathlib import Path; from appliance.services import trial
folder = Path(sys.argv[1])
places = trial.Places(folder / "link", folder / "update", folder / "release")
print("begins", flush=True)
trial.try_offered(places, say=print, restart=lambda: None)
"""


def test_killed_at_any_moment_it_is_tried_again_or_told_and_never_half(box: Box) -> None:
    rng, seen = random.Random(6), set()  # noqa: S311 - moments
    (box.folder / "rauc").write_text(RAUC.replace('cp "$2"', 'sleep 0.05; cp "$2"'))
    for number in range(12):
        content = box.offer(f"0.2.{number}", ', "x": "' + "x" * 3_000_000 + '"')
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(box.folder)], stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"begins\n"
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0, 0.15))
        child.kill()
        child.wait()
        child.stdout.close()
        trial.interrupted(box.places)
        found = box.tried
        seen.add((found.outcome, box.ready.exists()))
        if found.outcome is Outcome.TRYING:
            assert (box.folder / "rauc.got").read_bytes() == content
            assert found.sha256 == hashlib.sha256(content).hexdigest()
            assert trial.settle(box.places).startswith("rolled-back")
        elif box.ready.exists():  # its unit is started again by that name
            box.tries()
            trial.settle(box.places)
        assert not (box.places.own / trial.COPY).exists()
        assert box.came_to() in {Outcome.NONE, Outcome.ROLLED_BACK}
        assert all(times <= trial.TRIES for _, times in box.tried.tries)
    assert len(seen) > 1


# The shell that keeps a slot or leaves it


SERVICES = ("picket-watch", "picket-link", "picket-indicator")


def confirm(
    box: Box, *, slot: str, up: tuple[str, ...], said: str = ""
) -> subprocess.CompletedProcess[str]:
    boot = box.folder / "boot"
    boot.mkdir(exist_ok=True)
    (boot / "autoboot.txt").write_text(
        "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n"
    )
    box.places.own.mkdir(exist_ok=True)
    programs = {
        # As systemd's: of several units, one that is active is enough.
        "systemctl": f"""case "$*" in
  *StatusText*picket-link*) echo "{said}"; exit 0 ;;
  *is-active*) ;;
  *) exit 0 ;;
esac
for word; do case " {" ".join(up)} " in *" $word "*) exit 0 ;; esac; done
exit 3""",
        "picket": "exit 1",  # even one that cannot write it down
        "current": f"echo {slot}",
        "sleep": "",
    }
    for name, body in programs.items():
        path = box.folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>"{box.folder}/order"\n{body}\n')
        path.chmod(0o755)
    (box.folder / "rauc").write_text(f'#!/bin/sh\necho "rauc $*" >>"{box.folder}/order"\n')
    return subprocess.run(
        ["/bin/sh", str(OVERLAY / "usr/lib/picket/confirm")],
        env=os.environ
        | {
            "PICKET_RAUC_BOOT": str(box.folder / "current"),
            "PICKET_BOOT": str(boot),
            "PICKET_UPDATE": str(box.places.own),
            "PICKET_SECOND": "0",
        },
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


def order(box: Box) -> list[str]:
    lines = (box.folder / "order").read_text().splitlines()
    asked = ("is-active", "StatusText", "sleep")
    return [line for line in lines if not any(word in line for word in asked)]


def test_a_slot_that_is_no_trial_is_settled_and_then_the_next_update_may_come(box: Box) -> None:
    assert confirm(box, slot="a", up=SERVICES).returncode == 0
    assert order(box) == [
        "current get-current",
        "picket update --settle",
        "systemctl start --no-block picket-update.path",
    ]


def test_a_slot_on_trial_is_kept_before_anything_is_said(box: Box) -> None:
    assert confirm(box, slot="b", up=SERVICES).returncode == 0
    assert order(box) == [
        "current get-current",
        "rauc status mark-good booted",
        "picket update --settle",
        "systemctl start --no-block picket-update.path",
    ]


def test_a_slot_whose_services_do_not_come_up_is_left_and_says_why(box: Box) -> None:
    for up in ((), SERVICES[1:], SERVICES[:2]):
        left = confirm(box, slot="b", up=up)
        assert left.returncode == 0, left.stderr
        assert order(box)[-2:] == ["rauc status mark-bad booted", "systemctl reboot"]
        why = (box.places.own / trial.WHY).read_text()
        assert f"last not up: {' '.join(s for s in SERVICES if s not in up)}\n" in why
        assert len(why) < 200


@pytest.mark.parametrize("answered", [True, False])
def test_what_a_roll_out_brought_must_reach_a_controller_again(box: Box, *, answered: bool) -> None:
    box.places.own.mkdir()
    outcome.write(box.places.own, Tried(sha256="0" * 64, outcome=Outcome.TRYING))
    assert confirm(box, slot="b", up=SERVICES, said=_ANSWERED[not answered]).returncode == 0
    if answered:
        assert "rauc status mark-good booted" in order(box)
    else:
        assert order(box)[-2:] == ["rauc status mark-bad booted", "systemctl reboot"]
        why = (box.places.own / trial.WHY).read_text()
        assert why == "no controller answered it within ten minutes\n"


def test_what_was_installed_by_hand_may_be_where_there_is_no_network(box: Box) -> None:
    box.places.own.mkdir()
    outcome.write(box.places.own, Tried(sha256="0" * 64, outcome=Outcome.INSTALLED))
    assert confirm(box, slot="b", up=SERVICES, said=_ANSWERED[1]).returncode == 0
    assert "rauc status mark-good booted" in order(box)


def test_the_units_are_good_and_only_a_confirmed_slot_waits_for_updates() -> None:
    units = OVERLAY / "etc/systemd/system"
    service = (units / "picket-update.service").read_text()
    path = (units / "picket-update.path").read_text()
    assert "ExecStart=/opt/picket/bin/picket update --offered" in service
    assert "RuntimeDirectory=picket-update\n" in service
    assert f"PathExists=/var/lib/picket-link/{FOLDER}/{READY}" in path
    assert "[Install]" not in path + service
