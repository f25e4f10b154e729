"""What NNG says of connections that failed: told once, counted, and bounded."""

from __future__ import annotations

import logging

import pytest

from appliance.link.overhear import Tally

HANDSHAKE = b"NNG-TLS-HANDSHAKE"


class Time:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_reason_is_told_at_once_and_then_once_a_minute_with_its_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = Time()
    tally = Tally(now_s=time)
    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            tally.add(HANDSHAKE, b"TLS handshake failed: no certificate")
        time.now_s = 61.0
        tally.add(HANDSHAKE, b"TLS handshake failed: no certificate")
        tally.add(HANDSHAKE, b"TLS handshake failed: alert")
    assert told(caplog) == [
        "a connection was refused: no certificate (1 so far)",
        "a connection was refused: no certificate (101 so far)",
        "a connection was refused: alert (1 so far)",
    ]
    assert tally.handshakes == 102
    assert tally.last == "alert"
    assert tally.counts() == {"no certificate": 101, "alert": 1}


def test_addresses_do_not_make_new_reasons(caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally(now_s=Time())
    with caplog.at_level(logging.WARNING):
        for port in range(1000):
            tally.add(b"NNG-RCVMAX", b"Oversize message of 9 bytes (> 8) from 1.2.3.4:%d" % port)
            tally.add(b"NNG-ACCEPT-FAIL", b"Failed accepting on 1.2.3.4:%d: Out of files" % port)
    assert tally.counts() == {"a message longer than is received": 1000, "Out of files": 1000}
    assert len(told(caplog)) == 2
    assert tally.handshakes == 0


def test_what_was_told_already_and_what_is_no_failure_is_not_told() -> None:
    tally = Tally(now_s=Time())
    tally.add(b"NNG-ACCEPT-FAIL", b"Failed accepting: Peer could not be authenticated")
    tally.add(b"NNG-DIAL", b"Starting dialer")
    tally.add(b"", b"\xff")
    assert tally.counts() == {}


def test_however_many_reasons_there_are_memory_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tally = Tally(now_s=Time())
    with caplog.at_level(logging.CRITICAL):
        for number in range(1000):
            tally.add(HANDSHAKE, b"TLS handshake failed: reason %d" % number)
    assert len(tally.counts()) == 257
    assert sum(tally.counts().values()) == 1000
