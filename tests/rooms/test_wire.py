"""Every message survives the wire; whatever is not one is a WireError and nothing else."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import inspect

from appliance.errors import WireError
from appliance.wire import (
    ALERT_MAX_BYTES,
    ANSWER_MAX_BYTES,
    GRANT_KEY_BYTES,
    PIECE_MAX_BYTES,
    REQUEST_MAX_BYTES,
    ROWS_PER_REPORT,
    SEALED_MAX_BYTES,
    Ack,
    Alert,
    Answer,
    Deny,
    Fetch,
    Health,
    Hello,
    Offer,
    Piece,
    Poll,
    Renew,
    Report,
    Request,
    Row,
    Show,
    decode_alert,
    decode_answer,
    decode_request,
    encode,
    hello_signed_part,
    printable,
)

_LONGEST_IN_TESTS = 300


def legal(kind: inspect.Type) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - one line per kind
    """Values that a field's own bounds allow, from the declaration itself."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return st.integers(low, high)
        case inspect.FloatType(ge=low, le=high):
            return st.floats(low, high)
        case inspect.StrType(pattern=str(), min_length=least, max_length=most):
            return st.text("AZaz09._:@-", min_size=least or 0, max_size=most)
        case inspect.StrType(max_length=most):
            return st.text(st.characters(exclude_categories=["Cs"]), max_size=most)
        case inspect.BytesType(min_length=given_least, max_length=int() as most):
            least = given_least or 0
            return st.binary(min_size=least, max_size=max(least, min(most, _LONGEST_IN_TESTS)))
        case inspect.EnumType(cls=enum):
            return st.sampled_from(enum)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.UnionType(types=types):
            return st.one_of(*map(legal, types))
        case inspect.TupleType(item_types=types):
            return st.tuples(*map(legal, types))
        case inspect.VarTupleType(item_type=item, min_length=least):
            return st.lists(legal(item), min_size=least or 0, max_size=3).map(tuple)
        case inspect.StructType(cls=cls, fields=fields):
            return st.builds(cls, *[legal(field.type) for field in fields])
    raise AssertionError(f"a field of a new kind: {kind}")


def largest(kind: inspect.Type) -> Any:  # noqa: C901, PLR0911 - one line per kind
    """The legal value that takes the most bytes."""
    match kind:
        case inspect.IntType(le=int() as high):
            return high
        case inspect.FloatType():
            return 0.1
        case inspect.StrType(pattern=str(), max_length=int() as most):
            return "x" * most
        case inspect.StrType(max_length=int() as most):
            return "\U0001f600" * most  # four bytes a character
        case inspect.BytesType(max_length=int() as most):
            return b"x" * most
        case inspect.UnionType(types=types):
            return max((largest(t) for t in types), key=lambda v: len(msgspec.msgpack.encode(v)))
        case inspect.TupleType(item_types=types):
            return tuple(map(largest, types))
        case inspect.VarTupleType(item_type=item, max_length=int() as most):
            return (largest(item),) * most
        case inspect.StructType(cls=cls, fields=fields):
            return cls(*[largest(field.type) for field in fields])
        case inspect.EnumType(cls=enum):
            return max(enum, key=lambda one: len(str(one.value)))
        case inspect.BoolType():
            return True
        case inspect.NoneType():
            return None
    raise AssertionError(f"unbounded, or of a new kind: {kind}")


def fields_of(cls: type) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info.fields


QUESTIONS: tuple[type, ...] = get_args(Request)
SAID: tuple[type, ...] = get_args(Answer)
REQUESTS = st.one_of(*[legal(inspect.type_info(cls)) for cls in QUESTIONS])
ANSWERS = st.one_of(*[legal(inspect.type_info(cls)) for cls in SAID])
AN_ALERT: Alert = largest(inspect.type_info(Alert))


@given(REQUESTS)
def test_every_request_survives_the_wire(request: Any) -> None:
    assert decode_request(encode(request)) == request


@given(ANSWERS)
def test_every_answer_survives_the_wire(answer: Any) -> None:
    assert decode_answer(encode(answer)) == answer


def test_an_alert_is_a_tuple() -> None:
    unpacked = msgspec.msgpack.decode(encode(AN_ALERT))
    assert unpacked[:2] == ["alert/1", AN_ALERT.alert_id]
    assert len(unpacked) == 1 + len(fields_of(Alert))


