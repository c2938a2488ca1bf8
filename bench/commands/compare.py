"""`python -m bench compare FIRST OTHER...`: times the first against each other one, at a shape of one's own.

Each is proven before it is timed, in turns with the first. Exit code 0; 1 if the first is slower than
`--at-most` allows, the whole interval beyond; 3 if it cannot be told; 2 if they cannot be compared.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from bench.api.compare import InLayer, compare_each
from bench.api.comparison_report import BEYOND, UNSURE, WITHIN, ComparisonReport
from bench.cases.case import DEVICES, MODES
from bench.cases.devices import UnsupportedBackend
from bench.cases.read_options import positive, read_option
from bench.cases.subjects import WHOLE
from bench.cases.user_cells import BASELINES
from bench.contract.load_cell import FORM, TargetError, parse_kwargs, parse_step_shape
from bench.records.text import one_line
from bench.report import formatting

_CODES = {WITHIN: 0, BEYOND: 1, UNSURE: 3}
_WORST = (BEYOND, UNSURE, WITHIN)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    side = (
        f"{FORM}, with -fused behind it for the cell in FusedRNN, or {', '.join(BASELINES)}, or a subject "
        "such as slstm-fused"
    )
    parser.add_argument(
        "sides",
        metavar="CELL",
        nargs="*",
        help=f"the first is compared with each other one (default: lstm): {side}",
    )
    parser.add_argument(
        "--layer",
        action="append",
        default=[],
        metavar="TARGET",
        help="a whole layer or model, or a function that makes one: it comes before the cells; may repeat",
    )
    parser.add_argument(
        "--shape",
        required=True,
        action=_Once,
        metavar="B,T,F,U",
        help="batch size, timesteps, features, units",
    )
    parser.add_argument(
        "--mode", default="infer", metavar="MODE,...", help=f"{' or '.join(MODES)}, or both (default: infer)"
    )
    parser.add_argument(
        "--option", action=_Once, metavar="NAME[=VALUE],...", help="bidirectional,depth=2,dtype=…"
    )
    parser.add_argument(
        "--at-most", type=positive(float), metavar="RATIO", help="the slowest that is allowed: 1.2"
    )
    parser.add_argument(
        "--seconds", type=positive(float), default=4.0, metavar="S", help="for timing each pair (default: 4)"
    )
    parser.add_argument("--kwargs", default="{}", metavar="JSON", help="the cells' other arguments")
    parser.add_argument("--step-shape", metavar="N,N,...", help="the shape of a step that is no vector")
    parser.add_argument("--device", choices=DEVICES, help="(default: a GPU if there is one)")


class _Once(argparse.Action):
    """Refuses an option that stands there twice: `run` takes several, and here the last would win."""

    def __call__(self, parser, namespace, values, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{option_string}: may stand there once")
        setattr(namespace, self.dest, values)


def main(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    verdicts = []
    sides = [*(InLayer(target, WHOLE) for target in arguments.layer), *arguments.sides]
    if not sides:
        print(f"error: nothing to compare: name a cell ({FORM}), or a --layer", file=sys.stderr)
        return 2
    try:
        for report in compare_each(
            sides[0],
            sides[1:] or ["lstm"],
            shape=arguments.shape,
            modes=arguments.mode.split(","),
            seconds=arguments.seconds,
            options=None if arguments.option is None else read_option(arguments.option),
            kwargs=_parsed("--kwargs", parse_kwargs, arguments.kwargs),
            step_shape=None
            if arguments.step_shape is None
            else _parsed("--step-shape", parse_step_shape, arguments.step_shape),
            device=arguments.device,
        ):
            verdicts.append(WITHIN if arguments.at_most is None else report.verdict(arguments.at_most))
            print(line(report, arguments.at_most), flush=True)
    except TargetError as error:
        print(f"{error.details}\n\nerror: {error}".lstrip(), file=sys.stderr)
        return 2
    except (
        AssertionError,
        ValueError,
        UnsupportedBackend,
    ) as error:  # what is wrong with a cell, or with an option
        print(f"error: {one_line(error, None)}", file=sys.stderr)
        return 2
    return _CODES[next(verdict for verdict in _WORST if verdict in verdicts)]


def line(report: ComparisonReport, limit: float | None) -> str:
    """`B in RNN: 0.93x [0.91, 0.95] …`: who is compared with whom, the ratio, the medians, the verdict."""
    mine, theirs = map(formatting.seconds, report.medians)
    said = [] if limit is None else [_SAID[report.verdict(limit)].format(limit)]
    return "; ".join(
        (
            f"{report.name} / {report.baseline}, {report.where}: {report.times}",
            f"{mine} / {theirs}",
            report.proven,
            *report.notes,
            *said,
        )
    )


_SAID = {
    WITHIN: "at most {:g}x",
    BEYOND: "SLOWER than {:g}x",
    UNSURE: "cannot tell whether at most {:g}x: give it more --seconds",
}


def _parsed(option: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
