"""The pytest plugin: options, the choice of cases, and the hooks. The work is done in `bench.runner`.

TensorFlow is not imported before a case is about to run.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.mark.expression import Expression  # pytest's own reading of -m; no public name

from bench.cases import cudnn
from bench.cases.choice import Choice
from bench.cases.comparisons import Comparison, Row, Task
from bench.cases.cost_estimate import affordable_max_time, comparison_seconds, expected_seconds
from bench.cases.devices import (
    GROWTH,
    NO_GPU,
    UnsupportedBackend,
    check_backend_chosen,
    clash_of_cudnn,
    hide_gpus,
    let_memory_grow,
    may_have_gpu,
    missing_gpu,
)
from bench.cases.read_options import ChoiceError, read_modes, read_option, read_shape, read_sweep
from bench.cases.rehearsal import rehearsed
from bench.cases.subjects import SUBJECTS, WHOLE
from bench.cases.sweeps import SWEEPS
from bench.cases.user_cells import BASELINES, UserCellError, UserCells, loaded
from bench.contract.load_cell import FORM, TargetError
from bench.processes.worker import DEFAULT_LIMITS, Limits, Nursery
from bench.records.environment import memory_bytes, new_run_id
from bench.records.text import one_line

if TYPE_CHECKING:
    from bench.cluster.run import ClusterRun
    from bench.report.progress import Progress
    from bench.runner.refining import Rest
    from bench.runner.row import Record
    from bench.runner.run import Run
    from bench.runner.tasks import Settings
    from bench.timing.blocks import Budget

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
_BENCHMARKS = Path(__file__).resolve().parent / "benchmarks"
_run = pytest.StashKey["Run | ClusterRun"]()
_forking = pytest.StashKey[Nursery | None]()
_choice = pytest.StashKey[Choice]()
_wanted = pytest.StashKey[list[Row]]()
_notes = pytest.StashKey[list[str]]()
_left_out = pytest.StashKey[list[str]]()
_may_use_cudnn = pytest.StashKey[bool]()
_latest = pytest.StashKey["tuple[str, Record]"]()
_settings = pytest.StashKey["Settings"]()
_max_time_s = pytest.StashKey[float]()  # of a case's blocks, the first time
_end_s = pytest.StashKey[float]()  # when the budget is spent, on the monotonic clock
_rest: "pytest.StashKey[Rest]" = pytest.StashKey()  # what is still wide at the end
_is_told = pytest.StashKey[bool]()


def pytest_addoption(parser):
    group = parser.getgroup("recurrent cells")
    group.addoption(
        "--sweep",
        action="append",
        default=[],
        metavar="NAME",
        help=f"which cases to measure; may repeat. One of {', '.join(sorted(SWEEPS))}, or "
        "path/to/my_sweeps.py:name (default: default).",
    )
    group.addoption(
        "--subject",
        action="append",
        default=[],
        metavar="NAME",
        help="measure this subject, cell-layer: lstm-builtin, slstm-rnn, ...; of a --sweep, its cases alone; "
        "may repeat.",
    )
    group.addoption(
        "--shape",
        action="append",
        default=[],
        metavar="B,T,F,U",
        help="the batch size, timesteps, features and units of all cases, instead of a sweep's; may repeat.",
    )
    group.addoption(
        "--option",
        action="append",
        default=[],
        metavar="NAME[=VALUE],...",
        help="the options of all cases, instead of a sweep's: bidirectional,depth=2,dtype=mixed_bfloat16; "
        "may repeat, one variant each.",
    )
    group.addoption(
        "--mode", metavar="MODE,...", help="cases in these modes alone: infer, train (default: all)."
    )
    group.addoption(
        "--cell",
        action="append",
        default=[],
        metavar="TARGET",
        help=f"your own cell joins the sweeps as a subject; with --shape or --option it alone is measured; "
        f"{FORM}; may repeat.",
    )
    group.addoption(
        "--layer",
        action="append",
        default=[],
        metavar="TARGET",
        help="the same for a whole layer or model of your own: a class, or a function that makes one; may "
        "repeat.",
    )
    group.addoption(
        "--kwargs",
        metavar="JSON",
        default="{}",
        help="the other arguments of --cell and --layer, a JSON object: '{\"alpha\": 0.5}'.",
    )
    group.addoption(
        "--step-shape",
        metavar="N,N,N",
        help="the shape of a step for a --cell whose steps are images: 8,8,1; their product is the features.",
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
    group.addoption(
        "--budget",
        metavar="MINUTES",
        type=_positive(float),
        help="how long the run may take: what the first measurements leave of it goes to the ratios that are "
        "wider than ±2%% (default: 3.2 s a row, with --benchmark-max-time=1).",
    )
    group.addoption(
        "--processes",
        metavar="N",
        type=_positive(int),
        help="measure all in so many processes, one after another, 3 or more: ratios and intervals are "
        "then over processes.",
    )
    group.addoption("--case", metavar="ID", help="measure the one case with this id, in a sweep or not.")
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
        "--rehearse",
        action="store_true",
        help="choose a GPU's cases, and compute a few of them on the CPU, small: shows that the way is open; "
        "the rows are marked, and no reader mixes them with others.",
    )
    group.addoption(
        "--workers",
        metavar="N",
        type=_positive(int),
        help="measure in so many Dask workers on this machine, each on cores of its own.",
    )
    group.addoption(
        "--scheduler", metavar="tcp://HOST:PORT", help="measure on the workers of this Dask scheduler."
    )
    group.addoption(
        "--each-machine",
        action="store_true",
        help="with --scheduler: all cases once on every kind of machine, a run each.",
    )
    group.addoption(
        "--resume",
        metavar="RUN",
        type=Path,
        help="with --scheduler or --workers: go on with the run in this folder, whose client or "
        "scheduler was lost.",
    )
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="fail where there is no GPU, and where no built-in layer ran on cuDNN though one could.",
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
    config.stash[_notes] = []
    _show_devices(config)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """With --processes, measures in processes that do the same without it, and joins their rows."""
    processes = config.getoption("processes")
    if processes is None or config.getoption("collectonly"):
        return None
    clashing = [name for name in _ONE_PROCESS if config.getoption(name)]
    if clashing or not config.getoption("benchmark_only"):
        raise pytest.UsageError(
            f"--processes: cannot be with {', '.join(map(_as_typed, clashing))}"
            if clashing
            else "--processes: measures, and so takes --benchmark-only"
        )
    from bench.gate.repetition import repeat
    from bench.gate.repository import CannotMeasure
    from bench.records.schema import RecordError

    options = _without(config.invocation_params.args, ("--processes", "--results"))
    results = config.getoption("results") or config.rootpath / "results"
    try:
        folder = repeat(options, processes, results, lambda text: print(text, flush=True))
    except (CannotMeasure, RecordError) as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error
    return _tell_joined(folder)


# what a run over processes cannot have
_ONE_PROCESS = (
    "workers",
    "scheduler",
    "each_machine",
    "resume",
    "full",
    "benchmark_disable",
    "benchmark_skip",
)


def _as_typed(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _without(arguments: Sequence[object], names: Sequence[str]) -> list[str]:
    """The arguments without these options, each with its value behind `=` or as the next argument."""
    kept, values = [], False
    for argument in map(str, arguments):
        if not values and argument.partition("=")[0] not in names:
            kept.append(argument)
        values = argument in names
    return kept


def _tell_joined(folder: Path) -> pytest.ExitCode:
    """Prints the summary of a run over processes, and writes its charts and its report."""
    from bench.records.run_folder import read_run
    from bench.report.html import REPORT_FILE, write_report
    from bench.report.summary import summary_lines

    records = read_run(folder).records
    labels = {name: subject.label for name, subject in SUBJECTS.items()}
    for line in summary_lines(records, labels):
        print(line)
    print(f"records: {folder}/records.csv")
    if any(record["ratio"] is not None for record in records):
        print(f"charts:  {_written(lambda: _drawn(folder, records))}")
    print(f"report:  {_written(lambda: str(write_report([folder], folder / REPORT_FILE)))}")
    failed = any(record["status"] == "failed" for record in records)
    return pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK


def _show_devices(config) -> None:
    """Decides what TensorFlow, which nobody has imported yet, is to see, for as long as the session lasts.

    `--device=cpu` sees no GPU, and neither do ordinary tests: what they ask for holds on a CPU.
    """
    before = {name: os.environ.get(name) for name in (*NO_GPU, *GROWTH)}
    config.add_cleanup(lambda: _put_back(before))
    on_cpu = config.getoption("device") == "cpu" or config.getoption("rehearse")
    if not on_cpu and (_wants_gpu(config) or config.getoption("benchmark_only")):
        let_memory_grow()
        return
    if may_have_gpu() and config.getoption("device") == "auto" and not config.getoption("benchmark_skip"):
        config.stash[_notes].append("ordinary tests see no GPU; --benchmark-only measures on it")
    hide_gpus()


def _put_back(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _wants_gpu(config) -> bool:
    """True where a GPU was asked for: by `--device=gpu`, `--require-gpu` or `-m gpu`."""
    return (
        config.getoption("require_gpu") or config.getoption("device") == "gpu" or _has_gpu_tests_alone(config)
    )


def _has_gpu_tests_alone(config) -> bool:
    """True where `-m` chooses tests marked `gpu` and none without a mark."""
    text = config.getoption("markexpr")
    try:
        chosen = Expression.compile(text) if text else None
    except SyntaxError:  # pytest says so itself
        return False
    return chosen is not None and chosen.evaluate(_is_gpu) and not chosen.evaluate(_is_none)


def _is_gpu(name: str, /, **_: object) -> bool:
    return name == "gpu"


def _is_none(name: str, /, **_: object) -> bool:
    return False


def _is_loaded_elsewhere(config) -> bool:
    """True where `-p bench.plugin` asks for benchmarks in another repository, whose files are not ours."""
    asked = config.getoption("benchmark_only") and "bench.plugin" in config.getoption("plugins")
    paths = [(config.invocation_params.dir / arg.partition("::")[0]).resolve() for arg in config.args]
    return asked and not any(_BENCHMARKS.is_relative_to(path) or path.parent == _BENCHMARKS for path in paths)


def pytest_sessionstart(session):
    """Chooses the cases: `pytest --help` never comes here, and so never asks for a GPU."""
    config = session.config
    try:
        choice = config.stash[_choice] = _read_choice(config)
        rows = _without_refused(config, choice.rows())
        rows = rehearsed(rows) if config.getoption("rehearse") else rows
    except (ChoiceError, UserCellError, UnsupportedBackend) as error:
        raise pytest.UsageError(str(error)) from error
    except TargetError as error:
        raise pytest.UsageError(f"{error}\n{error.details}".rstrip()) from error
    for option in ("corpus", "full"):
        if config.getoption(option) and not any(isinstance(row, Task) for row in rows):
            tasks = [name for name, sweep in SWEEPS.items() if sweep.task]
            raise pytest.UsageError(f"--{option} is for training tasks: --sweep={', '.join(tasks)}")
    config.stash[_wanted] = rows
    if _is_loaded_elsewhere(config):
        files = [_BENCHMARKS / name for name in _KINDS]
        config.args += [str(file) for file in files if not _is_idle(file, config)]


def _read_choice(config) -> Choice:
    """Reads the options; raises ChoiceError or UserCellError for one that makes no sense."""
    ask = config.getoption
    return Choice(
        sweeps=dict(map(read_sweep, ask("sweep"))),
        case=ask("case"),
        subjects=tuple(ask("subject")),
        shapes=tuple(map(read_shape, ask("shape"))),
        options=tuple(map(read_option, ask("option"))),
        modes=read_modes(ask("mode")) if ask("mode") is not None else (),
        user_cells=UserCells.of(ask("cell"), ask("baseline"), ask("kwargs"), ask("step_shape"), ask("layer")),
        full=ask("full"),
        device=_device_of(config),
    )


def _without_refused(config, rows: list[Row]) -> list[Row]:
    """The rows without user cells in `FusedRNN` that none of its engines can run, unless they are named."""
    choice = config.stash[_choice]
    own = {} if choice.case else choice.user_cells.subjects
    joined = {row.case.subject for row in rows if row.case.layer == "fused"} & own.keys() - {*choice.subjects}
    if not joined:
        return rows
    _load_user_cells(config)
    from bench.processes.isolated import refusal

    asked = _limits(config), (choice.device, choice.user_cells), config.stash[_forking]
    refusals = {name: refusal(own[name], *asked) for name in sorted(joined)}
    config.stash[_left_out] = [f"left out: {name}: {why}" for name, why in refusals.items() if why]
    return [row for row in rows if not refusals.get(row.case.subject)]


def _load_user_cells(config) -> None:
    """Loads the user's cells, each first in a worker, where its file can do no harm, and then here.

    Raises:
        TargetError: one cannot be loaded.
    """
    choice = config.stash[_choice]
    own = choice.user_cells.subjects.values()
    named = {(subject.target or "", subject.kwargs, subject.layer == WHOLE) for subject in own}
    if not named or _forking in config.stash:
        return
    check_backend_chosen()
    from bench.processes.contract_worker import UserCell, load_apart
    from bench.processes.isolated import nursery

    forking = config.stash[_forking] = nursery(choice.device)
    for target, kwargs, whole in sorted(named):
        load_apart(UserCell(target, json.loads(kwargs), whole=whole), forking)
        loaded(target, kwargs, whole)


def pytest_report_header(config):
    return [*config.stash.get(_notes, []), *config.stash.get(_left_out, [])]


def _device_of(config) -> str:
    """`cpu` or `gpu`; for `auto` TensorFlow is asked, and so imported, only where there may be a GPU."""
    if config.getoption("require_gpu") or config.getoption("rehearse"):
        return "gpu"
    if config.getoption("device") != "auto":
        return config.getoption("device")
    if not may_have_gpu():
        return "cpu"
    from bench.backend import devices

    if devices.gpu_name():
        return "gpu"
    if sys.platform == "linux":
        config.stash[_notes].append(f"--device=auto: measures on the CPU: {missing_gpu()}")
    return "cpu"


def pytest_ignore_collect(collection_path, config):
    """Leaves out our tests with `--benchmark-only`, our benchmarks with `--benchmark-skip`, and idle ones.

    On a GPU ordinary tests are left out too: they hold on a CPU.
    """
    house = Path(__file__).parent
    inside = collection_path.is_relative_to(house) or collection_path.is_relative_to(house.parent / "cells")
    if not inside:
        return None
    tests = "tests" in collection_path.relative_to(house.parent).parts
    benchmark = collection_path.parent == house / "benchmarks" and collection_path.name in _KINDS
    if tests:
        on_gpu = _wants_gpu(config) and not _has_gpu_tests_alone(config)
        return True if config.getoption("benchmark_only") or on_gpu else None
    if benchmark:
        return True if config.getoption("benchmark_skip") or _is_idle(collection_path, config) else None
    return None


def _is_idle(benchmark: Path, config) -> bool:
    """True where the chosen sweeps have no rows for the benchmark."""
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
    config.stash[_may_use_cudnn] = any(
        cudnn.can_run(replace(row.case, device="gpu")) for row in _rows_of(session)
    )
    if used & {"measure", "perform"}:
        _share_out(config, _rows_of(session))
        config.stash[_run] = _start_run(session)
        config._benchmarksession.quiet |= not _wants_table(config)
        if config.get_verbosity() == 0:
            config.pluginmanager.register(_Lines(config, _start_progress(session)))


def _rows_of(session) -> list[Row]:
    given = [item.callspec.params for item in session.items if hasattr(item, "callspec")]
    return [each[name] for each in given for name in _ARGUMENTS if name in each]


def _share_out(config, rows: list[Row]) -> None:
    """Fixes when the budget is spent, and what each case may take at first: what `--benchmark-max-time` says;
    less where, by the estimate, `--budget` does not suffice for that."""
    max_time_s, limit_s = float(config.getoption("benchmark_max_time")), config.getoption("compile_limit")
    timed = [row for row in rows if isinstance(row, Comparison)]
    budget_s = (_BESIDE_BLOCKS_S + max_time_s) * len(timed)
    if config.getoption("budget") is not None:
        budget_s = 60 * config.getoption("budget")
        max_time_s = affordable_max_time(timed, budget_s, max_time_s, limit_s)
    config.stash[_end_s] = time.monotonic() + budget_s
    config.stash[_max_time_s] = max_time_s


# seconds of a row in the mean, to prove it and to trace it several times
_BESIDE_BLOCKS_S = 2.2


def _wants_table(config) -> bool:
    """True where pytest-benchmark's table is asked for: it compares calls timed one after another."""
    return any(
        config.getoption(name, ordinary[0]) not in ordinary for name, ordinary in _TABLE_OPTIONS.items()
    )


