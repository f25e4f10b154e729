"""What the demo shows: a live panel on a terminal, plain lines elsewhere, and the summary."""

from __future__ import annotations

import time
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from appliance.controller.events import RAREST
from appliance.evaluation.scoreboard import Arrival, Scoreboard

_LINE_EVERY_S = 2.0


class Screen:
    """Paints the scoreboard. `update` may be called often; it paints as often as is useful."""

    def __init__(self, scoreboard: Scoreboard, console: Console) -> None:
        self._scoreboard, self._console = scoreboard, console
        self.lamps = ""
        self._live = Live(console=console, refresh_per_second=8, transient=True)
        self._lined_s = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """One line that stays."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def arrival(self, arrival: Arrival) -> None:
        """One alert, as it arrived at the controller."""
        verdict = {None: "", True: "  [green]right[/]", False: "  [bold red]WRONG[/]"}
        self.say(
            f"  [bold]ALERT[/] {arrival.subject}  similarity {arrival.similarity:.3f}"
            f"  ({_one_in(arrival.false_alert_rate)} scores this)"
            f"  {arrival.frames_fused} frames fused  {arrival.nbytes} bytes"
            f"  {arrival.latency_ms:.0f} ms after exposure{verdict[arrival.correct]}"
        )

    def update(self) -> None:
        """Paint the newest figures."""
        health = self._scoreboard.health
        if self._console.is_terminal:
            figures = Text(_figures(health)) if health else Text("starting …")
            lamps = Text.from_ansi(self.lamps)
            self._live.update(Panel(Group(lamps, figures), title="picket", title_align="left"))
        elif health and time.monotonic() - self._lined_s >= _LINE_EVERY_S:
            self._lined_s = time.monotonic()
            self.say(f"  {self.lamps}  {_figures(health)}")


def _figures(health: dict[str, Any]) -> str:
    return (
        f"{health['state']}  {health['fps']:.1f} frames/s  faces: seen {health['faces_seen']}"
        f"  erased {health['faces_erased']}  alerted {health['faces_alerted']}"
        f"  held {health['faces_held']}  erased after p50 {health['erased_p50_ms']:.0f} ms"
        f"  p99 {health['erased_p99_ms']:.0f} ms"
    )


def summary(scoreboard: Scoreboard) -> Table:
    """The last word: what was shown, what was found, how fast, and what was erased."""
    health = scoreboard.health
    table = Table(title="summary", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    if scoreboard.street is not None:
        bare, hidden = scoreboard.split()
        table.add_row("people shown", f"{len(scoreboard.appearances)}")
        table.add_row("  strangers", f"{scoreboard.strangers}")
        table.add_row("  the person of interest", f"{scoreboard.shown} times")
        table.add_row("found", f"{scoreboard.found} of {scoreboard.shown}")
        table.add_row("  with a bare face", f"{bare[0]} of {bare[1]}")
        table.add_row("  with a part-hidden face", f"{hidden[0]} of {hidden[1]}")
        table.add_row("missed", f"{scoreboard.shown - scoreboard.found}")
        table.add_row("false alerts", f"{scoreboard.false_alerts}")
    else:
        for subject, count in sorted(scoreboard.per_subject().items()):
            table.add_row(f"alerts for {subject}", f"{count}")
        table.add_row("alerts", f"{len(scoreboard.arrivals)}")
    for percent in (50, 99):
        latency = scoreboard.latency_ms(percent)
        shown = "-" if latency is None else f"{latency:.0f} ms"
        table.add_row(f"exposure → alert received, p{percent}", shown)
    if health:
        table.add_row("exposure → pixels erased, p99", f"{health['erased_p99_ms']:.0f} ms")
        table.add_row("last look → vectors erased, p99", f"{health['vectors_p99_ms']:.0f} ms")
        table.add_row("frames processed", f"{health['frames']}")
        table.add_row("frames dropped (too slow)", f"{health['dropped']}")
        counted = f"{health['faces_erased']} + {health['faces_alerted']} + {health['faces_held']}"
        table.add_row("faces seen = erased + alerted + held", f"{health['faces_seen']} = {counted}")
        table.add_row("memory of the node", f"{health['rss_mib']:.0f} MiB")
    return table


def _one_in(rate: float) -> str:
    return f"1 stranger in {1 / rate:,.0f}" if rate >= RAREST else "hardly any stranger"