def test_the_largest_legal_alert_is_within_the_bound() -> None:
    encoded = encode(AN_ALERT)
    assert len(encoded) == 483
    assert len(encoded) <= ALERT_MAX_BYTES
    assert decode_alert(encoded) == AN_ALERT


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_largest_legal_question_is_within_the_bound(question: type) -> None:
    message = largest(inspect.type_info(question))
    assert len(encode(message)) <= REQUEST_MAX_BYTES
    assert decode_request(encode(message)) == message


@pytest.mark.parametrize("answer", SAID)
def test_the_largest_legal_answer_is_within_the_bound(answer: type) -> None:
    message = largest(inspect.type_info(answer))
    assert len(encode(message)) <= ANSWER_MAX_BYTES
    assert decode_answer(encode(message)) == message


def test_a_full_report_is_half_of_what_is_received_at_most() -> None:
    report = largest(inspect.type_info(Report))
    assert len(report.rows) == ROWS_PER_REPORT
    assert all(len(row.sealed) == SEALED_MAX_BYTES for row in report.rows)
    assert len(encode(report)) <= REQUEST_MAX_BYTES * 0.6


def test_a_piece_is_half_of_what_a_node_receives_at_most() -> None:
    piece = largest(inspect.type_info(Piece))
    assert len(piece.sealed) == PIECE_MAX_BYTES
    assert len(encode(piece)) <= ANSWER_MAX_BYTES * 0.6


def test_no_message_of_a_node_has_room_for_a_picture_or_a_vector() -> None:
    # 192 numbers of one byte each are the smallest template that there is. What the link sends
    # for the watch service is an Alert that is sealed, and an alert has no room for one either.
    for cls in (Alert, Poll, Fetch, Health, Show):
        for field in fields_of(cls):
            assert not isinstance(field.type, inspect.BytesType) or field.type.max_length == 16
    sealed = next(field.type for field in fields_of(Row) if field.name == "sealed")
    assert isinstance(sealed, inspect.BytesType)
    assert [field.name for field in fields_of(Report)] == ["node", "rows"]
    allowed = {Hello: {"grant_key", "signature"}, Renew: {"csr"}}
    for question, names in allowed.items():
        long = {
            field.name
            for field in fields_of(question)
            if isinstance(field.type, inspect.BytesType) and field.type.max_length != 16
        }
        assert long == names


def test_what_hello_signs_tells_its_fields_apart() -> None:
    key = bytes(GRANT_KEY_BYTES)
    said = {
        hello_signed_part(node, boot, grant_key, model)
        for node, boot, grant_key, model in [
            ("n", b"b" * 16, key, "m"),
            ("nb", b"b" * 16, key, "m"),
            ("n", b"c" * 16, key, "m"),
            ("n", b"b" * 16, b"\x01" + key[1:], "m"),
            ("n", b"b" * 16, key, "mm"),
        ]
    }
    assert len(said) == 5
    assert all(part.startswith(b"picket hello/1\0") for part in said)


def test_a_new_last_field_is_skipped_by_old_readers_and_filled_in_by_new_ones() -> None:
    fields = msgspec.msgpack.decode(encode(AN_HEALTH))
    assert decode_request(msgspec.msgpack.encode([*fields, "of tomorrow"])) == AN_HEALTH
    without_defaults = [field for field in fields_of(Health) if field.default is msgspec.NODEFAULT]
    old = decode_request(msgspec.msgpack.encode(fields[: 1 + len(without_defaults)]))
    assert isinstance(old, Health)
    assert (old.node, old.rss_mib) == (AN_HEALTH.node, AN_HEALTH.rss_mib)
    assert (old.lease_left_s, old.outbox_durable) == (0, True)


AN_HEALTH: Health = largest(inspect.type_info(Health))