def _start_progress(session) -> "Progress":
    from bench.report.progress import Progress

    limits = session.config.stash[_max_time_s], session.config.getoption("compile_limit")
    return Progress(
        [
            comparison_seconds(row, *limits) if isinstance(row, Comparison) else None
            for row in _rows_of(session)
        ]
    )


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
    """Says why this session has no GPU; None where it has one."""
    if config.getoption("device") == "cpu":
        return "--device=cpu was asked for"
    if config.getoption("rehearse"):
        return "this is a rehearsal"
    from bench.backend import devices

    return None if devices.gpu_name() else missing_gpu()


def pytest_unconfigure(config):
    try:
        _tell(config)  # where another plugin's error has kept pytest from its summary
    finally:
        run = config.stash.get(_run, None)
        if run is not None:
            run.close()
        forking = config.stash.get(_forking, None)
        if forking is not None:  # that of a run has been closed with it, which does no harm
            forking.close()
        with suppress(OSError, AttributeError):  # it is not empty, or no folder: what was saved stays
            config._benchmarksession.storage.path.rmdir()


def pytest_sessionfinish(session):
    """Measures again what is wide. With --require-gpu, a run in which no built-in layer ran on cuDNN has
    failed, if one could."""
    run = session.config.stash.get(_run, None)
    again = hasattr(run, "measure_again")  # a cluster's workers measure once
    if again and run.folder is not None and session.exitstatus in _COMPLETE:
        session.exitstatus = _measure_again(session.config, run) or session.exitstatus
    if _lacks_cudnn(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


# a session that was not cut short
_COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)


