"""A sighting becomes the tuple that leaves the node. Pure; the only place where one is made.

What is on the wire is checked here, by encoding the tuple and reading it back as the controller
will: once it is sealed nobody on the way could tell that no controller can read it.
"""

from __future__ import annotations

from appliance.types import Sighting
from appliance.wire import Alert, decode_alert, encode

_FARTHEST_EYES_PX = 1e5
"""See wire.Alert.eye_distance_px."""


def compose(
    sighting: Sighting,
    *,
    node: str,
    boot: bytes,
    alert_id: bytes,
    deployment: str,
    list_id: str,
    list_version: int,
    model: str,
    frame_size: tuple[int, int],
    utc_ns: int | None,
) -> Alert:
    """The alert of a sighting, not yet numbered: sequence 0, which alerts/seal.py refuses.

    Args:
        sighting: its track's box is in pixels of the frame.
        node: who saw it.
        boot: 16 bytes, made at this start of the node.
        alert_id: 16 random bytes.
        deployment: the authorisation under which it was matched.
        list_id: of the watchlist in use.
        list_version: of the watchlist in use.
        model: id of the embedder.
        frame_size: (width, height) in pixels of the frame.
        utc_ns: wall clock at the decision, None while it is not synchronised.

    Raises:
        WireError: a field is outside its bound, or the alert is longer than may leave.
    """
    track = sighting.track
    alert = Alert(
        alert_id=alert_id,
        node=node,
        boot=boot,
        sequence=0,
        deployment=deployment,
        list_id=list_id,
        list_version=list_version,
        subject=sighting.match.subject,
        # The cosine of two float32 unit vectors can be 1.0000001.
        similarity=_clamp(sighting.match.similarity, -1.0, 1.0),
        threshold=_clamp(sighting.threshold, -1.0, 1.0),
        false_alert_rate=_clamp(sighting.false_alert_rate, 0.0, 1.0),
        first_seen_boot_ns=track.first_seen_ns,
        exposed_boot_ns=track.last_seen_ns,
        decided_boot_ns=sighting.decided_ns,
        decided_utc_ms=None if utc_ns is None else utc_ns // 1_000_000,
        frames_fused=sighting.frames_fused,
        box=_normalised(sighting, frame_size),
        eye_distance_px=_clamp(sighting.quality.eye_distance_px, 0.0, _FARTHEST_EYES_PX),
        occlusion=sighting.hidden,
        model=model,
    )
    return decode_alert(encode(alert))


def _normalised(
    sighting: Sighting, frame_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The face's box as fractions of the frame; what sticks out of the frame is cut off."""
    width, height = frame_size
    x1, y1, x2, y2 = (float(edge) for edge in sighting.track.face.box)
    return (
        _clamp(x1 / width, 0.0, 1.0),
        _clamp(y1 / height, 0.0, 1.0),
        _clamp(x2 / width, 0.0, 1.0),
        _clamp(y2 / height, 0.0, 1.0),
    )


def _clamp(number: float, low: float, high: float) -> float:
    """The nearest number in [low, high]; NaN stays NaN, which the check of the tuple refuses."""
    return float(number) if number != number else float(min(max(number, low), high))  # noqa: PLR0124