@pytest.mark.parametrize("length", [ALERT_MAX_BYTES + 1, ALERT_MAX_BYTES + 100])
def test_an_alert_beyond_the_bound_is_not_encoded(length: int) -> None:
    too_long = msgspec.structs.replace(AN_ALERT, node="x" * (48 + length - 483))
    with pytest.raises(WireError, match=rf"alert of {length} bytes: at most 512 may leave"):
        encode(too_long)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alert_id", b"x" * 15),
        ("node", ""),
        ("node", "two words"),
        ("node", "name\n"),
        ("subject", "x" * 49),
        ("sequence", -1),
        ("sequence", True),
        ("similarity", 1.0000001),
        ("similarity", float("nan")),
        ("false_alert_rate", -0.1),
        ("decided_utc_ms", 0.5),
        ("box", (0.0, 0.0, 1.0)),
        ("box", (0.0, 0.0, 1.0, 1.1)),
        ("frames_fused", "5"),
    ],
)
def test_a_field_outside_its_bound_is_not_decoded(field: str, value: object) -> None:
    broken = msgspec.structs.replace(AN_ALERT, **{field: value})
    with pytest.raises(WireError, match="not a message"):
        decode_alert(msgspec.msgpack.encode(broken))


@pytest.mark.parametrize(
    "broken",
    [
        Report("n", ()),
        Report("n", (Row(b"b" * 16, 1, b"x"),) * (ROWS_PER_REPORT + 1)),
        Report("n", (Row(b"b" * 16, 0, b"x"),)),
        Report("n", (Row(b"b" * 15, 1, b"x"),)),
        Report("n", (Row(b"b" * 16, 1, b""),)),
        Report("n", (Row(b"b" * 16, 1, bytes(SEALED_MAX_BYTES + 1)),)),
        Poll("n", b"b" * 16, b"n" * 15, "", 0, "", 0, 0),
        Poll("n", b"b" * 16, b"n" * 16, "", 0, "", 0, 60_001),
        Poll("n", b"b" * 16, b"n" * 16, "", 0, "x" * 201, 0, 0),
        Hello("n", b"b" * 16, bytes(GRANT_KEY_BYTES - 1), "m", bytes(64)),
        Hello("n", b"b" * 16, bytes(GRANT_KEY_BYTES), "m", bytes(63)),
        Fetch("n", "", 1, 0),
    ],
)
def test_a_question_outside_its_bounds_is_not_decoded(broken: Request) -> None:
    with pytest.raises(WireError, match="not a message"):
        decode_request(encode(broken))


@pytest.mark.parametrize(
    "broken",
    [
        Offer(b"", b"", b"", b""),
        Offer(b"s", b"", b"", bytes(2049)),
        Piece(0, bytes(PIECE_MAX_BYTES + 1)),
        Piece(-1, b"x"),
        Deny("x" * 201),
    ],
)
def test_an_answer_outside_its_bounds_is_not_decoded(broken: Answer) -> None:
    with pytest.raises(WireError, match="not a message"):
        decode_answer(encode(broken))


def test_a_question_is_no_answer_and_an_answer_no_question() -> None:
    with pytest.raises(WireError):
        decode_answer(encode(Show("idle", False)))
    with pytest.raises(WireError):
        decode_request(encode(Ack()))


def _no_more_than_an_error(received: bytes) -> None:
    for decode in (decode_request, decode_answer, decode_alert):
        try:
            decode(received)
        except WireError as e:
            assert "\n" not in str(e)  # noqa: PT017 - not raising is as good


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\x91" * 100_000)  # a list in a list in a list ...
@example(b"\xdf\xff\xff\xff\xff")  # a map of four billion entries
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc6\xff\xff\xff\xff")
@example(b"\x92\xa7deny/1" + b"\xa2\xff\xff")
@example(b"\x92\xa6deny/1\xa2\xff\xff")  # not UTF-8
def test_random_bytes_are_an_error_at_most(received: bytes) -> None:
    _no_more_than_an_error(received)


@given(st.one_of(REQUESTS, ANSWERS), st.data())
def test_mutilated_messages_are_an_error_at_most(message: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(WireError):
        decode_request(bytes(encoded[:cut]))
    with pytest.raises(WireError):
        decode_request(bytes(encoded) + b"\xc0")
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    _no_more_than_an_error(bytes(encoded))


def test_the_length_is_bounded_before_anything_is_decoded() -> None:
    with pytest.raises(WireError, match=f"at most {REQUEST_MAX_BYTES} are read"):
        decode_request(bytes(REQUEST_MAX_BYTES + 1))
    with pytest.raises(WireError, match=f"at most {ANSWER_MAX_BYTES} are read"):
        decode_answer(bytes(ANSWER_MAX_BYTES + 1))


def test_what_a_stranger_says_is_shown_without_its_control_characters() -> None:
    assert printable("no\x1b[2J\r\nwär\u202e") == "no?[2J??wär?"
