"""The controller's store, over every database that can start here."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.controller.rollout import Rollout, Runs, State, Step, Taken
from appliance.controller.sql import SqlStore
from appliance.controller.store import (
    Arrival,
    Conflict,
    Deployment,
    Gap,
    ListRow,
    Receipt,
    Record,
    Seen,
    Status,
    Store,
    Stored,
)
from appliance.errors import StoreError
from tests.builders import a_health, an_alert
from tests.contracts.postgres import postgres, programs

NOW = 1_790_000_000_000
BOOT = bytes(16)
OTHER_BOOT = bytes(range(16))


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """A PostgreSQL server's URL, "" for SQLite."""
    if request.param == "sqlite":
        yield ""
        return
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres(found) as url:
        yield url


@pytest.fixture
def url(server: str, tmp_path: Path) -> Iterator[str]:
    if not server:
        yield f"sqlite:///{tmp_path / 'fleet.db'}"
        return
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        yield server
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with SqlStore(url) as store:
        yield store


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server" in metafunc.fixturenames:
        metafunc.parametrize("server", ["sqlite", "postgresql"], indirect=True, scope="module")


def arrival(
    sequence: int, *, sealed: bytes = b"", node: str = "cam-1", boot: bytes = BOOT
) -> Arrival:
    return Arrival(node, boot, sequence, sealed or b"sealed %d" % sequence, None, "test")


def opened(sequence: int) -> Arrival:
    alert = an_alert(alert_id=bytes(16), node="cam-1", boot=BOOT, sequence=sequence)
    return Arrival("cam-1", BOOT, sequence, b"sealed", alert)


def listed(version: int = 1, *, head: bytes = b"head") -> ListRow:
    return ListRow("market", version, "market-day", head, b"d" * 64, b"k" * 32, {"wanted": 2}, NOW)


def deployment(**changes: object) -> Deployment:
    fields: dict[str, object] = {
        "deployment": "market-day", "list_id": "market", "list_version": 1, "nodes": ("cam-*",),
        "until_ms": NOW + 3_600_000, "authority": "Supt. A", "purpose": "find",
        "location": "market", "lease_s": 3600, "started_ms": NOW,
    }  # fmt: skip
    return Deployment(**(fields | changes))  # type: ignore[arg-type]  # fields of a dataclass


def invite(store: Store, node: str = "cam-1", *, again: bool = False) -> None:
    store.nodes.invite(node, token_hash=b"t" * 32, expires_ms=NOW + 1000, now_ms=NOW, again=again)


def join(store: Store, node: str = "cam-1", digest: bytes = b"j" * 32, serial: int = 1) -> None:
    store.nodes.join(node, join_digest=digest, watch_key=b"w" * 32, serial=serial, now_ms=NOW)


def kinds(store: Store) -> list[str]:
    return [record.kind for record in store.records.after(0)]


# Nodes


def test_a_node_is_invited_and_joins(store: Store) -> None:
    invite(store)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert (row.status, row.token_hash, row.watch_key) == (Status.INVITED, b"t" * 32, None)
    join(store, serial=2**159 + 7)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert (row.status, row.watch_key, row.serials) == (Status.JOINED, b"w" * 32, (2**159 + 7,))
    assert kinds(store) == ["node-invited", "node-joined"]


def test_a_lost_answer_to_a_join_may_be_asked_again_by_the_same_request_only(
    store: Store,
) -> None:
    invite(store)
    join(store)
    join(store, serial=2)
    with pytest.raises(StoreError, match="used by another request"):
        join(store, digest=b"x" * 32, serial=3)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert row.serials == (1, 2)


def test_refuses_a_join_without_invitation(store: Store) -> None:
    with pytest.raises(StoreError, match="not invited"):
        join(store)


def test_refuses_to_invite_a_node_that_has_joined(store: Store) -> None:
    invite(store)
    invite(store)
    join(store)
    with pytest.raises(StoreError, match="joined already"):
        invite(store)


def test_a_node_that_is_invited_again_is_a_stranger_until_it_joins(store: Store) -> None:
    invite(store)
    join(store)
    invite(store, again=True)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert (row.status, row.watch_key, row.serials) == (Status.INVITED, None, (1,))
    join(store, digest=b"x" * 32, serial=2)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert (row.status, row.serials) == (Status.JOINED, (1, 2))


