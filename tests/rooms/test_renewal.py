"""The node's certificate: renewed in time, replaced both or neither, never asked for in vain."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from appliance.controller import identity
from appliance.errors import CardError, DeniedError, IdentityError, LinkError
from appliance.link import credentials
from appliance.link.renewal import Renewal
from appliance.system.clock import SimulatedClock
from appliance.wire import Renew, Renewed

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
AUTHORITY = identity.new_authority("market", NOW)
CA = identity.pem(AUTHORITY.certificate)


def ns(when: datetime) -> int:
    return round(when.timestamp()) * 1_000_000_000


class Office:
    """A controller that renews."""

    def __init__(self, clock: SimulatedClock) -> None:
        self.clock = clock
        self.asked: list[Renew] = []
        self.fails: Exception | None = None
        self.name = "cam-1"

    def __call__(self, question: Renew) -> Renewed:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails
        utc_ns = self.clock.utc_ns()
        now = NOW if utc_ns is None else datetime.fromtimestamp(utc_ns / 1e9, UTC)
        issued = identity.issue_node(AUTHORITY, self.name, question.csr, now)
        return Renewed(identity.pem(issued))


@pytest.fixture
def state(tmp_path: Path) -> Path:
    key = credentials.new_key()
    issued = identity.issue_node(AUTHORITY, "cam-1", credentials.request_for(key, "cam-1"), NOW)
    credentials.keep_authority(tmp_path, CA)
    credentials.swap(tmp_path, key, identity.pem(issued))
    return tmp_path


@pytest.fixture
def clock() -> SimulatedClock:
    return SimulatedClock(utc_ns=ns(NOW))


@pytest.fixture
def office(clock: SimulatedClock) -> Office:
    return Office(clock)


@pytest.fixture
def renewal(state: Path, office: Office, clock: SimulatedClock) -> Renewal:
    return Renewal(state, "cam-1", office, server_name="controller", clock=clock)


def fits(state: Path) -> bool:
    certificate = x509.load_pem_x509_certificate((state / "tls.crt").read_bytes())
    return certificate.public_key() == credentials.load_key(state / "tls.key").public_key()


def test_a_young_certificate_is_left_alone(
    renewal: Renewal, office: Office, clock: SimulatedClock
) -> None:
    assert not renewal.step()
    clock.advance(19 * 86_400)
    assert not renewal.step()
    assert office.asked == []


def test_in_its_last_third_it_is_renewed_once_with_a_new_key(
    renewal: Renewal, office: Office, clock: SimulatedClock, state: Path
) -> None:
    before = renewal.tls
    clock.advance(21 * 86_400)
    assert renewal.step()
    assert not renewal.step()
    assert len(office.asked) == 1
    assert renewal.tls == credentials.load(state, "controller")
    assert renewal.tls.key != before.key
    assert renewal.tls.certificate != before.certificate
    assert fits(state)
    assert credentials.life(state)[1] == NOW + timedelta(days=51)
    assert (state / "tls.key").stat().st_mode & 0o777 == 0o600


def test_without_an_answer_it_is_asked_for_again_after_an_hour(
    renewal: Renewal, office: Office, clock: SimulatedClock, state: Path
) -> None:
    office.fails = LinkError("nobody there")
    before = (state / "tls.crt").read_bytes()
    clock.advance(21 * 86_400)
    assert not renewal.step()
    assert renewal.failed == "nobody there"
    clock.advance(3_500)
    assert not renewal.step()
    assert len(office.asked) == 1
    assert (state / "tls.crt").read_bytes() == before
    office.fails = None
    clock.advance(101)
    assert renewal.step()
    assert renewal.failed == ""


def test_a_clock_that_is_years_ahead_asks_once_an_hour_and_no_more(
    renewal: Renewal, office: Office, clock: SimulatedClock
) -> None:
    office.fails = DeniedError("not yet")
    clock.synchronise(ns(NOW + timedelta(days=3650)))
    for _ in range(100):
        renewal.step()
        clock.advance(60)
    assert len(office.asked) == 2


def test_without_a_clock_it_waits_for_the_controllers_and_believes_that_first(
    renewal: Renewal, office: Office, clock: SimulatedClock
) -> None:
    clock.synchronise(None)
    clock.advance(29 * 86_400)
    assert not renewal.step()
    renewal.heard(ns(NOW + timedelta(days=10)) // 1_000_000)
    clock.synchronise(ns(NOW + timedelta(days=29)))
    assert not renewal.step()
    assert office.asked == []
    clock.advance(11 * 86_400)
    assert renewal.step()


@pytest.mark.parametrize("wrong", ["another node", "another key", "another authority", "garbage"])
def test_an_answer_that_is_not_what_was_asked_for_changes_nothing(
    state: Path, clock: SimulatedClock, wrong: str
) -> None:
    def answer(question: Renew) -> Renewed:
        if wrong == "garbage":
            return Renewed(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        authority = AUTHORITY
        name, csr = "cam-1", question.csr
        if wrong == "another authority":
            authority = identity.new_authority("market", NOW)
        elif wrong == "another key":
            csr = credentials.request_for(credentials.new_key(), "cam-1")
        else:
            name, csr = "cam-2", credentials.request_for(credentials.new_key(), "cam-2")
        return Renewed(identity.pem(identity.issue_node(authority, name, csr, NOW)))

    before = {path.name: path.read_bytes() for path in state.iterdir()}
    renewal = Renewal(state, "cam-1", answer, server_name="controller", clock=clock)
    clock.advance(21 * 86_400)
    assert not renewal.step()
    assert renewal.failed
    assert {path.name: path.read_bytes() for path in state.iterdir()} == before


def test_what_cannot_be_written_is_said_and_the_old_one_stays(
    renewal: Renewal, clock: SimulatedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise CardError("tls.next: cannot be written: No space left on device")

    before = renewal.tls
    monkeypatch.setattr(credentials, "replace", full)
    clock.advance(21 * 86_400)
    assert not renewal.step()
    assert "No space left" in renewal.failed
    assert renewal.tls == before


@pytest.mark.parametrize("done", ["nothing", "key", "key and certificate"])
def test_a_replacement_that_was_cut_short_is_finished(state: Path, done: str) -> None:
    key = credentials.new_key()
    issued = identity.issue_node(AUTHORITY, "cam-1", credentials.request_for(key, "cam-1"), NOW)
    (state / "tls.next").write_bytes(credentials.key_pem(key) + identity.pem(issued))
    if done != "nothing":
        (state / "tls.key").write_bytes(credentials.key_pem(key))
    if done == "key and certificate":
        (state / "tls.crt").write_bytes(identity.pem(issued))
    tls = credentials.load(state, "controller")
    assert tls.certificate == identity.pem(issued)
    assert fits(state)
    assert not (state / "tls.next").exists()


def test_a_node_that_has_not_joined_says_so(tmp_path: Path, clock: SimulatedClock) -> None:
    ask: Callable[[Renew], Renewed] = Office(clock)
    with pytest.raises(IdentityError, match="has not joined"):
        Renewal(tmp_path, "cam-1", ask, server_name="controller", clock=clock)


_SWAPS = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from appliance.controller import identity
from appliance.link import credentials
state, now = Path(sys.argv[1]), datetime(2026, 5, 1, 12, tzinfo=UTC)
authority = identity.new_authority("market", now)
pairs = []
for _ in range(4):
    key = credentials.new_key()
    csr = credentials.request_for(key, "cam-1")
    pairs.append((key, identity.pem(identity.issue_node(authority, "cam-1", csr, now))))
print("ready", flush=True)
while True:
    for key, certificate in pairs:
        credentials.swap(state, key, certificate)
"""


@pytest.mark.slow
def test_killed_at_any_moment_key_and_certificate_still_fit(state: Path) -> None:
    rng = random.Random(4)  # noqa: S311 - moments, not secrets
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", _SWAPS, str(state)], stdout=subprocess.PIPE
        ) as swapping:
            assert swapping.stdout is not None
            assert swapping.stdout.readline() == b"ready\n"
            # Not a sleep for something to happen: the kill is to hit anywhere.
            with pytest.raises(subprocess.TimeoutExpired):
                swapping.wait(rng.uniform(0.0, 0.05))
            os.kill(swapping.pid, signal.SIGKILL)
        credentials.load(state, "controller")
        assert fits(state)
