"""`picket threshold`: what a list of so many people needs, and what it will cost in misses."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta, Struct

from appliance.accelerator.manifest import Manifest
from appliance.config import Models
from appliance.errors import ModelError
from appliance.evaluation.models import FOLDER
from appliance.types import FalseMatch
from appliance.watchlist.calibration import interval_at, threshold_for

ACCURACY = "accuracy.json"
"""Beside the manifest: expected TPIR over the threshold, measured by evaluation/calibrate.py."""

_Unit = Annotated[float, Meta(ge=0.0, le=1.0)]


class Expected(Struct, frozen=True):
    """TPIR at a threshold, with its 95 % interval."""

    threshold: Annotated[float, Meta(ge=-1.0, le=1.0)]
    tpir: _Unit
    low: _Unit
    high: _Unit


class Accuracy(Struct, frozen=True):
    """What was measured of one embedder.

    Attributes:
        model: its id; figures of another one say nothing.
        fused: pictures per person in `per_person`.
    """

    model: str
    source: str
    fused: int
    per_picture: Annotated[tuple[Expected, ...], Meta(min_length=2)]
    per_person: Annotated[tuple[Expected, ...], Meta(min_length=2)]


def advise(
    *,
    subjects: int,
    templates: int,
    false_alerts: float,
    folder: Path | None = None,
    embedder: str | None = None,
) -> str:
    """The answer in words.

    Args:
        subjects: on the list.
        templates: per subject.
        false_alerts: tolerable per passer-by who is not on the list, in (0, 1).
        folder: of the models; None is Picket's own.
        embedder: name in the manifest; None is the node's default.

    Raises:
        ThresholdError: such a list cannot be served; says by how much it is out of reach.
        ModelError: no such model, or none of whose strangers anything is known.
    """
    folder = folder or FOLDER
    model = Manifest.load(folder).model(embedder or Models().embedder)
    table = model.false_match
    if table is None:
        raise ModelError(f"{model.spec.id}: its manifest has no false_match table: not calibrated")
    total = subjects * templates
    threshold = threshold_for(table, templates=total, fpir=false_alerts, floor=-1.0)
    low, high = interval_at(table, threshold, templates=total)
    lines = [
        f"{subjects:,} subjects, {total:,} templates, {_one_in(false_alerts)} passers-by:",
        f"  threshold       cosine {threshold:.3f}",
        f"  false alerts    {_one_in(high)} to {_one_in(low)} (95 % interval of the fit)",
        f"  reach           {_reach(table, total, false_alerts)}",
        *_expected(folder / ACCURACY, model.spec.id, threshold),
        f"  measured on     {table.source}",
        f"  model           {model.spec.id}",
    ]
    return "\n".join(lines)


def load_accuracy(path: Path) -> Accuracy | None:
    """What was measured of this installation's model; None if there is no such file.

    Raises:
        ModelError: it is not what calibrate.py writes.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Accuracy)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise ModelError(f"{path}: {e}") from e


def _reach(table: FalseMatch, templates: int, fpir: float) -> str:
    """How far the answer lies beyond what was measured."""
    wanted = fpir / templates
    least = 1 / table.comparisons
    said = f"{_one_in(wanted)} comparisons may be wrong; {table.comparisons:,} were measured"
    if wanted >= table.tail_rate:
        return f"{said}: no extrapolation"
    if wanted >= least:
        return f"{said}: within them, by the fitted tail"
    return f"{said}: extrapolated {least / wanted:,.1f} times beyond them"


def _expected(path: Path, model: str, threshold: float) -> list[str]:
    accuracy = load_accuracy(path)
    if accuracy is None or accuracy.model != model:
        return ["  finds           not measured for this model"]
    return [
        f"  finds           {_at(accuracy.per_picture, threshold)} of the listed by one picture,",
        (
            f"                  {_at(accuracy.per_person, threshold)} by {accuracy.fused} fused"
            f" ({accuracy.source.split(',')[0]}; a street is harder)"
        ),
    ]


def _at(curve: tuple[Expected, ...], threshold: float) -> str:
    thresholds = [point.threshold for point in curve]
    tpir, low, high = (
        float(np.interp(threshold, thresholds, [getattr(point, name) for point in curve]))
        for name in ("tpir", "low", "high")
    )
    return f"{tpir:.1%} [{low:.1%}, {high:.1%}]".replace("%", " %")


def _one_in(rate: float) -> str:
    """To two digits, as more would claim too much; what was asked for is given back whole."""
    if rate <= 0:
        return "none"
    number = 1 / rate
    if abs(number - round(number)) > 1e-6 * number:
        number = round(number, 1 - math.floor(math.log10(number)))
    return f"1 in {number:,.0f}"