def test_revoked_is_for_ever(store: Store) -> None:
    invite(store)
    join(store)
    store.nodes.set_status("cam-1", Status.REVOKED, "stolen", now_ms=NOW)
    store.nodes.set_status("cam-1", Status.REVOKED, "again", now_ms=NOW)
    with pytest.raises(StoreError, match="for ever"):
        store.nodes.set_status("cam-1", Status.JOINED, "", now_ms=NOW)
    with pytest.raises(StoreError, match="revoked already"):
        invite(store, again=True)
    row = store.nodes.get("cam-1")
    assert row is not None
    assert (row.status, row.reason) == (Status.REVOKED, "stolen")
    assert kinds(store)[2:] == ["node-revoked"]
    with pytest.raises(StoreError, match="no node"):
        store.nodes.set_status("cam-2", Status.REVOKED, "", now_ms=NOW)


def test_what_is_heard_last_is_kept(store: Store) -> None:
    invite(store)
    health = a_health(node="cam-1", boot=BOOT, list_id="market", list_version=1, subjects=2)
    store.nodes.heard([Seen("cam-1", BOOT, NOW), Seen("cam-0", BOOT, NOW)])
    latest = Seen("cam-1", OTHER_BOOT, NOW + 1, health, "market", 1, 60, "", "market", 2)
    store.nodes.heard([latest])
    row = store.nodes.get("cam-1")
    assert row is not None
    assert row.seen == latest
    assert [r.node for r in store.nodes.all()] == ["cam-1"]


def test_the_revision_moves_with_what_an_operator_changes_and_not_with_what_nodes_say(
    store: Store, url: str
) -> None:
    before = store.revision()
    store.nodes.heard([Seen("cam-1", BOOT, NOW)])
    store.alerts.put([arrival(1)], now_ms=NOW)
    assert store.revision() == before
    with SqlStore(url) as other:
        invite(other)
    assert store.revision() > before


# Lists and deployments


def test_a_list_comes_back_piece_by_piece(store: Store) -> None:
    assert store.lists.add(listed(), iter([b"zero", b"one"]))
    assert store.lists.get("market", 1) == listed()
    assert store.lists.piece("market", 1, 1) == b"one"
    assert store.lists.piece("market", 1, 2) is None
    assert not store.lists.add(listed(), [b"zero", b"one"])


def test_refuses_another_list_under_the_same_version(store: Store) -> None:
    store.lists.add(listed(), [b"zero"])
    with pytest.raises(StoreError, match="higher version"):
        store.lists.add(listed(head=b"other"), [b"zero"])


def test_a_list_whose_file_is_cut_off_leaves_nothing_behind(store: Store) -> None:
    def cut() -> Iterator[bytes]:
        yield b"zero"
        raise OSError("cut off")

    with pytest.raises(OSError, match="cut off"):
        store.lists.add(listed(), cut())
    assert store.lists.all() == ()
    assert store.lists.piece("market", 1, 0) is None


def test_the_end_of_a_deployment_destroys_keys_and_pieces(store: Store) -> None:
    store.lists.add(listed(), [b"zero"])
    assert store.deployments.start(deployment(), now_ms=NOW)
    assert not store.deployments.start(deployment(started_ms=NOW + 5), now_ms=NOW + 5)
    assert store.deployments.start(deployment(until_ms=NOW + 5), now_ms=NOW + 5)
    assert store.deployments.stop("market-day", ended_by="stop", now_ms=NOW + 9)
    assert not store.deployments.stop("market-day", ended_by="stop", now_ms=NOW + 10)
    row = store.lists.get("market", 1)
    assert row is not None
    assert row.content_key is None
    assert store.lists.piece("market", 1, 0) is None
    (ended,) = store.deployments.all()
    assert (ended.started_ms, ended.stopped_ms, ended.ended_by) == (NOW, NOW + 9, "stop")
    assert kinds(store) == [
        "list-added", "deployment-started", "deployment-changed", "deployment-ended",
        "list-destroyed",
    ]  # fmt: skip
    assert store.lists.add(listed(), [b"zero"]), "the same file begins again"
    assert store.lists.piece("market", 1, 0) == b"zero"
    with pytest.raises(StoreError, match="no deployment"):
        store.deployments.stop("other", ended_by="stop", now_ms=NOW)


def test_a_wipe_is_ordered_once_and_done_once(store: Store) -> None:
    store.deployments.order_wipe(["cam-1", "cam-2"], now_ms=NOW)
    store.deployments.order_wipe(["cam-1"], now_ms=NOW + 1)
    store.deployments.wiped("cam-1", now_ms=NOW + 2)
    store.deployments.wiped("cam-1", now_ms=NOW + 3)
    assert [(w.node, w.ordered_ms, w.done_ms) for w in store.deployments.wipes()] == [
        ("cam-1", NOW, NOW + 2),
        ("cam-2", NOW, None),
    ]
    store.deployments.order_wipe(["cam-1"], now_ms=NOW + 4)
    assert len(store.deployments.wipes()) == 3


