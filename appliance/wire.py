"""What crosses a boundary: MessagePack arrays ("tuples") over NNG. The page an auditor reads.

Whoever is nearer to the camera asks, whoever is farther away answers; a push is the answer to a
parked Poll. No message has a field for a picture, a crop, a landmark or an open embedding, and an
Alert is bounded at 512 bytes.

question    asked by            answered by                 answer
Join        picket join         controller, join port       Joined
Hello       watch (signed)      link, then controller       Welcome
Poll        watch               link, then controller       Offer, Ack
Fetch       watch, through link link's cache, controller    Piece
Report      watch               link, after its commit      Ack
            link                controller, after its own   Ack
Health      watch, through link controller                  Ack
Renew       link                controller                  Renewed
Upgrade     link                controller                  Bundle, Ack
Pull        link                controller                  Part
Show        watch               indicator, lamps set        Ack
Any of them may be answered by Deny.

watch and link, and watch and indicator, speak over ipc://; link and controller over tls+tcp://.

Rules (msgspec schema evolution): a new field goes last and has a default; fields are never
reordered, retyped or removed; a new meaning is a new tag. Decoding is the validation, and the
length is bounded before decoding. What is signed is signed as bytes and decoded afterwards.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from appliance.errors import WireError

ALERT_MAX_BYTES = 512
SEALED_MAX_BYTES = 2048
"""An alert sealed to the controller: 512 bytes, a signature of 64, HPKE's 1,120 and its tag."""
ROWS_PER_REPORT = 32
REQUEST_MAX_BYTES = 128 * 1024
"""A full report of 32 rows of 2 KiB, twice over: what a controller or link will receive."""
PIECE_MAX_BYTES = 128 * 1024
"""One piece of a list's ciphertext; see watchlist/bundle.py."""
HEAD_MAX_BYTES = 8 * 1024
DIGESTS_MAX_BYTES = 64 * 1024
"""SHA-256 of 2,048 pieces: lists of 256 MiB, about 600,000 templates of 192 numbers."""
STAMP_MAX_BYTES = 1024
GRANT_MAX_BYTES = 2048
ANSWER_MAX_BYTES = 256 * 1024
"""What a node will receive: an Offer or a Piece, with room."""

BUNDLE_MAX_BYTES = 512 * 2**20
"""An update: a root slot of 384 MiB and a boot slot of 80 MiB, uncompressed, and a signature."""
TRIES_MAX = 99

FLAGS_MAX = 32

GRANT_KEY_BYTES = 1216
"""Public key of the hybrid KEM ML-KEM-768 + X25519."""

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
Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
"""SHA-256."""
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Pem = Annotated[bytes, Meta(min_length=1, max_length=16 * 1024)]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Cosine = Annotated[float, Meta(ge=-1.0, le=1.0)]
Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Milliseconds = Annotated[float, Meta(ge=0.0, le=1e12)]
Mebibytes = Annotated[float, Meta(ge=0.0, le=1e6)]
_Part = Annotated[int, Meta(ge=0, le=999_999_999)]
Version = tuple[_Part, _Part, _Part, _Part]
"""Of the software, (1, 2, 0, 0) for 1.2: a version is compared as it is; see system/release.py."""


