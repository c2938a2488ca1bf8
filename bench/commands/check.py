"""`python -m bench check TARGET`: asks a cell every question of `bench.contract` and prints what it found.

Exit code 0 if all checks hold, 1 if one fails, 2 if the target cannot be loaded or an option makes no sense.
"""

import argparse
import contextlib
import json
import logging
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bench.backend.quiet import no_chatter
from bench.contract.load_cell import FORM, TargetError, load_target

if TYPE_CHECKING:  # the contract imports TensorFlow, which `main` must silence first
    from bench.contract.check_cell import CheckResult, ContractReport

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
    parser.add_argument(
        "--features",
        type=int,
        metavar="N",
        help="size of the inputs, for a cell that needs a certain one (default: 4)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, and nothing else")


def main(arguments: argparse.Namespace) -> int:
    """Runs the command; returns its exit code."""
    try:
        kwargs = _kwargs(arguments.kwargs)
        _expect_positive("--units", arguments.units)
        _expect_positive("--features", arguments.features)
        started = time.monotonic()
        with _stdout_to_stderr():
            report = _check(arguments.target, kwargs, arguments.units, arguments.features)
    except BadOption as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except TargetError as error:
        print(f"{error.details}\n\nerror: {error}".lstrip(), file=sys.stderr)
        return 2
    print(as_json(report) if arguments.json else as_text(report, time.monotonic() - started))
    return 0 if report.ok else 1


def _kwargs(text: str) -> dict[str, Any]:
    expected = """--kwargs: expected a JSON object, such as '{"activation": "relu"}'"""
    try:
        kwargs = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadOption(f"{expected}, got {text!r} ({error})") from None
    if not isinstance(kwargs, dict):
        raise BadOption(f"{expected}, got {text}")
    return kwargs


def _expect_positive(option: str, number: int | None) -> None:
    if number is not None and number <= 0:
        raise BadOption(f"{option}: expected a positive integer, got {number}")


def _check(text: str, kwargs: dict[str, Any], units: int, features: int | None) -> "ContractReport":
    logging.getLogger("tensorflow").setLevel(logging.CRITICAL)
    with no_chatter():
        import keras  # noqa: F401 - before the target's file imports it, aloud
    target = load_target(text, kwargs)
    from bench.contract.check_cell import check_cell

    return check_cell(target, units, features)


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


def as_json(report: "ContractReport") -> str:
    """`{"target": …, "ok": …, "checks": [{"name": …, "status": …, "message": …}]}`."""
    checks = [
        {"name": result.name, "status": result.status, "message": result.text} for result in report.checks
    ]
    return json.dumps(
        {"target": report.target, "ok": report.ok, "checks": checks}, indent=2, ensure_ascii=False
    )


def as_text(report: "ContractReport", seconds: float) -> str:
    """What holds, what was skipped and why, the hints, the failures in full, and a summary."""
    lines = _entry("ok", ", ".join(result.name for result in report.having("ok")) or "none")
    for reason, names in _by_message(report.having("skipped")).items():
        listed = names if len(names) < 4 else [f"{len(names)} checks"]
        lines += _entry("skipped", f"{', '.join(listed)}: {reason}")
    for result in report.checks:
        if result.status != "failed" and result.hint:
            lines += _entry("hint", f"{result.name}: {result.hint}")
    for result in report.failed:
        lines += ["", *_entry("failed", f"{result.name}: {_questions()[result.name]}")]
        lines += [*_wrapped(result.message), *_wrapped(f"change: {result.hint}")]
    return "\n".join([*lines, "", _summary(report, seconds)])


def _questions() -> dict[str, str]:
    from bench.contract.check_cell import CHECKS

    return {check.name: check.question for check in CHECKS}


def _by_message(results: "tuple[CheckResult, ...]") -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for result in results:
        names.setdefault(result.message, []).append(result.name)
    return names


def _summary(report: "ContractReport", seconds: float) -> str:
    counts = ", ".join(f"{len(report.having(status))} {status}" for status in ("failed", "ok", "skipped"))
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
