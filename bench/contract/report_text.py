"""Prints a contract's report for people: `as_text`. Imports no TensorFlow."""

import os
import shutil
import sys
import textwrap

from bench.contract.report import BROKEN, CheckResult, ContractReport

COLOURS = {"failed": "31;1", "hint": "33", "skipped": "2", "ok": "32"}


def as_text(report: ContractReport, seconds: float | None = None) -> str:
    """What holds, what was skipped and why, the hints, the failures in full, and a summary.

    Args:
        seconds: how long the checks took; None does not say.
    """
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


def _summary(report: ContractReport, seconds: float | None) -> str:
    statuses = ("failed", *(status for status in BROKEN[1:] if report.having(status)), "ok", "skipped")
    counts = ", ".join(f"{len(report.having(status))} {status}" for status in statuses)
    verdict = _coloured("ok", "holds") if report.ok else _coloured("failed", "is broken")
    took = "" if seconds is None else f" ({seconds:.1f} s)"
    return f"{report.target}: the contract {verdict}: {counts}{took}"


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