class Alert(msgspec.Struct, frozen=True, array_like=True, tag="alert/1"):
    """A watchlist subject was seen. Sent at least once; (node, boot, sequence) deduplicates.

    Attributes:
        alert_id: random, 16 bytes.
        node, boot: who saw it; boot is random, made at each start of the watch service.
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
        occlusion: which part of the face was hidden: "none", "lower", "eyes" or "upper"; "unknown"
            from a node that does not tell them apart.
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


class Row(msgspec.Struct, frozen=True, array_like=True):
    """One alert as the link service and the card see it: numbered, and closed.

    `sealed` is what alerts/seal.py made: the alert and the watch service's signature, encrypted
    to the controller's alert key. (boot, sequence) are the alert's own and are bound to it.
    """

    boot: Id16
    sequence: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    sealed: Annotated[bytes, Meta(min_length=1, max_length=SEALED_MAX_BYTES)]


class Join(msgspec.Struct, frozen=True, array_like=True, tag="join/1"):
    """A new node's first and only question at the join port, before it has a certificate.

    Attributes:
        token: one-time, from `picketctl node add`.
        csr: certificate request, PEM, subject CN = node; the key was made on the node.
        watch_key: Ed25519 public key of the watch service, which signs hellos and alerts.
    """

    node: Name
    token: Key32
    csr: Pem
    watch_key: Key32


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello/1"):
    """A watch service's first question at each start: its RAM key, signed by its identity.

    Attributes:
        grant_key: public half of a key pair made in RAM at this boot (HPKE, hybrid
            ML-KEM-768 + X25519); grants are sealed to it.
        model: id of the embedder.
        signature: Ed25519 by the watch identity over `hello_signed_part`.
    """

    node: Name
    boot: Id16
    grant_key: Annotated[bytes, Meta(min_length=GRANT_KEY_BYTES, max_length=GRANT_KEY_BYTES)]
    model: Name
    signature: Signature


class Poll(msgspec.Struct, frozen=True, array_like=True, tag="poll/1"):
    """Is there a newer list, or an order? Parked until there is, or until `wait_ms`.

    Attributes:
        nonce: random for each poll; the stamp that answers it must repeat it, so that freshness
            needs no clock and no stamp can be played back.
        list_id, list_version: the list in use, "" and 0 for none: this acknowledges a push.
        refused: why the last push was not taken, "" if it was.
        lease_left_s: of the list in use, 0 for none.
    """

    node: Name
    boot: Id16
    nonce: Id16
    list_id: NameOrNone
    list_version: Count
    refused: Reason
    lease_left_s: Count
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)]


class Fetch(msgspec.Struct, frozen=True, array_like=True, tag="fetch/1"):
    """One piece of a list's ciphertext."""

    node: Name
    list_id: Name
    list_version: Count
    index: Count


class Report(msgspec.Struct, frozen=True, array_like=True, tag="report/1"):
    """Alerts, oldest first. Answered by Ack after all of them were stored, or by nothing."""

    node: Name
    rows: Annotated[tuple[Row, ...], Meta(min_length=1, max_length=ROWS_PER_REPORT)]


class Health(msgspec.Struct, frozen=True, array_like=True, tag="health/1"):
    """How the node is; about once a second in the demo, once a minute in the field.

    Counters are since this boot and hold no biometrics. Every face followed is accounted for:
    faces_seen = faces_erased + faces_alerted + faces_held.

    Attributes:
        camera_since_boot_ns: when the camera was switched on, None while it is off.
        frames, dropped: frames that were searched or, on a quiet street, passed over on purpose;
            frames that the source had and for which there was no time.
        fps: frames processed per second over the last few seconds.
        erased_p50_ms, erased_p99_ms, erased_max_ms: from exposure of a frame until its pixels
            were overwritten.
        vectors_p99_ms: from a face's last embedding until its vectors were overwritten.
        outbox: alerts decided and not yet stored by the controller, of watch and link together.
        rss_mib: of the watch service.
        lease_left_s: of the list in use, 0 for none.
        accelerator: what runs the models, such as "cpu".
        soc_temp_c: None where it cannot be read.
        link_rss_mib, outbox_refused, outbox_durable: filled in by the link service; a link that
            cannot write goes on in memory and says so.
        watch_version: of the software.
        flags: what else is not as it should be; the names of system/health.py's FLAGS.
        faces_unsearchable: of faces_seen, those of which too much was hidden, or a part for which
            the list has no templates.
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
    rss_mib: Mebibytes
    lease_left_s: Count = 0
    accelerator: Name = "cpu"
    soc_temp_c: Annotated[float, Meta(ge=-100.0, le=200.0)] | None = None
    link_rss_mib: Mebibytes = 0.0
    outbox_refused: Count = 0
    outbox_durable: bool = True
    watch_version: NameOrNone = ""
    flags: Annotated[tuple[Name, ...], Meta(max_length=FLAGS_MAX)] = ()
    faces_unsearchable: Count = 0


class Renew(msgspec.Struct, frozen=True, array_like=True, tag="renew/1"):
    """The link service's certificate runs out soon; asked over the link that it secures."""

    node: Name
    csr: Pem


class Outcome(StrEnum):
    """What became of the last update that was tried on a node."""

    NONE = "none"
    FETCHING = "fetching"
    INSTALLING = "installing"
    """Fetched whole, and handed to root."""
    TRYING = "trying"
    """Installed in the other slot; not yet found good there."""
    INSTALLED = "installed"
    ROLLED_BACK = "rolled-back"
    REFUSED = "refused"


class Upgrade(msgspec.Struct, frozen=True, array_like=True, tag="upgrade/1"):
    """Is there an update for this node? Every few minutes, and when there is news of the last one.

    Attributes:
        running: version of the image that runs.
        outcome: of the update named by `bundle`.
        bundle: SHA-256 of an update, None if none was ever offered to this node.
        tries: how often root has tried that one.
        why: it was refused or rolled back, or does not get on; "" if all is well.
    """

    node: Name
    running: Version
    outcome: Outcome
    bundle: Digest | None
    tries: Annotated[int, Meta(ge=0, le=TRIES_MAX)] = 0
    why: Reason = ""