def _measure_again(config, run: "Run") -> pytest.ExitCode | None:
    """Spends what the first measurements left of the time on the ratios that are wider than ±2%.

    Returns:
        the exit status where that was cut short: every row stands as it was, or as it was measured again.
    """
    from bench.report.summary import row_line

    left_s = config.stash[_end_s] - time.monotonic()
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def say(record: "Record") -> None:
        if reporter is not None and config.get_verbosity() == 0:
            reporter.write(f"\n[again] {row_line(record, _labels(config))}", flush=True)

    try:
        config.stash[_rest] = run.measure_again(left_s, say)
    except KeyboardInterrupt:
        return pytest.ExitCode.INTERRUPTED
    except OSError as error:
        if reporter is not None:
            reporter.write_line(f"\nrecords cannot be written: {error}", red=True)
        return pytest.ExitCode.INTERRUPTED
    return None


def _lacks_cudnn(config) -> bool:
    run = config.stash.get(_run, None)
    if run is None or run.folder is None or not config.getoption("require_gpu"):
        return False
    if not config.stash[_may_use_cudnn]:
        return False
    return not any(record["layer"] == "builtin" and record["kernel"] == "cudnn" for record in run.records)


def _print_expectation(session) -> None:
    """Prints the cases, each with what it is compared with, how many there are and about how long they take;
    of training tasks that is not known."""
    config = session.config
    rows = _comparisons(session)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not rows or reporter is None:
        return
    from bench.report.progress import duration

    for row in rows:
        reporter.write_line(f"{row.case.id}, compared with {_against(row)}")
    max_time_s, limit_s = float(config.getoption("benchmark_max_time")), config.getoption("compile_limit")
    seconds = expected_seconds(rows, max_time_s, limit_s)
    machine = {"cpu": "two cores", "gpu": "a GPU"}[rows[0].case.device]
    reporter.write_line(f"{len(rows)} cases, about {duration(seconds)} on {machine}")


