"""What a case may take: seconds to time it in, seconds to compile, bytes."""

import time
from typing import TYPE_CHECKING

import pytest

from bench.cases.comparisons import Comparison, Row
from bench.cases.cost_estimate import affordable_max_time
from bench.processes.worker import Limits
from bench.records.environment import memory_bytes
from bench.session import state

if TYPE_CHECKING:
    from bench.timing.blocks import Budget


# seconds of a row in the mean, to prove it and to compile it several times (2.3 s), and to measure it again:
# on a quiet machine less is enough, see `is_enough`
_BESIDE_BLOCKS_S = 5.0
# of a budget, until all rows have been measured: which of them take more is known only then
_FIRST_SHARE = 0.75


def heed_seconds(config) -> None:
    """Gives pytest-benchmark what `--seconds` says; raises UsageError where its own option says it too."""
    seconds = config.getoption("seconds")
    if seconds is None:
        return
    typed = {str(argument).partition("=")[0] for argument in config.invocation_params.args}
    if "--benchmark-max-time" in typed:
        raise pytest.UsageError("--seconds and --benchmark-max-time say the same: leave one out")
    config.option.benchmark_max_time = type(config.option.benchmark_max_time)(seconds)


def share_out(config, rows: list[Row]) -> None:
    """Fixes when the budget is spent, and what each case may take at first."""
    budget_s, max_time_s = shares(config, [row for row in rows if isinstance(row, Comparison)])
    config.stash[state.end_s] = time.monotonic() + budget_s
    config.stash[state.max_time_s] = max_time_s


def shares(config, rows: list[Comparison]) -> tuple[float, float]:
    """Seconds of the run at most, and of each case's calls at first: what `--seconds` says; less where, by
    the estimate, `--budget` does not suffice for that."""
    max_time_s, limit_s = float(config.getoption("benchmark_max_time")), config.getoption("compile_limit")
    if config.getoption("budget") is None:
        return (_BESIDE_BLOCKS_S + max_time_s) * len(rows), max_time_s
    budget_s = 60 * config.getoption("budget")
    at_once = (config.getoption("workers") or 1) / (config.getoption("processes") or 1)
    once = config.getoption("scheduler") or config.getoption("workers")  # a cluster measures no row again
    first_s = (1.0 if once else _FIRST_SHARE) * budget_s * at_once
    return budget_s, affordable_max_time(rows, first_s, max_time_s, limit_s)


def budget(config) -> "Budget":
    from bench.timing.blocks import Budget

    return Budget(config.stash[state.max_time_s], config.getoption("benchmark_min_rounds"))


def of_isolated(config) -> Limits:
    half = (memory_bytes() or 0) // 2
    return Limits(config.getoption("compile_limit"), config.getoption("memory_limit") or half or None)
