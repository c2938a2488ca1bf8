"""`check`: asks a cell the contract from Python."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bench.cases.devices import check_backend_chosen
from bench.contract.load_cell import Target
from bench.contract.report import ContractReport
from bench.processes.contract_worker import UserCell, check_apart, check_here, contract_nursery

Features = int | tuple[int, ...] | None


def check(
    cell: str | Callable[..., Any],
    units: int = 16,
    features: Features = None,
    kwargs: Mapping[str, Any] | None = None,
    layer: bool = False,
) -> ContractReport:
    """Asks a cell every check of the contract, as `python -m bench check` does.

    Args:
        cell: a class, or a function that takes the number of units and returns a new cell: it is asked in
            this process. Or a text, `package.module:Name` or `path/to/file.py:Name`, whose cell is asked in a
            process with limits of time and memory, as the command does.
        units: what it is made with.
        features: the size of one step of the inputs, or its shape, for a cell that needs a certain one.
        kwargs: its other arguments.
        layer: whether it is a whole layer or model, sequences in, whatever out: it is asked a lighter
            contract, and need not take a number of units.

    Returns:
        The report: `.ok`, `.failed`, `.raise_if_failed()`; it prints as the command does.

    Raises:
        TargetError: the cell cannot be loaded or made.
        UnsupportedBackend: Keras runs on another backend than TensorFlow.
        ValueError: units or features that are no positive integers, or kwargs that are no mapping.
    """
    check_sizes(units, features)
    arguments = mapping("kwargs", kwargs)
    check_backend_chosen()
    started = time.monotonic()
    if isinstance(cell, str):
        with contract_nursery() as nursery:
            report = check_apart(UserCell(cell, arguments, units, features, layer), nursery)
    else:
        target = replace(Target.of(cell, **arguments), whole=layer)
        report = check_here(UserCell(target.text, {}, units, features, layer, target))
    return replace(report, seconds=time.monotonic() - started)


def check_sizes(units: int, features: Features) -> None:
    """Raises ValueError for a size that is no positive integer."""
    steps = features if isinstance(features, tuple) else (1 if features is None else features,)
    for name, value, sizes in (("units", units, (units,)), ("features", features, steps)):
        if not sizes or not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError(f"{name} {value!r}: must be a positive integer, or features a tuple of them")


def mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """The arguments that a caller gave, none for None; raises ValueError for what is no mapping of names."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name} {value!r}: must be a mapping, such as {{'gain': 0.5}}")
    return dict(value)
