"""node.toml: every key, its default and its bound. Unknown keys are refused, not ignored.

Only services/ and the command line see a Config; constructors elsewhere take plain values.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import tomli_w
from msgspec import Meta, Struct

from appliance.errors import ConfigError
from appliance.wire import Name, NameOrNone

Seconds = Annotated[float, Meta(gt=0.0, le=86_400.0)]
_Url = Annotated[str, Meta(pattern=r"\Atls\+tcp://.+\Z", max_length=200)]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
_Ed25519 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Node(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who this node is, and whose lists and orders it takes; made by `picketctl node add`.

    Attributes:
        id: as the controller knows it, and the common name of its certificate.
        fleet: the one fleet whose lists are taken.
        authorities: Ed25519 public keys of the list authorities, 64 hex digits each.
        signatures: how many distinct authorities must have signed a list.
        online_key: Ed25519 public key of the controller, which signs stamps.
        alert_key: ML-KEM-768 + X25519 public key to which alerts are sealed.
        identity: file with the watch service's own Ed25519 key, made by `picket join`; relative
            to the configuration file. Under systemd the credential of the same name goes first.
    """

    id: Name
    fleet: Name
    authorities: Annotated[tuple[_Ed25519, ...], Meta(min_length=1, max_length=8)]
    signatures: Annotated[int, Meta(ge=1, le=8)] = 1
    online_key: _Ed25519
    alert_key: Annotated[str, Meta(pattern=r"\A[0-9a-f]{2432}\Z")]
    identity: Annotated[str, Meta(min_length=1, max_length=200)] = "watch.key"


class Camera(Struct, frozen=True, forbid_unknown_fields=True):
    """Where frames come from.

    Attributes:
        source: "picamera" (picamera2), "recorded" (clip, folder of pictures or /dev/videoN at
            `path`) or "scene" (photographs walking by, the script at `path`).
        path: relative to the configuration file.
        width, height: of the frames; a recording of another size is letterboxed.
        fps: frames asked of the sensor, and the pace of a folder or scene.
        pace: "realtime" drops what comes too fast, as a camera does; "flat-out" processes every
            frame as fast as it can.
        loop: play a recording again at its end.
        timeout_s: without a frame for so long, the camera has failed; a service that is told to
            end waits for no longer than ten seconds.
    """

    source: Literal["picamera", "recorded", "scene"] = "picamera"
    path: str = ""
    width: Annotated[int, Meta(ge=160, le=4096)] = 1280
    height: Annotated[int, Meta(ge=120, le=4096)] = 720
    fps: Annotated[float, Meta(gt=0.0, le=120.0)] = 15.0
    pace: Literal["realtime", "flat-out"] = "realtime"
    loop: bool = False
    timeout_s: Annotated[float, Meta(ge=0.1, le=8.0)] = 5.0


class Models(Struct, frozen=True, forbid_unknown_fields=True):
    """Which models, on what.

    Attributes:
        folder: holds manifest.toml; "" is the folder that came with this installation.
        detector, embedder: names in the manifest.
        hidden, occlusion: the embedder for part-hidden faces and the classifier that finds them,
            both or neither: "" reads every face as a bare one.
        accelerator: "auto" takes the fastest that is there and answers as it should; "cpu",
            "coral", "hailo". One that fails is left for the CPU, loudly.
        threads: CPU threads per model.
        force: use versions of runtime and driver that are not known to fit.
    """

    folder: str = ""
    detector: Name = "centerface-640x384"
    embedder: Name = "mobilefacenet-112"
    hidden: NameOrNone = "mobilefacenet-112-hidden"
    occlusion: NameOrNone = "occlusion-112"
    accelerator: Literal["auto", "cpu", "coral", "hailo"] = "auto"
    threads: Annotated[int, Meta(ge=1, le=16)] = 2
    force: bool = False


class Detection(Struct, frozen=True, forbid_unknown_fields=True):
    """Which detections are faces: score in [0, 1] from which, and how many per frame at most."""

    min_score: Unit = 0.5
    max_faces: Annotated[int, Meta(ge=1, le=256)] = 32


