"""`make demo`: the real commands, as real processes, on real faces; judged by what arrives.

1. `picketctl init`, `node add`: a fleet with its keys, and one node that may join it.
2. `picketctl list build`, `list sign`, `deploy start`: a watchlist from one photograph.
3. `picketctl serve`: the controller, on loopback, over mutual TLS.
4. `picket join`: the node makes its keys and gets its certificate.
5. `picket run`: the node's three services; the list is fetched, opened in memory, and matched.
6. Each alert that the controller prints is compared with what the scene really showed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console
from rich.markup import escape

from appliance.camera.recorded import RecordedCamera
from appliance.camera.scene import Scene
from appliance.config import load
from appliance.errors import ConfigError, PicketError
from appliance.evaluation.process import Process
from appliance.evaluation.scoreboard import Scoreboard
from appliance.evaluation.screen import Screen, summary
from appliance.evaluation.stage import Stage
from appliance.system.clock import SystemClock

PHOTOS = Path(__file__).resolve().parents[2] / "tests" / "photos"
STREET = PHOTOS / "street.toml"
PERSON_OF_INTEREST = PHOTOS / "obama.jpg"
NODE = "demo-cam"
FALSE_ALERTS = "1/1000"
"""What South Wales Police allow at most; see README, "Limits"."""

_LEAST_END_S = 20.0
_TRIAL_PX = (1280, 720)
_AFTERMATH_S = 1.5
"""After the last frame, for alerts on their way."""


@dataclass(frozen=True, slots=True)
class Play:
    """What is shown, and for how long.

    Attributes:
        source: a clip, a folder of pictures or /dev/videoN; None plays the street scene.
        watch: folder of photographs to look for; None is the demo's own person of interest.
        seconds: a live source is ended after this long.
    """

    source: str | None
    watch: Path | None
    seconds: float

    def check(self) -> None:
        """Name what cannot be played before anything is started.

        Raises:
            ConfigError, CameraError: see the message.
        """
        if self.watch is not None and self.source is None:
            raise ConfigError(
                "--watch: needs --source: the street scene shows nobody else's people"
            )
        if self.watch is not None and not self.watch.is_dir():
            raise ConfigError(f"--watch: {self.watch} is not a folder")
        if self.source is not None and not Path(self.source).exists():
            raise ConfigError(f"--source: {self.source} does not exist")
        if self.source is not None:
            with RecordedCamera(self.source, size=_TRIAL_PX, clock=SystemClock()):
                pass


def demo(*, source: str | None, watch: Path | None, seconds: float) -> int:
    """Run the demo.

    Args:
        source: see Play.
        watch: see Play.
        seconds: see Play.

    Returns:
        0 if the person of interest was found and no stranger was; for a source without a ground
        truth, 0 if it was played to its end.
    """
    play = Play(source, watch, seconds)
    play.check()
    console = Console(highlight=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="picket-demo-")))
        stage = Stage(console)
        fleet = folder / "fleet"
        _make_fleet(stage, fleet, folder)
        _make_list(stage, fleet, folder, play)
        controller = stack.enter_context(
            Process(
                "appliance.controller",
                [
                    *("serve", "--fleet", str(fleet), "--json"),
                    *("--listen", "tls+tcp://127.0.0.1:0", "--join", "tls+tcp://127.0.0.1:0"),
                ],
                on_line=stage.controller_line,
                on_error=stage.complain,
            )
        )
        listening = stage.wait_for("listening", controller)
        console.print(f"[bold]controller[/] listens at {listening['url']}")
        config = _configure(folder / NODE, listening, play)
        stage.run("appliance", "join", "--config", str(config))
        scene = Scene.load(STREET) if source is None else None
        scoreboard = _scoreboard(scene)
        with (
            Process(
                "appliance",
                ["run", "--config", str(config)],
                on_line=stage.node_line,
                on_error=stage.complain,
            ) as node,
            Screen(scoreboard, console) as screen,
        ):
            limit_s = scene.seconds + _LEAST_END_S if scene else seconds
            live = source is not None and source.startswith("/dev/video")
            ended = _watch(stage, scoreboard, screen, node, limit_s, live=live or scene is None)
    console.print(summary(scoreboard))
    return _verdict(scoreboard, console, ended=ended)


def _scoreboard(scene: Scene | None) -> Scoreboard:
    if scene is None:
        return Scoreboard(None, ())
    covered = tuple(bool(walker.cover) for walker in scene.script.walker)
    return Scoreboard(scene, scene.appearances, covered)


def _make_fleet(stage: Stage, fleet: Path, folder: Path) -> None:
    ctl = "appliance.controller"
    stage.run(ctl, "init", str(fleet))
    stage.run(ctl, "node", "add", NODE, "--fleet", str(fleet), "--out", str(folder / NODE))


def _make_list(stage: Stage, fleet: Path, folder: Path, play: Play) -> None:
    """Photographs to a signed list, and the order to watch for it."""
    ctl, bundle = "appliance.controller", folder / "list.bundle"
    photos = play.watch
    if photos is None:
        photos = folder / "photos"
        (photos / "obama").mkdir(parents=True)
        shutil.copy(PERSON_OF_INTEREST, photos / "obama")
    built = ("--fleet", str(fleet), "--out", str(bundle), "--false-alerts", FALSE_ALERTS)
    stage.run(ctl, "list", "build", str(photos), *built)
    (authority, *_) = sorted((fleet / "authorities").glob("*.key"))
    stage.run(ctl, "list", "sign", str(bundle), "--key", str(authority), "--fleet", str(fleet))
    ordered = (
        *("--fleet", str(fleet), "--list", str(bundle), "--nodes", NODE, "--until", "+1h"),
        *("--authority", "demo", "--purpose", "demonstration", "--location", "this machine"),
    )
    stage.run(ctl, "deploy", "start", *ordered)


def _configure(folder: Path, listening: dict[str, Any], play: Play) -> Path:
    """The node's file, as `node add` made it, with this machine's addresses and source.

    Raises:
        ConfigError: it is not good; a bad source is named before the node is started.
    """
    path = folder / "node.toml"
    document = tomllib.loads(path.read_text(encoding="utf-8"))
    document["link"] |= {
        "controllers": [listening["url"]],
        "join": listening["join_url"],
        "health_s": 1.0,
        "poll_s": 5.0,
    }
    document["local"] = {"run": "run"}
    document["lamps"] = {"driver": "terminal"}
    if play.source is None:
        document["camera"] = {"source": "scene", "path": str(STREET)}
    else:
        document["camera"] = {"source": "recorded", "path": str(Path(play.source).resolve())}
    document["decision"] = {"cooldown_s": 2.0}
    (folder / "run").mkdir(exist_ok=True)
    path.write_text(tomli_w.dumps(document), encoding="utf-8")
    load(path)
    return path


def _watch(
    stage: Stage,
    scoreboard: Scoreboard,
    screen: Screen,
    node: Process,
    limit_s: float,
    *,
    live: bool,
) -> bool:
    """Show what happens until the node has seen everything.

    Returns:
        Whether the source was played to its end (a live one: for as long as asked).

    Raises:
        PicketError: the node failed, or did not come to an end.
    """
    began_s = time.monotonic()
    while node.status is None:
        for event in stage.drain():
            _take(event, scoreboard, screen)
        screen.update()
        if time.monotonic() - began_s > limit_s:
            if live:
                node.stop()
                break
            raise PicketError(f"the node did not come to an end within {limit_s:.0f} s")
        time.sleep(0.05)
    until_s = time.monotonic() + _AFTERMATH_S
    while time.monotonic() < until_s:
        for event in stage.drain():
            _take(event, scoreboard, screen)
        time.sleep(0.05)
    return node.status == 0


def _take(event: dict[str, Any], scoreboard: Scoreboard, screen: Screen) -> None:
    if event["event"] == "lamps":
        screen.lamps = event["row"]
    elif event["event"] == "stderr":
        screen.say(f"  [yellow]{escape(event['line'])}[/]")
    else:
        arrival = scoreboard.take(event)
        if arrival is not None:
            screen.arrival(arrival)


def _verdict(scoreboard: Scoreboard, console: Console, *, ended: bool) -> int:
    """Exit status, and a line that says why."""
    failures: list[str] = []
    if not ended:
        failures.append("the node failed")
    if scoreboard.refused:
        failures.append(f"the list was refused: {scoreboard.refused}")
    if scoreboard.street is not None:
        if scoreboard.people_missed:
            failures.append(f"{', '.join(sorted(scoreboard.people_missed))} not found")
        if scoreboard.false_alerts:
            failures.append(f"{scoreboard.false_alerts} false alerts")
    health = scoreboard.health
    if health and health["faces_seen"] != (
        health["faces_erased"] + health["faces_alerted"] + health["faces_held"]
    ):
        failures.append("the faces do not balance")
    if failures:
        console.print(f"[bold red]FAILED[/]: {'; '.join(failures)}")
        return 1
    if scoreboard.street is not None:
        console.print(
            f"[bold green]GOOD[/]: the person of interest was found in {scoreboard.found} of"
            f" {scoreboard.shown} appearances, no stranger was"
        )
    else:
        console.print("[bold green]GOOD[/]: played to its end")
    return 0
