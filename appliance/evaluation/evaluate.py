"""`picket evaluate`: from a folder of faces to a report.

1. read the protocol (protocol.py) and the metadata
2. look at every picture (extract.py), remembering what was seen (cache.py)
3. measure (assess.py)
4. write report.html and report.json (report.py)
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.errors import ThresholdError
from appliance.evaluation import report
from appliance.evaluation.assess import Evaluation, assess
from appliance.evaluation.cache import Cache, Sample
from appliance.evaluation.extract import NO_FACE, Extractor, extract
from appliance.evaluation.models import Loaded, load
from appliance.evaluation.progress import progress
from appliance.evaluation.protocol import METADATA, Protocol, Role, read_table
from appliance.evaluation.protocol import load as load_protocol
from appliance.evaluation.samples import Samples
from appliance.types import FalseMatch
from appliance.vision.quality import QualityGate
from appliance.watchlist.calibration import threshold_for

PROMISED = (1 / 1000, 1 / 6000)
"""False-alert rates at which the node's own threshold is reported."""

_VERSION = 2
"""Of what a sample depends on besides the models: counted up when that changes."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for.

    Attributes:
        data, out: folders.
        seed: of every draw.
        metadata: CSV with a column `subject` (or `image`) and any others; None is metadata.csv in
            the folder, if there is one.
        errata: see protocol.load.
        cache: file of earlier samples; None is in the user's cache folder.
        gated: refuse faces that the node's quality gate refuses.
        flip: see Extractor.
        pictures: show the pictures in the report, from where they lie.
        models, detector, embedder: see models.load.
    """

    data: Path
    out: Path
    seed: int = 1
    metadata: Path | None = None
    errata: Path | None = None
    cache: Path | None = None
    gated: bool = True
    flip: bool = False
    pictures: bool = False
    models: Path | None = None
    detector: str | None = None
    embedder: str | None = None


def evaluate(options: Options) -> tuple[Evaluation, Path]:
    """Measure and write the report.

    Returns:
        What was measured, and the path of the page.

    Raises:
        EvaluationError: the data cannot be measured with, or the report not written.
        ModelError: see models.load.
    """
    protocol = load_protocol(options.data, seed=options.seed, errata=options.errata)
    read_metadata(protocol, options.metadata)  # wrong tables are refused before the long part
    with load(
        folder=options.models, detector=options.detector, embedder=options.embedder
    ) as models:
        samples = collect(protocol, models, cache=options.cache, flip=options.flip)
        table, pipeline = models.embedder_file.false_match, _pipeline_words(models, options)
    return conclude(options, protocol, samples, table=table, pipeline=pipeline)


def conclude(
    options: Options,
    protocol: Protocol,
    samples: Sequence[Sample],
    *,
    table: FalseMatch | None,
    pipeline: str,
) -> tuple[Evaluation, Path]:
    """Measure on samples and write the report.

    Args:
        options: what the user asked for.
        protocol: of the pictures.
        samples: one per picture, in order.
        table: of the embedder, for the thresholds that the node would use; None leaves them out.
        pipeline: what made the samples, in words.

    Returns:
        See evaluate.

    Raises:
        EvaluationError: see evaluate.
    """
    metadata, odd = read_metadata(protocol, options.metadata)
    lined = Samples.of(protocol, samples, gated=options.gated)
    gallery = lined.gallery()
    names, thresholds = _promised(table, gallery.templates)
    evaluation = assess(
        lined, seed=options.seed, metadata=metadata, thresholds=thresholds, table=table
    )
    mated = lined.rows(Role.MATED, usable=True)
    strangers = lined.rows(Role.NONMATED, usable=True)
    made = report.Made(
        data=options.data.resolve().name,
        protocol=protocol.how,
        pipeline=pipeline,
        seed=options.seed,
        findings=(*protocol.findings, *odd, *_unreadable(samples)),
        thresholds=names,
    )
    outcome = report.Outcome(
        made,
        evaluation,
        gallery.compare(lined.vectors[mated], lined.people[mated]).own,
        gallery.compare(lined.vectors[strangers], lined.people[strangers]).other,
    )
    return evaluation, report.write(outcome, options.out, pictures=options.pictures)


def collect(
    protocol: Protocol, models: Loaded, *, cache: Path | None, flip: bool = False
) -> list[Sample]:
    """Samples of all pictures of a protocol, in order; interrupted, it goes on where it was."""
    gate = QualityGate()
    extractor = Extractor(detector=models.detector, embedder=models.embedder, gate=gate, flip=flip)
    pipeline = pipeline_id(models, flip=flip)
    paths = [p.path for p in protocol.pictures]
    with (
        Cache(cache or default_cache(), pipeline=pipeline) as remembered,
        progress("pictures", len(paths)) as told,
    ):
        return list(extract(paths, extractor, remembered, told))


def default_cache() -> Path:
    """Where samples are kept unless told otherwise: the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "picket" / "samples.sqlite"


def pipeline_id(models: Loaded, *, flip: bool) -> str:
    """Everything that a sample depends on but the picture; the gate judges it anew each time."""
    parts = (
        _VERSION,
        models.detector_file.spec.id,
        models.embedder_file.spec.id,
        models.min_score,
        flip,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def read_metadata(
    protocol: Protocol, path: Path | None
) -> tuple[dict[str, dict[str, str]], list[str]]:
    """Values per column and subject, and what does not fit together.

    Raises:
        EvaluationError: unreadable, or without a column `subject`.
    """
    path = path or protocol.folder / METADATA
    if not path.is_file():
        return {}, []
    rows = read_table(path, ("subject",))
    people = {p.subject for p in protocol.pictures}
    known = {row["subject"] for row in rows}
    columns: defaultdict[str, dict[str, str]] = defaultdict(dict)
    odd: list[str] = []
    for row in rows:
        for column, value in row.items():
            before = columns[column].setdefault(row["subject"], value.strip())
            if before != value.strip():
                odd.append(f"{path.name}: {row['subject']} has {column} '{before}' and '{value}'")
    del columns["subject"]
    columns.pop("image", None)
    odd += _counted(f"{path.name}: a row without pictures", sorted(known - people))
    odd += _counted(f"no row in {path.name} for", sorted(people - known))
    return dict(columns), odd


def _counted(what: str, names: Sequence[str]) -> list[str]:
    """One line for many names."""
    if not names:
        return []
    shown = ", ".join(names[:5])
    return [f"{what}: {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")]  # noqa: PLR2004 - see shown


def _promised(table: FalseMatch | None, templates: int) -> tuple[tuple[str, ...], list[float]]:
    """The thresholds that the node would use for this list."""
    names: list[str] = []
    thresholds: list[float] = []
    if table is None:
        return (), []
    for rate in PROMISED:
        try:
            threshold = threshold_for(table, templates=templates, fpir=rate, floor=-1.0)
        except ThresholdError:
            continue
        names.append(f"the node's threshold for 1 false alert in {1 / rate:,.0f}")
        thresholds.append(threshold)
    return tuple(names), thresholds


def _unreadable(samples: Sequence[Sample]) -> list[str]:
    return [s.failure for s in samples if s.failure and s.failure != NO_FACE]


def _pipeline_words(models: Loaded, options: Options) -> str:
    words = [f"Detector {models.detector_file.spec.id}, embedder {models.embedder_file.spec.id}"]
    words.append("quality gate as in the node" if options.gated else "no quality gate")
    if options.flip:
        words.append("mean with the mirrored face")
    return ", ".join(words)