class Quality(Struct, frozen=True, forbid_unknown_fields=True):
    """Which faces are worth an embedding. See appliance/vision/quality.py for what is measured."""

    min_eye_distance_px: Annotated[float, Meta(ge=0.0, le=1000.0)] = 20.0
    min_sharpness: Annotated[float, Meta(ge=0.0, le=1e6)] = 20.0
    min_light: Annotated[float, Meta(ge=0.0, le=255.0)] = 30.0
    max_light: Annotated[float, Meta(ge=0.0, le=255.0)] = 235.0
    max_turn: Annotated[float, Meta(ge=0.0, le=10.0)] = 1.2


class Tracking(Struct, frozen=True, forbid_unknown_fields=True):
    """How faces become tracks.

    Attributes:
        min_iou: overlap with the predicted box from which a face continues a track.
        patience_s: how long a track outlives its last face; also the longest that a stranger's
            vectors can outlive their last sight.
        max_tracks: open at the same time.
        rest_s: how long the search for faces may rest while nobody is being judged; 0 searches
            every frame, as camera.pace = "flat-out" does.
    """

    min_iou: Unit = 0.3
    patience_s: Annotated[float, Meta(gt=0.0, le=5.0)] = 0.5
    max_tracks: Annotated[int, Meta(ge=1, le=1024)] = 64
    rest_s: Annotated[float, Meta(ge=0.0, le=0.2)] = 0.15


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """When a track is judged: once, on the mean of its embeddings.

    Attributes:
        embeddings: how many are fused; fewer only if the track ends before.
        interval_s: least time between two of them, so that they differ.
        hold_s: a track is decided on what there is so long after its first embedding.
        cooldown_s: after an alert, for how long the same subject raises no other.
    """

    embeddings: Annotated[int, Meta(ge=1, le=32)] = 5
    interval_s: Annotated[float, Meta(ge=0.0, le=5.0)] = 0.1
    hold_s: Annotated[float, Meta(gt=0.0, le=5.0)] = 1.0
    cooldown_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 60.0


class Link(Struct, frozen=True, forbid_unknown_fields=True):
    """The controllers, and how patient the node is with them.

    Attributes:
        controllers: NNG addresses, tried in turn.
        join: where a node without a certificate asks for one.
        server_name: common name of the controllers' certificate.
        state: folder with certificates, outbox and cached ciphertext, the only one that is
            written to; relative to the configuration file.
        answer_timeout_s: for an answer; a poll waits poll_s longer. Below WatchdogSec in systemd/:
            a service that waits longer than that looks hung.
        poll_s: how long the controller may park a poll.
        health_s: between two health messages.
        outbox: alerts kept while no controller answers, 1.7 kB of memory each.
    """

    controllers: Annotated[tuple[_Url, ...], Meta(min_length=1, max_length=8)] = (
        "tls+tcp://127.0.0.1:7441",
    )
    join: _Url = "tls+tcp://127.0.0.1:7442"
    server_name: Name = "controller"
    state: Annotated[str, Meta(min_length=1, max_length=200)] = "link"
    answer_timeout_s: Annotated[float, Meta(gt=0.0, le=20.0)] = 5.0
    poll_s: Annotated[float, Meta(gt=0.0, le=60.0)] = 20.0
    health_s: Seconds = 60.0
    outbox: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


class Updates(Struct, frozen=True, forbid_unknown_fields=True):
    """Updates that a roll-out brings. A node that is no image of Picket's never asks for one.

    Attributes:
        every_s: between two questions.
        tried: folder in which root says what became of the last one.
        release: says which version of the image runs.
    """

    every_s: Seconds = 300.0
    tried: Annotated[str, Meta(min_length=1, max_length=200)] = "/data/update"
    release: Annotated[str, Meta(min_length=1, max_length=200)] = "/etc/picket-release"


