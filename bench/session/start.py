"""Start what measures: a run of this machine, or a cluster's."""

import gc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bench.cases.comparisons import Task
from bench.cases.devices import UnsupportedBackend, check_backend_chosen, clash_of_cudnn
from bench.cases.subjects import SUBJECTS
from bench.cases.user_cells import UserCellError
from bench.contract.load_cell import TargetError
from bench.processes.worker import Limits
from bench.records.environment import new_run_id
from bench.session import choose, gpu, limits, state

if TYPE_CHECKING:
    from bench.cluster.run import ClusterRun
    from bench.runner.run import Run
    from bench.runner.tasks import Settings


_CLUSTER_OPTIONS = ("workers", "scheduler", "each_machine", "resume")


def start_run(session) -> "Run | ClusterRun":
    config = session.config
    try:
        check_backend_chosen()  # before Keras is imported, which may fail on another
    except UnsupportedBackend as error:
        raise pytest.UsageError(str(error)) from error
    if any(config.getoption(name) not in (None, False) for name in _CLUSTER_OPTIONS):
        return _start_cluster_run(session)
    from bench.backend import devices
    from bench.runner.run import Run

    choice = config.stash[state.choice]
    own = choice.user_cells.subjects
    if config.getoption("require_gpu") and (missing := gpu.missing(config)):
        raise pytest.UsageError(f"--require-gpu: {missing}")
    rehearsal = config.getoption("rehearse")
    if choice.device == "gpu" and not rehearsal and (clash := clash_of_cudnn()):
        raise pytest.UsageError(f"--device=gpu: {clash}")
    try:
        device = devices.choose_device("cpu" if rehearsal else choice.device)
        choose.load_user_cells(config)
    except TargetError as error:
        raise choose.as_usage_error(error) from error
    except devices.NoDevice as error:
        raise pytest.UsageError(str(error)) from error
    results = config.getoption("results") or config.rootpath / "results"
    folder = None if config._benchmarksession.disabled else results / new_run_id()
    gc.freeze()  # what TensorFlow holds: to look through it takes a third of a second, every few cases
    config.add_cleanup(gc.unfreeze)
    try:
        return Run(
            folder,
            device,
            {**SUBJECTS, **own},
            limits.of_isolated(config),
            choice.user_cells,
            config.stash.get(state.forking, None),
            rehearsal,
        )
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error


def _start_cluster_run(session) -> "ClusterRun":
    """Raises UsageError, naming worker or option, where the comparisons cannot be measured in a cluster."""
    config, ask = session.config, session.config.getoption
    from bench.cluster.admission import ClusterError

    try:
        from bench.cluster.run import ClusterRun, Wanted
        from bench.cluster.station import Setup

        wanted = Wanted(
            *(ask("workers"), ask("scheduler"), ask("each_machine"), ask("resume"), ask("processes") or 1)
        )
        wanted.check()
        if config._benchmarksession.disabled or any(
            isinstance(row, Task) for row in config.stash[state.wanted]
        ):
            raise ClusterError("a cluster measures comparisons: no training tasks, no --benchmark-disable")
        if ask("rehearse"):
            raise ClusterError("--rehearse: is a run of one process; leave out --workers and --scheduler")
        choice = config.stash[state.choice]
        return ClusterRun(
            wanted,
            (ask("results") or config.rootpath / "results") / new_run_id(),
            choose.comparisons_of(session),
            Setup(choice.device, Limits(ask("compile_limit"), ask("memory_limit")), choice.user_cells),
            limits.budget(config),
        )
    except ModuleNotFoundError as error:
        raise pytest.UsageError(f"{error}: this project's extra `cluster` has it") from error
    except (ClusterError, UserCellError) as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        raise pytest.UsageError(f"--results: cannot be written: {error}") from error


def task_settings(config) -> "Settings":
    from bench.runner.corpus import CorpusError, load_corpus
    from bench.runner.tasks import FULL, SHORT

    settings = replace(FULL if config.getoption("full") else SHORT, corpus=config.getoption("corpus"))
    if any(isinstance(row, Task) and row.name != "partial_sum" for row in config.stash[state.wanted]):
        try:
            load_corpus(settings.corpus)
        except CorpusError as error:
            raise pytest.UsageError(f"--corpus {error}") from error
    return settings
