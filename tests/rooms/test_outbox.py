"""The outbox on a card that is cut off, full, read-only, damaged, or put back from a copy."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.alerts import durable
from appliance.alerts.durable import SqliteOutbox
from appliance.alerts.journal import Journal, Step
from appliance.errors import CardError
from appliance.wire import Row

BOOT = b"b" * 16


def rows(*numbers: int, boot: bytes = BOOT) -> list[Row]:
    return [Row(boot, n, b"sealed %d" % n) for n in numbers]


def numbers(outbox: SqliteOutbox) -> list[int]:
    return [row.sequence for row in outbox.peek(1_000_000)]


def opened(path: Path, capacity: int = 10_000) -> SqliteOutbox:
    return SqliteOutbox(path, capacity=capacity, retry_s=0.0)


def held_in(path: Path) -> list[int]:
    with contextlib.closing(opened(path)) as outbox:
        return numbers(outbox)


CHILD = """
import sys
from pathlib import Path
from appliance.alerts.durable import SqliteOutbox
from appliance.wire import Row
outbox, first = SqliteOutbox(Path(sys.argv[1]), capacity=1_000_000), int(sys.argv[2])
for n in range(first, first + 1_000_000, 3):
    outbox.put([Row(b"b" * 16, n + i, bytes(1500)) for i in range(3)])
    print("kept", n + 2, flush=True)
    if n % 2:
        oldest = outbox.peek(4)
        print("dropping", oldest[-1].sequence, flush=True)
        outbox.drop(oldest)
"""


def test_kill_9_at_random_moments_loses_nothing_that_was_kept(tmp_path: Path) -> None:
    path, rng = tmp_path / "outbox.db", random.Random(4)  # noqa: S311 - moments
    kept = dropping = 0
    for _ in range(8):
        first = kept + 10  # what the child was about to put when it died may be held as well
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(first)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        born, timer = kept, threading.Timer(rng.uniform(0.0, 0.3), child.kill)
        for place, line in enumerate(child.stdout):
            if place == 0:  # from the first word on: a busy machine starts slowly
                timer.start()
            if not line.endswith("\n"):
                break  # cut off by the kill
            what, number = line.split()
            kept, dropping = (int(number), dropping) if what == "kept" else (kept, int(number))
        child.wait()
        child.stdout.close()
        outbox = opened(path)
        held = set(numbers(outbox))
        expected = {n for n in range(first, kept + 1) if n > dropping} if kept > born else set()
        assert expected <= held
        assert outbox.durable
        assert not list(tmp_path.glob("*damaged*"))
        outbox.close()
    assert kept > 100


def test_rows_put_by_many_threads_share_commits(tmp_path: Path) -> None:
    outbox, statements = opened(tmp_path / "outbox.db"), list[str]()
    assert outbox._journal is not None

    def commit_as_slowly_as_a_card(statement: str) -> None:
        statements.append(statement)
        if statement == "COMMIT":  # a disk that is done at once leaves nothing to share
            threading.Event().wait(0.003)

    outbox._journal._db.set_trace_callback(commit_as_slowly_as_a_card)
    ready = threading.Barrier(8)

    def put_thirty(thread: int) -> None:
        ready.wait()
        for n in range(1, 31):
            outbox.put(rows(n, boot=bytes([thread]) * 16))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(put_thirty, range(8)))
    assert outbox.depth == 240
    assert 30 <= statements.count("COMMIT") < 200  # 240 without sharing
    outbox.close()


def test_an_older_copy_of_the_card_brings_back_old_rows_and_never_an_old_number(
    tmp_path: Path,
) -> None:
    path, copy = tmp_path / "outbox.db", tmp_path / "copy.db"
    outbox = opened(path)
    outbox.put(rows(1, 2, 3))
    outbox.close()
    shutil.copy(path, copy)
    stored: dict[tuple[bytes, int], bytes] = {}  # the controller: the first of each key stays

    def deliver(outbox: SqliteOutbox) -> list[Row]:
        sent = list(outbox.peek(100))
        for row in sent:
            assert stored.setdefault((row.boot, row.sequence), row.sealed) == row.sealed
        outbox.drop(sent)
        return sent

    outbox = opened(path)
    outbox.put(rows(4))
    deliver(outbox)
    outbox.close()
    shutil.copy(copy, path)
    outbox = opened(path)
    new_boot = b"c" * 16  # the watch service numbers from 1 again, under a boot of its own
    outbox.put(rows(1, 2, boot=new_boot))
    assert deliver(outbox) == rows(1, 2, 3) + rows(1, 2, boot=new_boot)
    assert len(stored) == 6
    outbox.close()


@pytest.mark.parametrize("damage", ["head", "middle", "everything", "other database"])
def test_a_damaged_file_is_set_aside_and_what_can_be_read_is_saved(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    outbox = opened(path)
    outbox.put([Row(BOOT, n, bytes(1500)) for n in range(1, 101)])
    outbox.close()
    original = path.read_bytes()
    if damage == "other database":
        path.unlink()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 7")
        db.close()
    else:
        where = {"head": 0, "middle": len(original) // 2, "everything": 0}[damage]
        length = len(original) if damage == "everything" else 4096
        path.write_bytes(original[:where] + b"\xa5" * length + original[where + length :])
    outbox = opened(path)
    assert outbox.durable
    assert "outbox damaged" in caplog.text
    assert (tmp_path / "outbox.db.damaged-1").exists()
    assert outbox.depth >= (20 if damage == "middle" else 0)
    assert {row.sealed for row in outbox.peek(1000)} <= {bytes(1500)}
    outbox.put(rows(500))
    outbox.close()
    assert 500 in held_in(path)


def test_only_a_few_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    for _ in range(5):
        path.write_bytes(b"damaged beyond repair")
        opened(path).close()
    assert [p.name for p in sorted(tmp_path.glob("*damaged*"))] == [
        f"outbox.db.damaged-{n}" for n in (3, 4, 5)
    ]


def test_a_row_with_a_turned_bit_is_left_out_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox.db"
    outbox = opened(path)
    outbox.put(rows(1, 2, 3))
    outbox.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alerts SET sealed = CAST('sealed 9' AS BLOB) WHERE sequence = 2")
        db.execute("INSERT INTO alerts VALUES (9, x'00', -5, 'text', 0)")
    db.close()
    outbox = opened(path)
    assert numbers(outbox) == [1, 3]
    assert "alert 2 of boot" in caplog.text
    outbox.close()


class FailingJournal(Journal):
    """A card that can be broken."""

    broken = False

    def __init__(self, path: Path) -> None:
        if FailingJournal.broken:
            raise CardError(f"{path}: broken for this test")
        super().__init__(path)

    def write(self, steps: Sequence[Step]) -> None:  # type: ignore[override]  # narrower, for the test
        if FailingJournal.broken:
            raise CardError("broken for this test")
        super().write(steps)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> type[FailingJournal]:
    monkeypatch.setattr(durable, "Journal", FailingJournal)
    monkeypatch.setattr(FailingJournal, "broken", False)
    return FailingJournal


def test_a_card_that_fails_under_way_costs_nothing_and_gets_all_when_it_works_again(
    tmp_path: Path, card: type[FailingJournal]
) -> None:
    path = tmp_path / "outbox.db"
    outbox = opened(path)
    outbox.put(rows(1, 2, 3, 4))
    card.broken = True
    outbox.put(rows(5, 6))
    assert (outbox.durable, numbers(outbox)) == (False, [1, 2, 3, 4, 5, 6])
    outbox.drop(rows(1, 2, 5))
    outbox.tend()
    assert (outbox.durable, numbers(outbox)) == (False, [3, 4, 6])
    card.broken = False
    outbox.tend()
    assert outbox.durable
    outbox.close()
    assert held_in(path) == [3, 4, 6]


def test_rows_that_could_not_be_read_at_the_start_come_back_when_the_card_works_again(
    tmp_path: Path, card: type[FailingJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "outbox.db"
    outbox = opened(path)
    outbox.put(rows(1, 2))
    outbox.close()
    card.broken = True
    monkeypatch.setattr(durable, "rows_in", lambda _: ())
    outbox = opened(path)
    outbox.put(rows(3))
    assert (outbox.durable, numbers(outbox)) == (False, [3])
    card.broken = False
    outbox.put(rows(4))
    assert outbox.durable
    assert numbers(outbox) == [1, 2, 3, 4]
    outbox.close()


def test_a_file_damaged_under_way_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    outbox = opened(path)
    outbox.put(rows(1, 2, 3))
    assert outbox._journal is not None
    outbox._journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(b"\xa5" * path.stat().st_size)
    outbox._journal._db.execute("PRAGMA shrink_memory")  # forget the pages read before
    outbox.put(rows(4))
    assert outbox.durable
    outbox.close()
    assert held_in(path) == [1, 2, 3, 4]


def test_a_closed_outbox_keeps_rows_in_memory(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "outbox.db")
    outbox.close()
    outbox.put(rows(1))
    assert (outbox.durable, outbox.depth) == (False, 1)


def test_without_a_folder_it_goes_on_in_memory_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = opened(tmp_path / "missing" / "outbox.db")
    outbox.put(rows(1))
    assert (outbox.durable, numbers(outbox)) == (False, [1])
    assert "alerts are kept in memory only" in caplog.text
    (tmp_path / "missing").mkdir()
    outbox.tend()
    assert outbox.durable
    outbox.close()
    assert held_in(tmp_path / "missing" / "outbox.db") == [1]


SMALL_CARD = """
import subprocess, sys
from pathlib import Path
from appliance.alerts.durable import SqliteOutbox
from appliance.wire import Row

