"""Tell of the cases and of the run: what is expected, a line a case, the summary and what was written."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.cases.comparisons import Comparison
from bench.cases.cost_estimate import comparison_seconds, expected_seconds
from bench.records.text import counted, one_line
from bench.session import choose, gpu, limits, state

if TYPE_CHECKING:
    from bench.report.progress import Progress
    from bench.runner.row import Record
    from bench.runner.run import Run


# what asks for the table of pytest-benchmark's, by what its options are otherwise
_TABLE_OPTIONS: dict[str, tuple[object, ...]] = {
    "benchmark_columns": (None,),
    "benchmark_sort": ("min",),
    "benchmark_group_by": ("group",),
    "benchmark_name": ("normal",),
    "benchmark_verbose": (False,),
    "benchmark_cprofile": (None,),
    "benchmark_compare": ([], None),
    "benchmark_histogram": ([], None),
}


def wants_table(config) -> bool:
    """True where pytest-benchmark's table is asked for: it compares calls timed one after another."""
    return any(
        config.getoption(name, ordinary[0]) not in ordinary for name, ordinary in _TABLE_OPTIONS.items()
    )


def start_progress(session) -> "Progress":
    from bench.report.progress import Progress

    config = session.config
    max_time_s, limit_s = config.stash[state.max_time_s], config.getoption("compile_limit")
    return Progress(
        [
            comparison_seconds(row, max_time_s, limit_s) if isinstance(row, Comparison) else None
            for row in choose.rows_of(session)
        ]
    )


def print_expectation(session) -> None:
    """Prints the cases, each with what it is compared with, how many there are and about how long they take;
    of training tasks that is not known."""
    config = session.config
    rows = choose.comparisons_of(session)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not rows or reporter is None:
        return
    from bench.report.progress import duration

    for row in rows:
        reporter.write_line(f"{row.case.id}, compared with {_against(row)}")
    budget_s, max_time_s = limits.shares(config, rows)
    processes = config.getoption("processes") or 1  # in turn; what `--budget` says is of all
    seconds = processes * expected_seconds(rows, max_time_s, config.getoption("compile_limit"))
    if config.getoption("budget") is None:
        budget_s *= processes
    machine = {"cpu": "two cores", "gpu": "a GPU"}[rows[0].case.device]
    told = f"{counted(len(rows), 'case')}, about {duration(seconds)} on {machine}"
    if budget_s > seconds and not (config.getoption("workers") or config.getoption("scheduler")):
        told += f"; wide ratios are measured again, up to {duration(budget_s)} in all (--budget)"
    reporter.write_line(told)


def _against(row: Comparison) -> str:
    return "a second instance of itself" if row.baseline == row.case else row.baseline.id


# a session that was not cut short
COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def measure_again(config, run: "Run") -> pytest.ExitCode | None:
    """Spends what the first measurements left of the time on the ratios that are wider than ±2%.

    Returns:
        the exit status where that was cut short: every row stands as it was, or as it was measured again.
    """
    from bench.report.summary import row_line

    left_s = config.stash[state.end_s] - time.monotonic()
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def say(record: "Record") -> None:
        if reporter is not None and config.get_verbosity() == 0:
            reporter.write(f"\n[again] {row_line(record, labels(config))}", flush=True)

    try:
        until_enough = config.getoption("budget") is None
        config.stash[state.rest] = run.measure_again(left_s, say, until_enough)
    except KeyboardInterrupt:
        config.hook.pytest_keyboard_interrupt(excinfo=pytest.ExceptionInfo.from_current())
        return pytest.ExitCode.INTERRUPTED
    except OSError as error:
        if reporter is not None:
            reporter.write_line(f"\nrecords cannot be written: {error}", red=True)
        return pytest.ExitCode.INTERRUPTED
    return None


class Lines:
    """Prints a line for each case, in place of its dot; -q has the dots, and -v has pytest's lines."""

    def __init__(self, config, progress: "Progress"):
        self._config = config
        self._progress = progress
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        return (report.outcome, "", "") if self._has_record(report) else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        if self._has_record(report):
            from bench.report.summary import row_line

            line = row_line(self._config.stash[state.latest][1], labels(self._config))
            self._reporter.write(f"\n{self._progress.line(line)}", flush=True)

    def _has_record(self, report) -> bool:
        return report.when == "call" and report.nodeid == self._config.stash.get(state.latest, ("",))[0]


def labels(config) -> dict[str, str]:
    return {name: subject.label for name, subject in config.stash[state.run].subjects.items()}


def tell_of_run(config) -> None:
    """Writes the run's summary, charts and report, once."""
    run, reporter = config.stash.get(state.run, None), config.pluginmanager.get_plugin("terminalreporter")
    if run is None or run.folder is None or reporter is None or config.stash.get(state.is_told, False):
        return
    config.stash[state.is_told] = True
    from bench.records.run_folder import TASKS_FILE
    from bench.records.schema import RecordError
    from bench.report.html import REPORT_FILE, write_report
    from bench.report.summary import rest_line, summary_lines

    reporter.section("recurrent cells")
    if not config._benchmarksession.quiet:
        reporter.write_line(
            "The table above is pytest-benchmark's, of each case by itself. The ratios below are of calls "
            "timed in turns: compare by these."
        )
    try:
        parts = run.parts if hasattr(run, "parts") else [(run.folder, run.records)]
    except RecordError as error:  # the folder has been taken away meanwhile
        reporter.write_line(f"records cannot be read: {error}", red=True)
        return
    for _, records in parts:
        if len(parts) > 1 and records:
            reporter.write_line(f"on {records[0]['machine']}:")
        for line in summary_lines(records, labels(config)):
            reporter.write_line(line)
    if (rest := config.stash.get(state.rest, None)) is not None and rest.wide:
        reporter.write_line(rest_line(rest.wide, rest.total, rest.within_reach, rest.seconds))
    if gpu.lacks_cudnn(config):
        reporter.write_line("--require-gpu: no built-in layer ran on cuDNN", red=True)
    for warning in getattr(run, "warnings", []):
        reporter.write_line(warning)
    for folder, records in parts:
        reporter.write_line(f"records: {folder}/records.csv")
        if (folder / TASKS_FILE).exists():
            reporter.write_line(f"weights, predictions, texts: {folder}/{TASKS_FILE}")
        if any(record["ratio"] is not None for record in records):
            reporter.write_line(f"charts:  {written(partial(drawn, folder, records))}")
    if any(records for _, records in parts):
        page, folders = run.folder / REPORT_FILE, [folder for folder, _ in parts]
        reporter.write_line(f"report:  {written(lambda: str(write_report(folders, page)))}")


def drawn(folder: Path, records: Sequence[Mapping[str, Any]]) -> str:
    from bench.report.charts.run_charts import draw

    return f"{counted(len(draw(folder, records)), 'file')} in {folder}/charts"


def written(write: Callable[[], str]) -> str:
    """Says what was written, or why it cannot be: the records stand whatever becomes of the rest."""
    try:
        return write()
    except OSError as error:
        return f"cannot be written: {one_line(error)}"
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as error:
        return f"cannot be written: {type(error).__name__}: {one_line(error)}"
