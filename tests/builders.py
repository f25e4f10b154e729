"""Messages as a quiet node would send them, for tests that are about something else."""

from __future__ import annotations

from typing import Any

import msgspec

from appliance.wire import Alert, Health


def a_health(**changes: Any) -> Health:
    """A node that watches and has seen nobody.

    Args:
        changes: fields of Health that the test is about.
    """
    quiet = Health(
        node="cam",
        boot=b"b" * 16,
        state="watching",
        camera_since_boot_ns=None,
        frames=0,
        dropped=0,
        fps=0.0,
        faces_seen=0,
        faces_erased=0,
        faces_alerted=0,
        faces_held=0,
        erased_p50_ms=0.0,
        erased_p99_ms=0.0,
        erased_max_ms=0.0,
        vectors_p99_ms=0.0,
        list_id="",
        list_version=0,
        subjects=0,
        outbox=0,
        rss_mib=1.0,
    )
    return msgspec.structs.replace(quiet, **changes)


def an_alert(**changes: Any) -> Alert:
    """Somebody of a list, seen once.

    Args:
        changes: fields of Alert that the test is about.
    """
    seen = Alert(
        alert_id=b"a" * 16,
        node="cam",
        boot=b"b" * 16,
        sequence=1,
        deployment="market-day",
        list_id="market",
        list_version=1,
        subject="subject-20",
        similarity=0.61,
        threshold=0.45,
        false_alert_rate=1e-6,
        first_seen_boot_ns=10,
        exposed_boot_ns=20,
        decided_boot_ns=30,
        decided_utc_ms=None,
        frames_fused=5,
        box=(0.1, 0.2, 0.3, 0.4),
        eye_distance_px=44.0,
        occlusion="unknown",
        model="m",
    )
    return msgspec.structs.replace(seen, **changes)
