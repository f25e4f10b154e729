"""What the controller answers, without a socket: honest nodes, and others."""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.alerts.seal import AlertPrivateKey, seal_alert
from appliance.controller import identity
from appliance.controller.desk import Desk
from appliance.controller.events import Event, as_json, as_text
from appliance.controller.joining import token_hash
from appliance.controller.plan import Progress, progress
from appliance.controller.sql import SqlStore
from appliance.controller.store import Deployment, ListRow, NodeRow, Seen, Status
from appliance.errors import StoreError, WireError
from appliance.system.clock import SimulatedClock
from appliance.watchlist.build import Facts, Templates, build
from appliance.watchlist.grant import GrantKey, Terms
from appliance.watchlist.stamp import Action, Stamp, open_stamp
from appliance.wire import (
    Ack,
    Answer,
    Bundle,
    Deny,
    Fetch,
    Health,
    Hello,
    Join,
    Joined,
    Offer,
    Outcome,
    Part,
    Piece,
    Poll,
    Pull,
    Renew,
    Renewed,
    Report,
    Row,
    Show,
    Upgrade,
    Welcome,
    decode_request,
    encode,
    hello_signed_part,
)
from tests.builders import a_health, an_alert

START_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
LEASE_S = 600
AUTHORITY = identity.new_authority("test", datetime.fromtimestamp(START_MS / 1000, UTC))
_WHERE = itertools.count()


class Memory:
    """Memory that anybody may read: good enough for a test's keys."""

    def __init__(self, size: int) -> None:
        self.view = memoryview(bytearray(size))

    def wipe(self) -> None:
        self.view[:] = bytes(len(self.view))


class Node:
    """The far end, as far as it speaks: its identity, its boots, what it asks."""

    def __init__(self, name: str) -> None:
        self.name, self.watch, self.tls = (
            name, Ed25519PrivateKey.generate(), generate_private_key(SECP256R1()),
        )  # fmt: skip
        self.boot, self.grant_key = bytes(16), GrantKey()
        self.start()

    def start(self) -> None:
        self.boot, self.grant_key = secrets.token_bytes(16), GrantKey()

    def csr(self, name: str = "") -> bytes:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name or self.name)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        return builder.sign(self.tls, SHA256()).public_bytes(Encoding.PEM)

    def join(self, token: bytes) -> Join:
        return Join(self.name, token, self.csr(), self.watch.public_key().public_bytes_raw())

    def hello(self) -> Hello:
        key = self.grant_key.public
        part = hello_signed_part(self.name, self.boot, key, "model@1")
        return Hello(self.name, self.boot, key, "model@1", self.watch.sign(part))

    def poll(
        self, in_use: tuple[str, int] = ("", 0), *, refused: str = "", wait_ms: int = 0
    ) -> Poll:
        nonce = secrets.token_bytes(16)
        return Poll(self.name, self.boot, nonce, *in_use, refused, 0, wait_ms)

    def row(self, sequence: int, key: AlertPrivateKey) -> Row:
        alert = an_alert(
            alert_id=secrets.token_bytes(16), node=self.name, boot=self.boot, sequence=sequence
        )
        return seal_alert(alert, identity=self.watch, alert_key=key.public)

    def health(self) -> Health:
        return a_health(
            node=self.name,
            boot=self.boot,
            fps=15.0,
            list_id="market",
            list_version=1,
            subjects=2,
        )