def _against(row: Comparison) -> str:
    return "a second instance of itself" if row.baseline == row.case else row.baseline.id


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


def _start_run(session) -> "Run | ClusterRun":
    config = session.config
    try:
        check_backend_chosen()  # before Keras is imported, which may fail on another
    except UnsupportedBackend as error:
        raise pytest.UsageError(str(error)) from error
    if any(config.getoption(name) for name in ("workers", "scheduler", "each_machine", "resume")):
        return _start_cluster_run(session)
    from bench.backend import devices
    from bench.runner.run import Run

    choice = config.stash[_choice]
    own = choice.user_cells.subjects
    if config.getoption("require_gpu") and (missing := _missing_gpu(config)):
        raise pytest.UsageError(f"--require-gpu: {missing}")
    rehearsal = config.getoption("rehearse")
    if choice.device == "gpu" and not rehearsal and (clash := clash_of_cudnn()):
        raise pytest.UsageError(f"--device=gpu: {clash}")
    try:
        device = devices.choose_device("cpu" if rehearsal else choice.device)
        _load_user_cells(config)
    except TargetError as error:
        raise pytest.UsageError(f"{error}\n{error.details}".rstrip()) from error
    except devices.NoDevice as error:
        raise pytest.UsageError(str(error)) from error
    results = config.getoption("results") or config.rootpath / "results"
    folder = None if config._benchmarksession.disabled else results / new_run_id()
    try:
        return Run(
            folder,
            device,
            {**SUBJECTS, **own},
            _limits(config),
            choice.user_cells,
            config.stash.get(_forking, None),
            rehearsal,
        )
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error


