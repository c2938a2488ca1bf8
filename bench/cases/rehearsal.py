"""Rehearses a GPU's run on a CPU: its rows in their order, a few of each sweep and small ones.

What they show is that the way is open from end to end, and nothing of any time.
"""

from collections.abc import Sequence
from dataclasses import replace

from bench.cases.case import Case
from bench.cases.comparisons import Comparison, Row

_MOST = 2  # rows of a sweep


def rehearsed(rows: Sequence[Row]) -> list[Row]:
    """The first and some later rows of each sweep that times layers, on the CPU."""
    by_sweep: dict[str, list[Comparison]] = {}
    for row in rows:
        if isinstance(row, Comparison):
            by_sweep.setdefault(row.sweep, []).append(_small(row))
    return [row for found in by_sweep.values() for row in _spread(list(dict.fromkeys(found)))]


def _small(row: Comparison) -> Comparison:
    return replace(row, case=_on_cpu(row.case), baseline=_on_cpu(row.baseline))


def _on_cpu(case: Case) -> Case:
    return replace(case, device="cpu", batch_size=2, timesteps=3, features=4, units=4)


def _spread(rows: list[Comparison]) -> list[Comparison]:
    return rows[:: -(-len(rows) // _MOST)]
