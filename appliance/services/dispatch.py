"""A sighting becomes a sealed row in the outbox: composed, numbered, signed, sealed."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

import msgspec

from appliance.alerts.compose import compose
from appliance.errors import OutboxFullError
from appliance.interfaces import Clock, Outbox
from appliance.services.vitals import Counters
from appliance.types import Sighting
from appliance.watchlist.match import Watchlist
from appliance.wire import Alert, Row

log = logging.getLogger(__name__)


class Dispatch:
    """Called by the watch thread for each alert; watch.Report.

    A number is used up even if the outbox is full: the gap tells the controller that an alert
    was lost.

    Args:
        node: who saw it.
        boot: 16 bytes, made at this start of the watch service.
        frame_size: (width, height) in pixels of the frames.
        seal: signs and seals a numbered alert.
        counters: told of alerts and of a full outbox.
    """

    def __init__(
        self,
        *,
        node: str,
        boot: bytes,
        frame_size: tuple[int, int],
        seal: Callable[[Alert], Row],
        outbox: Outbox,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._node, self._boot = node, boot
        self._frame_size, self._seal, self._outbox = frame_size, seal, outbox
        self._clock, self._counters = clock, counters
        self._sequence = 0

    def __call__(self, sighting: Sighting, watchlist: Watchlist) -> None:
        """Compose, number, seal and keep one alert."""
        alert = compose(
            sighting,
            node=self._node,
            boot=self._boot,
            alert_id=secrets.token_bytes(16),
            deployment=watchlist.deployment,
            list_id=watchlist.list_id,
            list_version=watchlist.version,
            model=_model(sighting, watchlist),
            frame_size=self._frame_size,
            utc_ns=self._clock.utc_ns(),
        )
        self._sequence += 1
        row = self._seal(msgspec.structs.replace(alert, sequence=self._sequence))
        try:
            self._outbox.put((row,))
        except OutboxFullError as e:
            self._counters.outbox_full = True
            log.error("alert %d is lost: %s", self._sequence, e)  # noqa: TRY400 - the line says it all
            return
        self._counters.outbox_full = False
        self._counters.alerted_ns = self._clock.boot_ns()


def _model(sighting: Sighting, watchlist: Watchlist) -> str:
    """Id of the embedder that made what was matched."""
    return watchlist.scales[sighting.column].model
