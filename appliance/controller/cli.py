"""`picketctl`: the controller's command line.

Standard output is what happens, a line each, for people or as JSON Lines; standard error is what
went wrong with the controller itself.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from appliance import __version__
from appliance.controller.endpoints import Endpoints
from appliance.controller.events import Event, as_json, as_text, event
from appliance.controller.library import Listing, load
from appliance.controller.register import MemoryRegister
from appliance.controller.server import Server
from appliance.errors import ControllerError, PicketError
from appliance.system.clock import SystemClock
from appliance.system.worker import Crew, Worker

_RELOAD_S = 0.25


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit status: 0 ended as told, 1 failed, 2 wrong usage.
    """
    arguments = _parser().parse_args(argv)
    try:
        serve(
            arguments.listen,
            prefix=arguments.list,
            lease_s=arguments.lease,
            printer=Printer(as_json if arguments.json else as_text),
        )
    except PicketError as e:
        print(f"picketctl: error: {e}", file=sys.stderr)
        return e.exit_status
    except BrokenPipeError:  # `picketctl serve | head`: nobody reads any more, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


class Printer:
    """Prints events, one line each, at once. Thread-safe.

    A reader that does not read holds the controller up; nodes then keep their alerts, because
    nothing is acknowledged before it was printed.

    Args:
        line: one event as one line.
    """

    def __init__(self, line: Callable[[Event], str]) -> None:
        self._line = line
        self._lock = threading.Lock()

    def __call__(self, record: Event) -> None:
        """Print one event."""
        with self._lock:
            print(self._line(record), flush=True)


def serve(url: str, *, prefix: Path | None, lease_s: int, printer: Printer) -> None:
    """Serve nodes until SIGINT or SIGTERM; SIGHUP looks at the list again.

    Args:
        url: to listen at.
        prefix: of the list's two files, None serves no list.
        lease_s: how long a node may keep a list open.
        printer: told of each event.

    Raises:
        ControllerError: the address or the list cannot be used.
    """
    stop, reread = threading.Event(), threading.Event()
    register = MemoryRegister()
    endpoints = Endpoints(
        register, clock=SystemClock(), utc_ns=time.time_ns, lease_s=lease_s, notify=printer
    )
    if prefix is not None:
        endpoints.publish(load(prefix, warn=_complain))
    with Server(url, endpoints, notify=printer, stop=stop) as server, _signals(stop, reread):
        printer(event("listening", url=server.url))

        def look_again() -> None:
            if reread.wait(_RELOAD_S):
                reread.clear()
                _look_again(server, prefix)

        workers = (
            Worker("receive", server.receive, stop),
            Worker("expire", server.expire, stop),
            Worker("list", look_again, stop),
        )
        Crew(workers, stop).run()
        printer(
            event(
                "summary",
                nodes=len(register.nodes()),
                alerts=register.alerts,
                gaps=len(register.gaps()),
                hostile=server.hostile,
            )
        )


def _look_again(server: Server, prefix: Path | None) -> None:
    """Publish what lies at the prefix now; a broken list leaves the one in use as it is."""
    if prefix is None:
        return
    listing: Listing | None = None
    try:
        # Whoever takes both files away withdraws the list; one alone is a mistake.
        if any(path.exists() for path in _files(prefix)):
            listing = load(prefix, warn=_complain)
    except ControllerError as e:
        _complain(f"{e}; the list in use stays")
        return
    server.publish(listing)


def _complain(what: str) -> None:
    print(f"picketctl: warning: {what}", file=sys.stderr, flush=True)


@contextmanager
def _signals(stop: threading.Event, reread: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set `stop`, SIGHUP sets `reread`, until the end of the block."""

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    def again(_number: int, _frame: FrameType | None) -> None:
        reread.set()

    handlers = {signal.SIGINT: end, signal.SIGTERM: end, signal.SIGHUP: again}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="picketctl",
        description="The other end: pushes watchlists to nodes and takes their alerts.",
        epilog="example: picketctl serve --listen tcp://0.0.0.0:7441 --list market-day",
    )
    parser.add_argument("--version", action="version", version=f"picketctl {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    sub = commands.add_parser(
        "serve",
        help="serve nodes until Ctrl-C",
        description="Serve nodes until Ctrl-C or SIGTERM. SIGHUP looks at the list again: a newer"
        " one is pushed to every node, and if both its files are gone it is withdrawn.",
        epilog="example: picketctl serve --listen tcp://0.0.0.0:7441 --list market-day --json",
    )
    sub.add_argument(
        "--listen",
        default="tcp://127.0.0.1:7441",
        metavar="URL",
        help="NNG address; port 0 takes a free one (default tcp://127.0.0.1:7441)",
    )
    sub.add_argument(
        "--list",
        type=Path,
        metavar="LIST",
        help="serve LIST.bundle and LIST.key, as `picket enrol --out LIST` made them",
    )
    sub.add_argument(
        "--lease",
        type=_seconds,
        default=3600,
        metavar="SECONDS",
        help="how long a node may keep the list open without the controller (default 3600)",
    )
    sub.add_argument("--json", action="store_true", help="one JSON object per line")
    return parser


def _seconds(text: str) -> int:
    seconds = int(text) if text.isascii() and text.isdigit() else 0
    if not 1 <= seconds <= 7 * 86_400:
        raise argparse.ArgumentTypeError(f"'{text}': 1 to {7 * 86_400} whole seconds")
    return seconds