def _start_cluster_run(session) -> "ClusterRun":
    """Raises UsageError, naming worker or option, where the comparisons cannot be measured in a cluster."""
    config, ask = session.config, session.config.getoption
    from bench.cluster.admission import ClusterError
    from bench.records.schema import RecordError

    try:
        from bench.cluster.run import ClusterRun, Wanted
        from bench.cluster.station import Setup

        wanted = Wanted(ask("workers"), ask("scheduler"), ask("each_machine"), ask("resume"))
        wanted.check()
        if config._benchmarksession.disabled or any(isinstance(row, Task) for row in config.stash[_wanted]):
            raise ClusterError("a cluster measures comparisons: no training tasks, no --benchmark-disable")
        choice = config.stash[_choice]
        return ClusterRun(
            wanted,
            (ask("results") or config.rootpath / "results") / new_run_id(),
            _comparisons(session),
            Setup(choice.device, Limits(ask("compile_limit"), ask("memory_limit")), choice.user_cells),
            _budget(config),
        )
    except ModuleNotFoundError as error:
        raise pytest.UsageError(f"{error}: this project's extra `cluster` has it") from error
    except (ClusterError, UserCellError, RecordError) as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        raise pytest.UsageError(f"--results: cannot be written: {error}") from error


def _comparisons(session) -> list[Comparison]:
    """The comparisons of the session's tests, in their order."""
    return [row for row in _rows_of(session) if isinstance(row, Comparison)]


