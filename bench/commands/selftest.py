"""`python -m bench selftest`: how often the timing itself is wrong, or with --gate the gate."""

import argparse
import json
import sys
from dataclasses import asdict

from bench.cases.read_options import path
from bench.gate.revisions import CannotCompare
from bench.records.files import read_text, write_whole
from bench.records.text import one_line
from bench.selftest import timing
from bench.selftest.gate import as_table, real_rates, simulated_rates, write_between


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    _add_gate_arguments(parser)
    group = parser.add_argument_group("the timing, without --gate")
    group.add_argument(
        "--minutes",
        type=_minutes,
        default=15.0,
        metavar="M",
        help=f"what it may take, at most {timing.MOST_MINUTES:g}; a row takes about 3 s (default: 15)",
    )
    group.add_argument("--save", type=path, metavar="FILE", help="keep the recorded rows, as JSON")
    group.add_argument("--load", type=path, metavar="FILE", help="count in rows that were kept, time nothing")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= timing.MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"{text}: must be above 0 and at most {timing.MOST_MINUTES:g}")
    return minutes


def main(args: argparse.Namespace) -> int:
    """Prints the figures of the timing, or with --gate those of the gate.

    Returns:
        0; 1 where a goal that was reached, as the file of --write says, surely is no longer; 2 where a file
        cannot be used.
    """
    if args.gate:
        return _gate(args)
    try:
        recording = (
            timing.loaded(args.load) if args.load else timing.record(timing.cases(), 60 * args.minutes)
        )
        if args.save:
            write_whole(args.save, json.dumps(asdict(recording)) + "\n")
        found = list(timing.figures(recording))
        text = timing.report(recording, found)
        print(text)
        lost = timing.lost(found, read_text(args.write)) if args.write else []
        if args.write:
            write_between(args.write, text, "timing")
    except (OSError, ValueError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    for what in lost:
        print(f"{args.write}: a goal that was reached is missed: {what}", file=sys.stderr)
    return 1 if lost else 0


def _add_gate_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.add_argument("--gate", action="store_true", help="test the gate, not the timing")
    parser.add_argument(
        "--runs",
        nargs="+",
        type=path,
        default=[],
        metavar="PATH",
        help="real processes of one revision: each PATH is a work folder of gate --measure (base/ and head/) "
        "or a folder of runs, measured one after the other",
    )
    parser.add_argument("--pairs", type=int, default=400, metavar="N", help="simulated pairs (default: 400)")
    parser.add_argument(
        "--write", type=path, metavar="FILE", help="put the figures between the file's markers"
    )


def _gate(args: argparse.Namespace) -> int:
    """Prints the figures; returns 0, or 2 where a run or the file to write cannot be used."""
    try:
        rates = [*simulated_rates(args.pairs), *(rate for path in args.runs for rate in real_rates(path))]
        text = as_table(rates)
        print(text)
        if args.write:
            write_between(args.write, text, "gate")
    except (CannotCompare, OSError, ValueError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0
