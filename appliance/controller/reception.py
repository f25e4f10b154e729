"""Reports: rows are opened, stored, and acknowledged after the commit; many reports in one.

A row that does not open is stored as it came and acknowledged too, counted and told: it would
block its node's outbox for ever otherwise, and it is evidence. Nothing is acknowledged that was
not committed: while the store fails, nodes keep their alerts and ask again.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from appliance.alerts.seal import AlertPrivateKey, open_alert
from appliance.controller.events import Notify, event, event_of
from appliance.controller.office import Office
from appliance.controller.polls import Reply
from appliance.controller.store import Alerts, Arrival, Receipt, Stored
from appliance.errors import StoreError, WireError
from appliance.wire import Ack, Report, Row, encode

log = logging.getLogger(__name__)

_WAITING = 1024
_ROWS_PER_COMMIT = 512
_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class _Waiting:
    reply_to: bytes
    report: Report
    received_ns: int


class Reception:
    """`take` is called by the receiving thread, `step` by one other.

    Args:
        office: has each node's watch key.
        alerts: where rows are kept.
        alert_key: opens rows.
        utc_ms: wall clock, for when a row was received.
        notify: told of each row before its report is acknowledged.

    Attributes:
        unreadable: rows that did not open.
        turned_away: reports that were not taken because too many were waiting; their nodes ask
            again.
    """

    def __init__(
        self,
        office: Office,
        alerts: Alerts,
        *,
        alert_key: AlertPrivateKey,
        utc_ms: Callable[[], int],
        notify: Notify,
    ) -> None:
        self._office, self._alerts, self._alert_key = office, alerts, alert_key
        self._utc_ms, self._notify = utc_ms, notify
        self._queue: queue.Queue[_Waiting] = queue.Queue(_WAITING)
        self._failing = False
        self.unreadable = 0
        self.turned_away = 0

    def take(self, report: Report, reply_to: bytes, received_ns: int) -> bool:
        """Let a report wait for the next commit; False if there is no room."""
        try:
            self._queue.put_nowait(_Waiting(reply_to, report, received_ns))
        except queue.Full:
            self.turned_away += 1
            return False
        return True

    def step(self) -> list[Reply]:
        """Store what waits, in one commit; the acknowledgements. Returns after a while without."""
        waiting = self._next()
        arrivals = [self._open(one.report.node, row) for one in waiting for row in one.report.rows]
        try:
            receipts = iter(self._alerts.put(arrivals, now_ms=self._utc_ms()))
        except StoreError as e:
            if not self._failing:
                log.error("alerts wait in their nodes: %s", e)  # noqa: TRY400 - the line says it all
            self._failing = True
            return []
        self._failing = False
        came = iter(arrivals)
        for one in waiting:
            for _ in one.report.rows:
                self._tell(next(came), next(receipts), one.received_ns)
        return [(one.reply_to, Ack()) for one in waiting]

    def _next(self) -> list[_Waiting]:
        """All that waits, up to what one commit should hold; waits a while for the first."""
        waiting: list[_Waiting] = []
        rows = 0
        try:
            while rows < _ROWS_PER_COMMIT:
                one = self._queue.get_nowait() if waiting else self._queue.get(timeout=_WAIT_S)
                waiting.append(one)
                rows += len(one.report.rows)
        except queue.Empty:
            pass
        return waiting

    def _open(self, node: str, row: Row) -> Arrival:
        key = self._office.plan.nodes[node].watch_key or bytes(32)
        try:
            alert = open_alert(
                row,
                node=node,
                watch_key=Ed25519PublicKey.from_public_bytes(key),
                alert_key=self._alert_key,
            )
        except WireError as e:
            self.unreadable += 1
            return Arrival(node, row.boot, row.sequence, row.sealed, None, str(e))
        return Arrival(node, row.boot, row.sequence, row.sealed, alert)

    def _tell(self, arrival: Arrival, receipt: Receipt, received_ns: int) -> None:
        named: dict[str, object] = {
            "node": arrival.node,
            "boot": arrival.boot,
            "sequence": arrival.sequence,
        }
        if receipt.gap is not None:
            gap = receipt.gap
            self._notify(event("gap", node=gap.node, boot=gap.boot, first=gap.first, last=gap.last))
        if receipt.stored is not Stored.NEW:
            self._notify(event(receipt.stored.value, **named))
        elif arrival.alert is None:
            self._notify(event("unreadable", **named, reason=arrival.fault))
        else:
            alert = arrival.alert
            nbytes = len(encode(alert))
            self._notify(event_of("alert", alert, nbytes=nbytes, received_boot_ns=received_ns))
