"""Measure recurrent cells: cases, proofs, timing, records, charts.

A room (folder) imports only rooms to its left, and a test keeps it so:

    measuring:  timing, records, contract  <  cases  <  backend  <  proof  <  processes  <  runner  <  cluster
    reading:    timing, records, cases     <  report <  history, gate           (never TensorFlow)
    on top:     selftest, commands, plugin, __main__

All that knows TensorFlow's run time stands in `backend`. Each room's docstring says what lives there.
`bench.load` gives stored runs as one DataFrame.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.records.frame import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Imports `load` when it is asked for: pandas would make every `import bench` slow."""
    if name == "load":
        from bench.records.frame import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
