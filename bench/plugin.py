"""The pytest plugin: options, the choice of cases, and the hooks. The work is done in `bench.runner.session`.

TensorFlow is not imported before a case is about to run.
"""

import argparse
import difflib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.cases.cost_estimate import expected_seconds
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS, Comparison, Task, comparisons, tasks
from bench.cases.user_cells import BASELINES, GuestError, Guests, guests, loaded
from bench.contract.load_cell import FORM, TargetError
from bench.processes.worker import DEFAULT_LIMITS, Limits
from bench.records.environment import memory_bytes, new_run_id

if TYPE_CHECKING:
    from bench.runner.session import Record, Run
    from bench.runner.tasks import Settings

Row = Comparison | Task
_DEFAULT_SWEEP = "default"
_run = pytest.StashKey["Run"]()
_guests = pytest.StashKey[Guests]()
_wanted = pytest.StashKey[list[Row]]()
_settings = pytest.StashKey["Settings"]()


def pytest_addoption(parser):
    group = parser.getgroup("recurrent cells")
    group.addoption(
        "--sweep",
        action="append",
        choices=sorted(SWEEPS),
        metavar="NAME",
        help=f"which cases to measure; may repeat. One of {', '.join(sorted(SWEEPS))} (default: default).",
    )
    group.addoption(
        "--cell",
        action="append",
        default=[],
        metavar="TARGET",
        help=f"your own cell joins the sweeps as a subject; {FORM}; may repeat.",
    )
    group.addoption(
        "--baseline",
        metavar="NAME",
        help=f"what --cell is compared with: {', '.join(BASELINES)} or a TARGET (default: lstm).",
    )
    group.addoption(
        "--corpus",
        metavar="PATH",
        type=Path,
        help="the text that character models learn, UTF-8, a blank line after each speech "
        "(default: Shakespeare).",
    )
    group.addoption(
        "--full",
        action="store_true",
        help="training tasks at the tutorials' size, not in the short form: hours without a GPU.",
    )
    group.addoption("--case", metavar="ID", help="measure the one case with this id.")
    group.addoption(
        "--results", metavar="DIR", type=Path, help="where the run's folder is made (default: results)."
    )
    group.addoption(
        "--device",
        choices=("auto", "cpu", "gpu"),
        default="auto",
        help="where to compute; auto takes a GPU if there is one (default: auto).",
    )
    group.addoption(
        "--compile-limit",
        metavar="SECONDS",
        type=_positive(float),
        default=DEFAULT_LIMITS.compile_s,
        help="how long a case that runs in a process of its own may trace and compile; beyond, it is skipped "
        f"(default: {DEFAULT_LIMITS.compile_s:g}).",
    )
    group.addoption(
        "--memory-limit",
        metavar="BYTES",
        type=_positive(int),
        help="how much memory such a process may take; beyond, the case fails (default: half of all).",
    )
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="fail where there is no GPU, and where no built-in layer ran on cuDNN.",
    )


def _positive(kind: type) -> Callable[[str], float]:
    """For argparse: reads a number above zero."""

    def positive(text: str):
        number = kind(text)
        if not 0 < number < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: must be above zero")
        return number

    positive.__name__ = f"positive {kind.__name__}"
    return positive


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU")
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")
    if config.getoption("require_gpu") and config.getoption("device") == "cpu":
        raise pytest.UsageError("--require-gpu: contradicts --device=cpu")
    try:
        config.stash[_guests] = guests(config.getoption("cell"), config.getoption("baseline"))
    except GuestError as error:
        raise pytest.UsageError(str(error)) from error
    sweeps, case_id = config.getoption("sweep"), config.getoption("case")
    rows = _choose(sweeps, case_id, config.stash[_guests], config.getoption("full"))
    _check_meaning(config, rows)
    config.stash[_wanted] = rows


def _check_meaning(config, rows: list[Row]) -> None:
    """Raises pytest.UsageError for an option that none of the chosen rows would heed."""
    subjects = {row.case.subject for row in rows}
    takers = [name for name, sweep in SWEEPS.items() if any(grid.guests for grid in sweep.grids)]
    for name in config.stash[_guests].joining:
        if name not in subjects and not config.getoption("case"):
            raise pytest.UsageError(
                f"--cell: the sweep takes no cells; those that do are {', '.join(takers)}"
            )
    for option in ("corpus", "full"):
        if config.getoption(option) and not any(isinstance(row, Task) for row in rows):
            tasks = [name for name, sweep in SWEEPS.items() if sweep.task]
            raise pytest.UsageError(f"--{option} is for training tasks: --sweep={', '.join(tasks)}")


