"""`python -m bench gate`: did a change make it slower? One verdict a case, and an exit code.

Reads records only. The baseline is what `--baseline` names, or the one pinned for this machine with
`--accept`; never whatever was measured last.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.gate.output import (
    ALLOWED_INCONCLUSIVE,
    CANNOT_COMPARE,
    junit,
    markdown,
    plain,
    refusal_as_junit,
    side_lines,
    summary,
    verdict_lines,
)
from bench.gate.pinned_baseline import PINNED, pin, pinned_baseline, pinned_folder
from bench.gate.revisions import CannotCompare, Side, read_side
from bench.gate.verdicts import THRESHOLD, check_side, compare
from bench.records.files import write_whole
from bench.records.text import one_line

_EXIT_CODES = (
    "exit codes: 0, no case is slower; 1, a case is slower; 2, the sides cannot be compared, and why; 3, "
    "more cases are inconclusive than allowed, or a case has vanished"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = _EXIT_CODES
    runs = "runs' folders, CSVs, or folders of runs, one process each"
    parser.add_argument(
        "--baseline", nargs="+", type=Path, metavar="PATH", help=f"{runs} (default: the one pinned)"
    )
    parser.add_argument("--current", nargs="+", type=Path, metavar="PATH", required=True, help=runs)
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
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a table for a pull request")
    parser.add_argument(
        "--pinned",
        type=Path,
        default=PINNED,
        metavar="DIR",
        help=f"where the pinned baselines are, a folder a machine (default: {PINNED})",
    )
    parser.add_argument(
        "--accept",
        action="store_true",
        help="pin the current side as the machine's baseline, and say what changed",
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
    """Compares, or pins; returns the exit code."""
    try:
        return _accept(args) if args.accept else _gate(args)
    except CannotCompare as error:
        message = one_line(error)
        print(f"cannot compare: {message}", file=sys.stderr)
        return _refused(args, error.cause, message)


def _gate(args: argparse.Namespace) -> int:
    current = read_side("current", args.current)
    baseline = read_side("baseline", args.baseline or [pinned_baseline(args.pinned, current)])
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
        _write(args.junit, junit(outcome, args.allow_inconclusive))
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
    check_side(current)
    folder = pinned_folder(args.pinned, current)
    for line in _what_changes(folder, current, args):
        print(one_line(line, None))
    try:
        pin(folder, current)
    except OSError as error:
        raise CannotCompare("cannot write", str(error)) from error
    print(f"{folder}: {len(current.processes)} processes pinned")
    return 0


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
