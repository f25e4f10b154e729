"""`picketctl serve`: the controller itself, until it is told to stop.

Standard output is what happens, a line each, for people or as JSON Lines; standard error is what
went wrong with the controller itself.
"""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from appliance.alerts.seal import AlertPrivateKey
from appliance.controller.arguments import Commands
from appliance.controller.bundles import FOLDER, Bundles
from appliance.controller.desk import Desk
from appliance.controller.events import Notify, event
from appliance.controller.fleet import Fleet
from appliance.controller.output import Printer
from appliance.controller.server import Server
from appliance.controller.store import Store
from appliance.controller.workplace import now, now_ms, workplace
from appliance.link.listener import allow_files
from appliance.link.tls import ServerTls
from appliance.system.clock import SystemClock
from appliance.system.worker import Crew

_SPARE_FILES = 512
"""Beside the one that each connected node needs, and the one with which it reconnects."""


def add(commands: Commands) -> None:
    """Declare the command."""
    sub = commands.add(
        "serve", serve, "serve nodes until Ctrl-C or SIGTERM",
        "--listen tls+tcp://0.0.0.0:7441 --join tls+tcp://0.0.0.0:7442",
        more="What other picketctl commands order meanwhile is noticed within a quarter of a"
        " second. With --json it prints JSON Lines.",
    )  # fmt: skip
    sub.add_argument(
        "--listen",
        default="tls+tcp://127.0.0.1:7441",
        metavar="URL",
        help="for nodes; port 0 takes a free one (default tls+tcp://127.0.0.1:7441)",
    )
    sub.add_argument(
        "--join",
        default="tls+tcp://127.0.0.1:7442",
        metavar="URL",
        help="for nodes that have no certificate yet (default tls+tcp://127.0.0.1:7442)",
    )


def serve(arguments: argparse.Namespace) -> int:
    """Serve until told to stop."""
    stop = threading.Event()
    printer = Printer(json=arguments.json)
    with workplace(arguments.fleet) as (fleet, store), _signals(stop):
        desk = open_desk(fleet, store, notify=printer)
        allow_files(_SPARE_FILES + 2 * len(desk.office.plan.nodes))
        with open_server(
            fleet,
            store,
            desk,
            url=arguments.listen,
            join_url=arguments.join,
            notify=printer,
            stop=stop,
        ) as server:
            printer(event("listening", url=server.url, join_url=server.join_url))
            Crew(server.workers, stop).run()
            alerts, unreadable = store.alerts.counts()
            printer(
                event(
                    "summary",
                    nodes=len(desk.office.plan.nodes),
                    alerts=alerts,
                    unreadable=unreadable,
                    gaps=len(store.alerts.gaps()),
                    hostile=server.hostile,
                    refused=server.refused,
                )
            )
    return 0


def open_desk(fleet: Fleet, store: Store, *, notify: Notify) -> Desk:
    """What answers, with this fleet's keys and this machine's clocks."""
    return Desk(
        store,
        online_key=fleet.online_key,
        alert_key=AlertPrivateKey.load(fleet.alert_key),
        issue=fleet.issue,
        clock=SystemClock(),
        utc_ms=now_ms,
        silent_hours=fleet.settings.silent_hours,
        notify=notify,
        bundles=Bundles(fleet.folder / FOLDER),
    )


def open_server(
    fleet: Fleet,
    store: Store,
    desk: Desk,
    *,
    url: str,
    join_url: str,
    notify: Notify,
    stop: threading.Event,
) -> Server:
    """Listening, with this fleet's certificates.

    Raises:
        LinkError: an address is in use or is none, or the certificates cannot be used.
    """

    def tls() -> ServerTls:
        fleet.renew_controller(now())
        return fleet.server_tls()

    return Server(
        url,
        join_url,
        tls=tls,
        join_tls=fleet.join_tls,
        desk=desk,
        store=store,
        utc_ms=now_ms,
        notify=notify,
        stop=stop,
    )


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, until the end of the block."""

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {n: signal.signal(n, end) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
