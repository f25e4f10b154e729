"""The watch service: the composition root of the process that sees faces.

thread     does
capture    camera → newest frame                       services/capture.py
watch      the path of a frame                         services/watch.py
uplink     sealed alerts → link service, until kept    link/uplink.py
downlink   watchlists ← controller, by way of link     link/downlink.py
pulse      measures, judges the state, shows it        services/pulse.py
health     reports it to the controller                services/pulse.py
heart      feeds the watchdog while all make progress  services/process.py

It has no network and nowhere to write: it dials two sockets of the box. Any worker's unexpected
death ends the process; systemd starts it again.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from appliance.alerts.outbox import MemoryOutbox
from appliance.alerts.policy import Policy
from appliance.alerts.seal import AlertKey, seal_alert
from appliance.config import Config
from appliance.errors import ModelError
from appliance.link.downlink import Downlink
from appliance.link.nng import NngLink
from appliance.link.uplink import Uplink
from appliance.services.beacon import Beacon
from appliance.services.cameras import open_camera
from appliance.services.capture import Capture
from appliance.services.dispatch import Dispatch
from appliance.services.identity import load_identity
from appliance.services.models import Models, open_models
from appliance.services.process import Heart, stop_on_signals, when_stopped
from appliance.services.pulse import Pulse
from appliance.services.vitals import Counters, Monitor
from appliance.services.watch import Watch
from appliance.system.clock import SystemClock
from appliance.system.erasure import FramePool, Ledger
from appliance.system.secret import SecretBuffer
from appliance.system.worker import Crew, Latest, Worker
from appliance.tracking.tracker import Tracker
from appliance.types import Frame
from appliance.vision.quality import QualityGate
from appliance.watchlist.admission import Model
from appliance.watchlist.bundle import WHOLE
from appliance.watchlist.trusted import TrustedWatchlist

log = logging.getLogger(__name__)

_READ_S = 0.25
_PULSE_S = 0.25
_LAST_WORDS_S = 3.0
_BUFFERS = 3
"""One in the camera, one in the slot, one in use."""
_LOCAL_OUTBOX = 1024
"""Only for as long as the link service is being restarted: the one that counts is on disk."""
_RELAY_S = 2.0
_RETRY_S = 5.0
"""The link service does the long waits; asking it costs nothing."""
_REDIAL_S = (0.05, 1.0)
"""The other end is a process of this box: it is there or is being started."""


def run(config: Config) -> None:
    """Watch until SIGTERM or SIGINT, or until a recording is over.

    Raises:
        PicketError: a model, the camera, the identity or a socket cannot be used.
    """
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(stop_on_signals(stop))
        Watcher(config, stack, stop).run()


class Watcher:
    """Everything that the watch service is made of, wired together.

    Args:
        config: the node's.
        stack: closes what is opened, in reverse.
        stop: set by a signal, by a failure, or at the end of a recording.
    """

    def __init__(self, config: Config, stack: ExitStack, stop: threading.Event) -> None:
        node, boot = config.node.id, secrets.token_bytes(16)
        identity = load_identity(Path(config.node.identity))
        models = open_models(config, stack)
        self._stop, self._clock = stop, SystemClock()
        self._counters, ledger = Counters(), Ledger()
        self._slot: Latest[Frame] = Latest()
        self._trusted = _trusted(config, boot, models)
        stack.callback(self._trusted.wipe)
        run_dir = Path(config.local.run)
        self._link = stack.enter_context(
            NngLink(f"ipc://{run_dir / 'link.ipc'}", redial_s=_REDIAL_S)
        )
        lamps = stack.enter_context(
            NngLink(f"ipc://{run_dir / 'indicator.ipc'}", redial_s=_REDIAL_S)
        )
        self._beacon = Beacon(lamps, connected=lambda: lamps.connected)
        size = (config.camera.width, config.camera.height)
        self._live = config.camera.pace != "flat-out"  # frames are of this very moment
        self._capture = Capture(
            open_camera=partial(open_camera, config, self._clock),
            wanted=lambda: self._trusted.current is not None and self._beacon.lit,
            switched=self._beacon.camera,
            pool=FramePool(_BUFFERS, size),
            slot=self._slot,
            ledger=ledger,
            clock=self._clock,
            stop=stop,
            timeout_s=config.camera.timeout_s,
            lossless=not self._live,
        )
        stack.callback(self._capture.close)
        outbox = MemoryOutbox(_LOCAL_OUTBOX)
        self._uplink = Uplink(
            outbox,
            self._link,
            node=node,
            timeout_s=config.link.answer_timeout_s,
            rng=random.Random(),  # noqa: S311 - spreads waits, guards nothing
            clock=self._clock,
            stop=stop,
            longest_s=1.0,
        )
        self._downlink = Downlink(
            self._link,
            self._trusted,
            sign=identity.sign,
            node=node,
            boot=boot,
            model=models.embedder.model_id,
            # Above what the link service gives the controller, so that its word comes first.
            timeout_s=config.link.answer_timeout_s + _RELAY_S,
            poll_s=config.link.poll_s,
            rng=random.Random(),  # noqa: S311 - spreads waits, guards nothing
            clock=self._clock,
            stop=stop,
            longest_s=_RETRY_S,
        )
        decision, quality = config.decision, config.quality
        self._watch = Watch(
            detector=models.detector,
            embedder=models.embedder,
            gate=QualityGate(
                min_eye_distance_px=quality.min_eye_distance_px,
                min_sharpness=quality.min_sharpness,
                min_light=quality.min_light,
                max_light=quality.max_light,
                max_turn=quality.max_turn,
            ),
            tracker=Tracker(
                min_iou=config.tracking.min_iou,
                patience_s=config.tracking.patience_s,
                max_tracks=config.tracking.max_tracks,
            ),
            policy=Policy(cooldown_s=decision.cooldown_s),
            ledger=ledger,
            clock=self._clock,
            report=Dispatch(
                node=node,
                boot=boot,
                frame_size=size,
                seal=partial(
                    seal_alert,
                    identity=identity,
                    alert_key=AlertKey.load(bytes.fromhex(config.node.alert_key)),
                ),
                outbox=outbox,
                clock=self._clock,
                counters=self._counters,
            ),
            embeddings=decision.embeddings,
            interval_s=decision.interval_s,
            hold_s=decision.hold_s,
            rest_s=config.tracking.rest_s if self._live else 0.0,
            hidden=models.hidden,
            teller=models.teller,
            unsearchable=self._counters.unsearchable_face,
        )
        self._pulse = Pulse(
            node=node,
            boot=boot,
            clock=self._clock,
            ledger=ledger,
            counters=self._counters,
            capture=self._capture,
            outbox=outbox,
            monitor=Monitor(
                clock=self._clock,
                ledger=ledger,
                counters=self._counters,
                capture=self._capture,
                controllers=self._downlink,
                keeper=self._uplink,
                fallen=lambda: bool(models.accelerators.fallen),
                fps_asked=config.camera.fps,
                hidden=frozenset(models.hidden_file.columns if models.hidden_file else ()),
            ),
            beacon=self._beacon,
            link=self._link,
            current=lambda: self._trusted.current,
            accelerator=lambda: models.accelerators.device,
            health_s=config.link.health_s,
        )

    def run(self) -> None:
        """Everything runs, until `stop` is set; then what is held is erased.

        Raises:
            PicketError: what a worker died of.
        """
        workers = [
            Worker("capture", self._capture.step, self._stop),
            Worker("watch", self._step, self._stop),
            Worker("uplink", self._uplink.step, self._stop),
            Worker("downlink", self._downlink.step, self._stop),
            Worker("pulse", self._beat, self._stop),
            Worker("health", self._pulse.tell, self._stop),
        ]
        # A parked poll may take long: it is no sign of life, and the watchdog must not wait for it.
        alive = [worker for worker in workers if worker.name not in {"downlink", "health"}]
        workers.append(Heart(alive, self._stop, status=self._status).worker())
        when_stopped(self._stop, lambda: self._link.wind_down(_LAST_WORDS_S))
        try:
            Crew(workers, self._stop).run()
        finally:
            self._end()

    def _step(self) -> None:
        """The newest frame down the path; without a list or a camera nobody is held."""
        frame = self._slot.get(_READ_S)
        watchlist = self._trusted.current
        if frame is not None:
            try:
                if watchlist is not None:
                    self._watch.step(frame, watchlist)
                    self._counters.frames += 1
            finally:
                self._capture.erase(frame)
        if watchlist is None:
            self._watch.close(None)
        elif frame is None and self._capture.since_ns is None:
            self._watch.close(watchlist)
            if self._capture.ended:
                self._stop.set()
        elif frame is None and self._live:
            self._watch.idle(watchlist)

    def _status(self) -> str:
        current = self._trusted.current
        if current is None:
            return "no list: the camera is off, no lease"
        left_min = current.lease_left_s(self._clock.boot_ns()) // 60
        return f"list {current.list_id} version {current.version}, lease {left_min} min"

    def _beat(self) -> None:
        self._trusted.tick(now_ns=self._clock.boot_ns())
        self._pulse.step()
        self._stop.wait(_PULSE_S)

    def _end(self) -> None:
        """Erase what is held, darken the camera's lamp, deliver what was decided.

        From the last line to the first, and each of them whatever becomes of the others: a device
        that has failed fails once more when it is to forget, and takes no alert with it.
        """
        with ExitStack() as last:
            last.callback(self._pulse.report)
            last.callback(self._uplink.flush, _LAST_WORDS_S)
            last.callback(self._trusted.wipe)
            last.callback(self._erase_left)
            last.callback(self._capture.close)
            last.callback(self._watch.close, None)

    def _erase_left(self) -> None:
        left = self._slot.get(0.0)
        if left is not None:
            self._capture.erase(left)


def _trusted(config: Config, boot: bytes, models: Models) -> TrustedWatchlist:
    return TrustedWatchlist(
        node=config.node.id,
        boot=boot,
        fleet=config.node.fleet,
        authorities=[bytes.fromhex(key) for key in config.node.authorities],
        signatures=config.node.signatures,
        online_key=bytes.fromhex(config.node.online_key),
        models=_columns(models),
        allocate=SecretBuffer,
    )


def _columns(models: Models) -> dict[str, Model]:
    """The embedder of each column that this node can search."""
    bare, hidden = models.embedder_file, models.hidden_file
    if bare.false_match is None:
        raise ModelError(
            f"{bare.spec.name}: the manifest has no false_match table:"
            " without it no threshold can be given"
        )
    columns = {WHOLE: Model(bare.spec.id, models.embedder.dim, bare.false_match)}
    if hidden is not None and models.hidden is not None:
        for name, table in hidden.columns.items():
            columns[name] = Model(hidden.spec.id, models.hidden.dim, table)
    return columns
