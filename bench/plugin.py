"""The pytest plugin: the hooks and the fixtures. What they do is in `bench.session`.

TensorFlow is not imported before a case is about to run.
"""

from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.cases import cudnn
from bench.cases.comparisons import Comparison, Row, Task
from bench.cases.devices import UnsupportedBackend
from bench.cases.read_options import ChoiceError
from bench.cases.rehearsal import rehearsed
from bench.cases.sweeps import SWEEPS
from bench.cases.user_cells import UserCellError
from bench.contract.load_cell import TargetError
from bench.session import choose, gpu, limits, options, processes, start, state, tell
from bench.session.interrupts import kept_interrupts

if TYPE_CHECKING:
    from bench.runner.row import Record

_BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"


def pytest_addoption(parser, pluginmanager):
    options.add_options(parser)
    config = pluginmanager.get_plugin("pytestconfig")
    options.hint_at_misspelt(parser, config.invocation_params.args)


def pytest_load_initial_conftests(parser, args):
    """Where `-p` names this plugin, pytest-benchmark has added its options by now."""
    options.hint_at_misspelt(parser, args)


def pytest_configure(config):
    if config.getoption("benchmark_only", None) is None:
        raise pytest.UsageError(
            "bench needs pytest-benchmark: leave out -p no:benchmark, or add -p pytest_benchmark.plugin"
        )
    config.addinivalue_line("markers", "gpu: needs a GPU")
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")
    if config.getoption("require_gpu") and config.getoption("device") == "cpu":
        raise pytest.UsageError("--require-gpu: contradicts --device=cpu")
    if config.getoption("rehearse") and (
        config.getoption("require_gpu") or config.getoption("device") != "auto"
    ):
        raise pytest.UsageError("--rehearse: is a GPU's run on the CPU; leave out --device and --require-gpu")
    limits.heed_seconds(config)
    config.stash[state.notes] = []
    gpu.show_devices(config)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    if config.getoption("processes") is None or config.getoption("collectonly"):
        return None
    return processes.run(config)


