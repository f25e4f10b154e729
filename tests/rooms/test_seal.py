"""A sealed alert opens for the controller alone, and only as what its node made it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.alerts import seal
from appliance.alerts.seal import (
    ALERT_KEY_BYTES,
    ALERT_KEY_PRIVATE_BYTES,
    AlertKey,
    AlertPrivateKey,
    open_alert,
    seal_alert,
)
from appliance.errors import SealedAlertError, WireError
from appliance.wire import SEALED_MAX_BYTES, Alert, Row, encode
from tests.builders import an_alert

ALERT = an_alert(node="cam-017", sequence=7)
LONGEST = msgspec.structs.replace(
    ALERT,
    sequence=2**63 - 1,
    decided_utc_ms=2**63 - 1,
    **dict.fromkeys(("node", "deployment", "list_id", "subject", "occlusion", "model"), "x" * 48),
)
WATCH = Ed25519PrivateKey.generate()
KEY = AlertPrivateKey.generate()


def opened(row: Row, *, node: str = "cam-017", **keys: Any) -> Alert:
    watch_key = keys.get("watch_key", WATCH).public_key()
    return open_alert(row, node=node, watch_key=watch_key, alert_key=keys.get("alert_key", KEY))


@pytest.mark.parametrize("alert", [ALERT, LONGEST])
def test_the_controller_opens_what_the_watch_service_sealed(alert: Alert) -> None:
    row = seal_alert(alert, identity=WATCH, alert_key=KEY.public)
    assert (row.boot, row.sequence) == (alert.boot, alert.sequence)
    assert len(row.sealed) <= SEALED_MAX_BYTES
    assert opened(row, node=alert.node) == alert


def test_nothing_of_the_alert_is_told_in_the_open() -> None:
    row = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)
    for told in (b"subject-20", b"wanted", b"market-day", b"cam-017", ALERT.alert_id):
        assert told not in row.sealed
    again = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)
    assert again.sealed != row.sealed


def test_keys_come_back_from_their_bytes() -> None:
    assert (len(KEY.raw), len(KEY.public.raw)) == (ALERT_KEY_PRIVATE_BYTES, ALERT_KEY_BYTES)
    private, public = AlertPrivateKey.load(KEY.raw), AlertKey.load(KEY.public.raw)
    assert private.public.raw == KEY.public.raw
    row = seal_alert(ALERT, identity=WATCH, alert_key=public)
    assert opened(row, alert_key=private) == ALERT


def test_no_private_key_is_printed() -> None:
    assert repr(KEY.raw) not in repr(KEY)


@pytest.mark.parametrize("raw", [b"", bytes(96 + 1), bytes(1215), b"\xff" * ALERT_KEY_BYTES])
def test_what_is_no_key_is_refused(raw: bytes) -> None:
    for load in (AlertKey.load, AlertPrivateKey.load):
        with pytest.raises(SealedAlertError, match="alert key"):
            load(raw)


def test_the_nodes_own_keys_do_not_open_it() -> None:
    row = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)
    with pytest.raises(SealedAlertError, match="alert 7 of 'cam-017': does not open"):
        opened(row, alert_key=AlertPrivateKey.generate())


@pytest.mark.parametrize(
    "changed", [{"sequence": 8}, {"boot": b"c" * 16}], ids=["sequence", "boot"]
)
def test_a_row_cannot_be_given_another_number(changed: dict[str, Any]) -> None:
    row = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)
    with pytest.raises(SealedAlertError, match="does not open"):
        opened(msgspec.structs.replace(row, **changed))


def test_a_row_cannot_be_sent_by_another_node() -> None:
    row = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)
    with pytest.raises(SealedAlertError, match="alert 7 of 'cam-018': does not open"):
        opened(row, node="cam-018")


def test_whoever_has_the_public_key_alone_makes_up_no_alert() -> None:
    row = seal_alert(ALERT, identity=Ed25519PrivateKey.generate(), alert_key=KEY.public)
    with pytest.raises(SealedAlertError, match="not signed by its watch service"):
        opened(row)


def sealed(inside: bytes) -> Row:
    """Whatever the watch service's key signed, sealed as alert 7."""
    info = b"picket alert/1\0" + msgspec.msgpack.encode(("cam-017", b"b" * 16, 7))
    return Row(b"b" * 16, 7, seal._SUITE.encrypt(inside, KEY.public.hpke_key, info=info))


def signed(encoded: bytes) -> bytes:
    return WATCH.sign(b"picket alert/1\0" + encoded) + encoded


@pytest.mark.parametrize(
    "changed",
    [{"node": "cam-018"}, {"boot": b"c" * 16}, {"sequence": 8}],
    ids=["node", "boot", "sequence"],
)
def test_an_alert_that_is_not_the_one_its_row_says_is_refused(changed: dict[str, Any]) -> None:
    other = msgspec.structs.replace(ALERT, **changed)
    with pytest.raises(SealedAlertError, match="inside it is alert"):
        opened(sealed(signed(encode(other))))


def test_what_is_signed_and_no_alert_is_refused() -> None:
    with pytest.raises(WireError, match="not a message"):
        opened(sealed(signed(b"\xc0")))
    for inside in (b"", bytes(63), bytes(64)):
        with pytest.raises(SealedAlertError):
            opened(sealed(inside))
    with pytest.raises(SealedAlertError, match="too long for an alert"):
        opened(sealed(signed(bytes(513))))


def test_a_signature_for_another_purpose_is_refused() -> None:
    encoded = encode(ALERT)
    with pytest.raises(SealedAlertError, match="not signed"):
        opened(sealed(WATCH.sign(encoded) + encoded))


@pytest.mark.parametrize("changed", [{"sequence": 0}, {"node": "n" * 600}], ids=["0", "long"])
def test_what_may_not_leave_is_not_sealed(changed: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        seal_alert(msgspec.structs.replace(ALERT, **changed), identity=WATCH, alert_key=KEY.public)


ROW = seal_alert(ALERT, identity=WATCH, alert_key=KEY.public)


@given(st.binary(max_size=SEALED_MAX_BYTES))
@settings(deadline=None)
def test_random_bytes_are_refused(received: bytes) -> None:
    with pytest.raises(SealedAlertError):
        opened(Row(ROW.boot, ROW.sequence, received))


@given(st.data())
@settings(deadline=None)
def test_mutilated_rows_are_refused(data: st.DataObject) -> None:
    mutilated = bytearray(ROW.sealed)
    bit = data.draw(st.integers(0, 8 * len(mutilated) - 1))
    mutilated[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealedAlertError):
        opened(Row(ROW.boot, ROW.sequence, bytes(mutilated)))
