"""The other end of the emulated node: a fleet, a controller on loopback, a list, its card."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from appliance.controller import cards, image, rows
from appliance.controller.fleet import Fleet
from appliance.controller.workplace import now_ms, workplace
from appliance.system.card import write
from tests.image.card.parts import parts
from tests.path.cards import document as bad

NODE = "cam-017"
SUBJECT = "poi-nobody-may-know"
PHOTOS = Path(__file__).resolve().parents[2] / "photos"
_GUESTS_HOST = "10.0.2.2"
"""Where QEMU's user network shows the guest this machine's loopback."""
SIGHT = {
    # An emulated core is fifty times slower than a Pi's: every frame is looked at, however long
    # that takes, and a track outlives the time between two.
    "camera": {"source": "scene", "path": "/data/scene/scene.toml", "width": 640,
               "height": 384, "fps": 2.0,
               "pace": "flat-out", "loop": True, "timeout_s": 8.0},
    "updates": {"every_s": 20.0},
    "models": {"detector": "centerface-320x192"},
    "tracking": {"patience_s": 5.0, "min_iou": 0.05},
    "decision": {"embeddings": 2, "hold_s": 5.0, "cooldown_s": 5.0},
}  # fmt: skip


def free_port() -> int:
    """A port of this machine that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Host:
    """A fleet of one node, and its controller.

    Args:
        folder: new.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.fleet = folder, folder / "harbour"
        self.port, self.join_port = free_port(), free_port()
        there = f"tls+tcp://{_GUESTS_HOST}"
        self.ctl("init", str(self.fleet), "--controller", f"{there}:{self.port}",
                 "--join", f"{there}:{self.join_port}")  # fmt: skip
        self.events_file = folder / "events.jsonl"
        with self.events_file.open("wb") as out, (folder / "serve.log").open("wb") as log:
            self.serving = subprocess.Popen(
                [sys.executable, "-m", "appliance.controller", "serve", "--json",
                 "--fleet", str(self.fleet), "--listen", f"tls+tcp://127.0.0.1:{self.port}",
                 "--join", f"tls+tcp://127.0.0.1:{self.join_port}"],
                stdout=out, stderr=log,
            )  # fmt: skip
        self.told("listening", 60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.serving.terminate()
        self.serving.wait()

    def ctl(self, *words: str) -> str:
        """`picketctl`, run to its end."""
        done = subprocess.run(
            [sys.executable, "-m", "appliance.controller", *words],
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"picketctl {' '.join(words)}: {done.stderr}")
        return done.stdout

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the controller has told."""
        lines = self.events_file.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def told(
        self, kind: str, timeout_s: float, *, after: int = 0, **about: object
    ) -> dict[str, Any]:
        """The first event of a kind, beyond so many events.

        Args:
            kind: as controller/events.py names it.
            timeout_s: for it to come.
            after: so many events.
            about: fields that it has.
        """
        deadline_s = time.monotonic() + timeout_s
        wanted = {"event": kind} | about
        while True:
            for event in self.events[after:]:
                if wanted.items() <= event.items():
                    return event
            if time.monotonic() > deadline_s or self.serving.poll() is not None:
                last = self.events[-5:]
                raise TimeoutError(f"no {kind} in {timeout_s:.0f} s; the last: {last}")
            time.sleep(0.2)

    def deploy(self) -> None:
        """A list of one person, from one photograph, to be looked for."""
        photos = self.folder / "photos" / SUBJECT
        photos.mkdir(parents=True)
        shutil.copy(PHOTOS / "obama.jpg", photos)
        fleet, bundle = ("--fleet", str(self.fleet)), self.folder / "list.bundle"
        self.ctl("list", "build", str(photos.parent), *fleet, "--out", str(bundle),
                 "--false-alerts", "1/1000")  # fmt: skip
        (key,) = (self.fleet / "authorities").glob("*.key")
        self.ctl("list", "sign", str(bundle), "--key", str(key), *fleet)
        ordered = ("--authority", "test", "--purpose", "test", "--location", "here")
        which = ("--list", str(bundle), "--nodes", NODE, "--until", "+2h")
        self.ctl("deploy", "start", *fleet, *which, *ordered)

    def personalise(self, card: Path, **columns: str) -> str:
        """Write the node's file on a card, with more columns of its row; returns its token."""
        with workplace(self.fleet) as (fleet, store):
            common = cards.common(fleet) | SIGHT
            head, cells = ",".join(["node", *columns]), ",".join([NODE, *columns.values()])
            (row,), _ = rows.parse(f"{head}\n{cells}\n", common)
            token = cards.invite(store, NODE, hours=2, now_ms=now_ms())
        image.personalise(card, cards.provision_of(row, token))
        return token.hex()

    def authority(self) -> Fleet:
        """The fleet, opened."""
        return Fleet.load(self.fleet)


def spoil(card: Path) -> None:
    """Write a file that is no good on a card."""
    image.personalise(card, write(bad(camera={"fps": 500.0})))


_SCENE = """seed = 7
seconds = 10.0
anatomy = "faces.toml"

[[walker]]
photo = "obama3.jpg"
who = "obama"
enters_s = 0.5
leaves_s = 9.5
from_x = 0.45
to_x = 0.55
from_px = 150
to_px = 260
y = 0.45
"""
"""One person, near: drawing a frame of `make demo`'s street takes an emulated core a minute."""


def add_scene(card: Path) -> None:
    """A scene with its photograph, on the data partition."""
    commands = ["mkdir /scene", "cd /scene"]
    debugfs(card, commands + [f"write {path} {path.name}" for path in scene(card.parent)])


def scene(folder: Path) -> tuple[Path, ...]:
    """A scene's files; its script is written in the folder."""
    script = folder / "scene.toml"
    script.write_text(_SCENE, encoding="utf-8")
    return (script, *(PHOTOS / name for name in ("faces.toml", "obama3.jpg")))


def add_file(card: Path, folder: str, source: Path) -> None:
    """A file on the data partition, in a folder that is there."""
    debugfs(card, [f"cd {folder}", f"write {source} {source.name}"])


def debugfs(card: Path, commands: list[str]) -> str:
    """Do something on the data partition of a card that no machine uses."""
    data = parts(card)[7]
    done = subprocess.run(
        ["/usr/sbin/debugfs", "-w", "-f", "-", f"{card}?offset={data.offset}"],
        input="\n".join(commands) + "\n", capture_output=True, text=True, check=False,
        env=os.environ | {"DEBUGFS_PAGER": "cat"},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"debugfs: {done.stderr}")
    return done.stdout
