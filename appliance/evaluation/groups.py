"""The same test broken down by a column of a metadata file: who is missed more often?

Enters: an identification test and a label per probe. Leaves: rates per group with intervals, the
difference to everybody else with its own, and plain words where a group is too small to tell.

After ISO/IEC 19795-10: one threshold for all groups, the sizes beside every figure, and intervals
of differences widened for the number of differences looked at (Bonferroni), so that a breakdown
into many groups does not find one that differs by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from appliance.evaluation.identification import Bootstrap, Rate, Trials, fpir, interval, tpir

LEAST_SUBJECTS = 30
"""People in a group below which its rates are called too uncertain to compare."""

Labels = npt.NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Difference:
    """A group's rate minus everybody else's, with an interval that allows for many looks."""

    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Group:
    """One value of one column.

    Attributes:
        tpir, fpir: at the common threshold; None if the group has no such probes.
        difference: of TPIR to all the others together; None if either side is empty.
        fpir_difference: of FPIR, likewise.
        warning: why little can be said of it, "" if there is no reason.
    """

    column: str
    value: str
    tpir: Rate | None
    fpir: Rate | None
    difference: Difference | None
    fpir_difference: Difference | None
    warning: str


def break_down(
    column: str,
    mated: Labels,
    nonmated: Labels,
    trials: Trials,
    *,
    threshold: float,
    bootstrap: Bootstrap,
) -> tuple[Group, ...]:
    """Every value of a column, in the order of the alphabet.

    Args:
        column: its name.
        mated: (m,) the value of each mated probe, "" where it is not known.
        nonmated: (n,) the same for the non-mated.
        trials: the test.
        threshold: the same for all groups.
        bootstrap: over `trials`.
    """
    values = sorted({*mated.tolist(), *nonmated.tolist()} - {""})
    looks = max(1, len(values))
    return tuple(
        _group(
            (column, value),
            trials,
            (mated == value, nonmated == value),
            (mated != "", nonmated != ""),
            (threshold, bootstrap, 1 - 0.05 / looks),
        )
        for value in values
    )


_Masks = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def _group(
    name: tuple[str, str],
    trials: Trials,
    inside: _Masks,
    known: _Masks,
    how: tuple[float, Bootstrap, float],
) -> Group:
    threshold, bootstrap, confidence = how
    outside = known[0] & ~inside[0], known[1] & ~inside[1]
    hits, alarms = bootstrap.tpirs(threshold, inside[0]), bootstrap.fpirs(threshold, inside[1])
    rest_hits, rest_alarms = (
        bootstrap.tpirs(threshold, outside[0]),
        bootstrap.fpirs(threshold, outside[1]),
    )
    here, there = _part(trials, inside), _part(trials, outside)
    hit = _rate(tpir(here, threshold), hits, here.mated_subject)
    alarm = _rate(fpir(here, threshold), alarms, here.nonmated_subject)
    return Group(
        column=name[0],
        value=name[1],
        tpir=hit,
        fpir=alarm,
        difference=_difference(
            tpir(here, threshold) - tpir(there, threshold), hits - rest_hits, confidence
        ),
        fpir_difference=_difference(
            fpir(here, threshold) - fpir(there, threshold), alarms - rest_alarms, confidence
        ),
        warning=_warning(hit, alarm, strangers=len(trials.nonmated) > 0),
    )


def _part(trials: Trials, chosen: _Masks) -> Trials:
    return Trials(
        trials.mated[chosen[0]],
        trials.mated_subject[chosen[0]],
        trials.nonmated[chosen[1]],
        trials.nonmated_subject[chosen[1]],
    )


def _rate(
    value: float, resampled: npt.NDArray[np.float64], subjects: npt.NDArray[np.intp]
) -> Rate | None:
    if not len(subjects):
        return None
    people = len(np.unique(subjects))
    low, high = interval(resampled)
    if value == 0.0:
        high = max(high, min(1.0, 3 / people))
    if value == 1.0:
        low = min(low, max(0.0, 1 - 3 / people))
    return Rate(value, low, high, len(subjects), people)


def _difference(
    value: float, resampled: npt.NDArray[np.float64], confidence: float
) -> Difference | None:
    if np.isnan(value):
        return None
    return Difference(value, *interval(resampled, confidence))


def _warning(hit: Rate | None, alarm: Rate | None, *, strangers: bool) -> str:
    """Plain words, for somebody who has to decide on these figures."""
    said: list[str] = []
    if hit is None:
        said.append("nobody of this group is on the list: nothing is known of its misses")
    elif hit.subjects < LEAST_SUBJECTS:
        said.append(
            f"{hit.subjects} people on the list, fewer than {LEAST_SUBJECTS}: too few to compare"
        )
    if not strangers:
        return "; ".join(said)
    if alarm is None:
        said.append("no strangers of this group: nothing is known of its false alerts")
    elif alarm.value == 0.0:
        said.append(
            f"no false alert among {alarm.subjects} strangers:"
            f" the true rate may still be {3 / alarm.subjects:.1%}"
        )
    elif alarm.subjects < LEAST_SUBJECTS:
        said.append(f"{alarm.subjects} strangers, fewer than {LEAST_SUBJECTS}: too few to compare")
    return "; ".join(said)