def _is_loaded_elsewhere(config) -> bool:
    """True where `-p bench.plugin` asks for benchmarks in another repository, whose files are not ours."""
    asked = config.getoption("benchmark_only") and "bench.plugin" in config.getoption("plugins")
    paths = [(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args]
    return asked and not any(_BENCHMARKS.is_relative_to(path) or path.parent == _BENCHMARKS for path in paths)


def pytest_sessionstart(session):
    """Chooses the cases: `pytest --help` never comes here, and so never asks for a GPU."""
    config = session.config
    keeping = ExitStack()  # not before: when it is configured, pytest sets a hook of its own
    keeping.enter_context(kept_interrupts())
    config.add_cleanup(keeping.close)
    try:
        choice = config.stash[state.choice] = choose.read_choice(config)
        rows = choose.without_refused(config, choose.rows_chosen(choice))
        rows = rehearsed(rows) if config.getoption("rehearse") else rows
        if config.getoption("collectonly"):  # a run loads them when it starts
            choose.load_user_cells(config)
    except (ChoiceError, UserCellError, UnsupportedBackend) as error:
        raise pytest.UsageError(str(error)) from error
    except TargetError as error:
        raise choose.as_usage_error(error) from error
    for option in ("corpus", "full"):
        if config.getoption(option) and not any(isinstance(row, Task) for row in rows):
            tasks = [name for name, sweep in SWEEPS.items() if sweep.task]
            raise pytest.UsageError(f"--{option} is for training tasks: --sweep={', '.join(tasks)}")
    config.stash[state.wanted] = rows
    if _is_loaded_elsewhere(config):
        files = [_BENCHMARKS / name for name in choose.KINDS]
        config.args += [str(file) for file in files if not choose.is_idle(file, config)]


def pytest_report_header(config):
    return [*config.stash.get(state.notes, []), *config.stash.get(state.left_out, [])]


def pytest_ignore_collect(collection_path, config):
    """Leaves out our tests with `--benchmark-only`, our benchmarks with `--benchmark-skip`, and idle ones.

    On a GPU ordinary tests are left out too: they hold on a CPU.
    """
    house = Path(__file__).parent
    inside = collection_path.is_relative_to(house) or collection_path.is_relative_to(house.parent / "cells")
    if not inside:
        return None
    tests = "tests" in collection_path.relative_to(house.parent).parts
    benchmark = collection_path.parent == house / "benchmarks" and collection_path.name in choose.KINDS
    if tests:
        on_gpu = gpu.wants_gpu(config) and not gpu.has_gpu_tests_alone(config)
        return True if config.getoption("benchmark_only") or on_gpu else None
    if benchmark:
        return True if config.getoption("benchmark_skip") or choose.is_idle(collection_path, config) else None
    return None


def pytest_generate_tests(metafunc):
    for argument, kind in choose.ARGUMENTS.items():
        if argument in metafunc.fixturenames:
            rows: list[Row] = [row for row in metafunc.config.stash[state.wanted] if isinstance(row, kind)]
            metafunc.parametrize(argument, rows, ids=[f"{row.sweep}-{row.id}" for row in rows])


def pytest_collection_modifyitems(config, items):
    """A benchmark without rows in the chosen sweeps would stand there as a skipped test of nothing."""
    kept = [item for item in items if not choose.has_no_row(item)]
    items[:] = kept[::-1] if config.getoption("reversed") else kept


def pytest_collection_finish(session):
    """Before the first case: the device must be there and the results folder be writable."""
    config = session.config
    used = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if config.getoption("collectonly"):
        tell.print_expectation(session)
        return
    if "perform" in used:
        config.stash[state.settings] = start.task_settings(config)
    config.stash[state.may_use_cudnn] = any(
        cudnn.can_run(replace(row.case, device="gpu")) for row in choose.rows_of(session)
    )
    if used & {"measure", "perform"}:
        limits.share_out(config, choose.rows_of(session))
        config.stash[state.run] = start.start_run(session)
        config._benchmarksession.quiet |= not tell.wants_table(config)
        if config.get_verbosity() == 0:
            config.pluginmanager.register(tell.Lines(config, tell.start_progress(session)))


def pytest_runtest_setup(item):
    """A test marked `gpu` runs on a GPU or not at all, and says so; with --require-gpu it fails instead."""
    if item.get_closest_marker("gpu") is None:
        return
    missing = gpu.missing(item.config)
    if missing and item.config.getoption("require_gpu"):
        pytest.fail(f"--require-gpu: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"needs a GPU: {missing}")


def pytest_unconfigure(config):
    try:
        tell.tell_of_run(config)  # where another plugin's error has kept pytest from its summary
    finally:
        run = config.stash.get(state.run, None)
        if run is not None:
            run.close()
        forking = config.stash.get(state.forking, None)
        if forking is not None:  # that of a run has been closed with it, which does no harm
            forking.close()
        with suppress(OSError, AttributeError):  # it is not empty, or no folder: what was saved stays
            config._benchmarksession.storage.path.rmdir()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Measures again what is wide, before pytest-benchmark writes its figures. With --require-gpu, a run in
    which no built-in layer ran on cuDNN has failed, if one could."""
    run = session.config.stash.get(state.run, None)
    complete = run is not None and run.folder is not None and session.exitstatus in tell.COMPLETE
    if complete and hasattr(run, "measure_again"):  # a cluster's workers measure once
        session.exitstatus = tell.measure_again(session.config, run) or session.exitstatus
    if complete and session.config.getoption("processes") is not None and not session.shouldfail:
        session.exitstatus = processes.measure_rest(session.config, run) or session.exitstatus
    if gpu.lacks_cudnn(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    return (yield)


@pytest.fixture
def measure(request, benchmark):
    """measure(comparison): verifies, times and records it; the test fails or is skipped with the record."""
    config = request.config
    run, budget = config.stash[state.run], limits.budget(config)

    def measure(comparison: Comparison) -> None:
        benchmark.group = f"{comparison.case.mode} {comparison.case.shape}"
        _record(request, lambda: run.measure(comparison, benchmark, budget))

    return measure


@pytest.fixture
def perform(request, benchmark):
    """perform(task): proves the layer, performs the task and records it; the test ends as the record does."""
    config = request.config
    run, settings = config.stash[state.run], config.stash[state.settings]

    def perform(task: Task) -> None:
        benchmark.group = f"{task.sweep} {task.case.shape}"
        _record(request, lambda: run.perform(task, settings, benchmark))

    return perform


def _record(request, measure: Callable[[], "Record"]) -> None:
    """Measures a case; the test fails or is skipped with the record. Ends the session where records cannot be
    written, or a cluster is lost, since all that follows would be lost."""
    from bench.cluster.admission import ClusterError

    try:
        record = measure()
    except ClusterError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.INTERRUPTED)
    except OSError as error:
        pytest.exit(f"records cannot be written: {error}", returncode=pytest.ExitCode.INTERRUPTED)
    request.config.stash[state.latest] = request.node.nodeid, record
    said = f"{record['reason']}: {record['message']}"
    if record["status"] == "failed":
        pytest.fail(said, pytrace=False)
    if record["status"] == "skipped":
        pytest.skip(said)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(config):
    """Tells of the run behind the summaries of other plugins, and also where one of them raises."""
    try:
        return (yield)
    finally:
        tell.tell_of_run(config)
