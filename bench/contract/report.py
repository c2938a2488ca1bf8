"""What the contract found: a result a check, a report a cell, and that as text. Imports no TensorFlow."""

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass, field

# how a check ends that neither holds, fails nor does not apply
ENDED = "ended the process"
OUT_OF_TIME = "ran out of time"
OUT_OF_MEMORY = "ran out of memory"
NO_EXIT = "raise an exception where something is wrong: no exit"
BROKEN = ("failed", ENDED, OUT_OF_TIME, OUT_OF_MEMORY)
COLOURS = {"failed": "31;1", "hint": "33", "skipped": "2", "ok": "32"}


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: the check's name in `CHECKS`.
        status: `ok`, `failed`, `skipped`, `ended the process`, `ran out of time` or `ran out of memory`.
        message: what was expected and what was seen, or why it was skipped.
        hint: of a failed check what to change and where, of another what is good to know; may be empty.
        question: what was asked, for people.
    """

    name: str
    status: str
    message: str
    hint: str = ""
    question: str = field(default="", compare=False)

    @property
    def broken(self) -> bool:
        """Whether the cell breaks the contract here."""
        return self.status in BROKEN

    @property
    def text(self) -> str:
        """Status (where it is not simply failed), message and hint in one sentence."""
        lead = "change" if self.broken else "note"
        message = f"{self.status}: {self.message}" if self.status in BROKEN[1:] else self.message
        return f"{message}; {lead}: {self.hint}" if self.hint else message


class BrokenContract(AssertionError):
    """A cell that breaks the cell contract; the message says which checks failed."""


@dataclass(frozen=True, repr=False)
class ContractReport:
    """What all checks found, in the order of the table. Prints as `python -m bench check` does.

    Attributes:
        target: how the cell was named.
        checks: the result of each check.
        seconds: how long the checks took; None where that was not measured.
    """

    target: str
    checks: tuple[CheckResult, ...]
    seconds: float | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return as_text(self, self.seconds)

    __repr__ = __str__  # what a notebook shows

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed, or did not come to an end."""
        return tuple(result for result in self.checks if result.broken)

    def raise_if_failed(self) -> None:
        """Raises BrokenContract, with the report as its text, if a check failed."""
        if not self.ok:
            raise BrokenContract(f"\n{self}")

    def having(self, status: str) -> tuple[CheckResult, ...]:
        """The checks of this status."""
        return tuple(result for result in self.checks if result.status == status)


def short_path(file: str | None) -> str:
    """The path as people write it: relative, where it lies below the current folder."""
    relative = os.path.relpath(file or "")
    return relative if not relative.startswith("..") else str(file)


# --- the report as text ------------------------------------------------------------------------------


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
