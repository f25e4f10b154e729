"""The node in one process: the composition root, and who runs what.

thread     does
capture    camera → newest frame                    services/capture.py
watch      the path of a frame                      services/watch.py
uplink     outbox → controller, until acknowledged  link/uplink.py
downlink   watchlists ← controller                  link/downlink.py
pulse      measures, judges the state, reports it   services/pulse.py
lamps      state → blinking                         indicator/player.py

Any worker's unexpected death ends the process; systemd starts it again.
"""

from __future__ import annotations

import logging
import os
import random
import secrets
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

from appliance.accelerator.manifest import Manifest
from appliance.accelerator.tflite import TfliteAccelerator
from appliance.alerts.compose import compose
from appliance.alerts.outbox import MemoryOutbox
from appliance.alerts.policy import Policy
from appliance.camera.picamera import Picamera
from appliance.camera.recorded import RecordedCamera
from appliance.camera.scene import Scene, SceneCamera
from appliance.config import Config
from appliance.errors import ModelError, OutboxFullError
from appliance.indicator.player import Player
from appliance.indicator.simulated import SimulatedLamps
from appliance.indicator.terminal import TerminalLamps
from appliance.interfaces import Camera, Lamps
from appliance.link.downlink import Downlink
from appliance.link.nng import NngLink
from appliance.link.uplink import Uplink
from appliance.services.capture import Capture
from appliance.services.pulse import Counters, Pulse
from appliance.services.watch import Watch
from appliance.system.clock import SystemClock
from appliance.system.erasure import FramePool, Ledger
from appliance.system.worker import Latest, Worker
from appliance.tracking.tracker import Tracker
from appliance.types import Frame, NodeState, Sighting
from appliance.vision.detector import FaceDetector
from appliance.vision.embedder import FaceEmbedder
from appliance.vision.quality import QualityGate
from appliance.watchlist.match import Watchlist
from appliance.watchlist.trusted import TrustedWatchlist
