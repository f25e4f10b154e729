"""What may stand on the command line: names, times, rates, and how a command is declared."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from fractions import Fraction
from pathlib import Path

from appliance.wire import NAME_MAX_CHARS

Command = Callable[[argparse.Namespace], int]
FLOOR = 0.3
"""Default: no cosine below this is a match, whatever rate is tolerated."""
_LONGEST_HOURS = 24 * 366
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Commands:
    """Declares commands, and commands of commands.

    Args:
        parser: gets them.
        prog: in front of each command's name in its example.
    """

    def __init__(self, parser: argparse.ArgumentParser, prog: str) -> None:
        self._parsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
        self._prog = prog

    def add(
        self,
        name: str,
        command: Command,
        what: str,
        example: str,
        *,
        more: str = "",
        fleet: bool = True,
    ) -> argparse.ArgumentParser:
        """Declare a command; it knows --json.

        Args:
            name: as it is typed.
            command: does it, and returns the exit status.
            what: half a sentence.
            example: its arguments, as one would type them.
            more: further sentences of its description.
            fleet: it knows --fleet.
        """
        sub = self._parsers.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. {more}".strip(),
            epilog=f"example: {self._prog} {name} {example}".rstrip(),
        )
        sub.set_defaults(command=command)
        if fleet:
            sub.add_argument(
                "--fleet",
                type=Path,
                default=Path(os.environ.get("PICKET_FLEET", "FLEET")),
                metavar="FLEET/",
                help="folder made by `picketctl init` (default $PICKET_FLEET, else ./FLEET)",
            )
        sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    def group(self, name: str, what: str) -> Commands:
        """Declare a group of commands, such as `list`."""
        sub = self._parsers.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example: {self._prog} {name} --help",
        )  # fmt: skip
        return Commands(sub, f"{self._prog} {name}")


def reference(text: str) -> str:
    """A wire.Name."""
    if not re.fullmatch(rf"[A-Za-z0-9._:@-]{{1,{NAME_MAX_CHARS}}}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}': 1 to {NAME_MAX_CHARS} of letters, digits and . _ : @ -"
        )
    return text


def pattern(text: str) -> str:
    """Names of nodes, with * and ? for what may vary."""
    if not re.fullmatch(rf"[A-Za-z0-9._:@*?-]{{1,{NAME_MAX_CHARS}}}", text):
        raise argparse.ArgumentTypeError(
            f"'{text}': 1 to {NAME_MAX_CHARS} of letters, digits and . _ : @ - * ?"
        )
    return text


def sentence(text: str) -> str:
    """Words for people, on one line."""
    if not text.strip() or len(text) > 200 or not text.isprintable():  # noqa: PLR2004 - bundle.Text
        raise argparse.ArgumentTypeError("1 to 200 printable characters are needed")
    return text


def rate(text: str) -> Fraction:
    """A rate such as 1/6000."""
    try:
        read = Fraction(text)
    except (ValueError, ZeroDivisionError):
        read = Fraction(0)
    if not 0 < read < 1:
        raise argparse.ArgumentTypeError(f"'{text}': a rate between 0 and 1, such as 1/6000")
    return read


def hours(text: str) -> float:
    """So many hours."""
    try:
        read = float(text)
    except ValueError:
        read = 0.0
    if not 0 < read <= _LONGEST_HOURS:
        raise argparse.ArgumentTypeError(f"'{text}': more than 0, at most {_LONGEST_HOURS} hours")
    return read


def cosine(text: str) -> float:
    """A similarity from 0 to 1."""
    try:
        read = float(text)
    except ValueError:
        read = -1.0
    if not 0 <= read <= 1:
        raise argparse.ArgumentTypeError(f"'{text}': a similarity from 0 to 1")
    return read


def whole(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"'{text}': a whole number from {low} to {high}")
        return number

    return read


def until(text: str, now: datetime) -> datetime:
    """A time to come: 18:00 (today, else tomorrow), +90m, or 2026-12-24T18:00.

    Args:
        text: in this machine's zone, unless it says another.
        now: with a time zone.

    Raises:
        ArgumentTypeError: it is no time, or has gone by.
    """
    later = re.fullmatch(r"\+(\d{1,6})([smhd])", text)
    of_day = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", text)
    if later:
        return now + timedelta(**{_UNITS[later[2]]: int(later[1])})
    if of_day:
        then = now.astimezone().replace(
            hour=int(of_day[1]), minute=int(of_day[2]), second=0, microsecond=0
        )
        return then if then > now else then + timedelta(days=1)
    try:
        then = datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}': a time such as 18:00, +90m or 2026-12-24T18:00"
        ) from None
    if then <= now:
        raise argparse.ArgumentTypeError(f"'{text}' has gone by")
    return then


def until_from_now(text: str) -> datetime:
    """`until`, from this machine's clock."""
    return until(text, datetime.now().astimezone())