# Alerts


def test_an_alert_comes_back_as_it_was(store: Store) -> None:
    assert store.alerts.put([opened(1)], now_ms=NOW) == (Receipt(Stored.NEW),)
    (kept,) = store.alerts.newest(10)
    assert kept.arrival == opened(1)
    assert kept.received_ms == NOW


def test_the_same_alert_again_is_kept_once(store: Store) -> None:
    assert store.alerts.put([], now_ms=NOW) == ()
    receipts = store.alerts.put([arrival(1), arrival(2), arrival(1)], now_ms=NOW)
    assert [r.stored for r in receipts] == [Stored.NEW, Stored.NEW, Stored.DUPLICATE]
    (again,) = store.alerts.put([arrival(2)], now_ms=NOW)
    assert again == Receipt(Stored.DUPLICATE)
    assert store.alerts.counts() == (2, 2)


def test_other_bytes_under_the_same_number_are_a_conflict_and_change_nothing(
    store: Store,
) -> None:
    store.alerts.put([arrival(1)], now_ms=NOW)
    receipts = store.alerts.put([arrival(1, sealed=b"forged")] * 2, now_ms=NOW + 1)
    assert [r.stored for r in receipts] == [Stored.CONFLICT] * 2
    assert store.alerts.newest(9)[0].arrival.sealed == b"sealed 1"
    assert store.alerts.conflicts() == (Conflict("cam-1", BOOT, 1, NOW + 1),)
    assert kinds(store) == ["conflict"]


def test_a_conflict_within_one_report_keeps_the_first(store: Store) -> None:
    receipts = store.alerts.put([arrival(1), arrival(1, sealed=b"forged")], now_ms=NOW)
    assert [r.stored for r in receipts] == [Stored.NEW, Stored.CONFLICT]
    assert store.alerts.newest(9)[0].arrival.sealed == b"sealed 1"


def test_a_missing_number_is_a_loss_until_it_comes(store: Store) -> None:
    store.alerts.put([arrival(1), arrival(2)], now_ms=NOW)
    receipts = store.alerts.put([arrival(5), arrival(6), arrival(9)], now_ms=NOW)
    assert [r.gap for r in receipts] == [
        Gap("cam-1", BOOT, 3, 4), None, Gap("cam-1", BOOT, 7, 8),
    ]  # fmt: skip
    store.alerts.put([arrival(2, boot=OTHER_BOOT), arrival(1, node="cam-0")], now_ms=NOW)
    assert store.alerts.gaps() == (
        Gap("cam-1", BOOT, 3, 4),
        Gap("cam-1", BOOT, 7, 8),
        Gap("cam-1", OTHER_BOOT, 1, 1),
    )
    assert kinds(store) == ["loss"] * 3
    store.alerts.put([arrival(3), arrival(4)], now_ms=NOW)
    assert store.alerts.gaps()[0] == Gap("cam-1", BOOT, 7, 8)


def test_the_highest_number_there_is_can_be_kept(store: Store) -> None:
    (receipt,) = store.alerts.put([arrival(2**63 - 1)], now_ms=NOW)
    assert receipt.gap == Gap("cam-1", BOOT, 1, 2**63 - 2)
    assert store.alerts.gaps() == (receipt.gap,)


def test_alerts_are_told_in_the_order_in_which_they_came(store: Store) -> None:
    store.alerts.put([arrival(2)], now_ms=NOW + 1)
    store.alerts.put([arrival(1)], now_ms=NOW)
    store.alerts.put([arrival(3)], now_ms=NOW + 2)
    assert [k.arrival.sequence for k in store.alerts.since(NOW + 1, most=9)] == [2, 3]
    assert [k.arrival.sequence for k in store.alerts.since(NOW, most=2)] == [1, 2]
    assert [k.arrival.sequence for k in store.alerts.newest(2)] == [2, 3]


_numbers = count()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batches=st.lists(
        st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1)), max_size=5), max_size=5
    ),
)
def test_whatever_comes_each_number_is_kept_once_and_the_rest_is_told(
    store: Store, batches: list[list[tuple[int, int]]]
) -> None:
    model: dict[int, bytes] = {}
    name = f"cam-{next(_numbers)}"  # a node of its own for each example
    for batch in batches:
        arrivals = [arrival(n, sealed=b"%d" % body, node=name) for n, body in batch]
        receipts = store.alerts.put(arrivals, now_ms=NOW)
        for one, receipt in zip(arrivals, receipts, strict=True):
            new = one.sequence not in model
            same = model.setdefault(one.sequence, one.sealed) == one.sealed
            expected = Stored.NEW if new else Stored.DUPLICATE if same else Stored.CONFLICT
            assert receipt.stored is expected
    missing = {
        n for gap in store.alerts.gaps() if gap.node == name for n in range(gap.first, gap.last + 1)
    }
    assert missing == set(range(1, max(model, default=0))) - set(model)


