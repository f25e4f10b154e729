"""Which match becomes an alert. Pure: a match and the time in, a decision out.

FPIR is stated per passer-by, so a person is judged once, on the fused template of one track:
judging every frame would raise more false alerts the longer somebody stays in view.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from appliance.types import Match


class Reason(StrEnum):
    """Why a match is an alert, or is none."""

    ALERT = "alert"
    STRANGER = "stranger"
    COOLING_DOWN = "cooling down"
    DECIDED_BEFORE = "decided before"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy made of one track; true if it is an alert.

    Attributes:
        subject: the nearest one, also when it is not near enough.
    """

    track_id: int
    subject: str
    similarity: float
    threshold: float
    reason: Reason

    def __bool__(self) -> bool:
        return self.reason is Reason.ALERT


class Policy:
    """Decides each track once and alerts for each subject at most once per cool-down.

    Args:
        cooldown_s: after an alert, for how long the same subject raises no other.
        tracks: decided tracks remembered at most; above what the tracker holds open.
    """

    def __init__(self, *, cooldown_s: float, tracks: int = 1024) -> None:
        self._cooldown_ns = round(cooldown_s * 1e9)
        self._tracks = tracks
        self._decided: OrderedDict[int, None] = OrderedDict()
        self._alerted_ns: OrderedDict[str, int] = OrderedDict()

    def decide(self, track_id: int, match: Match, *, threshold: float, boot_ns: int) -> Decision:
        """Judge the fused template of a track.

        Args:
            track_id: one that was judged before is not judged again.
            match: the nearest subject.
            threshold: cosine from which it is that subject; from the watchlist in use.
            boot_ns: CLOCK_BOOTTIME, never decreasing from call to call.
        """
        reason = self._judge(track_id, match, threshold, boot_ns)
        if reason is Reason.ALERT:
            self._alerted_ns[match.subject] = boot_ns
        self._decided[track_id] = None
        if len(self._decided) > self._tracks:
            self._decided.popitem(last=False)
        return Decision(track_id, match.subject, match.similarity, threshold, reason)

    def forget(self, track_id: int) -> None:
        """The track has ended; its id does not come back."""
        self._decided.pop(track_id, None)

    def _judge(self, track_id: int, match: Match, threshold: float, boot_ns: int) -> Reason:
        if track_id in self._decided:
            return Reason.DECIDED_BEFORE
        # Written so that a similarity that is no number (NaN) is a stranger's.
        if not match.similarity >= threshold:
            return Reason.STRANGER
        self._warm_up(boot_ns)
        if match.subject in self._alerted_ns:
            return Reason.COOLING_DOWN
        return Reason.ALERT

    def _warm_up(self, boot_ns: int) -> None:
        """Forget subjects whose cool-down is over; the oldest alert is always first."""
        while self._alerted_ns:
            subject, alerted_ns = next(iter(self._alerted_ns.items()))
            if boot_ns - alerted_ns < self._cooldown_ns:
                return
            del self._alerted_ns[subject]
