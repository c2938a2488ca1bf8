"""The checks of the cell contract, a module a subject; `CHECKS` is all of them in the order they are asked.

`LAYER_CHECKS` is the lighter contract of a whole layer.

A check is a function with the decorator `@check`, which says what to change, where, and what it needs; a new
one is asked where it stands. Imports nothing but the contract.
"""

from types import ModuleType

from bench.contract.check import Check
from bench.contract.checks import dtypes, gradients, protocol, purity, running, weights, whole_layer


def _checks_of(module: ModuleType) -> list[Check]:
    """The checks that a module defines, in its order."""
    return [value for value in vars(module).values() if isinstance(value, Check)]


CHECKS = tuple(
    check
    for module in (protocol, purity, weights, dtypes, gradients, running)
    for check in _checks_of(module)
)
LAYER_CHECKS = tuple(_checks_of(whole_layer))
