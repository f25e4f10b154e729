"""What crosses a boundary: MessagePack arrays ("tuples") over NNG. The page an auditor reads.

The node asks, the controller answers; a push is the answer to a parked Poll. No message has a
field for a picture, a crop, a landmark or an embedding, and Alert is bounded at 512 bytes.

Rules (msgspec schema evolution): a new field goes last and has a default; fields are never
reordered, retyped or removed; a new meaning is a new tag. Decoding is the validation, and the
length is bounded before decoding.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from appliance.errors import WireError

ALERT_MAX_BYTES = 512
ALERTS_PER_REPORT = 64
REQUEST_MAX_BYTES = 64 * 1024
"""A full report of 64 alerts of 512 bytes, twice over: what a controller will receive."""
LIST_MAX_BYTES = 64 * 1024 * 1024
"""A signed and encrypted watchlist: about 150,000 templates of 192 half-precision numbers."""
ANSWER_MAX_BYTES = LIST_MAX_BYTES + 16 * 1024
"""What a node will receive: one list with its grant."""

NAME_MAX_CHARS = 48
"""Six names of this length leave an alert, with the largest number in every other field, at 483
of its 512 bytes (tests/rooms/test_wire.py); names of 64 would make 579."""
Name = Annotated[
    str, Meta(min_length=1, max_length=NAME_MAX_CHARS, pattern=r"\A[A-Za-z0-9._:@-]+\Z")
]
"""Node, deployment, list and subject references, model ids: no spaces, nothing to escape."""
NameOrNone = Annotated[str, Meta(max_length=NAME_MAX_CHARS, pattern=r"\A[A-Za-z0-9._:@-]*\Z")]
"""A Name, or "" for none."""
REASON_MAX_CHARS = 200
Reason = Annotated[str, Meta(max_length=REASON_MAX_CHARS)]
"""For people; the sender cuts it to length, whoever shows it makes it `printable`."""
Id16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Cosine = Annotated[float, Meta(ge=-1.0, le=1.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Meta(ge=0.0, le=1e12)]


class Alert(msgspec.Struct, frozen=True, array_like=True, tag="alert/1"):
    """A watchlist subject was seen. Sent at least once; (node, boot, sequence) deduplicates.

    Attributes:
        alert_id: random, 16 bytes.
        node, boot: who saw it; boot is random, made at each start of the node.
        sequence: 1, 2, 3 ... per boot; a gap is a provable loss.
        deployment, list_id, list_version: the authorisation under which it was matched.
        subject: opaque reference of the watchlist; never a name.
        similarity, threshold: cosines of the fused template, and the one that makes an alert.
        false_alert_rate: chance that a passer-by who is not on the list scores this high.
        first_seen_boot_ns: exposure of the track's first frame, CLOCK_BOOTTIME.
        exposed_boot_ns: exposure of the frame on which it was decided, CLOCK_BOOTTIME.
        decided_boot_ns: when it was decided, CLOCK_BOOTTIME.
        decided_utc_ms: the same by the wall clock, None while that is not synchronised.
        frames_fused: embeddings in the fused template.
        box: x1 y1 x2 y2 of the face in the frame, as fractions of its width and height.
        eye_distance_px: size of the face; the tuple's measure of quality.
        occlusion: which part of the face was hidden: "unknown" until that is told apart.
        model: id of the embedder.
    """

    alert_id: Id16
    node: Name
    boot: Id16
    sequence: Count
    deployment: Name
    list_id: Name
    list_version: Count
    subject: Name
    similarity: Cosine
    threshold: Cosine
    false_alert_rate: Fraction
    first_seen_boot_ns: Count
    exposed_boot_ns: Count
    decided_boot_ns: Count
    decided_utc_ms: Count | None
    frames_fused: Count
    box: tuple[Fraction, Fraction, Fraction, Fraction]
    eye_distance_px: Annotated[float, Meta(ge=0.0, le=1e5)]
    occlusion: Name
    model: Name


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello/1"):
    """A node's first question: who it is, and the key to which a grant may be sealed.

    `grant_key` is the public half of a key pair made in RAM at this boot (HPKE,
    ML-KEM-768 + X25519: 1,216 bytes).
    """

    node: Name
    boot: Id16
    grant_key: Annotated[bytes, Meta(min_length=1216, max_length=1216)]
    model: Name


class Poll(msgspec.Struct, frozen=True, array_like=True, tag="poll/1"):
    """Is there a newer list? Parked by the controller until there is, or until `wait_ms`.

    `list_version` is the version in use, 0 for none: this is also the node's acknowledgement
    of a push. `refused` is why the last push was not taken, "" if it was.
    """

    node: Name
    boot: Id16
    list_id: NameOrNone
    list_version: Count
    refused: Reason
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)]


class Report(msgspec.Struct, frozen=True, array_like=True, tag="report/1"):
    """Alerts, oldest first. Answered by Ack after the controller has stored them."""

    node: Name
    boot: Id16
    alerts: Annotated[tuple[Alert, ...], Meta(min_length=1, max_length=ALERTS_PER_REPORT)]


class Health(msgspec.Struct, frozen=True, array_like=True, tag="health/1"):
    """How the node is; about once a second in the demo, once a minute in the field.

    Counters are since this boot and hold no biometrics. Every face followed is accounted for:
    faces_seen = faces_erased + faces_alerted + faces_held.

    Attributes:
        camera_since_boot_ns: when the camera was switched on, None while it is off.
        frames, dropped: frames processed; frames that the source had and were never processed.
        fps: frames processed per second over the last few seconds.
        erased_p50_ms, erased_p99_ms, erased_max_ms: from exposure of a frame until its pixels
            were overwritten.
        vectors_p99_ms: from a face's last embedding until its vectors were overwritten.
    """

    node: Name
    boot: Id16
    state: Name
    camera_since_boot_ns: Count | None
    frames: Count
    dropped: Count
    fps: Annotated[float, Meta(ge=0.0, le=1e6)]
    faces_seen: Count
    faces_erased: Count
    faces_alerted: Count
    faces_held: Count
    erased_p50_ms: Milliseconds
    erased_p99_ms: Milliseconds
    erased_max_ms: Milliseconds
    vectors_p99_ms: Milliseconds
    list_id: NameOrNone
    list_version: Count
    subjects: Count
    outbox: Count
    rss_mib: Annotated[float, Meta(ge=0.0, le=1e6)]


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome/1"):
    """Answer to Hello: the controller knows this boot and will grant to its key."""

    now_utc_ms: Count


class Push(msgspec.Struct, frozen=True, array_like=True, tag="push/1"):
    """A list, still closed, and the grant that opens it for this boot of this node.

    Nothing in here is trusted before watchlist/trusted.py has checked it.
    """

    bundle: Annotated[bytes, Meta(min_length=1, max_length=LIST_MAX_BYTES)]
    grant: Annotated[bytes, Meta(min_length=1, max_length=4096)]


class Withdraw(msgspec.Struct, frozen=True, array_like=True, tag="withdraw/1"):
    """The deployment is over: close the list, overwrite it, switch the camera off."""

    list_id: Name


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack/1"):
    """Alerts of this boot up to this sequence are stored. 0: nothing to acknowledge."""

    up_to: Count


class Deny(msgspec.Struct, frozen=True, array_like=True, tag="deny/1"):
    """No, and why."""

    reason: Reason


Request: TypeAlias = Hello | Poll | Report | Health
"""All that a node may send."""
Answer: TypeAlias = Welcome | Push | Withdraw | Ack | Deny
"""All that a controller may send."""

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_alerts: msgspec.msgpack.Decoder[Alert] = msgspec.msgpack.Decoder(Alert)


def encode(message: Request | Answer | Alert) -> bytes:
    """The message as MessagePack.

    Raises:
        WireError: an alert is longer than ALERT_MAX_BYTES.
    """
    encoded = _encoder.encode(message)
    if isinstance(message, Alert) and len(encoded) > ALERT_MAX_BYTES:
        raise WireError(f"alert of {len(encoded)} bytes: at most {ALERT_MAX_BYTES} may leave")
    return encoded


def decode_request(received: bytes) -> Request:
    """What a node asked.

    Raises:
        WireError: too long, or not a request.
    """
    return _decode(_requests, received, REQUEST_MAX_BYTES)


def decode_answer(received: bytes) -> Answer:
    """What a controller answered.

    Raises:
        WireError: too long, or not an answer.
    """
    return _decode(_answers, received, ANSWER_MAX_BYTES)


def decode_alert(received: bytes) -> Alert:
    """One alert on its own: encoding does not check bounds, decoding does.

    Raises:
        WireError: too long, or not an alert.
    """
    return _decode(_alerts, received, ALERT_MAX_BYTES)


def printable(text: str) -> str:
    """Text of a stranger's, safe to show: no line breaks, no terminal's control sequences."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _decode(decoder: msgspec.msgpack.Decoder[M], received: bytes, bound: int) -> M:
    if len(received) > bound:
        raise WireError(f"message of {len(received)} bytes: at most {bound} are read")
    try:
        return decoder.decode(received)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        # The last two are not msgspec's own errors, yet hostile bytes can raise them.
        raise WireError(f"not a message: {e}") from e
