"""Everything that the demo's processes say, in one queue; and the commands that it runs."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

from appliance.errors import PicketError
from appliance.evaluation.process import Process

_START_S = 60.0
_COMMAND_S = 300.0

_CHATTER = "INFO: Created TensorFlow Lite XNNPACK delegate"
_SPOKEN = {"appliance": "picket", "appliance.controller": "picketctl"}


class Stage:
    """Collects events; runs and shows commands.

    Args:
        console: where commands are shown.
    """

    def __init__(self, console: Console) -> None:
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._console = console

    def run(self, module: str, *arguments: str) -> None:
        """Run a command to its end and show it; its output is its own affair unless it fails.

        Raises:
            PicketError: it failed; carries its own words.
        """
        spoken = f"{_SPOKEN[module]} {' '.join(arguments)}"
        self._console.print(f"[dim]$ {escape(spoken)}[/]", soft_wrap=True)
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
            check=False,
        )
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise PicketError(f"{spoken}: {words[-1] if words else done.returncode}")

    def controller_line(self, line: str) -> None:
        """One JSON event of `picketctl serve --json`."""
        self._events.put(json.loads(line))

    def node_line(self, line: str) -> None:
        """One row of lamps."""
        self._events.put({"event": "lamps", "row": line})

    def complain(self, line: str) -> None:
        """What a process says on stderr is shown, but for what a library says of itself."""
        if not line.startswith(_CHATTER):
            self._events.put({"event": "stderr", "line": line})

    def drain(self) -> Iterator[dict[str, Any]]:
        """The events that have come since."""
        while True:
            try:
                yield self._events.get_nowait()
            except queue.Empty:
                return

    def wait_for(self, kind: str, process: Process) -> dict[str, Any]:
        """The first event of a kind; others before it are about starting and are dropped.

        Raises:
            PicketError: the process ended, or the event did not come in time.
        """
        deadline_s = time.monotonic() + _START_S
        said = ""
        while time.monotonic() < deadline_s:
            try:
                event = self._events.get(timeout=0.1)
            except queue.Empty:
                if process.status is not None:
                    raise PicketError(f"{process.module} did not start: {said}") from None
                continue
            if event["event"] == kind:
                return event
            said = event.get("line", said)
        raise PicketError(f"{process.module} was not ready within {_START_S:.0f} s")
