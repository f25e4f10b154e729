"""What peers and ours did, as tables on a terminal and as a page with bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.table import Table

from appliance.evaluation.bench_report import FACES, SMALL_PX
from appliance.evaluation.identification import Rate
from appliance.evaluation.page import frame
from appliance.evaluation.page import table as html_table
from appliance.evaluation.svg import Axis, Chart

OURS, OUR_DETECTOR = "picket", "picket-detector"
EVERYONE = {
    OURS: "Picket",
    "dlib": "face_recognition",
    OUR_DETECTOR: "Picket, detector",
    "yunet": "YuNet, full size",
    "yunet-half": "YuNet, half size",
    "mediapipe": "MediaPipe",
}
EMBEDDERS = (OURS, "dlib")


@dataclass(slots=True)
class Row:
    """One peer's figures; None where it does not do that, or was not asked.

    Attributes:
        absent: why there are no figures, "" if there are.
        ms: per frame, by the number of faces in it: the median.
        best_ms: the fastest tenth, which is what compares on a machine that does other things.
        cpu_ms: the same tenth of the time of all threads together.
        faces: found per frame, by the same.
        small: fraction of small faces found, by their width.
        tpir: at FPIR 1 %, per picture.
        missed: pictures on which no face was found, of `pictures`.
    """

    name: str
    absent: str = ""
    ms: dict[int, float] = field(default_factory=dict)
    best_ms: dict[int, float] = field(default_factory=dict)
    cpu_ms: dict[int, float] = field(default_factory=dict)
    faces: dict[int, float] = field(default_factory=dict)
    small: dict[int, float] = field(default_factory=dict)
    peak_rss_mib: float | None = None
    tpir: Rate | None = None
    missed: int | None = None
    pictures: int | None = None


def skipped(rows: Sequence[Row]) -> list[str]:
    """Who has no figures, and why."""
    return [f"skipped: {EVERYONE[row.name]}: {row.absent}" for row in rows if row.absent]


def tables(rows: Sequence[Row]) -> list[Table]:
    """For a terminal."""
    ours = {name: next(r for r in rows if r.name == name) for name in (OURS, OUR_DETECTOR)}
    speed = Table(
        title="ms per frame of 1280 x 720 (the fastest tenth), by faces in it", title_justify="left"
    )
    small = Table(title="faces found by width; recognition", title_justify="left")
    for table in (speed, small):
        table.add_column("who", no_wrap=True)
    for name in (*(f"{n} faces" for n in FACES), "÷ ours at 4", "its CPU time", "peak MiB"):
        speed.add_column(name, justify="right")
    for name in (*(f"{px} px" for px in SMALL_PX), "faces in empty frames", "TPIR at FPIR 1 %"):
        small.add_column(name, justify="right")
    small.add_column("pictures without a face", justify="right")
    for row in rows:
        if row.absent:
            continue
        mine = ours[OURS if row.name in EMBEDDERS else OUR_DETECTOR]
        speed.add_row(
            EVERYONE[row.name],
            *(f"{row.best_ms[n]:.1f}" for n in FACES),
            f"{row.best_ms[4] / mine.best_ms[4]:.2f}",
            f"{row.cpu_ms[4] / mine.cpu_ms[4]:.2f}",
            f"{row.peak_rss_mib:.0f}",
        )
        small.add_row(
            EVERYONE[row.name],
            *(f"{row.small[px]:.2f}" if row.small else "" for px in SMALL_PX),
            f"{row.faces[0]:.2f}",
            _percent(row.tpir),
            "" if row.missed is None else f"{row.missed} of {row.pictures}",
        )
    return [speed, small]


def _percent(rate: Rate | None) -> str:
    if rate is None:
        return ""
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]".replace("%", " %")


def page(rows: Sequence[Row]) -> str:
    """For a browser."""
    there = [row for row in rows if not row.absent]
    head = ["who", *(f"{n} faces" for n in FACES), "4 faces, CPU", "peak MiB", "TPIR at FPIR 1 %"]
    cells = [
        [
            EVERYONE[row.name],
            *(f"{row.best_ms[n]:.1f} ({row.ms[n]:.1f})" for n in FACES),
            f"{row.cpu_ms[4]:.1f}",
            f"{row.peak_rss_mib:.0f}",
            _percent(row.tpir),
        ]
        for row in there
    ]
    found = [
        [EVERYONE[row.name], *(f"{row.small[px]:.2f}" for px in SMALL_PX), f"{row.faces[0]:.2f}"]
        for row in there
        if row.small
    ]
    absent = [[EVERYONE[row.name], row.absent] for row in rows if row.absent]
    parts = [
        _times(there),
        html_table("Per frame of 1280 x 720, ms: the fastest tenth (the median)", head, cells),
        _small(there),
        html_table(
            "Faces found, by their width in the frame; faces found in a frame that has none",
            ["who", *(f"{px} px" for px in SMALL_PX), "in an empty frame"],
            found,
        ),
    ]
    if absent:
        parts.append(html_table("Skipped", ["who", "why"], absent))
    return frame("Side by side", _OPENING, parts)


_OPENING = (
    "Picket: detector of 640x384 and embedder, int8. face_recognition 1.3 on dlib 20: HOG, ResNet."
    " YuNet-n in OpenCV 4.11, at 1280x720 and 640x360. MediaPipe 0.10 face detection, full range."
    " The same frames and pictures, one process after the other, on one machine in one run; two"
    " threads each where a library can be told so (dlib uses one). Lower is faster. Peak memory"
    " includes the frames. YuNet and MediaPipe find faces and do not tell people apart here."
)


def _times(rows: Sequence[Row]) -> str:
    top = max((ms for row in rows for ms in row.best_ms.values()), default=1.0)
    least = min((ms for row in rows for ms in row.best_ms.values()), default=0.1)
    chart = Chart(
        "Time per frame over faces in it",
        Axis("faces in the frame", 0.0, float(FACES[-1])),
        Axis("ms per frame", least * 0.7, top * 1.4, log=True),
        legend_top=True,
    )
    for row in rows:
        chart.line([(n, row.best_ms[n]) for n in FACES], EVERYONE[row.name][:34], marked=True)
    return chart.svg()


def _small(rows: Sequence[Row]) -> str:
    chart = Chart(
        "Small faces found",
        Axis("width of the face in pixels at 1280 x 720", float(SMALL_PX[0]), float(SMALL_PX[-1])),
        Axis("found", 0.0, 1.0, percent=True),
    )
    for row in rows:
        if row.small:
            chart.line([(px, row.small[px]) for px in SMALL_PX], EVERYONE[row.name], marked=True)
    return chart.svg()
