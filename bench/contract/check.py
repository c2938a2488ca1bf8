"""One question to a cell: `@check` makes it of a function, and this is what the function can say.

The function takes `Cells`, makes the cells it needs, and returns what it saw; its docstring's first line is
the question. It raises `Refused` with what was expected and what was seen, or `Skipped` where the question
does not apply.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.contract.cell_under_test import Cells


def counted(number: int, thing: str) -> str:
    """A number of things, `1 weight`, as `bench.records.text` has it, which this room does not import."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@dataclass(frozen=True)
class Seen:
    """What a check that passes saw, and what is good to know."""

    message: str
    hint: str = ""


class Refused(Exception):
    """The cell breaks the contract: what was expected, what was seen, and maybe what to change, and where."""

    def __init__(self, expected: str, seen: str, change: str = "", at: str = "") -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        self.change, self.at = change, at


class Skipped(Exception):
    """The check does not apply to this cell."""


@dataclass(frozen=True)
class Check:
    """One question to a cell.

    Attributes:
        function: f(cells) -> what was seen, or `Seen` with a hint; raises `Refused` or `Skipped`.
        change: what to change where the function has nothing more precise to say.
        at: the method of the cell where the change is likely to be made.
        needs: checks without which this one would only repeat their failure.
    """

    function: "Callable[[Cells], str | Seen]"
    change: str
    at: str
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name in reports: the function's."""
        return self.function.__name__

    @property
    def question(self) -> str:
        """The question, for people: the first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]


# the needs of a check that takes more than one step
RUNS = ("call", "state_structure", "state_shapes", "state_dtypes", "sublayers_built", "finite")
# the needs of a check that compares two answers
PURE = (*RUNS, "same_answer_twice", "hidden_state", "weights_created_once")


def check(change: str, at: str = "call", needs: tuple[str, ...] = PURE) -> "Callable[[Callable], Check]":
    """Makes a `Check` of the function below it."""
    return lambda function: Check(function, change, at, needs)
