"""A roll-out without sockets: who has a turn, what becomes of nodes, when it stops by itself."""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509 import Certificate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from sqlalchemy import insert

from appliance.alerts.seal import AlertPrivateKey
from appliance.controller.bundles import PART_BYTES, Bundles
from appliance.controller.desk import Desk
from appliance.controller.events import Event, as_text
from appliance.controller.rollout import (
    FAILED,
    WHOLE,
    Rollout,
    State,
    Step,
    Taken,
    advance,
    has_turn,
    next_stage,
    place,
    stage_of,
    too_many,
)
from appliance.controller.rollout_report import SILENT_MS, Stands, Tally, count
from appliance.controller.rollout_report import as_text as shown_as
from appliance.controller.sql import SqlStore
from appliance.controller.store import Deployment, ListRow, Status
from appliance.controller.tables import nodes as nodes_table
from appliance.controller.upgrades import AT_ONCE
from appliance.errors import StoreError, WireError
from appliance.system.clock import SimulatedClock
from appliance.wire import Ack, Answer, Bundle, Deny, Outcome, Part, Pull, Upgrade, Version

NOW = 1_790_000_000_000
CONTENT = bytes(range(256)) * (PART_BYTES // 256) + b"the last part"
DIGEST = hashlib.sha256(CONTENT).digest()
OLD, NEW = (0, 1, 0, 0), (0, 2, 0, 0)
ROLLOUT = Rollout(
    rollout="0.2.0-test", version=NEW, sha256=DIGEST, size=len(CONTENT),
    stages=(100, 1_000, 5_000, WHOLE), stage=0, stop_after=0, while_watching=False,
    started_ms=NOW,
)  # fmt: skip
NAMES = st.text("abcdefghij-0123456789", min_size=1, max_size=20)
TAKEN = Taken("cam", Step.OFFERED, NOW)


def told(
    outcome: Outcome = Outcome.NONE,
    *,
    node: str = "cam",
    running: Version = OLD,
    bundle: bytes | None = DIGEST,
    tries: int = 1,
    why: str = "",
) -> Upgrade:
    return Upgrade(node, running, outcome, bundle, tries, why)


# Pure


@given(NAMES, NAMES)
def test_a_node_that_has_its_turn_keeps_it(rollout: str, node: str) -> None:
    one = replace(ROLLOUT, rollout=rollout)
    turns = [has_turn(replace(one, stage=n), node) for n in range(len(one.stages))]
    assert turns == sorted(turns)
    assert turns[-1]
    stage = stage_of(one, node)
    assert stage is not None
    assert turns.index(True) == stage
    assert place(rollout, node) == place(rollout, node) in range(WHOLE)


def test_stages_are_as_large_as_they_say_and_another_rollout_begins_elsewhere() -> None:
    fleet = [f"cam-{n}" for n in range(10_000)]
    counts = Counter(stage_of(ROLLOUT, node) for node in fleet)
    for stage, due in enumerate((100, 900, 4000, 5000)):
        assert abs(counts[stage] - due) < 4 * due**0.5
    other = replace(ROLLOUT, rollout="0.2.0-other")
    first = [{node for node in fleet if stage_of(one, node) == 0} for one in (ROLLOUT, other)]
    assert len(first[0] & first[1]) < 10


@given(st.lists(NAMES, max_size=30), st.integers(-1, 3))
def test_a_stage_without_nodes_is_passed(fleet: list[str], after: int) -> None:
    stage = next_stage(ROLLOUT, fleet, after=after)
    assert after < stage or stage == 3
    assert stage == 3 or any(stage_of(ROLLOUT, node) == stage for node in fleet)
    assert not any(after < (stage_of(ROLLOUT, node) or 0) < stage for node in fleet)


@pytest.mark.parametrize(
    ("said", "step"),
    [
        (told(Outcome.NONE, bundle=None), Step.OFFERED),
        (told(Outcome.FETCHING), Step.FETCHING),
        (told(Outcome.INSTALLING), Step.INSTALLING),
        (told(Outcome.TRYING), Step.TRYING),
        (told(Outcome.TRYING, running=NEW), Step.TRYING),
        (told(Outcome.INSTALLED, running=NEW), Step.INSTALLED),
        (told(Outcome.NONE, running=(9, 0, 0, 0), bundle=None), Step.INSTALLED),
        (told(Outcome.ROLLED_BACK), Step.ROLLED_BACK),
        (told(Outcome.REFUSED), Step.REFUSED),
        (told(Outcome.ROLLED_BACK, bundle=b"x" * 32), Step.OFFERED),
        (told(Outcome.REFUSED, bundle=None), Step.OFFERED),
        (told(Outcome.ROLLED_BACK, tries=0), Step.OFFERED),
    ],
)
def test_a_node_is_where_its_word_about_this_bundle_says(said: Upgrade, step: Step) -> None:
    assert advance(ROLLOUT, TAKEN, said, now_ms=NOW).step is step


def test_what_was_rolled_back_in_an_earlier_rollout_is_not_counted_again() -> None:
    before = replace(TAKEN, tries=1)
    assert advance(ROLLOUT, before, told(Outcome.ROLLED_BACK), now_ms=NOW).step is Step.OFFERED
    after = advance(ROLLOUT, before, told(Outcome.ROLLED_BACK, tries=2), now_ms=NOW)
    assert after.step is Step.ROLLED_BACK


@given(st.sampled_from(Outcome), st.sampled_from(sorted(FAILED)), st.sampled_from([OLD, NEW]))
def test_a_node_that_failed_has_failed_until_it_runs_the_update(
    outcome: Outcome, failed: Step, running: Version
) -> None:
    said = told(outcome, running=running, tries=5)
    after = advance(ROLLOUT, replace(TAKEN, step=failed), said, now_ms=NOW).step
    runs = running == NEW and outcome is not Outcome.TRYING
    assert after is (Step.INSTALLED if runs else failed)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_it_stops_when_more_fail_than_may(failed: int, stop_after: int, tolerated: int) -> None:
    rollout = replace(ROLLOUT, stop_after=stop_after, tolerated=tolerated)
    assert bool(too_many(rollout, failed)) is (failed - tolerated > stop_after)
    for state in (State.PAUSED, State.STOPPED):
        assert not too_many(replace(rollout, state=state), failed)


# The controller


class Node:
    """A node of a simulated fleet, as its link service speaks."""

    def __init__(self, name: str, fate: Outcome = Outcome.INSTALLED) -> None:
        self.name, self.fate = name, fate
        self.running, self.outcome = OLD, Outcome.NONE
        self.bundle: bytes | None = None
        self.got = b""
        self.size = 0

    def says(self) -> Upgrade:
        return Upgrade(self.name, self.running, self.outcome, self.bundle, int(bool(self.bundle)))

    def hears(self, offer: Bundle) -> None:
        if self.size and len(self.got) == self.size:
            assert hashlib.sha256(self.got).digest() == self.bundle
            self.outcome = self.fate
            self.running = NEW if self.fate is Outcome.INSTALLED else OLD
            self.size = 0
        elif self.outcome is not Outcome.FETCHING:
            self.outcome, self.bundle, self.size = Outcome.FETCHING, offer.sha256, offer.size


class Rig:
    """A controller without sockets, its fleet, and an operator's hands on its store."""

    def __init__(self, folder: Path, fleet: int) -> None:
        self.clock = SimulatedClock(utc_ns=NOW * 1_000_000)
        self.store = SqlStore(f"sqlite:///{folder / 'fleet.db'}")
        self.updates = folder / "updates"
        self.updates.mkdir()
        (self.updates / f"{DIGEST.hex()}.raucb").write_bytes(CONTENT)
        self.fleet = {name: Node(name) for name in (f"cam-{n}" for n in range(fleet))}
        rows = [
            {"node": name, "status": "joined", "reason": "", "token_expires_ms": 0}
            for name in self.fleet
        ]
        with self.store._database.writing(notify=True) as connection:
            connection.execute(insert(nodes_table), rows)
        self.events: list[Event] = []
        self.bundles = Bundles(self.updates)
        self.desk = self.another()

    def another(self) -> Desk:
        """A controller at this store."""
        return Desk(
            self.store, online_key=Ed25519PrivateKey.generate(),
            alert_key=AlertPrivateKey.generate(), issue=_never, clock=self.clock,
            utc_ms=self.now_ms, silent_hours=72.0, notify=self.events.append,
            bundles=self.bundles,
        )  # fmt: skip

    def now_ms(self) -> int:
        now_ns = self.clock.utc_ns()
        assert now_ns is not None
        return now_ns // 1_000_000

    def begin(self, **changes: object) -> Rollout:
        rollout = replace(ROLLOUT, **changes)  # type: ignore[arg-type]  # fields of a dataclass
        self.store.rollouts.start(rollout)
        self.notice()
        return rollout

    def notice(self) -> None:
        """What the controller does once a second."""
        self.desk.upgrades.flush()
        self.desk.office.refresh()
        self.desk.upgrades.prepare()

    def ask(self, node: Node, desk: Desk | None = None) -> Answer:
        answer = (desk or self.desk).endpoints.answer(node.says(), b"", node.name)
        assert answer is not None
        return answer

    def pull(self, node: str, index: int = 0, bundle: bytes = DIGEST) -> Answer:
        self.clock.advance(0.05)
        answer = self.desk.endpoints.answer(Pull(node, bundle, index), b"", node)
        assert answer is not None
        return answer

    def round(self, *, notice: bool = True) -> int:
        """Every node asks once, and fetches a part if it fetches; how many were answered yes."""
        self.clock.advance(30.0)
        yes = 0
        for node in self.fleet.values():
            if node.outcome is Outcome.FETCHING and len(node.got) < node.size:
                pull = Pull(node.name, DIGEST, len(node.got) // PART_BYTES)
                answer = self.desk.endpoints.answer(pull, b"", node.name)
                if isinstance(answer, Part):
                    node.got += answer.content
                    continue
            answer = self.ask(node)
            if isinstance(answer, Bundle):
                yes += 1
                node.hears(answer)
        if notice:
            self.notice()
        return yes

    def tally(self) -> Tally:
        rollout = self.store.rollouts.all()[-1]
        taken, runs = self.store.rollouts.taken(rollout.rollout), self.store.rollouts.runs()
        return count(rollout, self.desk.office.plan, taken, runs, self.now_ms())

    def until_done(self, most: int = 400) -> None:
        for number in range(most):
            self.round(notice=number % 4 == 3)
            if number % 4 != 3:
                continue
            if not self.tally().unfinished or self.state is not State.RUNNING:
                return
        raise AssertionError(self.tally().unfinished)

    @property
    def state(self) -> State:
        return self.store.rollouts.all()[-1].state

    def deploy(self, *patterns: str) -> None:
        row = ListRow("market", 1, "market", b"head", b"d" * 32, b"k" * 32, {}, NOW)
        self.store.lists.add(row, [b"piece"])
        deployment = Deployment(
            deployment="market", list_id="market", list_version=1, nodes=patterns,
            until_ms=self.now_ms() + 3_600_000, authority="a", purpose="p", location="l",
            lease_s=600, started_ms=NOW,
        )  # fmt: skip
        self.store.deployments.start(deployment, now_ms=NOW)
        self.notice()

    def close(self) -> None:
        self.bundles.close()
        self.store.close()


def _never(*_: object) -> Certificate:
    raise AssertionError("no certificate is asked for")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 40)
    yield rig
    rig.close()


def early(rig: Rig) -> list[Node]:
    """The fleet in the order of the roll-out."""
    return sorted(rig.fleet.values(), key=lambda node: place(ROLLOUT.rollout, node.name))


def test_a_thousand_nodes_are_updated_in_stages(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1000)
    rig.begin()
    for stage in range(4):
        if stage:
            rig.store.rollouts.go_on(ROLLOUT.rollout, stage, now_ms=NOW)
            rig.notice()
        rig.until_done()
        for node in rig.fleet.values():
            due = has_turn(replace(ROLLOUT, stage=stage), node.name)
            assert node.running == (NEW if due else OLD)
            assert not node.got or due
    assert rig.tally().installed == 1000
    assert [s.nodes for s in rig.tally().stages] == [
        sum(stage_of(ROLLOUT, node) == n for node in rig.fleet) for n in range(4)
    ]
    text = shown_as(rig.tally(), "town")
    assert "0.2.0 over fleet town: running, stage 4 of 4 (100 %)" in text
    assert f"[{'#' * 50}] 1000 of 1000 run it (100%)" in text
    kinds = Counter(record.kind for record in rig.store.records.after(0))
    assert kinds == {"update-started": 1, "update-stage": 3, "update-installed": 1000}
    rig.close()


def test_no_more_fetch_at_once_than_may(tmp_path: Path) -> None:
    rig = Rig(tmp_path, AT_ONCE + 20)
    rig.begin(stages=(WHOLE,))
    assert rig.round() == AT_ONCE
    rig.until_done()
    rig.close()


@pytest.mark.parametrize("fate", [Outcome.ROLLED_BACK, Outcome.REFUSED])
@pytest.mark.parametrize("stop_after", [0, 2])
def test_too_many_failures_pause_it_by_themselves(rig: Rig, fate: Outcome, stop_after: int) -> None:
    rig.begin(stages=(WHOLE,), stop_after=stop_after)
    bad = early(rig)[: stop_after + 1]
    for node in bad:
        node.fate = fate
    rig.until_done()
    assert rig.state is State.PAUSED
    why = rig.store.rollouts.all()[-1].why
    assert why == f"{stop_after + 1} node{'s' * bool(stop_after)} failed, at most {stop_after} may"
    assert {"event": "paused", "rollout": ROLLOUT.rollout, "reason": why} in rig.events
    assert rig.store.records.after(0)[-1].kind == "update-paused"
    assert rig.round() == 0
    # An operator goes on: what has failed is tolerated, one more is not.
    rig.store.rollouts.resume(ROLLOUT.rollout, now_ms=NOW)
    rig.notice()
    rig.until_done()
    assert all(isinstance(rig.ask(node), Ack) for node in bad)


def test_a_node_that_failed_is_not_offered_it_again_in_this_rollout(rig: Rig) -> None:
    rig.begin(stages=(WHOLE,), stop_after=5)
    node = early(rig)[0]
    node.fate = Outcome.ROLLED_BACK
    rig.until_done()
    assert isinstance(rig.ask(node), Ack)
    assert isinstance(rig.pull(node.name), Deny)
    tally = rig.tally()
    assert tally.nodes[node.name] is Step.ROLLED_BACK
    assert tally.installed == len(rig.fleet) - 1
    rig.store.rollouts.stop(ROLLOUT.rollout, "", now_ms=NOW)
    rig.begin(rollout="0.2.0-again", stages=(WHOLE,), started_ms=NOW + 1)
    assert isinstance(rig.ask(node), Bundle)
    rig.notice()
    assert rig.state is State.RUNNING  # it still says what became of the first time


def test_a_node_whose_installation_was_interrupted_fetches_again_and_is_counted_once(
    rig: Rig,
) -> None:
    rig.begin(stages=(WHOLE,))
    node = early(rig)[0]
    assert isinstance(rig.ask(node), Bundle)
    assert isinstance(rig.pull(node.name), Part)
    node.bundle = DIGEST
    for outcome in (Outcome.FETCHING, Outcome.INSTALLING):
        node.outcome = outcome
        rig.ask(node)
    assert isinstance(rig.pull(node.name), Deny)  # it has all of it
    node.outcome = Outcome.NONE
    assert isinstance(rig.ask(node), Bundle)
    assert isinstance(rig.pull(node.name), Part)
    node.outcome = Outcome.ROLLED_BACK  # of no further try: its own word of before
    rig.ask(node)
    rig.notice()
    assert rig.state is State.RUNNING


def test_a_node_with_a_deployment_is_passed_over_until_that_ends(rig: Rig) -> None:
    node = early(rig)[0]
    rig.begin(stages=(WHOLE,))
    assert isinstance(rig.ask(node), Bundle)
    assert isinstance(rig.pull(node.name), Part)
    rig.deploy(node.name)
    assert isinstance(rig.ask(node), Ack)
    assert isinstance(rig.pull(node.name, 1), Deny)  # in the middle of it
    watching = next(other for other in rig.fleet.values() if other is not node)
    rig.store.deployments.stop("market", ended_by="stop", now_ms=NOW)
    rig.deploy(watching.name)
    rig.notice()
    assert isinstance(rig.ask(watching), Ack)
    rig.notice()
    assert rig.tally().nodes[watching.name] is Stands.WATCHING
    assert isinstance(rig.pull(node.name, 1), Part)


def test_while_watching_passes_nobody_over(rig: Rig) -> None:
    rig.deploy("cam-*")
    rig.begin(stages=(WHOLE,), while_watching=True)
    assert isinstance(rig.ask(early(rig)[0]), Bundle)


def test_nothing_is_told_to_and_nothing_fetched_by_whom_it_is_not_offered_to(rig: Rig) -> None:
    order = early(rig)
    share = (place(ROLLOUT.rollout, order[3].name) + 1,)
    assert isinstance(rig.pull(order[0].name), Deny)  # before there is one
    rig.begin(stages=(*share, WHOLE))
    late = order[-1]
    assert isinstance(rig.ask(late), Ack)
    no = rig.pull(late.name)
    assert no == Deny("no such update is offered")
    assert rig.pull(order[0].name) == no  # its turn has come, but it has not asked
    assert isinstance(rig.ask(order[0]), Bundle)
    assert rig.pull(order[0].name, bundle=b"x" * 32) == no
    assert isinstance(rig.pull(order[0].name, 2), Deny)  # beyond its end
    assert isinstance(rig.pull(order[0].name, 2**29), Deny)
    assert isinstance(rig.pull(order[0].name, 1), Part)
    for status in (Status.QUARANTINED, Status.REVOKED):
        rig.store.nodes.set_status(order[0].name, status, "stolen", now_ms=NOW)
        rig.notice()
        assert isinstance(rig.ask(order[0]), Ack | Deny)
        assert isinstance(rig.pull(order[0].name), Deny)
    rig.store.deployments.order_wipe([order[1].name], now_ms=NOW)
    rig.notice()
    assert isinstance(rig.ask(order[1]), Ack)
    with pytest.raises(WireError, match="not its own question"):
        rig.desk.endpoints.answer(order[2].says(), b"", order[3].name)


@pytest.mark.parametrize("order", ["pause", "stop"])
def test_a_pause_ends_fetches_and_a_stop_too(rig: Rig, order: str) -> None:
    rig.begin(stages=(WHOLE,))
    node = early(rig)[0]
    assert isinstance(rig.ask(node), Bundle)
    assert isinstance(rig.pull(node.name), Part)
    getattr(rig.store.rollouts, order)(ROLLOUT.rollout, "market day", now_ms=NOW)
    rig.notice()
    assert isinstance(rig.pull(node.name, 1), Deny)
    assert isinstance(rig.ask(node), Ack)


def test_parts_are_not_given_faster_than_any_node_takes_them(rig: Rig) -> None:
    rig.begin(stages=(WHOLE,))
    node = early(rig)[0]
    rig.ask(node)
    question = Pull(node.name, DIGEST, 0)
    given = 0
    while isinstance(rig.desk.endpoints.answer(question, b"", node.name), Part):
        given += 1
    assert 2 < given < 100
    assert isinstance(rig.pull(node.name, 1), Part)  # a moment later
    for _ in range(200):  # at a node's pace, for ever
        rig.clock.advance(0.125)
        assert isinstance(rig.pull(node.name, 0), Part)


def test_a_bundle_that_is_not_here_or_was_changed_is_not_offered(rig: Rig) -> None:
    path = rig.updates / f"{DIGEST.hex()}.raucb"
    path.write_bytes(CONTENT[:-1] + b"!")
    rig.begin(stages=(WHOLE,))
    assert isinstance(rig.ask(early(rig)[0]), Ack)
    (event,) = [one for one in rig.events if one["event"] == "missing"]
    assert "is not what was rolled out" in as_text(event)
    path.unlink()
    rig.store.rollouts.pause(ROLLOUT.rollout, "", now_ms=NOW)
    rig.notice()
    rig.store.rollouts.resume(ROLLOUT.rollout, now_ms=NOW)
    rig.notice()
    assert isinstance(rig.ask(early(rig)[0]), Ack)
    assert rig.events[-1]["event"] == "missing"


def test_two_controllers_at_one_store_count_every_failure(rig: Rig) -> None:
    rig.begin(stages=(WHOLE,), stop_after=1)
    first, second = early(rig)[:2]
    other = rig.another()
    for node in (first, second):
        offer = rig.ask(node)
        assert isinstance(offer, Bundle)
        node.bundle = offer.sha256
    rig.notice()
    for node, desk in ((first, rig.desk), (second, other)):  # one of them went elsewhere
        node.outcome = Outcome.ROLLED_BACK
        rig.ask(node, desk)
        desk.upgrades.flush()
    assert rig.state is State.PAUSED
    rig.notice()
    assert rig.desk.office.plan.rollout is not None
    assert rig.desk.office.plan.rollout.state is State.PAUSED


def test_a_controller_that_was_killed_learns_again_what_it_had_not_written(rig: Rig) -> None:
    rig.begin(stages=(WHOLE,))
    node = early(rig)[0]
    assert isinstance(rig.ask(node), Bundle)
    rig.desk = rig.another()  # nothing was flushed
    assert isinstance(rig.pull(node.name), Deny)
    assert isinstance(rig.ask(node), Bundle)
    assert isinstance(rig.pull(node.name), Part)


def test_a_store_that_fails_loses_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.begin(stages=(WHOLE,))
    node = early(rig)[0]
    rig.ask(node)

    def fail(*_: object, **__: object) -> str:
        raise StoreError("away")

    with monkeypatch.context() as broken:
        broken.setattr(rig.store.rollouts, "heard", fail)
        with pytest.raises(StoreError):
            rig.desk.upgrades.flush()
    rig.notice()
    assert [one.node for one in rig.store.rollouts.taken(ROLLOUT.rollout)] == [node.name]


def test_the_picture_counts_every_node_once(rig: Rig) -> None:
    rig.begin(stages=(1000, WHOLE), stop_after=9)
    order = early(rig)
    for node in order[:6]:
        rig.ask(node)
    steps = (Outcome.FETCHING, Outcome.INSTALLING, Outcome.TRYING, Outcome.ROLLED_BACK)
    turned = [n for n in order if has_turn(rig.store.rollouts.all()[-1], n.name)]
    for node, outcome in zip(turned, steps, strict=False):
        node.bundle, node.outcome = DIGEST, outcome
        rig.ask(node)
    rig.notice()
    tally = rig.tally()
    assert sum(stage.nodes for stage in tally.stages) == len(rig.fleet) == len(tally.nodes)
    assert Counter(tally.nodes.values())[Stands.SILENT] == len(rig.fleet) - 6
    text = shown_as(tally, "town")
    assert "running, stage 1 of 2 (10 %)" in text
    (bar,) = [line for line in text.splitlines() if line.startswith("[")]
    assert bar.index("]") == 51
    rig.clock.advance(2 * SILENT_MS / 1000)
    failed = [node for node, at in tally.nodes.items() if at in FAILED]
    later = rig.tally().nodes
    assert {at for node, at in later.items() if node not in failed} == {Stands.SILENT}


class Fleet(RuleBasedStateMachine):
    """Any order of orders and of words, true or not: what is given out is what may be had."""

    nodes = st.sampled_from([f"cam-{n}" for n in range(6)])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.rig = Rig(Path(self.folder.name), 6)
        self.number = 0
        self.offered: set[str] = set()
        self.failed: set[str] = set()

    def teardown(self) -> None:
        self.rig.close()
        self.folder.cleanup()

    @property
    def rollout(self) -> Rollout | None:
        return self.rig.store.rollouts.current()

    @precondition(lambda self: self.rollout is None)
    @rule(stop_after=st.integers(0, 3), stages=st.sampled_from([(5000, WHOLE), (WHOLE,)]))
    def start(self, stop_after: int, stages: tuple[int, ...]) -> None:
        self.number += 1
        name = f"0.2.0-{self.number}"
        started = NOW + self.number
        self.rig.begin(rollout=name, stop_after=stop_after, stages=stages, started_ms=started)
        self.offered, self.failed = set(), set()

    @precondition(lambda self: self.rollout is not None)
    @rule(order=st.sampled_from(["pause", "resume", "stop", "next"]))
    def order(self, order: str) -> None:
        assert self.rollout is not None
        name, rollouts = self.rollout.rollout, self.rig.store.rollouts
        if order == "next":
            with suppress(StoreError):
                rollouts.go_on(name, self.rollout.stage + 1, now_ms=NOW)
        elif order == "resume":
            rollouts.resume(name, now_ms=NOW)
        else:
            getattr(rollouts, order)(name, "so", now_ms=NOW)
        self.rig.notice()

    @rule(node=nodes, outcome=st.sampled_from(Outcome), new=st.booleans(), about=st.booleans(),
          tries=st.integers(0, 2))  # fmt: skip
    def ask(self, node: str, outcome: Outcome, *, new: bool, about: bool, tries: int) -> None:
        said = told(outcome, node=node, running=NEW if new else OLD, tries=tries,
                    bundle=DIGEST if about else None)  # fmt: skip
        self.rig.clock.advance(1)
        answer = self.rig.desk.endpoints.answer(said, b"", node)
        plan = self.rig.desk.office.plan.rollout
        if plan is not None and plan.rollout == self.rig.store.rollouts.all()[-1].rollout:
            steps = {one.node: one.step for one in self.rig.desk.upgrades._taken.values()}
            if steps.get(node) in FAILED:
                self.failed.add(node)
            elif steps.get(node) is Step.INSTALLED:
                self.failed.discard(node)
        if isinstance(answer, Bundle):
            assert plan is not None
            assert plan.state is State.RUNNING
            assert has_turn(plan, node)
            assert not new
            assert node not in self.failed
            self.offered.add(node)

    @rule(node=nodes, index=st.integers(0, 3))
    def pull(self, node: str, index: int) -> None:
        answer = self.rig.pull(node, index)
        plan = self.rig.desk.office.plan.rollout
        if isinstance(answer, Part):
            assert plan is not None
            assert plan.state is State.RUNNING
            assert node in self.offered - self.failed
            assert answer.content == CONTENT[index * PART_BYTES :][:PART_BYTES]

    @rule()
    def flush(self) -> None:
        self.rig.notice()
        rollout = self.rollout
        if rollout is not None and rollout.state is State.RUNNING:
            rows = self.rig.store.rollouts.taken(rollout.rollout)
            failed = sum(one.step in FAILED for one in rows)
            assert failed - rollout.tolerated <= rollout.stop_after


Fleet.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestFleet = Fleet.TestCase