def mount(*options):
    subprocess.run(["mount", *options], check=True)

def held():
    return [row.sequence for row in outbox.peek(10_000)]

folder = sys.argv[1]
path = Path(folder, "outbox.db")
mount("-t", "tmpfs", "-o", "size=400k", "none", folder)
ballast = Path(folder, "ballast")
ballast.write_bytes(bytes(200_000))
outbox, n = SqliteOutbox(path, capacity=10_000, retry_s=0.0), 0
while outbox.durable and n < 1000:
    n += 1
    outbox.put([Row(b"b" * 16, n, bytes(1000))])
assert not outbox.durable and held() == list(range(1, n + 1)), (n, outbox.durable)
outbox.drop(outbox.peek(5))
outbox.put([Row(b"b" * 16, n + 1, bytes(1000))])
ballast.unlink()
outbox.tend()
assert outbox.durable
outbox.close()
print("full card:", n, "rows, then mended")

mount("-o", "remount,ro", folder)
outbox = SqliteOutbox(path, capacity=10_000, retry_s=0.0)
assert not outbox.durable and held() == list(range(6, n + 2)), held()
outbox.put([Row(b"b" * 16, n + 2, bytes(1000))])
outbox.drop(outbox.peek(1))
mount("-o", "remount,rw", folder)
outbox.tend()
assert outbox.durable and held() == list(range(7, n + 3))
outbox.close()
outbox = SqliteOutbox(path, capacity=10_000, retry_s=0.0)
assert held() == list(range(7, n + 3))
print("read-only card: read, then mended")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small card needs root")
def test_on_a_really_full_and_a_really_read_only_card_it_goes_on(tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    done = subprocess.run(
        [*probe[:2], sys.executable, "-c", SMALL_CARD, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "read-only card: read, then mended" in done.stdout
