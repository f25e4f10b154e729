"""What a bench measured, and its tables for a terminal."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table

FACES = (0, 1, 4, 16)
LISTS = (1_000, 10_000, 100_000, 1_000_000)
SMALL_PX = (20, 28, 40, 56)
DETECTORS = ("centerface-320x192", "centerface-640x384", "centerface-1280x736")
TARGET_RATIO = 1.15
TARGET_RSS_MIB = 300


@dataclass(frozen=True, slots=True)
class Invoke:
    """One model alone, per run, in milliseconds."""

    model: str
    best_ms: float
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Step:
    """`Watch.step` with so many faces in the frame.

    Attributes:
        masked: whether each of them wears one.
        found: tracks that were open, in the median.
        ratio: of the step's time to the time inside its model invokes; median of the steps.
        decided_ms: the same frames once every track is decided: detection and tracking only.
    """

    faces: int
    masked: bool
    found: int
    best_ms: float
    median_ms: float
    p99_ms: float
    ratio: float
    invokes_ms: float
    decided_ms: float


@dataclass(frozen=True, slots=True)
class Small:
    """Small faces found, as a fraction, by the width of the face in a frame of 1280 x 720."""

    detector: str
    ms: float
    found: dict[int, float]


@dataclass(frozen=True, slots=True)
class Search:
    """One probe against a list."""

    templates: int
    best_ms: float
    median_ms: float
    per_s: float
    read_ms: float


@dataclass(frozen=True, slots=True)
class Street:
    """The demo's street, played in real time to the node's three services and a controller.

    Attributes:
        p50_ms, p99_ms: from exposure of the deciding frame until the controller had the alert.
        node_mib: memory of the watch service.
    """

    p50_ms: float
    p99_ms: float
    node_mib: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything that was measured, and where.

    Attributes:
        street: None if it was not played, or not to its end.
        peak_rss_mib: of this process after the models and the path, before any long list.
    """

    machine: str
    cores: int
    threads: int
    invokes: tuple[Invoke, ...]
    steps: tuple[Step, ...]
    small: tuple[Small, ...]
    searches: tuple[Search, ...]
    street: Street | None
    peak_rss_mib: float


def tables(result: Result) -> list[Table]:
    """For a terminal."""
    models = _table("models, alone", "model", "best ms", "median ms", "p99 ms")
    for invoke in result.invokes:
        times = invoke.best_ms, invoke.median_ms, invoke.p99_ms
        models.add_row(invoke.model, *(f"{ms:.1f}" for ms in times))
    path = _table(
        "step, 1280 x 720, every face embedded",
        *("faces", "found", "best ms", "median ms", "p99 ms", "÷ invokes", "once decided ms"),
    )
    for step in result.steps:
        path.add_row(
            f"{step.faces}, masked" if step.masked else f"{step.faces}",
            f"{step.found}",
            f"{step.best_ms:.1f}",
            f"{step.median_ms:.1f}",
            f"{step.p99_ms:.1f}",
            f"{step.ratio:.3f}",
            f"{step.decided_ms:.1f}",
        )
    widths = [f"{px} px" for px in SMALL_PX]
    small = _table("faces found, by their width at 1280 x 720", "detector", "best ms", *widths)
    for row in result.small:
        found = [f"{row.found[px]:.2f}" for px in SMALL_PX]
        small.add_row(row.detector, f"{row.ms:.1f}", *found)
    lists = _table(
        "search, one probe",
        "templates",
        "best ms",
        "median ms",
        "per s",
        "read once ms",
        "÷ reading",
    )
    for search in result.searches:
        lists.add_row(
            f"{search.templates:,}",
            f"{search.best_ms:.3f}",
            f"{search.median_ms:.3f}",
            f"{search.per_s:,.0f}",
            f"{search.read_ms:.3f}",
            f"{search.best_ms / search.read_ms:.2f}",
        )
    whole = _table(f"on {result.machine}, {result.cores} cores", "whole", "measured", "target")
    whole.add_row(
        "step ÷ invokes, 4 faces",
        f"{next(s.ratio for s in result.steps if s.faces == 4 and not s.masked):.3f}",  # noqa: PLR2004 - issue's
        f"{TARGET_RATIO}",
    )
    whole.add_row("peak memory, path", f"{result.peak_rss_mib:.0f} MiB", f"{TARGET_RSS_MIB} MiB")
    if result.street is not None:
        street = result.street
        whole.add_row(
            "memory, watch service", f"{street.node_mib:.0f} MiB", f"{TARGET_RSS_MIB} MiB"
        )
        whole.add_row("exposure → alert received, p50", f"{street.p50_ms:.0f} ms", "")
        whole.add_row("exposure → alert received, p99", f"{street.p99_ms:.0f} ms", "")
    return [models, path, small, lists, whole]


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table