def _choose(sweeps: list[str] | None, case_id: str | None, guests: Guests, full: bool) -> list[Row]:
    """The rows that the options ask for; raises pytest.UsageError for a case that is not there."""
    if case_id is None:
        return _rows(sweeps or [_DEFAULT_SWEEP], guests, full)
    known = _rows(sweeps or list(SWEEPS), guests, full)
    found = [row for row in known if row.case.id == case_id]
    if not found:
        near = difflib.get_close_matches(case_id, [row.case.id for row in known], n=3, cutoff=0.3)
        raise pytest.UsageError(
            f"--case {case_id}: no such case; the nearest are {', '.join(near) or 'none'}"
        )
    return [row for row in found if sweeps or row.sweep == found[0].sweep]


def _rows(sweeps: list[str], guests: Guests, full: bool) -> list[Row]:
    return [*comparisons(sweeps, guests), *tasks(sweeps, guests, full)]


def pytest_ignore_collect(collection_path, config):
    """Leaves out our tests with `--benchmark-only`, our benchmarks with `--benchmark-skip`, and idle ones."""
    house = Path(__file__).parent
    inside = collection_path.is_relative_to(house) or collection_path.is_relative_to(house.parent / "cells")
    if not inside:
        return None
    tests = "tests" in collection_path.relative_to(house.parent).parts
    benchmark = collection_path.parent == house / "benchmarks" and collection_path.name in _KINDS
    if tests:
        return True if config.getoption("benchmark_only") else None
    if benchmark:
        return True if config.getoption("benchmark_skip") or _is_idle(collection_path, config) else None
    return None


def _is_idle(benchmark: Path, config) -> bool:
    """Whether the chosen sweeps have no rows for the benchmark."""
    return not any(isinstance(row, _KINDS[benchmark.name]) for row in config.stash[_wanted])


# the rows that each benchmark takes
_KINDS: dict[str, type[Comparison] | type[Task]] = {
    "benchmark_cost.py": Comparison,
    "benchmark_tasks.py": Task,
}
# of the benchmarks; a row is one value
_ARGUMENTS: dict[str, type[Comparison] | type[Task]] = {"comparison": Comparison, "task": Task}


def pytest_generate_tests(metafunc):
    for argument, kind in _ARGUMENTS.items():
        if argument in metafunc.fixturenames:
            rows: list[Row] = [row for row in metafunc.config.stash[_wanted] if isinstance(row, kind)]
            metafunc.parametrize(argument, rows, ids=[f"{row.sweep}-{row.id}" for row in rows])


def pytest_collection_modifyitems(items):
    """A benchmark without rows in the chosen sweeps would stand there as a skipped test of nothing."""
    items[:] = [item for item in items if not _has_no_row(item)]


def _has_no_row(item) -> bool:
    given = item.callspec.params if hasattr(item, "callspec") else {}
    return any(name in given and not isinstance(given[name], kind) for name, kind in _ARGUMENTS.items())


def pytest_collection_finish(session):
    """Before the first case: the device must be there and the results folder be writable."""
    config = session.config
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if config.getoption("collectonly"):
        _print_expectation(session)
        return
    if "perform" in used:
        config.stash[_settings] = _task_settings(config)
    if used & {"measure", "perform"}:
        config.stash[_run] = _start_run(config)


