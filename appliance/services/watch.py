"""The path of a frame. It enters `Watch.step`; at most an alert tuple leaves.

    1. detect   vision/detector.py    faces in the frame
    2. track    tracking/tracker.py   the same face across frames
    3. align    vision/align.py       upright, 112 x 112
    4. assess   vision/quality.py     is it worth an embedding?
    5. read     vision/reader.py      a vector, and the column that it may be compared in
    6. fuse     tracking/evidence.py  several vectors of a track, one template per column
    7. match    watchlist/match.py    the nearest subject
    8. decide   alerts/policy.py      once per track; alerts/compose.py makes the tuple
    9. erase    the vectors here, the frame's pixels in services/watcher.py when `step` returns

A stranger's vectors are overwritten as soon as the track is decided, even while the person is
still in view: from then on the track is a box that nothing is known about.

A track may hold faces of several columns: bare, then half behind a hand. Each column has a share of
the tolerable false-alert rate, as large as its share of the track's vectors, and its threshold
follows from that. Shares add up to one and are known before anything is compared, so the promise
holds for the sum, however much the columns depend on each other (union bound); and a track of bare
faces is judged exactly as if there were no other columns.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from appliance.alerts.policy import Policy
from appliance.interfaces import Clock, Detector, Embedder
from appliance.system.erasure import Ledger
from appliance.tracking.cadence import Cadence
from appliance.tracking.evidence import Evidence
from appliance.tracking.tracker import Tracker
from appliance.types import Frame, Image, Match, Quality, Sighting, Track, Vector
from appliance.vision.align import align
from appliance.vision.quality import QualityGate
from appliance.vision.reader import Reader, Reading, Tells
from appliance.watchlist.match import NOBODY, Watchlist

UNKNOWN = "unknown"
"""What is hidden of a face, where nobody tells."""

Report = Callable[[Sighting, Watchlist], None]
"""Takes a sighting that is an alert, and the list that it is on."""


@dataclass(slots=True)
class _Dossier:
    """What is held about one undecided track: its vectors and the last quality.

    Attributes:
        track: as it was seen last.
        evidence: by column.
        faces: that gave vectors.
        told: what was hidden of them, as far as it was told.
        unreadable: faces of which nothing could be compared.
        first_ns, embedded_ns: exposure of the first and of the last face embedded.
    """

    track: Track
    evidence: dict[str, Evidence] = field(default_factory=dict)
    faces: int = 0
    told: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    quality: Quality | None = None
    first_ns: int = 0
    embedded_ns: int = 0

    @property
    def vectors(self) -> int:
        """Held, in all columns together."""
        return sum(evidence.count for evidence in self.evidence.values())


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The nearest subject in one column, on that column's share of the risk."""

    column: str
    match: Match
    threshold: float
    rate: float
    faces: int