class Pull(msgspec.Struct, frozen=True, array_like=True, tag="pull/1"):
    """One part of the update on offer, named by its SHA-256."""

    node: Name
    bundle: Digest
    index: Annotated[int, Meta(ge=0, le=BUNDLE_MAX_BYTES)]


class Show(msgspec.Struct, frozen=True, array_like=True, tag="show/1"):
    """What the lamps are to tell, to the indicator service: at each change and once a second."""

    state: Name
    camera_on: bool
    hint: bool = False
    """The node works, but wants service."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome/1"):
    """Answer to Hello: the controller knows this boot and will grant to its key.

    Attributes:
        floors: the highest version ever accepted of each list, as the link service keeps it for
            a watch service that has nowhere to write; the controller leaves it empty.
    """

    now_utc_ms: Count
    floors: Annotated[tuple[tuple[Name, Count], ...], Meta(max_length=64)] = ()


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer/1"):
    """Answer to Poll: a stamp, and for a list its signed head and the grant that opens it.

    Nothing in here is trusted before watchlist/trusted.py has checked it. A stamp that ends a
    list (withdraw, wipe) comes with an empty head, digests and grant.

    Attributes:
        stamp: signed by the controller's online key: node, nonce, time, list, version, lease.
        head: header of the list, signed by its authorities.
        digests: SHA-256 of each piece, one after the other.
        grant: the content key, sealed to this boot's grant key.
    """

    stamp: Annotated[bytes, Meta(min_length=1, max_length=STAMP_MAX_BYTES)]
    head: Annotated[bytes, Meta(max_length=HEAD_MAX_BYTES)]
    digests: Annotated[bytes, Meta(max_length=DIGESTS_MAX_BYTES)]
    grant: Annotated[bytes, Meta(max_length=GRANT_MAX_BYTES)]


class Piece(msgspec.Struct, frozen=True, array_like=True, tag="piece/1"):
    """Answer to Fetch: one piece of ciphertext."""

    index: Count
    sealed: Annotated[bytes, Meta(min_length=1, max_length=PIECE_MAX_BYTES)]


class Bundle(msgspec.Struct, frozen=True, array_like=True, tag="bundle/1"):
    """Answer to Upgrade: there is one. Worth nothing without RAUC's signature, checked by root.

    Attributes:
        sha256: of all of it.
        size: in bytes.
        part_bytes: of each part but the last, which may be shorter.
    """

    version: Version
    sha256: Digest
    size: Annotated[int, Meta(ge=1, le=BUNDLE_MAX_BYTES)]
    part_bytes: Annotated[int, Meta(ge=1024, le=PIECE_MAX_BYTES)]


class Part(msgspec.Struct, frozen=True, array_like=True, tag="part/1"):
    """Answer to Pull: part of a signed file that is no secret."""

    index: Annotated[int, Meta(ge=0, le=BUNDLE_MAX_BYTES)]
    content: Annotated[bytes, Meta(min_length=1, max_length=PIECE_MAX_BYTES)]


class Joined(msgspec.Struct, frozen=True, array_like=True, tag="joined/1"):
    """Answer to Join: the node's certificate."""

    certificate: Pem


class Renewed(msgspec.Struct, frozen=True, array_like=True, tag="renewed/1"):
    """Answer to Renew: the node's next certificate."""

    certificate: Pem


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack/1"):
    """Done: stored, shown, heard; or nothing new.

    Attributes:
        durable: what was stored outlives a power cut; a link service whose card fails goes on in
            memory, and says so.
    """

    durable: bool = True


class Deny(msgspec.Struct, frozen=True, array_like=True, tag="deny/1"):
    """No, and why."""

    reason: Reason


Request: TypeAlias = Join | Hello | Poll | Fetch | Report | Health | Renew | Upgrade | Pull | Show
"""All that may be asked."""
Answer: TypeAlias = Welcome | Offer | Piece | Joined | Renewed | Bundle | Part | Ack | Deny
"""All that may be answered."""

M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_alerts: msgspec.msgpack.Decoder[Alert] = msgspec.msgpack.Decoder(Alert)


def hello_signed_part(node: str, boot: bytes, grant_key: bytes, model: str) -> bytes:
    """The bytes that Hello.signature signs: a context, then the fields as one MessagePack array."""
    return b"picket hello/1\0" + _encoder.encode((node, boot, grant_key, model))


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