# The record, and what may go wrong


def test_the_record_can_be_added_to_and_not_changed(store: Store, url: str) -> None:
    store.records.append([Record(NOW, "note", {"what": "Übung"})])
    (record,) = store.records.after(0)
    assert (record.kind, record.about, record.at_ms) == ("note", {"what": "Übung"}, NOW)
    assert store.records.after(record.number) == ()
    for statement in ("UPDATE records SET kind = 'x'", "DELETE FROM records"):
        with pytest.raises(Exception, match="added to, not changed"):
            _execute(url, statement)
    assert len(store.records.after(0)) == 1


def test_another_schema_is_refused(store: Store, url: str) -> None:
    _execute(url, "UPDATE meta SET value = 99 WHERE key = 'schema'")
    with pytest.raises(StoreError, match="of schema 99"):
        SqlStore(url)
    assert store.revision() == 0


@pytest.mark.parametrize(
    "url",
    ["nonsense", "mysql://a@b/c", "sqlite://", "sqlite:////no/such/folder/fleet.db",
     "postgresql://nobody@/none?host=/no/such/folder"],
)  # fmt: skip
def test_refuses_a_database_that_is_none(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        SqlStore(url)
    assert "\n" not in str(refused.value)


def test_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "fleet.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="not a database"):
        SqlStore(f"sqlite:///{tmp_path / 'fleet.db'}")


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    with SqlStore(f"sqlite:///{tmp_path / 'fleet.db'}") as store:
        store.records.append([Record(NOW, "note")])
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


_WRITER = """
import sys
from appliance.controller.sql import SqlStore
from appliance.controller.store import Arrival
with SqlStore(sys.argv[1]) as store:
    for number in range(1, 100000):
        store.alerts.put([Arrival("cam-1", bytes(16), number, b"x", None)], now_ms=number)
        print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 7, 40])
def test_what_was_acknowledged_survives_kill_9(store: Store, url: str, lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, url], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(lines):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        told = lines + len(writer.stdout.read().splitlines())
    kept, _ = store.alerts.counts()
    assert kept in {told, told + 1}
    assert store.alerts.gaps() == ()


def _execute(url: str, statement: str) -> None:
    """As an operator with the database's own tool would."""
    if url.startswith("sqlite:"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            connection.execute(statement)
        connection.close()
        return
    import psycopg

    with psycopg.connect(url) as session:
        session.execute(statement)


# Roll-outs


def rolled(name: str = "0.2.0-x", **changes: object) -> Rollout:
    fields: dict[str, object] = {
        "rollout": name, "version": (0, 2, 0, 0), "sha256": b"s" * 32, "size": 1000,
        "stages": (100, 10_000), "stage": 0, "stop_after": 1, "while_watching": True,
        "started_ms": NOW,
    }  # fmt: skip
    return Rollout(**(fields | changes))  # type: ignore[arg-type]  # fields of a dataclass


def test_a_rollout_is_begun_led_through_its_stages_and_ended(store: Store) -> None:
    rollouts, before = store.rollouts, store.revision()
    assert rollouts.current() is None
    rollouts.start(rolled())
    assert rollouts.current() == rolled()
    with pytest.raises(StoreError, match=r"0\.2\.0-x has not been stopped"):
        rollouts.start(rolled("0.3.0-y"))
    rollouts.go_on("0.2.0-x", 1, now_ms=NOW)
    for stage in (0, 1, 2):
        with pytest.raises(StoreError, match="in stage 2 already"):
            rollouts.go_on("0.2.0-x", stage, now_ms=NOW)
    assert rollouts.pause("0.2.0-x", "market day", now_ms=NOW)
    assert not rollouts.pause("0.2.0-x", "again", now_ms=NOW)
    paused = rollouts.current()
    assert paused == rolled(stage=1, state=State.PAUSED, why="market day")
    assert rollouts.resume("0.2.0-x", now_ms=NOW)
    assert not rollouts.resume("0.2.0-x", now_ms=NOW)
    assert store.revision() > before
    assert rollouts.stop("0.2.0-x", "done", now_ms=NOW + 5)
    assert not rollouts.stop("0.2.0-x", "done", now_ms=NOW + 6)
    assert rollouts.current() is None
    with pytest.raises(StoreError, match="stopped, which is for good"):
        rollouts.pause("0.2.0-x", "", now_ms=NOW)
    with pytest.raises(StoreError, match="stopped, which is for good"):
        rollouts.go_on("0.2.0-x", 1, now_ms=NOW)
    with pytest.raises(StoreError, match="no roll-out nowhere"):
        rollouts.stop("nowhere", "", now_ms=NOW)
    rollouts.start(rolled("0.3.0-y", version=(0, 3, 0, 1), started_ms=NOW + 9))
    assert [one.rollout for one in rollouts.all()] == ["0.2.0-x", "0.3.0-y"]
    assert rollouts.all()[0].ended_ms == NOW + 5
    assert rollouts.all()[1].version == (0, 3, 0, 1)
    assert kinds(store) == [
        "update-started", "update-stage", "update-paused", "update-resumed", "update-stopped",
        "update-started",
    ]  # fmt: skip


def test_what_becomes_of_nodes_is_kept_recorded_once_and_counted(store: Store) -> None:
    rollouts = store.rollouts
    rollouts.start(rolled())
    begun = [Taken(f"cam-{n}", Step.OFFERED, NOW) for n in range(4)]
    assert rollouts.heard("0.2.0-x", begun, now_ms=NOW) == ""
    assert rollouts.heard("0.2.0-x", [], now_ms=NOW) == ""
    fetching = Taken("cam-1", Step.FETCHING, NOW + 1, fetched=500, tries=1)
    assert rollouts.heard("0.2.0-x", [fetching], now_ms=NOW) == ""
    assert rollouts.taken("0.2.0-x", "cam-1") == (fetching,)
    assert [one.node for one in rollouts.taken("0.2.0-x")] == [one.node for one in begun]
    assert rollouts.taken("0.2.0-x", "cam-9") == rollouts.taken("other") == ()
    bad = Taken("cam-2", Step.ROLLED_BACK, NOW, why="it did not start")
    assert rollouts.heard("0.2.0-x", [bad], now_ms=NOW) == ""
    assert rollouts.heard("0.2.0-x", [bad], now_ms=NOW) == ""  # said again
    good = Taken("cam-0", Step.INSTALLED, NOW)
    before = store.revision()
    worse = Taken("cam-3", Step.REFUSED, NOW, why="no room")
    why = rollouts.heard("0.2.0-x", [good, worse], now_ms=NOW + 7)
    assert why == "2 nodes failed, at most 1 may"
    assert store.revision() > before
    paused = rollouts.current()
    assert paused is not None
    assert (paused.state, paused.why) == (State.PAUSED, why)
    lines = [(r.kind, r.about.get("node"), r.about.get("why")) for r in store.records.after(1)]
    assert lines == [
        ("update-rolled-back", "cam-2", "it did not start"),
        ("update-installed", "cam-0", ""),
        ("update-refused", "cam-3", "no room"),
        ("update-paused", None, why),
    ]
    rollouts.resume("0.2.0-x", now_ms=NOW)
    assert rollouts.heard("0.2.0-x", [worse], now_ms=NOW) == ""
    resumed = rollouts.current()
    assert resumed is not None
    assert resumed.tolerated == 2
    with pytest.raises(StoreError, match="no roll-out"):
        rollouts.heard("nowhere", [good], now_ms=NOW)


def test_which_version_runs_where_is_what_was_said_last(store: Store) -> None:
    before = store.revision()
    store.rollouts.note_runs([Runs("cam-2", (0, 1, 0, 0), NOW), Runs("cam-1", (1, 2, 3, 4), NOW)])
    store.rollouts.note_runs([Runs("cam-2", (0, 2, 0, 0), NOW + 1)])
    store.rollouts.note_runs([])
    assert store.rollouts.runs() == {
        "cam-1": Runs("cam-1", (1, 2, 3, 4), NOW),
        "cam-2": Runs("cam-2", (0, 2, 0, 0), NOW + 1),
    }
    assert store.revision() == before  # no order


def test_of_two_who_start_at_once_one_does(url: str) -> None:
    stores = [SqlStore(url), SqlStore(url)]
    gate, outcomes = threading.Barrier(2), []

    def begin(store: SqlStore, name: str) -> None:
        gate.wait()
        try:
            store.rollouts.start(rolled(name))
        except StoreError as e:
            outcomes.append(str(e))

    threads = [
        threading.Thread(target=begin, args=(store, f"0.2.0-{n}")) for n, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 1
    assert "has not been stopped" in outcomes[0]
    assert len(stores[0].rollouts.all()) == 1
    for store in stores:
        store.close()
