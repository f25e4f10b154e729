"""The command line of this folder: `picket evaluate`, `threshold`, `walkthrough`.

Machinery is imported when a command runs, so that `--help` is instant.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

Command = Callable[[argparse.Namespace], int]
Add = Callable[[str, Command, str, str], argparse.ArgumentParser]
"""cli.py's: name, command, what it does, an example."""


def add_to(add: Add, rate: Callable[[str], Fraction]) -> None:
    """Offer the commands.

    Args:
        add: makes the parser of one command.
        rate: reads "1/6000".
    """
    _add_evaluate(
        add(
            "evaluate",
            _evaluate,
            "measure how well faces in a folder are told apart: a report with intervals and plots",
            "picket evaluate faces/ --out report/",
        )
    )
    sub = add(
        "threshold",
        _threshold,
        "say which threshold a list of so many people needs, and what that costs",
        "picket threshold --subjects 10000 --false-alerts 1/6000",
    )
    sub.add_argument("--subjects", type=_count, required=True, metavar="N", help="on the list")
    sub.add_argument(
        "--false-alerts",
        type=rate,
        required=True,
        metavar="1/N",
        help="tolerable, per passer-by who is not on the list",
    )
    sub.add_argument(
        "--templates", type=_count, default=1, metavar="N", help="per subject (default 1)"
    )
    _add_models(sub)
    sub = add(
        "walkthrough",
        _walkthrough,
        "judge a field test with actors by the alerts that the controller recorded",
        "picketctl alerts -n 10000 --json > alerts.jsonl;"
        " picket walkthrough --actors actors.csv --out report/",
    )
    sub.add_argument(
        "--actors",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV, a row per walk past the node: subject, from, to (ISO 8601), and any groups",
    )
    sub.add_argument(
        "--alerts",
        type=Path,
        metavar="FILE",
        help="JSON Lines, as `picketctl alerts --json` and `serve --json` print them"
        " (default: alerts.jsonl beside the actors)",
    )
    sub.add_argument("--out", type=Path, metavar="FOLDER", help="write a report, too")
    sub.add_argument(
        "--slack",
        type=float,
        default=5.0,
        metavar="S",
        help="seconds by which clocks may differ (default 5)",
    )
    sub.add_argument("--seed", type=int, default=1, help="of the intervals (default 1)")


def _add_evaluate(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "data", type=Path, metavar="DATA", help="holds open_set.csv, or a folder per subject"
    )
    sub.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of the report")
    sub.add_argument("--seed", type=int, default=1, help="of every draw (default 1)")
    sub.add_argument(
        "--metadata", type=Path, metavar="FILE", help="CSV by subject (default DATA/metadata.csv)"
    )
    sub.add_argument(
        "--errata", type=Path, metavar="FILE", help="CSV of wrong labels, besides DATA/errata.csv"
    )
    sub.add_argument(
        "--cache", type=Path, metavar="FILE", help="of vectors (default in your cache folder)"
    )
    sub.add_argument(
        "--no-gate", action="store_true", help="use also what the node's quality gate refuses"
    )
    sub.add_argument(
        "--flip", action="store_true", help="mean with the mirrored face: twice as slow"
    )
    sub.add_argument(
        "--pictures", action="store_true", help="show pictures in the report, from where they lie"
    )
    sub.add_argument(
        "--hide",
        type=_kinds,
        metavar="THINGS",
        help="draw these over the faces instead and see what is still found: mask, scarf,"
        " sunglasses, cap, hand; several with commas",
    )
    _add_models(sub)


def _add_models(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--models", type=Path, metavar="FOLDER", help="default: those of Picket")
    sub.add_argument("--detector", metavar="NAME", help="in the models' manifest")
    sub.add_argument("--embedder", metavar="NAME", help="in the models' manifest")


def _evaluate(arguments: argparse.Namespace) -> int:
    if arguments.hide:
        return _evaluate_hidden(arguments)
    from appliance.evaluation.evaluate import Options, evaluate
    from appliance.evaluation.report import in_words

    evaluation, page = evaluate(
        Options(
            data=arguments.data,
            out=arguments.out,
            seed=arguments.seed,
            metadata=arguments.metadata,
            errata=arguments.errata,
            cache=arguments.cache,
            gated=not arguments.no_gate,
            flip=arguments.flip,
            pictures=arguments.pictures,
            models=arguments.models,
            detector=arguments.detector,
            embedder=arguments.embedder,
        )
    )
    print(in_words(evaluation))
    print(f"report: {page}")
    return 0


def _evaluate_hidden(arguments: argparse.Namespace) -> int:
    from appliance.evaluation import hidden
    from appliance.evaluation.models import FOLDER
    from appliance.evaluation.protocol import load

    protocol = load(arguments.data, seed=arguments.seed, errata=arguments.errata)
    with ExitStack() as stack:
        eyes = hidden.open_eyes(stack, folder=arguments.models or FOLDER)
        rows = hidden.evaluate_hidden(protocol, arguments.hide, eyes, seed=arguments.seed)
    page = hidden.write(rows, arguments.out)
    print(hidden.in_words(rows))
    print(f"report: {page}")
    return 0


def _threshold(arguments: argparse.Namespace) -> int:
    from appliance.evaluation.threshold import advise

    print(
        advise(
            subjects=arguments.subjects,
            templates=arguments.templates,
            false_alerts=float(arguments.false_alerts),
            folder=arguments.models,
            embedder=arguments.embedder,
        )
    )
    return 0


def _walkthrough(arguments: argparse.Namespace) -> int:
    from appliance.evaluation.walkthrough import walkthrough

    print(
        walkthrough(
            actors=arguments.actors,
            alerts=arguments.alerts or arguments.actors.with_name("alerts.jsonl"),
            out=arguments.out,
            slack_s=arguments.slack,
            seed=arguments.seed,
        )
    )
    return 0


def _kinds(text: str) -> list[str]:
    """See occluders.KINDS, which is not imported for --help."""
    kinds = ("mask", "scarf", "sunglasses", "cap", "hand")
    asked = text.split(",")
    strange = [kind for kind in asked if kind not in kinds]
    if strange or len(set(asked)) < len(asked):
        raise argparse.ArgumentTypeError(f"'{text}': some of {', '.join(kinds)}, each once")
    return asked


def _count(text: str) -> int:
    number = int(text) if text.isdigit() else 0
    if not 1 <= number <= 10_000_000:  # noqa: PLR2004 - ten million: more than any node holds
        raise argparse.ArgumentTypeError(f"'{text}': a number from 1 to 10,000,000")
    return number
