"""`python -m bench gate`: did a change make it slower? One verdict a case, and an exit code.

Compares stored runs: the baseline is what `--baseline` names, or the one pinned for this machine with
`--accept`; never whatever was measured last. With `--measure` it measures two revisions of the repository
that one stands in first.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.cases.read_options import path, positive
from bench.cases.sweeps import SWEEPS
from bench.gate.output import (
    ALLOWED_INCONCLUSIVE,
    CANNOT_COMPARE,
    as_junit,
    markdown,
    plain,
    refusal_as_junit,
    side_lines,
    summary,
    verdict_lines,
)
from bench.gate.pinned_baseline import PINNED, pin, pinned_baseline, pinned_folder
from bench.gate.planning import plan_session
from bench.gate.repository import CannotMeasure
from bench.gate.revisions import CannotCompare, Side, read_side
from bench.gate.session import SECONDS, SIDES, measure, plan_lines
from bench.gate.verdicts import FEWEST_PROCESSES, PROCESSES, THRESHOLD, check_side, compare
from bench.records.files import write_whole
from bench.records.text import counted, one_line

_EXIT_CODES = (
    "exit codes: 0, no case is slower; 1, a case is slower; 2, the sides cannot be measured or compared, and "
    "why; 3, more cases are inconclusive than allowed, or a case has vanished"
)
# options of `python -m bench run` that say what is measured
_OF_RUN: dict[str, str] = {
    "--cell": "FILE:CLASS",
    "--kwargs": "JSON",
    "--step-shape": "N,N,N",
    "--features": "N",
    "--sweep": "NAME",
    "--subject": "NAME",
    "--shape": "B,T,F,U",
    "--option": "NAME[=VALUE],...",
    "--mode": "MODE,...",
    "--case": "ID",
    "--device": "NAME",
}
_OF_MEASURING = (
    ("--with", "head_with"),
    ("--base-with", "base_with"),
    ("--seconds", "seconds"),
    ("--plan", "plan"),
    ("--", "run_options"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = _EXIT_CODES
    runs = "runs' folders, CSVs, or folders of runs, one process each"
    parser.add_argument(
        "--baseline",
        nargs="+",
        metavar="PATH",
        help=f"{runs} (default: the one pinned); with --measure: what --cell is compared with",
    )
    parser.add_argument("--current", nargs="+", type=path, metavar="PATH", help=runs)
    parser.add_argument(
        "--threshold",
        type=share,
        default=THRESHOLD,
        metavar="SHARE",
        help="the change that matters, as 5%% or 0.05 (default: 5%%)",
    )
    parser.add_argument(
        "--allow-inconclusive",
        type=share,
        default=ALLOWED_INCONCLUSIVE,
        metavar="SHARE",
        help=f"the share of cases that may be inconclusive (default: {ALLOWED_INCONCLUSIVE:.0%})".replace(
            "%", "%%"
        ),
    )
    parser.add_argument("--junit", type=path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=path, metavar="FILE", help="write a table for a pull request")
    parser.add_argument(
        "--pinned",
        type=path,
        default=PINNED,
        metavar="DIR",
        help=f"where the pinned baselines are, a folder a machine (default: {PINNED})",
    )
    parser.add_argument(
        "--accept",
        action="store_true",
        help="pin the current side as the machine's baseline, and say what changed",
    )
    _add_measure_arguments(parser)


def _add_measure_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "to measure both sides",
        "In the git repository that you stand in: work trees of both revisions, and processes that take "
        "turns. Stopped, the same command goes on. What is not committed is not measured.",
    )
    group.add_argument("--measure", nargs=2, metavar=("BASE", "HEAD"), help="measure these revisions first")
    group.add_argument(
        "--processes", type=int, default=PROCESSES, metavar="N", help=f"of each side (default: {PROCESSES})"
    )
    group.add_argument(
        "--seconds",
        type=positive(float),
        metavar="S",
        help=f"for timing each case in each process (default: {SECONDS})",
    )
    group.add_argument(
        "--with",
        action="append",
        default=[],
        dest="head_with",
        metavar="REQUIREMENT",
        help="a package of the HEAD side alone, as pip writes it: tensorflow==2.20; may repeat",
    )
    group.add_argument(
        "--base-with", action="append", default=[], metavar="REQUIREMENT", help="the same of the BASE side"
    )
    group.add_argument(
        "--work",
        type=path,
        metavar="DIR",
        help="where to work (default: build/gate/SESSION in the repository)",
    )
    group.add_argument("--plan", action="store_true", help="print what would be done, and do nothing")
    for option, value in _OF_RUN.items():
        group.add_argument(
            option, action="append", default=[], metavar=value, help="that of `python -m bench run`"
        )
    group.add_argument(
        "run_options",
        nargs="*",
        metavar="-- OPTIONS",
        help="other options of `python -m bench run`: -- --compile-limit=120",
    )


def share(text: str) -> float:
    """A share as people write it, 5% or 0.05; raises argparse.ArgumentTypeError."""
    number = text.strip().removesuffix("%")
    try:
        value = float(number) / (100 if number != text.strip() else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a share, as 5% or 0.05")
    return value


def main(args: argparse.Namespace) -> int:
    """Measures, compares, or pins; returns the exit code."""
    try:
        _check_arguments(args)
        if args.measure:
            return _measure(args)
        return _accept(args) if args.accept else _gate(args, *_stored_sides(args))
    except CannotMeasure as error:
        message = one_line(error)
        print(f"cannot measure: {message}", file=sys.stderr)
        return _refused(args, "cannot measure", message)
    except CannotCompare as error:
        message = one_line(error)
        print(f"cannot compare: {message}", file=sys.stderr)
        return _refused(args, error.cause, message)


def _check_arguments(args: argparse.Namespace) -> None:
    """Raises CannotMeasure for options that mean nothing beside each other."""
    if args.measure:
        for option in ("current", "accept"):
            if getattr(args, option):
                raise CannotMeasure(f"--{option}: is for runs that are stored; --measure makes its own")
        return
    given = [option for option, name in (*_names(), *_OF_MEASURING) if getattr(args, name)]
    if given:
        raise CannotMeasure(f"{given[0]}: is for --measure BASE HEAD")
    if not args.current:
        raise CannotMeasure("nothing is named: give --measure BASE HEAD, or --current PATH of stored runs")


# --- measuring ---


def _measure(args: argparse.Namespace) -> int:
    options = [(option, value) for option, name in _names() for value in getattr(args, name)]
    options += [("--baseline", value) for value in args.baseline or ()]
    session = plan_session(
        Path.cwd(),
        args.measure,
        options,
        args.run_options,
        requirements={"base": args.base_with, "head": args.head_with},
        processes=args.processes,
        seconds=args.seconds,
        work=args.work,
    )
    if args.plan:
        for line in plan_lines(session):
            print(one_line(line, None))
        return 0
    measure(session, lambda line: print(f"=== {line}", flush=True))
    baseline, current = (
        replace(read_side(name, [session.runs(side)]), revision=_revision(text, session.commits[side]))
        for name, side, text in zip(("baseline", "current"), SIDES, args.measure, strict=True)
    )
    return _gate(args, baseline, current)


def _names() -> Iterator[tuple[str, str]]:
    """The options of `run`, and the names that they have among the arguments."""
    return ((option, option.removeprefix("--").replace("-", "_")) for option in _OF_RUN)


def _revision(text: str, commit: str) -> str:
    return commit[:12] if commit.startswith(text) else f"{commit[:12]} ({text})"


# --- comparing and pinning ---


def _stored_sides(args: argparse.Namespace) -> tuple[Side, Side]:
    current = read_side("current", args.current)
    paths = map(Path, args.baseline) if args.baseline else [pinned_baseline(args.pinned, current)]
    return read_side("baseline", paths), current


def _gate(args: argparse.Namespace, baseline: Side, current: Side) -> int:
    outcome = compare(baseline, current, args.threshold)
    code = outcome.exit_code(args.allow_inconclusive)
    for line in (
        *side_lines(baseline, current),
        "",
        *verdict_lines(outcome),
        "",
        summary(outcome, args.threshold, args.allow_inconclusive),
    ):
        print(one_line(line, None))
    if args.markdown:
        _write(args.markdown, markdown(baseline, current, outcome, args.threshold, args.allow_inconclusive))
    if args.junit:
        _write(args.junit, as_junit(outcome, args.allow_inconclusive))
    return code


def _refused(args: argparse.Namespace, cause: str, message: str) -> int:
    """Says in the files too that nothing was compared."""
    try:
        _write(args.junit, refusal_as_junit(cause, message))
        _write(args.markdown, f"**Cannot compare**: {plain(message)}\n")
    except CannotCompare:
        pass  # is what it was refused for, or as bad
    return CANNOT_COMPARE


def _write(file: Path | None, text: str) -> None:
    if file is None:
        return
    try:
        write_whole(file, text)
    except OSError as error:
        raise CannotCompare("cannot write", str(error)) from error


def _accept(args: argparse.Namespace) -> int:
    """Pins the current side, unless something is wrong with it."""
    current = read_side("current", args.current)
    count = len(current.processes)
    said = f"{count} of {PROCESSES} processes" if count < PROCESSES else counted(count, "process")
    if count < FEWEST_PROCESSES:
        raise CannotCompare("too few processes", f"{said}, nothing is pinned; {_how_to_add(current)}")
    check_side(current)
    folder = pinned_folder(args.pinned, current)
    for line in _what_changes(folder, current, args):
        print(one_line(line, None))
    try:
        pin(folder, current)
    except OSError as error:
        raise CannotCompare("cannot write", str(error)) from error
    more = f"; {_how_to_add(current)}" if count < PROCESSES else ""
    print(one_line(f"{folder}: {said} pinned{more}", None))
    return 0


def _how_to_add(side: Side) -> str:
    """Says how to get the rest of a side's processes."""
    sweeps = dict.fromkeys(f"--sweep={sweep}" for sweep, _, _ in side.keys if sweep in SWEEPS)
    command = f"`{' '.join(['python -m bench run', *sweeps])}`"
    options = "" if sweeps else " with the options of these"
    return (
        f"for each of the other {PROCESSES - len(side.processes)} run {command}{options}, and name all the "
        "runs after --accept --current"
    )


def _what_changes(folder: Path, current: Side, args: argparse.Namespace) -> Iterator[str]:
    if not folder.is_dir():
        yield "the machine's first baseline"
        return
    try:
        before = read_side("baseline", [folder])
        yield from side_lines(before, current)
        outcome = compare(before, current, args.threshold)
    except CannotCompare as error:
        yield f"replaces a baseline that cannot be compared: {error}"
    else:
        yield from verdict_lines(outcome)
        yield summary(outcome, args.threshold, args.allow_inconclusive)
