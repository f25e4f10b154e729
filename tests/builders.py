"""Messages as a quiet node would send them, for tests that are about something else."""

from __future__ import annotations

from typing import Any

import msgspec

from appliance.wire import Health


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
