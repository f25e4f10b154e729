"""`picketctl`: the controller and its operator's and authority's tools, one command each.

Every failure that Picket knows is one line on stderr and a non-zero exit status.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from appliance import __version__
from appliance.controller.arguments import Command, Commands
from appliance.controller.commands import (
    alerts,
    deployments,
    fleet,
    lists,
    nodes,
    provision,
    push,
    serve,
    update,
)
from appliance.errors import PicketError
from appliance.wire import printable


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    level = getattr(logging, os.environ.get("PICKET_LOG", "WARNING").upper(), logging.WARNING)
    logging.basicConfig(level=level, format="%(name)s: %(message)s", stream=sys.stderr)
    command: Command = arguments.command
    try:
        return command(arguments)
    except argparse.ArgumentTypeError as e:
        return _fail(str(e), 2)
    except PicketError as e:
        return _fail(str(e), e.exit_status)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `picketctl serve | head`: nobody reads any more, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fail(why: str, status: int) -> int:
    sys.stderr.write(f"picketctl: error: {printable(why)}\n")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="picketctl",
        description="The other end: a fleet of nodes, their watchlists and their alerts.",
        epilog="example: picketctl init FLEET/ && picketctl node add cam-01 && picketctl serve",
    )
    parser.add_argument("--version", action="version", version=f"picketctl {__version__}")
    commands = Commands(parser, "picketctl")
    for module in (fleet, provision, lists, deployments, push, serve, nodes, alerts, update):
        module.add(commands)
    return parser
