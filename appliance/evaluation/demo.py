"""`make demo`: the real commands, as real processes, on real faces; judged by what arrives.

 1. `picket enrol` makes a signed, encrypted watchlist from a photograph.
 2. `picketctl serve` starts a controller on loopback with that list.
 3. `picket run` starts a node that fetches the list, opens it in memory and takes frames.
 4. Each alert that the controller prints is compared with what the scene really showed.
"""

from __future__ import annotations

import json
import queue
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from appliance.camera.scene import Scene
from appliance.config import Config, Node, dump, load
from appliance.errors import ConfigError, PicketError
from appliance.evaluation.process import Process
from appliance.evaluation.scoreboard import Scoreboard
from appliance.evaluation.screen import Screen, summary

PHOTOS = Path(__file__).resolve().parents[2] / "tests" / "photos"
STREET = PHOTOS / "street.toml"
PERSON_OF_INTEREST = PHOTOS / "obama.jpg"

_START_S = 30.0
_LEAST_END_S = 20.0


class Stage:
    """Everything that the demo's processes say, in one queue; their errors as lines."""

    def __init__(self, console: Console) -> None:
        self.events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self.console = console

    def controller_line(self, line: str) -> None:
        """One JSON event of `picketctl serve --json`."""
        self.events.put(json.loads(line))

    def node_line(self, line: str) -> None:
        """One row of lamps."""
        self.events.put({"event": "lamps", "row": line})

    def complain(self, line: str) -> None:
        """What a process says on stderr is shown as it is."""
        self.events.put({"event": "stderr", "line": line})

    def wait_for(self, kind: str, process: Process) -> dict[str, Any]:
        """The first event of a kind; others before it are about starting and are shown.

        Raises:
            PicketError: the process ended, or the event did not come in time.
        """
        deadline_s = time.monotonic() + _START_S
        said = ""
        while time.monotonic() < deadline_s:
            try:
                event = self.events.get(timeout=0.1)
            except queue.Empty:
                if process.status is not None:
                    raise PicketError(f"{process.module} did not start: {said}") from None
                continue
            if event["event"] == kind:
                return event
            said = event.get("line", said)
        raise PicketError(f"{process.module} was not ready within {_START_S:.0f} s")


def demo(*, source: str | None, watch: Path | None, seconds: float) -> int:
    """Run the demo.

    Args:
        source: a clip, a folder of pictures or /dev/videoN; None plays the street scene.
        watch: folder of photographs to look for; None is the demo's own person of interest.
        seconds: a live source is ended after this long.

    Returns:
        0 if everybody on the list was found and no stranger was; for a source without a ground
        truth, 0 if it was played to its end.
    """
    if watch is not None and source is None:
        raise ConfigError("--watch: needs --source: the street scene shows nobody else's people")
    console = Console(highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="picket-demo-")))
        stage = Stage(console)
        _enrol(folder, watch or PERSON_OF_INTEREST, stage)
        controller = stack.enter_context(
            Process(
                "appliance.controller",
                ["serve", "--listen", "tcp://127.0.0.1:0", "--list", str(folder / "list"), "--json"],
                on_line=stage.controller_line,
                on_error=stage.complain,
            )
        )
        listening = stage.wait_for("listening", controller)
        console.print(f"controller listens at {listening['url']}")
        scene = Scene.load(STREET) if source is None else None
        config = folder / "node.toml"
        config.write_text(_node_config(folder, listening["url"], source), encoding="utf-8")
        load(config)  # a bad source is named here, before anything else is started
        scoreboard = Scoreboard(scene, scene.appearances if scene else ())
        with (
            Process(
                "appliance", ["run", "--config", str(config)],
                on_line=stage.node_line, on_error=stage.complain,
            ) as node,
            Screen(scoreboard, console) as screen,
        ):
            limit_s = scene.seconds + _LEAST_END_S if scene else seconds
            status = _play(stage, scoreboard, screen, node, limit_s, live=scene is None)
    console.print(summary(scoreboard))
    return _verdict(scoreboard, status, console)