def _budget(config) -> "Budget":
    from bench.timing.blocks import Budget

    return Budget(config.stash[_max_time_s], config.getoption("benchmark_min_rounds"))


def _limits(config) -> Limits:
    half = (memory_bytes() or 0) // 2
    return Limits(config.getoption("compile_limit"), config.getoption("memory_limit") or half or None)


@pytest.fixture
def measure(request, benchmark):
    """measure(comparison): verifies, times and records it; the test fails or is skipped with the record."""
    config = request.config
    run, budget = config.stash[_run], _budget(config)

    def measure(comparison: Comparison) -> None:
        benchmark.group = f"{comparison.case.mode} {comparison.case.shape}"
        record = _recorded(lambda: run.measure(comparison, benchmark, budget))
        config.stash[_latest] = request.node.nodeid, record
        _report(record)

    return measure


@pytest.fixture
def perform(request, benchmark):
    """perform(task): proves the layer, performs the task and records it; the test ends as the record does."""
    config = request.config
    run, settings = config.stash[_run], config.stash[_settings]

    def perform(task: Task) -> None:
        benchmark.group = f"{task.sweep} {task.case.shape}"
        record = _recorded(lambda: run.perform(task, settings, benchmark))
        config.stash[_latest] = request.node.nodeid, record
        _report(record)

    return perform