class Local(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the three services of a node meet: sockets link.ipc and indicator.ipc in `run`."""

    run: Annotated[str, Meta(min_length=1, max_length=80)] = "/run/picket"


class Led(Struct, frozen=True, forbid_unknown_fields=True):
    """One LED.

    Attributes:
        bcm: the pin's Broadcom number, not its place on the header.
        active_low: lit while the pin is low.
        colour: as it is built in: for people, and for the terminal.
    """

    bcm: Annotated[int, Meta(ge=2, le=27)]
    active_low: bool = False
    colour: Literal["red", "green", "amber", "yellow", "blue", "white"] = "white"


class Lamps(Struct, frozen=True, forbid_unknown_fields=True):
    """The status LEDs.

    Attributes:
        driver: "gpio" drives LEDs on the header, "terminal" paints them as text, "none" has none.
        camera: lit for as long as frames are taken.
        status: tells the state.
        alert: the second lamp: alert, fault, or a hint that service is wanted.
    """

    driver: Literal["gpio", "terminal", "none"] = "terminal"
    camera: Led = Led(bcm=17, colour="red")
    status: Led = Led(bcm=27, colour="green")
    alert: Led = Led(bcm=22, colour="amber")

    def __post_init__(self) -> None:
        """Refuse two lamps on one pin: one of them would lie."""
        taken: dict[int, str] = {}
        for name in ("camera", "status", "alert"):
            bcm = getattr(self, name).bcm
            other = taken.setdefault(bcm, name)
            if other != name:
                raise ValueError(f"{other} and {name} are both on BCM {bcm}")


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One node's configuration: a table of node.toml per attribute."""

    node: Node
    camera: Camera = msgspec.field(default_factory=Camera)
    models: Models = msgspec.field(default_factory=Models)
    detection: Detection = msgspec.field(default_factory=Detection)
    quality: Quality = msgspec.field(default_factory=Quality)
    tracking: Tracking = msgspec.field(default_factory=Tracking)
    decision: Decision = msgspec.field(default_factory=Decision)
    link: Link = msgspec.field(default_factory=Link)
    updates: Updates = msgspec.field(default_factory=Updates)
    local: Local = msgspec.field(default_factory=Local)
    lamps: Lamps = msgspec.field(default_factory=Lamps)


def load(path: Path) -> Config:
    """The configuration in a TOML file, its paths made absolute.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, or a broken bound; names the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: not TOML: {e}") from e
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{path}: {_where_and_what(str(e))}") from e
    _check(config, path)
    return _anchored(config, path.resolve().parent)


def dump(config: Config) -> str:
    """The configuration as TOML, every default written out."""
    return tomli_w.dumps(msgspec.to_builtins(config))


def _where_and_what(message: str) -> str:
    """Turn msgspec's "what - at `$.a.b`" as "a.b: what"."""
    what, found, where = message.partition(" - at `$")
    what = what[0].lower() + what[1:]
    return f"{where.rstrip('`').lstrip('.')}: {what}" if found else what


def _check(config: Config, path: Path) -> None:
    """The bounds that span two keys."""
    node, camera, quality = config.node, config.camera, config.quality
    if node.signatures > len(set(node.authorities)):
        raise ConfigError(
            f"{path}: node.signatures: {node.signatures} asked of"
            f" {len(set(node.authorities))} authorities"
        )
    if camera.source != "picamera" and not camera.path:
        raise ConfigError(f"{path}: camera.path: needed by camera.source = '{camera.source}'")
    if quality.min_light >= quality.max_light:
        raise ConfigError(
            f"{path}: quality.min_light: {quality.min_light} must be below"
            f" quality.max_light = {quality.max_light}"
        )


def _anchored(config: Config, folder: Path) -> Config:
    """Relative paths mean: relative to the configuration file."""
    replace = msgspec.structs.replace
    camera, models = config.camera, config.models
    if camera.path:
        camera = replace(camera, path=str(folder / camera.path))
    if models.folder:
        models = replace(models, folder=str(folder / models.folder))
    return replace(
        config,
        camera=camera,
        models=models,
        node=replace(config.node, identity=str(folder / config.node.identity)),
        link=replace(config.link, state=str(folder / config.link.state)),
        updates=replace(
            config.updates,
            tried=str(folder / config.updates.tried),
            release=str(folder / config.updates.release),
        ),
        local=replace(config.local, run=str(folder / config.local.run)),
    )
