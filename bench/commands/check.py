"""`python -m bench check TARGET`: asks a cell every question of `bench.contract` and prints what it found.

The cell runs in a worker with limits of time and memory. Exit code 0 if all checks hold, 1 if one fails or
does not come to an end, 2 if the target cannot be loaded or an option makes no sense.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from bench.contract.load_cell import FORM, TargetError, parse_step_shape
from bench.contract.report import BROKEN, CheckResult, ContractReport
from bench.processes.contract_worker import (
    BACKENDS,
    CHECK_S,
    ContractLimits,
    UserCell,
    check_apart,
    contract_nursery,
)

COLOURS = {"failed": "31;1", "hint": "33", "skipped": "2", "ok": "32"}


class BadOption(ValueError):
    """An option has a value that makes no sense; the message is one line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("target", metavar="TARGET", help=f"the cell: {FORM}")
    parser.add_argument("--units", type=int, default=16, help="what Name is called with (default: 16)")
    parser.add_argument(
        "--kwargs",
        default="{}",
        metavar="JSON",
        help="its other arguments, a JSON object: '{\"alpha\": 0.5}'",
    )
    step = parser.add_mutually_exclusive_group()
    step.add_argument(
        "--features",
        type=int,
        metavar="N",
        help="size of the inputs, for a cell that needs a certain one (default: 4)",
    )
    step.add_argument(
        "--step-shape",
        metavar="N,N,...",
        help="shape of one step of the inputs, for a cell whose steps are no vectors: 8,8,1",
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=CHECK_S,
        metavar="SECONDS",
        help=f"how long a check may take (default: {CHECK_S:g})",
    )
    parser.add_argument(
        "--memory-limit",
        type=int,
        metavar="BYTES",
        help="how much memory the cell's process may take (default: 2 GiB, at most half of all)",
    )
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        default="tensorflow",
        help="the back end of Keras that it is asked on; on others than TensorFlow the checks of graphs, "
        "XLA and gradients are skipped, and a call of tf.* is refused (default: tensorflow)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


def main(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    try:
        cell, limits = _cell(arguments), _limits(arguments)
        started = time.monotonic()
        with _stdout_to_stderr():
            report = _check(cell, limits)
    except BadOption as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TargetError as error:
        print(f"{error.details}\n\nerror: {error}".lstrip(), file=sys.stderr)
        return 2
    print(as_json(report) if arguments.json else as_text(report, time.monotonic() - started))
    return 0 if report.ok else 1


def _cell(arguments: argparse.Namespace) -> UserCell:
    _expect_positive("--units", arguments.units)
    _expect_positive("--features", arguments.features)
    features = arguments.features or _step_shape(arguments.step_shape)
    if arguments.backend != "tensorflow" and find_spec(arguments.backend) is None:
        raise BadOption(
            f"--backend={arguments.backend}: needs {arguments.backend}, which pip installs with this "
            "project's extra `peers`"
        )
    kwargs = _kwargs(arguments.kwargs)
    return UserCell(arguments.target, kwargs, arguments.units, features, arguments.backend)


def _limits(arguments: argparse.Namespace) -> ContractLimits:
    _expect_positive("--time-limit", arguments.time_limit, "number")
    _expect_positive("--memory-limit", arguments.memory_limit)
    if arguments.memory_limit is None:
        return ContractLimits(arguments.time_limit)
    return ContractLimits(arguments.time_limit, arguments.memory_limit)


def _kwargs(text: str) -> dict[str, Any]:
    expected = """--kwargs: expected a JSON object, such as '{"activation": "relu"}'"""
    try:
        kwargs = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadOption(f"{expected}, got {textwrap.shorten(text, 80)!r} ({error})") from None
    if not isinstance(kwargs, dict):
        raise BadOption(f"{expected}, got {textwrap.shorten(text, 80)}")
    return kwargs


def _step_shape(text: str | None) -> tuple[int, ...] | None:
    try:
        return None if text is None else parse_step_shape(text)
    except ValueError as error:
        raise BadOption(f"--step-shape: {error}") from None


def _expect_positive(option: str, number: float | None, kind: str = "integer") -> None:
    if number is not None and not 0 < number < math.inf:
        raise BadOption(f"{option}: expected a positive {kind}, got {number}")


def _check(cell: UserCell, limits: ContractLimits) -> ContractReport:
    with contract_nursery() if cell.backend == "tensorflow" else contextlib.nullcontext() as nursery:
        return check_apart(cell, nursery, limits)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """What the user's cell and TensorFlow print goes to stderr: stdout is for the report."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


# --- reports -----------------------------------------------------------------------------------------


def as_json(report: ContractReport) -> str:
    """`{"target": …, "ok": …, "checks": [{"name": …, "status": …, "message": …}]}`."""
    checks = [
        {"name": result.name, "status": result.status, "message": result.text} for result in report.checks
    ]
    return json.dumps(
        {"target": report.target, "ok": report.ok, "checks": checks}, indent=2, ensure_ascii=False
    )


def as_text(report: ContractReport, seconds: float) -> str:
    """What holds, what was skipped and why, the hints, the failures in full, and a summary."""
    lines = _entry("ok", ", ".join(result.name for result in report.having("ok")) or "none")
    for reason, names in _by_message(report.having("skipped")).items():
        listed = names if len(names) < 4 else [f"{len(names)} checks"]
        lines += _entry("skipped", f"{', '.join(listed)}: {reason}")
    for result in report.checks:
        if not result.broken and result.hint:
            lines += _entry("hint", f"{result.name}: {result.hint}")
    for result in report.failed:
        lines += ["", *_entry("failed", f"{result.name}: {result.question}")]
        ended = "" if result.status == "failed" else f"{result.status}: "
        lines += [*_wrapped(ended + result.message), *_wrapped(f"change: {result.hint}")]
    return "\n".join([*lines, "", _summary(report, seconds)])


def _by_message(results: tuple[CheckResult, ...]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for result in results:
        names.setdefault(result.message, []).append(result.name)
    return names


def _summary(report: ContractReport, seconds: float) -> str:
    statuses = ("failed", *(status for status in BROKEN[1:] if report.having(status)), "ok", "skipped")
    counts = ", ".join(f"{len(report.having(status))} {status}" for status in statuses)
    verdict = _coloured("ok", "holds") if report.ok else _coloured("failed", "is broken")
    return f"{report.target}: the contract {verdict}: {counts} ({seconds:.1f} s)"


_INDENT = 9


def _entry(status: str, text: str) -> list[str]:
    first, *others = _wrapped(text)
    return [_coloured(status, f"{status:<{_INDENT}}") + first.lstrip(), *others]


def _wrapped(text: str) -> list[str]:
    width = min(shutil.get_terminal_size((110, 24)).columns, 110)
    indent = " " * _INDENT
    return textwrap.wrap(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _coloured(status: str, text: str) -> str:
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{COLOURS[status]}m{text}\033[0m"