def _recorded(measure: Callable[[], "Record"]) -> "Record":
    """The record of a case; ends the session where records cannot be written, or a cluster is lost, since all
    that follows would be lost."""
    from bench.cluster.admission import ClusterError

    try:
        return measure()
    except ClusterError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.INTERRUPTED)
    except OSError as error:
        pytest.exit(f"records cannot be written: {error}", returncode=pytest.ExitCode.INTERRUPTED)


def _report(record) -> None:
    if record["status"] == "failed":
        pytest.fail(f"{record['reason']}: {record['message']}", pytrace=False)
    if record["status"] == "skipped":
        pytest.skip(f"{record['reason']}: {record['message']}")


class _Lines:
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

            line = row_line(self._config.stash[_latest][1], _labels(self._config))
            self._reporter.write(f"\n{self._progress.line(line)}", flush=True)

    def _has_record(self, report) -> bool:
        return report.when == "call" and report.nodeid == self._config.stash.get(_latest, ("",))[0]


def _labels(config) -> dict[str, str]:
    return {name: subject.label for name, subject in config.stash[_run].subjects.items()}


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(config):
    """Tells of the run behind the summaries of other plugins, and also where one of them raises."""
    try:
        return (yield)
    finally:
        _tell(config)


def _tell(config) -> None:
    """Writes the run's summary, charts and report, once."""
    run, reporter = config.stash.get(_run, None), config.pluginmanager.get_plugin("terminalreporter")
    if run is None or run.folder is None or reporter is None or config.stash.get(_is_told, False):
        return
    config.stash[_is_told] = True
    from bench.records.run_folder import TASKS_FILE
    from bench.report.html import REPORT_FILE, write_report
    from bench.report.summary import rest_line, summary_lines

    reporter.section("recurrent cells")
    if not config._benchmarksession.quiet:
        reporter.write_line(
            "The table above is pytest-benchmark's, of each case by itself. The ratios below are of calls "
            "timed in turns: compare by these."
        )
    for line in summary_lines(run.records, _labels(config)):
        reporter.write_line(line)
    if (rest := config.stash.get(_rest, None)) is not None and rest.wide:
        reporter.write_line(rest_line(rest.wide, rest.total, rest.within_reach, rest.seconds))
    if _lacks_cudnn(config):
        reporter.write_line("--require-gpu: no built-in layer ran on cuDNN", red=True)
    for warning in getattr(run, "warnings", []):
        reporter.write_line(warning)
    reporter.write_line(f"records: {run.folder}/records.csv")
    if (run.folder / TASKS_FILE).exists():
        reporter.write_line(f"weights, predictions, texts: {run.folder}/{TASKS_FILE}")
    if any(record["ratio"] is not None for record in run.records):
        reporter.write_line(f"charts:  {_written(lambda: _drawn(run.folder, run.records))}")
    if run.records:
        page, folders = run.folder / REPORT_FILE, getattr(run, "folders", [run.folder])
        reporter.write_line(f"report:  {_written(lambda: str(write_report(folders, page)))}")


def _drawn(folder: Path, records: "list[Record]") -> str:
    from bench.report.charts.run_charts import draw

    return f"{len(draw(folder, records))} files in {folder}/charts"


def _written(write: Callable[[], str]) -> str:
    """Says what was written, or why it cannot be: the records stand whatever becomes of the rest."""
    try:
        return write()
    except OSError as error:
        return f"cannot be written: {one_line(error)}"
    except KeyboardInterrupt:
        return "interrupted"
    except Exception as error:
        return f"cannot be written: {type(error).__name__}: {one_line(error)}"
