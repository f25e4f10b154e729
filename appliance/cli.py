"""`picket`: what is done on a node, and the authority's `enrol`.

Every failure that Picket knows is one line on stderr and a non-zero exit status; imports of a
command's machinery happen when that command runs, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from appliance.controller.arguments import hours, rate, reference
from appliance.errors import PicketError
from appliance.system import journal

Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
    """
    arguments = _parser().parse_args(argv)
    level = getattr(logging, os.environ.get("PICKET_LOG", "WARNING").upper(), logging.WARNING)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(journal.Formatter("%(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
    command: Command = arguments.command
    try:
        return command(arguments)
    except PicketError as e:
        print(journal.graded(f"picket: error: {e}", journal.ERROR), file=sys.stderr)
        return e.exit_status
    except KeyboardInterrupt:
        print("picket: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `picket … | head`: nobody reads any more, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(arguments: argparse.Namespace) -> int:
    from appliance.config import load

    config = load(arguments.config)
    if arguments.service == "watch":
        from appliance.services.watcher import run
    elif arguments.service == "link":
        from appliance.services.link import run
    elif arguments.service == "indicator":
        from appliance.services.indicator import run
    else:
        from appliance.services.supervise import run_all

        run_all(arguments.config)
        return 0
    run(config)
    return 0


def _join(arguments: argparse.Namespace) -> int:
    from appliance.config import load
    from appliance.services.join import join

    join(load(arguments.config), arguments.ticket or arguments.config.parent / "join.toml")
    return 0


def _first_boot(arguments: argparse.Namespace) -> int:
    from appliance.services import firstboot

    places = firstboot.Places.under(arguments.root)
    if arguments.blink:
        from appliance.services.misprovisioned import blink_until_stopped

        blink_until_stopped(firstboot.lamps_on(places), shut=firstboot.data_is_shut(places))
        return 0
    if arguments.report is not None:
        firstboot.report(places, arguments.report)
        return 0
    firstboot.first_boot(places)
    if not arguments.no_join:
        firstboot.join_now(places)
    return 0


def _update(arguments: argparse.Namespace) -> int:
    from appliance.services import trial
    from appliance.services.update import update

    if arguments.offered:
        trial.try_offered(trial.Places(), say=_say)
    elif arguments.interrupted:
        _say(trial.interrupted(trial.Places()))
    elif arguments.settle:
        _say(trial.settle(trial.Places()))
    else:
        update(arguments.bundle, say=_say, restart=not arguments.no_restart)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _check_config(arguments: argparse.Namespace) -> int:
    from appliance.config import load

    config = load(arguments.config)
    print(f"{arguments.config}: good; node {config.node.id} of fleet {config.node.fleet}")
    return 0


def _dump_config(arguments: argparse.Namespace) -> int:
    from appliance.config import dump, load

    print(dump(load(arguments.config)), end="")
    return 0


def _enrol(arguments: argparse.Namespace) -> int:
    from appliance.controller.authority import Order, enrol

    enrol(
        Order(
            photos=tuple(arguments.photos),
            out=arguments.out,
            subject=arguments.subject,
            key=arguments.key,
            fleet=arguments.fleet,
            list_id=arguments.list_id or arguments.out.stem,
            version=arguments.version,
            deployment=arguments.deployment,
            legal_basis=arguments.legal_basis,
            officer=arguments.officer,
            hours=arguments.hours,
            false_alerts=float(arguments.false_alerts),
            accept_partial=arguments.accept_partial,
        ),
        say=print,
    )
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from appliance.evaluation.demo import demo

    return demo(source=arguments.source, watch=arguments.watch, seconds=arguments.seconds)


def _bench(arguments: argparse.Namespace) -> int:
    from appliance.evaluation.bench import bench

    bench(out=arguments.out, rounds=arguments.rounds)
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from appliance.config import load
    from appliance.services.doctor import doctor

    return doctor(load(arguments.config), as_json=arguments.json)


def _faults(arguments: argparse.Namespace) -> int:
    from appliance.services.faults import kept

    lines = kept(arguments.folder)
    print("\n".join(lines or ["none kept" if lines == [] else "nothing is kept here"]))
    return 0


def _leds(arguments: argparse.Namespace) -> int:
    from appliance.indicator.patterns import table_markdown

    if not arguments.show:
        print(table_markdown())
        return 0
    from appliance.services.leds import show_states

    show_states(arguments.show, arguments.config, seconds=arguments.seconds)
    return 0


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from appliance import __version__

        print(f"picket {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="picket",
        description="A camera node that finds the few people on a watchlist and erases the rest.",
        epilog="example: picket run --config node.toml",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Command, what: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example: {example}",
        )
        sub.set_defaults(command=command)
        return sub

    sub = add(
        "run",
        _run,
        "run the node, or one of its three services, until it is stopped",
        "picket run --config node.toml",
    )
    sub.add_argument(
        "service",
        nargs="?",
        choices=("watch", "link", "indicator"),
        help="one service, as systemd runs it; without: all three",
    )
    sub.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml")
    sub = add(
        "join",
        _join,
        "make this node's keys and ask the controller for its certificate, once",
        "picket join --config node.toml",
    )
    sub.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml")
    sub.add_argument(
        "--ticket", type=Path, metavar="FILE", help="join.toml (default: beside node.toml)"
    )
    sub = add(
        "first-boot",
        _first_boot,
        "make this node what the card's picket-provision.toml says, and join",
        "picket first-boot",
    )
    sub.add_argument(
        "--root", type=Path, default=Path("/"), metavar="FOLDER", help="below which all lies"
    )
    sub.add_argument("--no-join", action="store_true", help="leave joining to `picket join`")
    sub.add_argument("--report", metavar="WHY", help="only bring picket-status.txt up to date")
    sub.add_argument(
        "--blink", action="store_true", help="only blink, until stopped, that the card is bad"
    )
    sub = add(
        "update",
        _update,
        "install a signed update in the other slot and try it",
        "picket update picket-1.2.0-arm64.raucb",
    )
    kind = sub.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="as `make image` leaves it"
    )
    kind.add_argument(
        "--offered", action="store_true", help="what a roll-out brought: picket-update.service"
    )
    kind.add_argument(
        "--interrupted", action="store_true", help="after picket-update.service has ended"
    )
    kind.add_argument(
        "--settle", action="store_true", help="say what became of it: picket-confirm.service"
    )
    sub.add_argument("--no-restart", action="store_true", help="only install")
    for name, command, what in (
        ("check-config", _check_config, "check a configuration, change nothing"),
        ("dump-config", _dump_config, "print a configuration with every default written out"),
    ):
        sub = add(name, command, what, f"picket {name} --config node.toml")
        sub.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml")

    _add_enrol(
        add(
            "enrol",
            _enrol,
            "make a signed and encrypted watchlist from photographs",
            "picket enrol photos/ --out list --deployment market-day --false-alerts 1/6000",
        )
    )
    sub = add("demo", _demo, "run the main job on this machine and judge it", "picket demo")
    sub.add_argument(
        "--source", help="a clip, a folder of pictures or /dev/videoN; default: a street scene"
    )
    sub.add_argument("--watch", type=Path, help="folder of photographs to look for (with --source)")
    sub.add_argument(
        "--seconds", type=float, default=60.0, help="end a live source after (default 60)"
    )
    sub = add("bench", _bench, "measure speed and memory", "picket bench --out bench.json")
    sub.add_argument("--out", type=Path, help="write the figures as JSON, too")
    sub.add_argument("--rounds", type=int, default=60, help="timed repetitions (default 60)")
    from appliance.evaluation.commands import add_to

    add_to(add, rate)
    sub = add(
        "doctor",
        _doctor,
        "check this node part by part and say what to do",
        "picket doctor --config node.toml",
    )
    sub.add_argument("--config", type=Path, required=True, metavar="FILE", help="node.toml")
    sub.add_argument("--json", action="store_true", help="print JSON")
    sub = add("faults", _faults, "print what went wrong over the last starts", "picket faults")
    sub.add_argument(
        "--folder", type=Path, default=Path("/data/faults"), metavar="FOLDER",
        help="where picket-faults.service keeps them (default /data/faults)",
    )  # fmt: skip
    sub = add(
        "leds",
        _leds,
        "print what the LEDs mean, or show it on them",
        "picket leds --show fault --config node.toml",
    )
    sub.add_argument("--table", action="store_true", help="print the table (the default)")
    sub.add_argument(
        "--show", action="append", metavar="STATE", help="a state, or all; may be repeated"
    )
    sub.add_argument(
        "--config", type=Path, metavar="FILE", help="whose LEDs (default: in the terminal)"
    )
    sub.add_argument("--seconds", type=float, default=8.0, help="for each state (default 8)")
    return parser


def _add_enrol(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "photos",
        nargs="+",
        type=Path,
        metavar="PHOTO",
        help="one person each; a folder holds photographs, or one folder per subject",
    )
    sub.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="LIST",
        help="writes LIST.bundle (signed, encrypted) and LIST.key (secret: for the controller)",
    )
    sub.add_argument("--subject", type=reference, help="one reference for all the photographs")
    sub.add_argument(
        "--accept-partial",
        action="store_true",
        help="take photographs of part-hidden faces, for finding those people hidden alike",
    )
    sub.add_argument(
        "--key",
        type=Path,
        default=Path("authority.key"),
        help="the authority's signing key; made if missing (default authority.key)",
    )
    sub.add_argument(
        "--fleet", type=reference, default="FLEET", metavar="NAME",
        help="name of the fleet that is to use it (default FLEET, as `picketctl init FLEET/`)",
    )  # fmt: skip
    sub.add_argument("--list-id", type=reference, help="default: the name of LIST")
    sub.add_argument(
        "--version", type=int, help="default: seconds since 1970, so that later is newer"
    )
    sub.add_argument("--deployment", type=reference, default="demo", help="default demo")
    sub.add_argument("--legal-basis", default="not stated", help="kept in the signed header")
    sub.add_argument("--officer", default="not stated", help="authorising officer's reference")
    sub.add_argument(
        "--hours", type=hours, default=12.0, help="until the list expires (default 12)"
    )
    sub.add_argument(
        "--false-alerts",
        type=rate,
        default=Fraction(1, 6000),
        metavar="1/N",
        help="tolerable, per passer-by (default 1/6000)",
    )
