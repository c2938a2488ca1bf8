"""The pytest plugin: options, the choice of cases, and the hooks. The work is done in `bench.session`.

Neither TensorFlow nor pandas is imported before a case is about to run.
"""

import difflib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.environment import new_run_id
from bench.subjects import SUBJECTS
from bench.sweeps import SWEEPS, Comparison, comparisons

if TYPE_CHECKING:
    from bench.session import Run

_DEFAULT_SWEEP = "default"
_run = pytest.StashKey["Run"]()
_wanted = pytest.StashKey[list[Comparison]]()


def pytest_addoption(parser):
    group = parser.getgroup("recurrent cells")
    group.addoption(
        "--sweep",
        action="append",
        choices=sorted(SWEEPS),
        metavar="NAME",
        help=f"which cases to measure; may repeat. One of {', '.join(sorted(SWEEPS))} (default: default).",
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


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs a GPU")
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")
    config.stash[_wanted] = _choose(config.getoption("sweep"), config.getoption("case"))


def _choose(sweeps: list[str] | None, case_id: str | None) -> list[Comparison]:
    """The comparisons that the options ask for; raises pytest.UsageError for a case that is not there."""
    if case_id is None:
        return comparisons(list(dict.fromkeys(sweeps or [_DEFAULT_SWEEP])))
    known = comparisons(sweeps or list(SWEEPS))
    found = [row for row in known if row.case.id == case_id]
    if not found:
        near = difflib.get_close_matches(case_id, [row.case.id for row in known], n=3, cutoff=0.3)
        raise pytest.UsageError(
            f"--case {case_id}: no such case; the nearest are {', '.join(near) or 'none'}"
        )
    return found if sweeps else found[:1]


def pytest_ignore_collect(collection_path, config):
    """`--benchmark-only` leaves our tests out, `--benchmark-skip` our benchmarks."""
    house = Path(__file__).parent
    inside = collection_path.is_relative_to(house) or collection_path.is_relative_to(house.parent / "cells")
    if not inside:
        return None
    tests = "tests" in collection_path.relative_to(house.parent).parts
    benchmark = collection_path.parent == house and collection_path.name.startswith("test_")
    leave_out = (tests and config.getoption("benchmark_only")) or (
        benchmark and config.getoption("benchmark_skip")
    )
    return True if leave_out else None


def pytest_generate_tests(metafunc):
    if "comparison" in metafunc.fixturenames:
        rows = metafunc.config.stash[_wanted]
        metafunc.parametrize("comparison", rows, ids=[f"{row.sweep}-{row.case.id}" for row in rows])


def pytest_collection_finish(session):
    """Before the first case: the device must be there and the results folder be writable."""
    config = session.config
    measured = [item for item in session.items if "measure" in getattr(item, "fixturenames", ())]
    if not measured or config.getoption("collectonly"):
        return
    config.stash[_run] = _start_run(config)


def _start_run(config) -> "Run":
    from bench import runtime
    from bench.session import Run

    try:
        runtime.check_backend()
        device = runtime.device(config.getoption("device"))
    except (runtime.NoDevice, runtime.UnsupportedBackend) as error:
        raise pytest.UsageError(str(error)) from error
    results = config.getoption("results") or config.rootpath / "results"
    folder = None if config._benchmarksession.disabled else results / new_run_id()
    try:
        return Run(folder, device, SUBJECTS)
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error


@pytest.fixture
def measure(request, benchmark):
    """measure(comparison): verifies, times and records it; the test fails or is skipped with the record."""
    from bench.measure import Budget

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
        record = run.measure(comparison, benchmark, budget)
        if record["status"] == "failed":
            pytest.fail(f"{record['reason']}: {record['message']}", pytrace=False)
        if record["status"] == "skipped":
            pytest.skip(f"{record['reason']}: {record['message']}")

    return measure


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    run = config.stash.get(_run, None)
    if run is None or run.folder is None:
        return
    from bench.charts import draw
    from bench.summary import summary_lines

    run.close()
    terminalreporter.section("recurrent cells")
    for line in summary_lines(run.records, {name: subject.label for name, subject in run.subjects.items()}):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"records: {run.folder}/records.csv")
    if any(record["status"] == "ok" for record in run.records):
        charts = draw(run.folder, run.records)
        terminalreporter.write_line(f"charts:  {len(charts)} files in {run.folder}/charts")