class Watch:
    """Turns frames into decisions. Used by one thread.

    Args:
        report: called for each alert.
        embeddings: how many are fused before a track is decided.
        interval_s: least time between two embeddings of a track.
        hold_s: a track is decided on what there is so long after its first embedding: nobody's
            vectors are held for as long as they stand in view.
        rest_s: how long the search for faces may rest while nobody is being judged.
        hidden: embedder for part-hidden faces, with `teller`; None reads every face as a bare one.
        teller: says which part is hidden.
        unsearchable: told of each track of which no face could be compared with the list.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        embedder: Embedder,
        gate: QualityGate,
        tracker: Tracker,
        policy: Policy,
        ledger: Ledger,
        clock: Clock,
        report: Report,
        embeddings: int,
        interval_s: float,
        hold_s: float,
        rest_s: float = 0.0,
        hidden: Embedder | None = None,
        teller: Tells | None = None,
        unsearchable: Callable[[], object] = lambda: None,
    ) -> None:
        self._detector, self._gate = detector, gate
        self._reader = Reader(embedder=embedder, hidden=hidden, teller=teller)
        self._unsearchable = unsearchable
        self._tracker, self._policy = tracker, policy
        self._ledger, self._clock, self._report = ledger, clock, report
        self._embeddings = embeddings
        self._interval_ns = round(interval_s * 1e9)
        self._hold_ns = round(hold_s * 1e9)
        self._cadence = Cadence(rest_s=rest_s)
        self._crop: Image = np.zeros((embedder.side, embedder.side, 3), np.uint8)
        self._undecided: dict[int, _Dossier] = {}
        self._wiped_ns: list[int] = []

    def step(self, frame: Frame, watchlist: Watchlist) -> None:
        """Take one frame down the path, unless the street is quiet and it may be passed over."""
        if not self._cadence.due(
            frame.boot_ns, undecided=len(self._undecided), pace=self._tracker.pace
        ):
            return
        faces = self._detector.detect(frame.image)
        tracks = self._tracker.update(faces, frame.boot_ns)
        for track in tracks.seen:
            if track.hits == 1:
                self._open(track)
            dossier = self._undecided.get(track.id)
            if dossier is None:  # decided: nothing more is learnt about this face
                continue
            dossier.track = track
            if self._due(dossier, frame):
                self._look(frame, dossier, watchlist)
        for track in tracks.ended:
            self._end(track, watchlist)
        self._settle(watchlist, frame.boot_ns)

    def idle(self, watchlist: Watchlist) -> None:
        """No frame came for a while: nobody is held for longer because of that."""
        self._settle(watchlist, self._clock.boot_ns())

    def close(self, watchlist: Watchlist | None) -> None:
        """End every track: the camera is off. Without a list none is decided, all are erased."""
        ended = self._tracker.close()
        for track in ended:
            self._end(track, watchlist)
        for dossier in tuple(self._undecided.values()):  # of a step that broke off in the middle
            self._erase(dossier, alerted=False)
        self._forget()
        if ended:
            self._detector.forget()

    def _open(self, track: Track) -> None:
        self._ledger.face_seen()
        self._undecided[track.id] = _Dossier(track)

    def _due(self, dossier: _Dossier, frame: Frame) -> bool:
        return dossier.faces == 0 or frame.boot_ns - dossier.embedded_ns >= self._interval_ns

    def _settle(self, watchlist: Watchlist, now_ns: int) -> None:
        """Decide whoever was seen well enough or held for long enough, in sight or not."""
        for dossier in tuple(self._undecided.values()):
            if self._suffices(dossier, now_ns):
                self._decide(dossier, watchlist)
        self._forget()
        self._ledger.audit(held=len(self._undecided))

    def _suffices(self, dossier: _Dossier, now_ns: int) -> bool:
        held_long = dossier.faces > 0 and now_ns - dossier.first_ns >= self._hold_ns
        return held_long or dossier.faces == self._embeddings

    def _look(self, frame: Frame, dossier: _Dossier, watchlist: Watchlist) -> None:
        """One more face read, if it can tell anything."""
        face = dossier.track.face
        try:
            align(frame.image, face.landmarks, out=self._crop)
            quality = self._gate.assess(self._crop, face)
            if quality.refusal is None:
                reading = self._reader.read(self._crop, watchlist.columns)
                self._learn(dossier, reading, quality, frame.boot_ns)
        finally:
            self._crop.fill(0)

    def _learn(self, dossier: _Dossier, reading: Reading, quality: Quality, boot_ns: int) -> None:
        for column, vector in reading.vectors.items():
            self._keep(dossier, column, vector)
        if not reading.vectors:
            dossier.unreadable += 1
            return
        dossier.faces += 1
        if reading.hidden is not None:
            dossier.told[reading.hidden] += 1
        dossier.quality, dossier.embedded_ns = quality, boot_ns
        dossier.first_ns = dossier.first_ns or boot_ns

    def _keep(self, dossier: _Dossier, column: str, vector: Vector) -> None:
        evidence = dossier.evidence.get(column)
        if evidence is None:
            evidence = Evidence(self._reader.dim, self._embeddings)
            dossier.evidence[column] = evidence
        evidence.add(vector)
        vector.fill(0)

    def _end(self, track: Track, watchlist: Watchlist | None) -> None:
        """Decide a track that is over on what there is, or let it go."""
        dossier = self._undecided.get(track.id)
        if dossier is not None:
            if watchlist is not None and dossier.faces:
                self._decide(dossier, watchlist)
            else:
                self._erase(dossier, alerted=False)
        self._policy.forget(track.id)

    def _decide(self, dossier: _Dossier, watchlist: Watchlist) -> None:
        """The one decision about a track; afterwards its vectors are gone."""
        verdict = min(self._verdicts(dossier, watchlist), key=lambda verdict: verdict.rate)
        now_ns = self._clock.boot_ns()
        alert = self._policy.decide(
            dossier.track.id, verdict.match, threshold=verdict.threshold, boot_ns=now_ns
        )
        if alert and dossier.quality is not None:
            sighting = Sighting(
                track=dossier.track,
                match=verdict.match,
                threshold=verdict.threshold,
                false_alert_rate=verdict.rate,
                frames_fused=verdict.faces,
                quality=dossier.quality,
                decided_ns=now_ns,
                hidden=_mostly(dossier.told),
                column=verdict.column,
            )
            self._report(sighting, watchlist)
        self._erase(dossier, alerted=bool(alert))

    def _verdicts(self, dossier: _Dossier, watchlist: Watchlist) -> Iterator[_Verdict]:
        """The nearest subject in each column of the track."""
        vectors = dossier.vectors
        for column, evidence in dossier.evidence.items():
            if column not in watchlist.columns:  # another list, since that face was read
                yield _Verdict(column, NOBODY, 1.0, 1.0, evidence.count)
                continue
            share = evidence.count / vectors
            probe = evidence.fuse()
            match = watchlist.nearest(probe, column)
            probe.fill(0)
            rate = watchlist.false_alert_rate(match.similarity, column) / share
            threshold = watchlist.threshold_in(column, share)
            yield _Verdict(column, match, threshold, min(rate, 1.0), evidence.count)

    def _erase(self, dossier: _Dossier, *, alerted: bool) -> None:
        del self._undecided[dossier.track.id]
        if dossier.faces:
            for evidence in dossier.evidence.values():
                evidence.wipe()
            self._wiped_ns.append(dossier.embedded_ns)
        elif dossier.unreadable:
            self._unsearchable()
            self._wiped_ns.append(self._clock.boot_ns())
        if alerted:
            self._ledger.face_alerted()
        else:
            self._ledger.face_erased()

    def _forget(self) -> None:
        """The model's own inside is the last place where a vector stays; once for all of them."""
        if not self._wiped_ns:
            return
        self._reader.forget()
        now_ns = self._clock.boot_ns()
        for embedded_ns in self._wiped_ns:
            self._ledger.vectors_erased(now_ns - embedded_ns)
        self._wiped_ns.clear()


def _mostly(told: Counter[str]) -> str:
    """What was hidden in most frames."""
    return told.most_common(1)[0][0] if told else UNKNOWN
