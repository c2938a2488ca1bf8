"""Measure recurrent cells: cases, proofs, timing, records, charts.

A room (folder) imports only rooms to its left, and a test keeps it so:

    measuring:  timing, records, contract  <  cases  <  backend  <  proof  <  processes  <  runner  <  cluster
    reading:    timing, records, cases     <  report <  history, gate           (never TensorFlow)
    on top:     api, selftest, commands, session, plugin, __main__

All that knows TensorFlow's run time stands in `backend`. Each room's docstring says what lives there.
The Python face is `__all__`, whose names are imported when they are asked for:

    bench.check(MyCell)                        is it right? prints as `python -m bench check` does
    @bench.checks([MyCell])                    the same as tests of one's own, one a check
    bench.compare(MyCell, "lstm", shape=...)   what does it cost? a ratio with its interval
    bench.load("results")                      all that was measured, as a pandas DataFrame
    bench.Sweep, bench.Grid, bench.Case        a sweep of one's own, for `--sweep=FILE:NAME`
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.check import check
    from bench.api.checks import checks
    from bench.api.compare import compare
    from bench.cases.case import Case
    from bench.cases.sweeps import Grid, Sweep
    from bench.records.frame import load

__all__ = ["Case", "Grid", "Sweep", "check", "checks", "compare", "load"]

# where each stands: pandas and TensorFlow would make every `import bench` slow
_HOMES = {
    "Case": "bench.cases.case",
    "Grid": "bench.cases.sweeps",
    "Sweep": "bench.cases.sweeps",
    "check": "bench.api.check",
    "checks": "bench.api.checks",
    "compare": "bench.api.compare",
    "load": "bench.records.frame",
}


def __getattr__(name: str) -> Any:
    """Imports what stands in `__all__` when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
