"""What the contract found: a result a check, a report a cell. Imports no TensorFlow."""

import os
from dataclasses import dataclass, field

# how a check ends that neither holds, fails nor does not apply
ENDED = "ended the process"
OUT_OF_TIME = "ran out of time"
OUT_OF_MEMORY = "ran out of memory"
NO_EXIT = "raise an exception where something is wrong: no exit"
BROKEN = ("failed", ENDED, OUT_OF_TIME, OUT_OF_MEMORY)


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


@dataclass(frozen=True)
class ContractReport:
    """What all checks found, in the order of the table."""

    target: str
    checks: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        """The checks that failed, or did not come to an end."""
        return tuple(result for result in self.checks if result.broken)

    def having(self, status: str) -> tuple[CheckResult, ...]:
        """The checks of this status."""
        return tuple(result for result in self.checks if result.status == status)


def short_path(file: str | None) -> str:
    """The path as people write it: relative, where it lies below the current folder."""
    relative = os.path.relpath(file or "")
    return relative if not relative.startswith("..") else str(file)
