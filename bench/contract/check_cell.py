"""Asks a cell what it promises to Keras and to its user, one named check after another.

`check_cell(MyCell)` asks a fresh cell every question of `CHECKS` and returns a `ContractReport`. A check
passes, fails with what was expected, what was seen and what to change, or is skipped: because it does not
apply, or because a check it needs has failed and its answer would say nothing new. What Keras itself does
to every custom cell is a hint on a check that passes, never a failure.

Shapes are tiny and everything runs on the CPU: the contract is about what is right, not what is fast.
A new check is a function with the decorator `@check` in `bench.contract.checks`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from bench.contract.advice import advice
from bench.contract.cell_under_test import (
    ON_TENSORFLOW,
    Cells,
    dtype_policy,
    is_out_of_memory,
    one_line,
    surroundings,
)
from bench.contract.check import Check, Refused, Seen, Skipped
from bench.contract.checks import CHECKS, LAYER_CHECKS
from bench.contract.load_cell import Target
from bench.contract.report import ENDED, OUT_OF_MEMORY, CheckResult, ContractReport
from bench.contract.switches import changed_since, values
from bench.contract.tensorflow_calls import ADVICE, noted


def check_cell(
    target: Target | Callable[..., Any],
    units: int = 16,
    features: int | tuple[int, ...] | None = None,
    checks: Sequence[Check] | None = None,
) -> ContractReport:
    """Asks every question of `CHECKS`, each with cells of its own, in this process.

    Args:
        target: a `Target`, or a class or function that takes `units` and returns a new cell.
        units: what the target is called with.
        features: the size of one step of the inputs, or its shape; by default 4 (5 if that is `units`), so
            that a mix-up of the two shows. A cell that needs as many features as units is checked with
            `features=units`, one whose steps are images with their shape.
        checks: those to ask, in the order of the table; by default all, for a target that makes whole layers
            those of `LAYER_CHECKS`.

    Raises:
        TargetError: the constructor raises.
    """
    contract = Contract(target, units, features, checks)
    found: dict[str, CheckResult] = {}
    for name in contract.checks:
        found[name] = contract.ask(name, found)
    return ContractReport(contract.target.text, tuple(found.values()))


class Contract:
    """A cell and the checks that it is asked; the arguments are those of `check_cell`.

    Attributes:
        target: what makes the cells.
        checks: the checks to ask, by name, in their order.
    """

    def __init__(
        self,
        target: Target | Callable[..., Any],
        units: int = 16,
        features: int | tuple[int, ...] | None = None,
        checks: Sequence[Check] | None = None,
    ) -> None:
        self.target = Target.of(target)
        table = LAYER_CHECKS if self.target.whole else CHECKS
        self.checks = {check.name: check for check in (table if checks is None else checks)}
        self._cells = Cells(self.target, units, step_shape(units, features))

    def ask(self, name: str, found: Mapping[str, CheckResult]) -> CheckResult:
        """Asks one check.

        Args:
            found: what the checks before it have found.

        Raises:
            TargetError: nothing has been asked before, and the constructor raises.
        """
        root = self._failed_need(name, found)
        if root is not None:
            return CheckResult(name, "skipped", f"not asked, since `{root}` {_verb(found[root])}")
        with surroundings():
            switches = values()
            if not found:
                self._cells.new()
            return _ask(self.checks[name], self._cells, switches)

    def _failed_need(self, name: str, found: Mapping[str, CheckResult]) -> str | None:
        """The failed check without which this one would say nothing new, itself or by way of others."""
        for need in self.checks[name].needs:
            if need in found and found[need].broken:
                return need
            root = self._failed_need(need, found) if need in self.checks else None
            if root is not None:
                return root
        return None


def step_shape(units: int, features: int | tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape of one step of the inputs, where `check_cell` is given such `features`."""
    if features is None:
        return (5 if units == 4 else 4,)
    return (features,) if isinstance(features, int) else features


def _verb(result: CheckResult) -> str:
    return result.status  # each status is a verb


def _ask(check: Check, cells: Cells, switches: dict[str, Any]) -> CheckResult:
    """Asks the check; `switches`: those of the process, before the cell could change any."""
    try:
        with dtype_policy("float32"):
            seen = _without_tensorflow(check, cells) if not ON_TENSORFLOW else check.function(cells)
    except Skipped as skipped:
        return CheckResult(check.name, "skipped", str(skipped), question=check.question)
    except (Refused, Exception, SystemExit) as error:
        return _broken(check, cells, error, changed_since(switches))
    seen = seen if isinstance(seen, Seen) else Seen(seen)
    return CheckResult(check.name, "ok", seen.message, seen.hint, check.question)


def _without_tensorflow(check: Check, cells: Cells) -> Any:
    """What the check sees on another back end; a call of TensorFlow is refused, whatever came of it."""
    failed: BaseException | None = None
    seen = None
    with noted() as calls:
        try:
            seen = check.function(cells)
        except (Skipped, Refused, Exception, SystemExit) as error:
            failed = error
    if calls:
        backend = keras.backend.backend()
        raise Refused(f"no call of TensorFlow on the back end {backend}", calls.in_words(), ADVICE)
    if failed is not None:
        raise failed
    return seen


def _broken(check: Check, cells: Cells, error: BaseException, switched: list[str]) -> CheckResult:
    """The result of a check that raised; `switched`: the switches of the process that the cell changed."""
    change, at = advice(error, check, cells, switched)
    hint = f"{change} ({at})" if at else change
    if isinstance(error, Refused):
        status, message = "failed", str(error)
    elif isinstance(error, SystemExit):
        status, message = ENDED, one_line(error)
    else:
        status = OUT_OF_MEMORY if is_out_of_memory(error) else "failed"
        message = f"expected no error; seen {one_line(error)}"
    return CheckResult(check.name, status, message, hint, check.question)