def pytest_runtest_setup(item):
    """A test marked `gpu` runs on a GPU or not at all, and says so; with --require-gpu it fails instead."""
    if item.get_closest_marker("gpu") is None:
        return
    missing = _missing_gpu(item.config)
    if missing and item.config.getoption("require_gpu"):
        pytest.fail(f"--require-gpu: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"needs a GPU: {missing}")


def _missing_gpu(config) -> str | None:
    """Why this session has no GPU; None where it has one."""
    if config.getoption("device") == "cpu":
        return "--device=cpu was asked for"
    from bench.backend import runtime

    return None if runtime.gpu_name() else "TensorFlow sees no GPU on this machine"


def pytest_unconfigure(config):
    run = config.stash.get(_run, None)
    if run is not None:
        run.close()


def pytest_sessionfinish(session):
    """With --require-gpu, a run in which no built-in layer ran on cuDNN has failed."""
    if _lacks_cudnn(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _lacks_cudnn(config) -> bool:
    run = config.stash.get(_run, None)
    if run is None or run.folder is None or not config.getoption("require_gpu"):
        return False
    return not any(record["layer"] == "builtin" and record["kernel"] == "cudnn" for record in run.records)


def _print_expectation(session) -> None:
    """How many cases there are, and about how long they will take; of training tasks that is not known."""
    config = session.config
    rows = [
        item.callspec.params["comparison"]
        for item in session.items
        if "comparison" in getattr(getattr(item, "callspec", None), "params", {})
    ]
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not rows or reporter is None:
        return
    max_time_s, limit_s = float(config.getoption("benchmark_max_time")), config.getoption("compile_limit")
    seconds = expected_seconds(rows, max_time_s, limit_s)
    reporter.write_line(f"{len(rows)} cases, about {max(1, round(seconds / 60))} min on two cores")


def _task_settings(config) -> "Settings":
    from bench.runner.corpus import CorpusError, load_corpus
    from bench.runner.tasks import FULL, SHORT

    settings = replace(FULL if config.getoption("full") else SHORT, corpus=config.getoption("corpus"))
    if any(isinstance(row, Task) and row.name != "partial_sum" for row in config.stash[_wanted]):
        try:
            load_corpus(settings.corpus)
        except CorpusError as error:
            raise pytest.UsageError(f"--corpus {error}") from error
    return settings


def _start_run(config) -> "Run":
    from bench.backend import runtime
    from bench.runner.session import Run

    subjects = {**SUBJECTS, **config.stash[_guests].subjects}
    if config.getoption("require_gpu") and (missing := _missing_gpu(config)):
        raise pytest.UsageError(f"--require-gpu: {missing}")
    try:
        runtime.check_backend()
        device = runtime.device(config.getoption("device"))
        for subject in config.stash[_guests].subjects.values():
            loaded(subject.target or "")
    except TargetError as error:
        raise pytest.UsageError(f"{error}\n{error.details}".rstrip()) from error
    except (runtime.NoDevice, runtime.UnsupportedBackend) as error:
        raise pytest.UsageError(str(error)) from error
    results = config.getoption("results") or config.rootpath / "results"
    folder = None if config._benchmarksession.disabled else results / new_run_id()
    try:
        return Run(folder, device, subjects, _limits(config), _guest_texts(config))
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error


def _limits(config) -> Limits:
    half = (memory_bytes() or 0) // 2
    return Limits(config.getoption("compile_limit"), config.getoption("memory_limit") or half or None)


def _guest_texts(config) -> tuple[tuple[str, ...], str | None]:
    return tuple(config.getoption("cell")), config.getoption("baseline")


@pytest.fixture
def measure(request, benchmark):
    """measure(comparison): verifies, times and records it; the test fails or is skipped with the record."""
    from bench.timing.blocks import Budget

    config = request.config
    run = config.stash[_run]
    budget = Budget(float(config.getoption("benchmark_max_time")), config.getoption("benchmark_min_rounds"))

    def measure(comparison: Comparison) -> None:
        on_device = {"device": run.device}
        comparison = replace(
            comparison,
            case=replace(comparison.case, **on_device),
            baseline=replace(comparison.baseline, **on_device),
        )
        benchmark.group = f"{comparison.case.mode} {comparison.case.shape}"
        _report(_recorded(lambda: run.measure(comparison, benchmark, budget)))

    return measure


@pytest.fixture
def perform(request, benchmark):
    """perform(task): proves the layer, performs the task and records it; the test ends as the record does."""
    run, settings = request.config.stash[_run], request.config.stash[_settings]

    def perform(task: Task) -> None:
        benchmark.group = f"{task.sweep} {task.case.shape}"
        case = replace(task.case, device=run.device)
        _report(_recorded(lambda: run.perform(replace(task, case=case), settings, benchmark)))

    return perform


def _recorded(measure: Callable[[], "Record"]) -> "Record":
    """The record of a case; ends the session where records cannot be written, since all that follows would be
    lost."""
    try:
        return measure()
    except OSError as error:
        pytest.exit(f"records cannot be written: {error}", returncode=pytest.ExitCode.INTERRUPTED)


def _report(record) -> None:
    if record["status"] == "failed":
        pytest.fail(f"{record['reason']}: {record['message']}", pytrace=False)
    if record["status"] == "skipped":
        pytest.skip(f"{record['reason']}: {record['message']}")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    run = config.stash.get(_run, None)
    if run is None or run.folder is None:
        return
    from bench.records.run_folder import TASKS_FILE
    from bench.report.html import REPORT_FILE, write_report
    from bench.report.summary import summary_lines

    terminalreporter.section("recurrent cells")
    for line in summary_lines(run.records, {name: subject.label for name, subject in run.subjects.items()}):
        terminalreporter.write_line(line)
    if _lacks_cudnn(config):
        terminalreporter.write_line("--require-gpu: no built-in layer ran on cuDNN", red=True)
    terminalreporter.write_line(f"records: {run.folder}/records.csv")
    if (run.folder / TASKS_FILE).exists():
        terminalreporter.write_line(f"weights, predictions, texts: {run.folder}/{TASKS_FILE}")
    if any(record["ratio"] is not None for record in run.records):
        terminalreporter.write_line(f"charts:  {_written(lambda: _drawn(run.folder, run.records))}")
    if run.records:
        page = run.folder / REPORT_FILE
        terminalreporter.write_line(f"report:  {_written(lambda: str(write_report([run.folder], page)))}")


def _drawn(folder: Path, records: "list[Record]") -> str:
    from bench.report.charts.run_charts import draw

    return f"{len(draw(folder, records))} files in {folder}/charts"


def _written(write: Callable[[], str]) -> str:
    """What was written, or why it cannot be: the records stand whatever becomes of what is made of them."""
    try:
        return write()
    except OSError as error:
        return f"cannot be written: {error}"