class Rig:
    """A controller without sockets, a clock to move, and an operator's hands on its store."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimulatedClock(utc_ns=START_MS * 1_000_000)
        self.store = SqlStore(f"sqlite:///{folder / f'{next(_WHERE)}.db'}")
        self.online, self.alert_key = Ed25519PrivateKey.generate(), AlertPrivateKey.generate()
        self.events: list[Event] = []
        self.lists: dict[int, ListRow] = {}
        self.restart()

    def restart(self) -> None:
        self.desk = Desk(
            self.store,
            online_key=self.online,
            alert_key=self.alert_key,
            issue=lambda node, csr, now: identity.issue_node(AUTHORITY, node, csr, now),
            clock=self.clock,
            utc_ms=self.now_ms,
            silent_hours=72.0,
            notify=self.events.append,
        )

    def now_ms(self) -> int:
        return (self.clock.utc_ns() or 0) // 1_000_000

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def refresh(self) -> None:
        self.desk.office.refresh()

    def invited(self, name: str = "cam-1") -> tuple[Node, bytes]:
        token = secrets.token_bytes(32)
        self.store.nodes.invite(
            name,
            token_hash=token_hash(token),
            expires_ms=self.now_ms() + HOUR_MS,
            now_ms=self.now_ms(),
        )
        return Node(name), token

    def joined(self, name: str = "cam-1") -> Node:
        node, token = self.invited(name)
        assert isinstance(self.desk.joining.answer(node.join(token)), Joined)
        return node

    def greeted(self, name: str = "cam-1") -> Node:
        node = self.joined(name)
        assert isinstance(self.ask(node.hello()), Welcome)
        return node

    def ask(self, request: object, *, peer: str | None = None, to: bytes = b"to") -> Answer | None:
        own = getattr(request, "node", None)
        return self.desk.endpoints.answer(request, to, peer or own)  # type: ignore[arg-type]  # hostile ones, too

    def listed(self, version: int = 1) -> ListRow:
        if version in self.lists:
            return self.lists[version]
        key = secrets.token_bytes(32)
        pieces: list[bytes] = []
        vectors = np.eye(4, 8, dtype=np.float32)
        facts = Facts(
            list_id="market", version=version, fleet="test", created_utc_ms=START_MS,
            not_before_utc_ms=START_MS, expires_utc_ms=START_MS + 24 * HOUR_MS,
            deployment="market-day", legal_basis="s. 1", officer="1", target_fpir=0.001,
            threshold_floor=0.4,
        )  # fmt: skip
        columns = {"whole": Templates("model@1", [2, 2], vectors)}
        head, digests = build(facts, ["a", "b"], columns, content_key=key, write=pieces.append)
        row = ListRow("market", version, "market-day", head, digests, key, {}, self.now_ms())
        self.store.lists.add(row, pieces)
        self.lists[version] = row
        return row

    def deploy(self, version: int = 1, *, nodes: str = "cam-*", hours: float = 8) -> ListRow:
        row = self.listed(version)
        until_ms = self.now_ms() + round(hours * HOUR_MS)
        self.store.deployments.start(
            Deployment("market-day", "market", version, (nodes,), until_ms, "a", "p", "l", LEASE_S,
                       self.now_ms()),
            now_ms=self.now_ms(),
        )  # fmt: skip
        self.refresh()
        return row

    def stamp(self, answer: Answer | None, poll: Poll) -> Stamp:
        assert isinstance(answer, Offer), answer
        stamp = open_stamp(answer.stamp, self.online.public_key())
        assert (stamp.node, stamp.nonce) == (poll.node, poll.nonce)
        return stamp

    def told(self, kind: str) -> list[Event]:
        return [e for e in self.events if e["event"] == kind]

    def row(self, name: str = "cam-1") -> NodeRow:
        self.desk.attendance.flush()
        row = self.store.nodes.get(name)
        assert row is not None
        return row

    def progress(self, name: str = "cam-1") -> Progress:
        self.refresh()
        return progress(
            self.row(name), self.desk.office.plan.wanted(name, self.now_ms()), self.now_ms()
        )


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.store.close()


# Joining


def test_a_node_joins_with_its_token_and_gets_a_certificate_in_its_name(rig: Rig) -> None:
    node, token = rig.invited()
    answer = rig.desk.joining.answer(node.join(token))
    assert isinstance(answer, Joined)
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    assert certificate.subject.rfc4514_string() == "CN=cam-1"
    assert certificate.public_key() == node.tls.public_key()
    row = rig.row()
    assert (row.status, row.serials) == (Status.JOINED, (certificate.serial_number,))
    assert rig.desk.office.admits("cam-1"), "at once, without waiting for the next look"


def test_a_lost_answer_to_a_join_is_given_again(rig: Rig) -> None:
    node, token = rig.invited()
    join = node.join(token)
    assert isinstance(rig.desk.joining.answer(join), Joined)
    assert isinstance(rig.desk.joining.answer(join), Joined)


def test_refuses_a_token_that_was_used_by_another_request(rig: Rig) -> None:
    node, token = rig.invited()
    rig.desk.joining.answer(node.join(token))
    thief = Node("cam-1")
    answer = rig.desk.joining.answer(thief.join(token))
    assert answer == Deny("node cam-1: its token was used by another request")
    assert rig.row().watch_key == node.watch.public_key().public_bytes_raw()


@pytest.mark.parametrize("case", ["unknown", "wrong token", "expired", "revoked", "no token"])
def test_refuses_a_stranger_with_the_same_words_whatever_is_wrong(rig: Rig, case: str) -> None:
    node, token = rig.invited()
    if case == "unknown":
        node = Node("cam-9")
    elif case == "wrong token":
        token = secrets.token_bytes(32)
    elif case == "expired":
        rig.advance(2 * 3600)
    elif case == "revoked":
        rig.store.nodes.set_status("cam-1", Status.REVOKED, "", now_ms=0)
    else:
        token = bytes(32)
        node = Node("cam-9")
    answer = rig.desk.joining.answer(node.join(token))
    assert answer == Deny("no node of this name is expected with this token")
    assert [e["node"] for e in rig.told("denied")] == [node.name]


def test_refuses_a_request_for_another_name_and_keeps_the_token(rig: Rig) -> None:
    node, token = rig.invited()
    join = msgspec.structs.replace(node.join(token), csr=node.csr("cam-2"))
    assert isinstance(rig.desk.joining.answer(join), Deny)
    join = msgspec.structs.replace(join, csr=b"no request at all")
    assert isinstance(rig.desk.joining.answer(join), Deny)
    assert isinstance(rig.desk.joining.answer(node.join(token)), Joined)


def test_the_join_port_answers_nothing_else(rig: Rig) -> None:
    node = rig.greeted()
    assert isinstance(rig.desk.joining.answer(node.poll()), Deny)


# Who may ask


def test_refuses_a_node_that_asks_in_anothers_name(rig: Rig) -> None:
    one, _ = rig.greeted("cam-1"), rig.greeted("cam-2")
    questions = (
        one.hello(), one.poll(), one.health(), Fetch("cam-1", "market", 1, 0),
        Report("cam-1", (one.row(1, rig.alert_key),)), Renew("cam-1", one.csr()),
        Join("cam-1", bytes(32), b"x", bytes(32)), Show("idle", camera_on=False),
    )  # fmt: skip
    for question in questions:
        with pytest.raises(WireError, match="not its own question"):
            rig.ask(question, peer="cam-2")
    assert rig.store.alerts.counts() == (0, 0)


def test_refuses_a_node_that_is_unknown_or_was_revoked(rig: Rig) -> None:
    node = rig.greeted()
    rig.store.nodes.set_status("cam-1", Status.REVOKED, "stolen", now_ms=rig.now_ms())
    rig.refresh()
    for question in (node.hello(), node.poll(), node.health(), Node("cam-9").hello()):
        assert isinstance(rig.ask(question), Deny)
    assert not rig.desk.office.admits("cam-1")


def test_a_revoked_node_that_waits_is_told_to_wipe(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    poll = _accept(rig, node, wait_ms=20_000)
    rig.store.nodes.set_status("cam-1", Status.REVOKED, "stolen", now_ms=rig.now_ms())
    rig.refresh()
    ((_, answer),) = rig.desk.polls.expire()
    assert rig.stamp(answer, poll).action is Action.WIPE


def test_refuses_a_hello_that_its_watch_service_did_not_sign(rig: Rig) -> None:
    node = rig.joined()
    thief = Node("cam-1")
    assert isinstance(rig.ask(thief.hello()), Deny)
    swapped = msgspec.structs.replace(node.hello(), grant_key=thief.grant_key.public)
    assert isinstance(rig.ask(swapped), Deny)
    assert isinstance(rig.ask(node.hello()), Welcome)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_answered_by_anything_but_an_error(junk: bytes) -> None:
    try:
        decode_request(junk)
    except WireError:
        return


# Lists


def _accept(rig: Rig, node: Node, *, wait_ms: int = 0) -> Poll:
    """Poll, take what is offered, and say so; the poll that says so."""
    poll = node.poll()
    stamp = rig.stamp(rig.ask(poll), poll)
    accepting = node.poll((stamp.list_id, stamp.version), wait_ms=wait_ms)
    answer = rig.ask(accepting, to=b"parked")
    assert answer is None if wait_ms else isinstance(answer, Ack)
    return accepting


def test_a_list_is_pushed_with_a_grant_that_opens_and_its_acceptance_is_known(rig: Rig) -> None:
    row = rig.deploy()
    node = rig.greeted()
    assert rig.progress() is Progress.WAITING
    poll = node.poll()
    answer = rig.ask(poll)
    stamp = rig.stamp(answer, poll)
    assert isinstance(answer, Offer)
    assert (stamp.action, stamp.list_id, stamp.version) == (Action.GRANT, "market", 1)
    assert (stamp.lease_s, stamp.now_utc_ms) == (LEASE_S, rig.now_ms())
    assert (answer.head, answer.digests) == (row.head, row.digests)
    digest = hashlib.sha256(row.head).digest()
    terms = Terms("cam-1", node.boot, poll.nonce, digest, "market-day", LEASE_S)
    assert bytes(node.grant_key.open_grant(answer.grant, terms, Memory).view) == row.content_key
    assert rig.progress() is Progress.DELIVERED
    sealed = rig.ask(Fetch("cam-1", "market", 1, 0))
    assert isinstance(sealed, Piece)
    assert hashlib.sha256(sealed.sealed).digest() == row.digests[:32]
    assert isinstance(rig.ask(node.poll(("market", 1))), Ack)
    assert rig.progress() is Progress.ACCEPTED
    assert [e["event"] for e in rig.events] == ["joined", "hello", "pushed", "accepted"]
    rig.desk.lines.flush(rig.store.records)
    assert rig.store.records.after(0)[-1].kind == "list-accepted"


def test_a_parked_poll_is_answered_by_the_next_version_at_once(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    poll = _accept(rig, node, wait_ms=20_000)
    assert rig.desk.polls.expire() == []
    rig.deploy(2)
    ((to, answer),) = rig.desk.polls.expire()
    assert to == b"parked"
    assert rig.stamp(answer, poll).version == 2
    assert rig.desk.polls.expire() == [], "answered once"


def test_a_parked_poll_is_answered_with_nothing_new_when_its_time_is_up(rig: Rig) -> None:
    node = rig.greeted()
    assert rig.ask(node.poll(wait_ms=20_000)) is None
    rig.advance(19.9)
    assert rig.desk.polls.expire() == []
    rig.advance(0.1)
    assert [answer for _, answer in rig.desk.polls.expire()] == [Ack()]


def test_a_list_goes_to_the_nodes_that_it_is_meant_for_alone(rig: Rig) -> None:
    rig.deploy(nodes="cam-1")
    _, other = rig.greeted("cam-1"), rig.greeted("cam-2")
    assert isinstance(rig.ask(other.poll()), Ack)
    assert isinstance(rig.ask(Fetch("cam-2", "market", 1, 0)), Deny)
    assert rig.progress("cam-2") is Progress.IDLE


def test_refuses_pieces_that_there_are_none_of(rig: Rig) -> None:
    rig.deploy()
    rig.greeted()
    assert isinstance(rig.ask(Fetch("cam-1", "market", 1, 2**63 - 1)), Deny)
    assert isinstance(rig.ask(Fetch("cam-1", "market", 2, 0)), Deny)
    assert isinstance(rig.ask(Fetch("cam-1", "other", 1, 0)), Deny)


def test_a_refused_list_is_known_with_its_reason_and_offered_again_a_minute_later(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    rig.ask(node.poll())
    assert isinstance(rig.ask(node.poll(refused="made by another model")), Ack)
    assert rig.progress() is Progress.REFUSED
    assert rig.row().seen.refused == "made by another model"
    assert [e["reason"] for e in rig.told("refused")] == ["made by another model"]
    rig.advance(59)
    assert isinstance(rig.ask(node.poll(refused="made by another model")), Ack)
    rig.advance(1)
    assert isinstance(rig.ask(node.poll(refused="made by another model")), Offer)
    rig.deploy(2)
    assert isinstance(rig.ask(node.poll()), Offer), "another version at once"


def test_a_lost_push_is_sent_again_after_a_moment(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    assert isinstance(rig.ask(node.poll()), Offer)
    assert isinstance(rig.ask(node.poll()), Ack), "not as fast as it asks"
    rig.advance(1)
    assert isinstance(rig.ask(node.poll()), Offer)


def test_a_lease_is_renewed_at_half_time_and_never_beyond_the_end(rig: Rig) -> None:
    rig.deploy(hours=LEASE_S * 1.25 / 3600)
    node = rig.greeted()
    _accept(rig, node)
    rig.advance(LEASE_S / 2 - 1)
    assert isinstance(rig.ask(node.poll(("market", 1))), Ack)
    rig.advance(1)
    poll = node.poll(("market", 1))
    stamp = rig.stamp(rig.ask(poll), poll)
    assert (stamp.version, stamp.lease_s) == (1, LEASE_S * 0.75)
    rig.advance(LEASE_S / 2)
    assert isinstance(rig.ask(node.poll(("market", 1))), Ack), "it lasts until the end"
    rig.advance(LEASE_S / 4)
    poll = node.poll(("market", 1))
    assert rig.stamp(rig.ask(poll), poll).action is Action.WITHDRAW


def test_an_end_that_is_put_off_is_granted_at_once(rig: Rig) -> None:
    rig.deploy(hours=0.1)
    node = rig.greeted()
    _accept(rig, node)
    rig.deploy(1, hours=2)
    poll = node.poll(("market", 1))
    assert rig.stamp(rig.ask(poll), poll).lease_s == LEASE_S


def test_a_stopped_deployment_is_withdrawn_until_the_node_has_closed_it(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    poll = _accept(rig, node, wait_ms=20_000)
    rig.store.deployments.stop("market-day", ended_by="stop", now_ms=rig.now_ms())
    rig.refresh()
    ((_, answer),) = rig.desk.polls.expire()
    stamp = rig.stamp(answer, poll)
    assert (stamp.action, stamp.list_id) == (Action.WITHDRAW, "market")
    assert isinstance(rig.ask(node.poll(("market", 1))), Ack)
    rig.advance(1)
    poll = node.poll(("market", 1))
    assert rig.stamp(rig.ask(poll), poll).action is Action.WITHDRAW
    assert isinstance(rig.ask(node.poll()), Ack)
    assert isinstance(rig.ask(Fetch("cam-1", "market", 1, 0)), Deny)


def test_a_wipe_is_said_first_and_known_to_be_done(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    poll = _accept(rig, node, wait_ms=20_000)
    rig.store.deployments.order_wipe(["cam-1"], now_ms=rig.now_ms())
    rig.store.nodes.set_status("cam-1", Status.QUARANTINED, "wiped", now_ms=rig.now_ms())
    rig.refresh()
    ((_, answer),) = rig.desk.polls.expire()
    assert rig.stamp(answer, poll).action is Action.WIPE
    node.grant_key = GrantKey()
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert isinstance(rig.ask(node.poll()), Deny)
    (order,) = rig.store.deployments.wipes()
    assert order.done_ms == rig.now_ms()
    assert len(rig.told("wiped")) == 1


def test_a_wipe_whose_order_was_lost_is_not_taken_for_done(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    lost = node.poll()
    assert isinstance(rig.ask(lost), Offer)  # it begins to fetch, and has the key in its memory
    rig.store.deployments.order_wipe(["cam-1"], now_ms=rig.now_ms())
    rig.store.nodes.set_status("cam-1", Status.QUARANTINED, "wiped", now_ms=rig.now_ms())
    rig.refresh()
    poll = node.poll()
    assert rig.stamp(rig.ask(poll), poll).action is Action.WIPE
    rig.ask(node.poll())  # the order was lost: no list is in use, as before
    (order,) = rig.store.deployments.wipes()
    assert order.done_ms is None
    rig.advance(1)
    poll = node.poll()
    assert rig.stamp(rig.ask(poll), poll).action is Action.WIPE
    node.start()  # what was in its memory is gone with its power
    assert isinstance(rig.ask(node.hello()), Welcome)
    rig.ask(node.poll())
    (order,) = rig.store.deployments.wipes()
    assert order.done_ms == rig.now_ms()


def test_what_a_node_says_of_a_refusal_can_be_kept(rig: Rig) -> None:
    node = rig.greeted()
    rig.ask(node.poll(refused="no\0\x1b[2Jgood"))  # PostgreSQL keeps no text with a zero in it
    assert rig.row().seen.refused == "no??[2Jgood"


def test_a_piece_beyond_the_list_is_not_looked_for(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.deploy()
    node = rig.greeted()

    def piece(*_: object) -> bytes:
        raise StoreError("integer out of range")  # what PostgreSQL says

    monkeypatch.setattr(rig.store.lists, "piece", piece)
    for index in (2, 2**40, 2**63 - 1):
        answer = rig.ask(Fetch(node.name, "market", 1, index))
        assert answer == Deny(f"the list has no piece {index}")


def test_no_key_is_in_what_is_printed_of_a_row(rig: Rig) -> None:
    row = rig.listed()
    assert row.content_key is not None
    assert repr(row.content_key) not in repr(row)


def test_an_unknown_boot_says_hello_again_after_the_controller_was_restarted(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    _accept(rig, node)
    rig.desk.attendance.flush()
    rig.restart()
    assert rig.ask(node.poll(("market", 1))) == Deny("unknown boot")
    assert isinstance(rig.ask(node.hello()), Welcome)
    poll = node.poll(("market", 1))
    assert rig.stamp(rig.ask(poll), poll).action is Action.GRANT
    assert rig.row().status is Status.JOINED


# Quarantine


def test_two_boots_at_once_are_quarantined_until_confirmed(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    first = node.boot, node.grant_key
    node.start()
    assert isinstance(rig.ask(node.hello()), Welcome), "a node may start again"
    assert rig.row().status is Status.JOINED
    node.boot, node.grant_key = first
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.QUARANTINED
    assert rig.ask(node.poll(wait_ms=1000)) is None
    rig.advance(1)
    ((_, answer),) = rig.desk.polls.expire()
    assert isinstance(answer, Deny)
    assert answer.reason.startswith("quarantined: two machines")
    assert isinstance(rig.ask(Fetch("cam-1", "market", 1, 0)), Deny)
    rig.store.nodes.set_status("cam-1", Status.JOINED, "", now_ms=rig.now_ms())
    rig.refresh()
    assert isinstance(rig.ask(node.poll()), Offer)


def test_a_boot_that_was_before_a_restart_of_the_controller_is_remembered(rig: Rig) -> None:
    node = rig.greeted()
    first = node.boot
    rig.desk.attendance.flush()
    rig.restart()
    node.start()
    rig.ask(node.hello())
    assert rig.row().status is Status.JOINED
    node.boot = first
    rig.ask(node.hello())
    assert rig.row().status is Status.QUARANTINED


def test_a_long_silence_is_quarantined_and_a_short_one_is_not(rig: Rig) -> None:
    node = rig.greeted()
    rig.advance(71 * 3600)
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.JOINED
    rig.advance(73 * 3600)
    node.start()
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.QUARANTINED
    assert rig.row().reason == "came back after 73.0 hours of silence"
    assert rig.store.records.after(0)[-1].kind == "node-quarantined"


@pytest.mark.parametrize("first", ["health", "report", "poll", "fetch", "upgrade", "pull"])
def test_no_other_question_makes_a_long_silence_harmless(rig: Rig, first: str) -> None:
    rig.deploy()
    node = rig.greeted()
    _accept(rig, node)
    rig.advance(73.5 * 3600)
    row = node.row(1, rig.alert_key)
    questions = {
        "health": node.health(),
        "report": Report("cam-1", (row,)),
        "poll": node.poll(),
        "fetch": Fetch("cam-1", "market", 1, 0),
        "upgrade": Upgrade("cam-1", (0, 1, 0, 0), Outcome.NONE, None),
        "pull": Pull("cam-1", bytes(32), 0),
    }
    answer = rig.ask(questions[first])
    assert not isinstance(answer, Offer | Piece | Bundle | Part)
    about_updates = first in {"upgrade", "pull"}
    assert rig.row().status is (Status.JOINED if about_updates else Status.QUARANTINED)
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.QUARANTINED
    assert rig.row().reason == "came back after 73.5 hours of silence"
    assert isinstance(rig.ask(node.poll()), Deny)
    assert len(rig.told("quarantined")) == 1


def test_a_wall_clock_that_jumps_is_no_silence(rig: Rig) -> None:
    node = rig.greeted()
    rig.ask(node.health())
    rig.clock.synchronise((START_MS + 9000 * HOUR_MS) * 1_000_000)
    assert isinstance(rig.ask(node.health()), Ack)
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.JOINED


def test_a_store_that_fails_makes_no_silence_harmless(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = rig.greeted()
    rig.advance(73 * 3600)

    def set_status(*_: object, **__: object) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as failing:
        failing.setattr(rig.store.nodes, "set_status", set_status)
        for question in (node.health(), node.hello(), node.poll()):
            assert isinstance(rig.ask(question), Deny)
    assert isinstance(rig.ask(node.health()), Ack)
    assert rig.row().status is Status.QUARANTINED


def test_a_node_that_another_controller_has_heard_was_not_silent(rig: Rig) -> None:
    node = rig.greeted()
    rig.advance(71 * 3600)
    rig.store.nodes.heard([Seen("cam-1", node.boot, rig.now_ms())])
    rig.advance(3600 * 2)
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.JOINED


def test_a_node_that_joins_again_after_a_long_silence_is_trusted(rig: Rig) -> None:
    rig.greeted()
    rig.advance(1000 * 3600)
    token = secrets.token_bytes(32)
    rig.store.nodes.invite(
        "cam-1",
        token_hash=token_hash(token),
        expires_ms=rig.now_ms() + HOUR_MS,
        now_ms=rig.now_ms(),
        again=True,
    )
    node = Node("cam-1")
    assert isinstance(rig.desk.joining.answer(node.join(token)), Joined)
    assert isinstance(rig.ask(node.hello()), Welcome)
    assert rig.row().status is Status.JOINED


# Alerts and health


def test_alerts_are_acknowledged_after_they_are_stored_once(rig: Rig) -> None:
    node = rig.greeted()
    rows = tuple(node.row(n, rig.alert_key) for n in (1, 2, 4))
    assert rig.ask(Report("cam-1", rows), to=b"one") is None
    assert rig.ask(Report("cam-1", rows[:1]), to=b"two") is None
    assert rig.store.alerts.counts() == (0, 0)
    assert rig.desk.reception.step() == [(b"one", Ack()), (b"two", Ack())]
    assert rig.store.alerts.counts() == (3, 0)
    kinds = [e["event"] for e in rig.events[2:]]
    assert kinds == ["alert", "alert", "gap", "alert", "duplicate"]
    alert = rig.told("alert")[0]
    assert (alert["subject"], alert["sequence"]) == ("subject-20", 1)
    assert alert["received_boot_ns"] == rig.clock.boot_ns()
    assert isinstance(alert["nbytes"], int)


def test_an_alert_that_does_not_open_is_kept_told_and_acknowledged(rig: Rig) -> None:
    node, other = rig.greeted("cam-1"), rig.greeted("cam-2")
    stolen = msgspec.structs.replace(other.row(7, rig.alert_key), boot=node.boot, sequence=2)
    forged = Node("cam-1")
    forged.boot = node.boot
    rows = (Row(node.boot, 1, b"junk"), stolen, forged.row(3, rig.alert_key))
    assert rig.ask(Report("cam-1", rows)) is None
    assert [answer for _, answer in rig.desk.reception.step()] == [Ack()]
    assert rig.store.alerts.counts() == (3, 3)
    assert [e["sequence"] for e in rig.told("unreadable")] == [1, 2, 3]
    assert rig.desk.reception.unreadable == 3
    assert not rig.told("alert")


def test_another_alert_under_a_number_that_is_taken_is_an_alarm(rig: Rig) -> None:
    node = rig.greeted()
    for _ in range(2):
        rig.ask(Report("cam-1", (node.row(1, rig.alert_key),)))  # sealed anew: other bytes
        rig.desk.reception.step()
    assert [e["sequence"] for e in rig.told("conflict")] == [1]
    assert len(rig.store.alerts.conflicts()) == 1


def test_nothing_is_acknowledged_while_the_store_fails(rig: Rig, tmp_path: Path) -> None:
    node = rig.greeted()
    rig.ask(Report("cam-1", (node.row(1, rig.alert_key),)))
    path = next(tmp_path.glob("*.db"))
    hidden = path.with_suffix(".hidden")
    rig.store.close()
    path.rename(hidden)
    path.mkdir()
    assert rig.desk.reception.step() == []
    path.rmdir()
    hidden.rename(path)
    rig.ask(Report("cam-1", (node.row(1, rig.alert_key),)))
    assert [answer for _, answer in rig.desk.reception.step()] == [Ack()]


def test_a_node_is_not_told_where_the_store_is_when_that_fails(rig: Rig, tmp_path: Path) -> None:
    rig.deploy()
    rig.greeted()
    node, token = rig.invited("cam-2")
    rig.store.close()
    path = next(tmp_path.glob("*.db"))
    path.rename(path.with_suffix(".hidden"))
    path.mkdir()
    answers = rig.ask(Fetch("cam-1", "market", 1, 0)), rig.desk.joining.answer(node.join(token))
    assert set(answers) == {Deny("the controller cannot reach its store; ask again")}


def test_reports_beyond_what_can_wait_are_turned_away(rig: Rig) -> None:
    node = rig.greeted()
    report = Report("cam-1", (node.row(1, rig.alert_key),))
    answers = [rig.ask(report) for _ in range(1030)]
    assert answers[:1024] == [None] * 1024
    assert isinstance(answers[-1], Deny)
    assert rig.desk.reception.turned_away == 6
    while replies := rig.desk.reception.step():
        assert len(replies) <= 512
    assert rig.store.alerts.counts() == (1, 0)


def test_health_is_kept_and_told(rig: Rig) -> None:
    node = rig.greeted()
    assert isinstance(rig.ask(node.health()), Ack)
    (told,) = rig.told("health")
    assert (told["state"], told["received_boot_ns"]) == ("watching", rig.clock.boot_ns())
    assert rig.row().seen.health == node.health()
    assert "\x1b" not in as_text(told)
    assert msgspec.json.decode(as_json(told))["fps"] == 15.0


def test_a_certificate_is_renewed_for_the_asker_once_a_minute(rig: Rig) -> None:
    node = rig.greeted()
    answer = rig.ask(Renew("cam-1", node.csr()))
    assert isinstance(answer, Renewed)
    certificate = x509.load_pem_x509_certificate(answer.certificate)
    assert rig.row().serials[-1] == certificate.serial_number
    assert isinstance(rig.ask(Renew("cam-1", node.csr())), Deny)
    rig.advance(60)
    assert isinstance(rig.ask(Renew("cam-1", node.csr("cam-2"))), Deny)
    assert isinstance(rig.ask(Renew("cam-1", node.csr())), Renewed)
    assert len(rig.row().serials) == 3


def test_every_answer_fits_the_wire(rig: Rig) -> None:
    rig.deploy()
    node = rig.greeted()
    offer = rig.ask(node.poll())
    assert isinstance(offer, Offer)
    assert len(encode(offer)) < 8 * 1024
