"""`checks`: the contract as tests of one's own, one a check, as scikit-learn's `parametrize_with_checks`."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.api.check import Features, check_sizes, mapping
from bench.cases.devices import check_backend_chosen
from bench.contract.load_cell import Target
from bench.contract.report import BrokenContract, CheckResult

if TYPE_CHECKING:
    import pytest

    from bench.contract.check_cell import Contract


def checks(
    cells: Sequence[str | Callable[..., Any]],
    units: int = 16,
    features: Features = None,
    kwargs: Mapping[str, Any] | None = None,
) -> "pytest.MarkDecorator":
    """Parametrises a pytest test by the cells and the checks of the contract.

        @bench.checks([MyCell])
        def test_my_cell(cell, check):
            check(cell)

    A check fails its test with what was expected, what was seen and what to change; one that does not apply,
    or that needs a check that has failed, skips it. All is asked in the process of the tests.

    Args:
        cells: each as `bench.check` takes it.
        units, features, kwargs: those of `bench.check`, for all cells.

    Raises:
        TargetError: a cell cannot be loaded.
        UnsupportedBackend: Keras runs on another backend than TensorFlow.
        ValueError: there is no cell, or a size is no positive integer.
    """
    import pytest

    if isinstance(cells, str) or not isinstance(cells, Sequence) or not cells:
        raise ValueError(f"cells {cells!r}: must be a list of one cell or more")
    check_sizes(units, features)
    arguments = units, features, mapping("kwargs", kwargs)
    check_backend_chosen()
    asked: list[tuple[Any, Contract, dict[str, CheckResult]]]
    asked = [(cell, _contract(cell, *arguments), {}) for cell in cells]
    return pytest.mark.parametrize(
        ("cell", "check"),
        [
            pytest.param(
                cell, AskedCheck(name, cell, contract, found, arguments), id=f"{_id(contract)}-{name}"
            )
            for cell, contract, found in asked
            for name in contract.checks
        ],
    )


class AskedCheck:
    """One check of the contract, to be called with a cell.

    Args:
        name: the check's.
        contract: that of `cell`.
        found: what the checks that were asked so far have found: a check is not asked where one that it needs
            has failed.
        arguments: units, features and kwargs, for another cell than `cell`.
    """

    def __init__(
        self,
        name: str,
        cell: Any,
        contract: "Contract",
        found: "dict[str, CheckResult]",
        arguments: tuple[Any, ...],
    ):
        self.name = name
        self._cell, self._contract, self._found = cell, contract, found
        self._arguments = arguments

    def __call__(self, cell: str | Callable[..., Any]) -> None:
        """Asks the cell.

        Raises:
            BrokenContract: it does not hold; the message says what to change.
            pytest.skip.Exception: the check does not apply, or needs one that has failed.
            TargetError: the constructor raises.
        """
        import pytest

        contract, found = self._contract, self._found
        if cell is not self._cell:
            contract, found = _contract(cell, *self._arguments), {}
        result = found[self.name] = contract.ask(self.name, found)
        if result.broken:
            raise BrokenContract(f"{contract.target.text}: {result.name}: {result.question} {result.text}")
        if result.status == "skipped":
            pytest.skip(result.message)

    def __repr__(self) -> str:
        return f"<check {self.name}>"


def _contract(
    cell: str | Callable[..., Any], units: int, features: Features, kwargs: dict[str, Any]
) -> "Contract":
    from bench.contract.check_cell import Contract
    from bench.contract.switches import load_held

    target = load_held(cell, kwargs) if isinstance(cell, str) else Target.of(cell, **kwargs)
    return Contract(target, units, features)


def _id(contract: "Contract") -> str:
    return contract.target.text.rpartition(":")[2].rpartition("<locals>.")[2]
