"""What a cell promises to Keras and to its user, as one table of named checks.

`check_cell(MyCell)` asks a fresh cell every question of `CHECKS` and returns a `ContractReport`. A check
passes, fails with what was expected, what was seen and what to change, or is skipped: because it does not
apply, or because a check it needs has failed and its answer would say nothing new. What Keras itself does
to every custom cell is a hint on a check that passes, never a failure.

Shapes are tiny and everything runs on the CPU: the contract is about what is right, not what is fast.
A new check is a function with the decorator `@check` in `bench.contract.checks`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contract.cell_under_test import Cells, dtype_policy, one_line, surroundings
from bench.contract.check import Check, Refused, Seen, Skipped
from bench.contract.checks import CHECKS
from bench.contract.load_cell import Target

# --- values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: the check's name in `CHECKS`.
        status: `ok`, `failed` or `skipped`.
        message: what was expected and what was seen, or why it was skipped.
        hint: of a failed check what to change and where, of another what is good to know; may be empty.
    """

    name: str
    status: str
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """Message and hint in one sentence."""
        lead = "change" if self.status == "failed" else "note"
        return f"{self.message}; {lead}: {self.hint}" if self.hint else self.message


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
        return self.having("failed")

    def having(self, status: str) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.checks if result.status == status)


# --- the runner ---------------------------------------------------------------------------------------------


def check_cell(
    target: Target | Callable[..., Any],
    units: int = 16,
    features: int | None = None,
    checks: Sequence[Check] | None = None,
) -> ContractReport:
    """Asks every question of `CHECKS`, each with cells of its own.

    Args:
        target: a `Target`, or a class or function that takes `units` and returns a new cell.
        units: what the target is called with.
        features: size of the last axis of the inputs; by default 4 (5 if that is `units`), so that a mix-up
            of the two shows. A cell that needs as many features as units is checked with `features=units`.
        checks: those to ask, in the order of the table; by default all.

    Raises:
        TargetError: the constructor raises.
    """
    target = Target.of(target)
    cells = Cells(target, units, features or (5 if units == 4 else 4))
    results: list[CheckResult] = []
    with surroundings():
        cells.new()
        blocked: dict[str, str] = {}
        for check in CHECKS if checks is None else checks:
            root = next((blocked[need] for need in check.needs if need in blocked), None)
            result = _ask(check, cells) if root is None else _not_asked(check, root)
            if result.status == "failed" or root is not None:
                blocked[check.name] = root or check.name
            results.append(result)
    return ContractReport(target.text, tuple(results))


def _not_asked(check: Check, root: str) -> CheckResult:
    return CheckResult(check.name, "skipped", f"not asked, since `{root}` failed")


def _ask(check: Check, cells: Cells) -> CheckResult:
    try:
        with dtype_policy("float32"):
            seen = check.function(cells)
    except Skipped as skipped:
        return CheckResult(check.name, "skipped", str(skipped))
    except Refused as refused:
        at = refused.at or cells.where(check.at)
        return CheckResult(check.name, "failed", str(refused), _advice(refused.change or check.change, at))
    except Exception as error:
        message = f"expected no error; seen {one_line(error)}"
        at = cells.user_frame(error) or cells.where(check.at)
        return CheckResult(check.name, "failed", message, _advice(check.change, at))
    seen = seen if isinstance(seen, Seen) else Seen(seen)
    return CheckResult(check.name, "ok", seen.message, seen.hint)


def _advice(change: str, at: str) -> str:
    return f"{change} ({at})" if at else change
