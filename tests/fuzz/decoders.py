"""`make fuzz`: every decoder of bytes from outside, driven by coverage (atheris).

The first byte of an input chooses the decoder. Each may refuse with the error that it names and
with no other, and what it takes must survive being encoded and decoded again.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # in a .venv of its own: see make fuzz

with atheris.instrument_imports(include=["appliance"]):
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from appliance import wire
    from appliance.alerts.outbox import MemoryOutbox
    from appliance.alerts.seal import AlertPrivateKey, open_alert
    from appliance.errors import CardError, IdentityError, WatchlistError, WireError
    from appliance.link import credentials, outcome
    from appliance.link.cache import PieceCache
    from appliance.link.floors import Floors
    from appliance.link.relay import Relay
    from appliance.link.simulated import SimulatedLink
    from appliance.watchlist.bundle import parse_head, parse_header
    from appliance.watchlist.pieces import parse_index
    from appliance.watchlist.stamp import Action, Stamp, make_stamp, open_stamp
    from tests.path.heads import a_head

_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
_ALERT_KEY = AlertPrivateKey.generate()
_FOLDER = Path(tempfile.mkdtemp(prefix="picket-fuzz-"))
_NODE = "cam"


def _request(received: bytes) -> None:
    request = wire.decode_request(received)
    if wire.decode_request(wire.encode(request)) != request:
        raise AssertionError(request)


def _answer(received: bytes) -> None:
    answer = wire.decode_answer(received)
    if wire.decode_answer(wire.encode(answer)) != answer:
        raise AssertionError(answer)


def _alert(received: bytes) -> None:
    alert = wire.decode_alert(received)
    if wire.decode_alert(wire.encode(alert)) != alert:
        raise AssertionError(alert)


def _head(received: bytes) -> None:
    parse_header(parse_head(received).header)


def _sealed(received: bytes) -> None:
    row = wire.Row(bytes(16), 1, received)
    open_alert(row, node=_NODE, watch_key=_KEY.public_key(), alert_key=_ALERT_KEY)


def _floors(received: bytes) -> None:
    path = _FOLDER / "floors.json"
    path.write_bytes(received)
    Floors(path).all()


def _tried(received: bytes) -> None:
    (_FOLDER / outcome.FILE).write_bytes(received)
    tried = outcome.read(_FOLDER)
    outcome.write(_FOLDER, tried.again("ab" * 32))


def _certificate(received: bytes) -> None:
    credentials.x509_certificate(received)


def _relay(controller: bytes) -> Callable[[bytes], None]:
    """The link service between a hostile process of the box and a hostile controller."""
    answers = [controller]
    relay = Relay(
        node=_NODE,
        outbox=MemoryOutbox(8),
        upstream=SimulatedLink(lambda _: answers[0]),
        pieces=PieceCache(_FOLDER / "pieces"),
        floors=Floors(_FOLDER / "kept.json"),
        name_of=lambda head: (str(len(head)), 1) if head else None,
        answered=lambda: None,
        heard=lambda _: None,
        rss_mib=lambda: 1.0,
        timeout_s=1.0,
    )

    def both(received: bytes) -> None:
        half = len(received) // 2
        answers[0] = received[half:]
        request = relay.read(received[:half])
        if not isinstance(request, wire.Deny):
            wire.encode(relay.at_once(request) or relay.forward(request))

    return both


@dataclasses.dataclass(frozen=True)
class Target:
    """A decoder, and the errors by which it may refuse."""

    decode: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]


TARGETS = (
    Target(_request, (WireError,)),
    Target(_answer, (WireError,)),
    Target(_alert, (WireError,)),
    Target(_head, (WatchlistError,)),
    Target(parse_header, (WatchlistError,)),
    Target(parse_index, (WatchlistError,)),
    Target(lambda received: open_stamp(received, _KEY.public_key()), (WatchlistError,)),
    Target(_sealed, (WireError,)),
    Target(_floors, (CardError,)),
    Target(_certificate, (IdentityError,)),
    Target(_relay(b""), ()),
    Target(_tried, ()),
)


def one_input(received: bytes) -> None:
    """What atheris calls."""
    if not received:
        return
    target = TARGETS[received[0] % len(TARGETS)]
    try:
        target.decode(received[1:])
    except target.refuses:
        return


def corpus(folder: Path) -> None:
    """One good input of each kind to begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    boot = bytes(16)
    requests: tuple[wire.Request, ...] = (
        wire.Report(_NODE, (wire.Row(boot, 1, b"sealed"),)),
        wire.Poll(_NODE, boot, boot, "red", 1, "", 0, 10),
        wire.Fetch(_NODE, "red", 1, 0),
        wire.Show("watching", camera_on=True),
        wire.Upgrade(_NODE, (0, 1, 0, 0), wire.Outcome.REFUSED, bytes(32), 1, "why"),
        wire.Pull(_NODE, bytes(32), 7),
    )
    answers: tuple[wire.Answer, ...] = (
        wire.Ack(),
        wire.Deny("no"),
        wire.Welcome(1, (("red", 1),)),
        wire.Piece(0, b"x"),
        wire.Bundle((0, 2, 0, 0), bytes(32), 5000, 1024),
        wire.Part(7, b"x"),
    )
    inputs = [bytes([0]) + wire.encode(request) for request in requests]
    inputs += [bytes([1]) + wire.encode(answer) for answer in answers]
    for request, answer in zip(requests, answers, strict=True):
        asked, told = wire.encode(request), wire.encode(answer)
        length = max(len(asked), len(told))
        inputs.append(bytes([10]) + asked.ljust(length, b"\0") + told.ljust(length, b"\0"))
    digests = bytes(64)
    head = a_head("red", 1, digests)
    inputs.append(bytes([3]) + head)
    inputs.append(bytes([4]) + parse_head(head).header)
    stamp = Stamp(action=Action.WITHDRAW, node=_NODE, nonce=boot, now_utc_ms=1, list_id="red")
    inputs.append(bytes([6]) + make_stamp(stamp, _KEY))
    inputs.append(bytes([1]) + wire.encode(wire.Offer(b"stamp", head, digests, b"grant")))
    inputs.append(bytes([8]) + b'[["red",1]]')
    inputs.append(bytes([11]) + b'{"outcome":"trying","version":[0,2,0,0],"tries":[]}')
    for number, content in enumerate(inputs):
        (folder / f"good-{number}").write_bytes(content)


if __name__ == "__main__":
    logging.disable()  # what is refused is logged, millions of times here
    corpus(Path(sys.argv[1]))
    atheris.Setup([sys.argv[0], *sys.argv[1:]], one_input)
    atheris.Fuzz()
