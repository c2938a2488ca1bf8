"""--processes: measure in processes that do the same without it, and tell of their rows, joined.

On this machine they run one after another; in a cluster its workers share them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.cases.devices import UnsupportedBackend
from bench.cases.read_options import ChoiceError
from bench.cases.subjects import SUBJECTS, Subject
from bench.cases.user_cells import UserCellError
from bench.session import choose, tell

if TYPE_CHECKING:
    from bench.cluster.run import ClusterRun

# what a run over processes cannot have
_CLASHING = ("full", "benchmark_disable", "benchmark_skip")
# what makes it a cluster's, or needs one
_CLUSTER = ("workers", "scheduler", "each_machine", "resume")


def run(config) -> pytest.ExitCode | None:
    """Measures in so many processes of this machine; None where a cluster is to, and the session goes on.

    Raises:
        UsageError: an option contradicts it, or it cannot be measured or written.
    """
    from bench.gate.repetition import check_count, repeat
    from bench.gate.repository import CannotMeasure
    from bench.records.schema import RecordError

    count, results = config.getoption("processes"), config.getoption("results") or config.rootpath / "results"
    try:
        _check(config)
        check_count(count)
        if any(config.getoption(name) for name in _CLUSTER):
            return None
        subjects = choose.read_choice(config).user_cells.subjects
        folder = repeat(_options(config, count), count, results, lambda text: print(text, flush=True))
    except (CannotMeasure, RecordError, ChoiceError, UserCellError, UnsupportedBackend) as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error
    return _tell_joined(folder, subjects)


def _check(config) -> None:
    clashing = [name for name in _CLASHING if config.getoption(name)]
    if clashing:
        raise pytest.UsageError(f"--processes: cannot be with {', '.join(map(_as_typed, clashing))}")
    if not config.getoption("benchmark_only"):
        raise pytest.UsageError("--processes: measures, and so takes --benchmark-only")


def _as_typed(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _options(config, count: int) -> list[str]:
    """The options of each process, which has its share of the time."""
    options = without(config.invocation_params.args, ("--processes", "--results", "--budget"))
    minutes = config.getoption("budget")
    return options if minutes is None else [*options, f"--budget={minutes / count:g}"]


def without(arguments: Sequence[object], names: Sequence[str]) -> list[str]:
    """The arguments without these options, each with its value behind `=` or as the next argument."""
    kept, values = [], False
    for argument in map(str, arguments):
        if not values and argument.partition("=")[0] not in names:
            kept.append(argument)
        values = argument in names
    return kept


def measure_rest(config, run: "ClusterRun") -> pytest.ExitCode | None:
    """Waits for the further processes of a cluster's run, with a line a row, and joins the rows of all.

    Returns:
        the exit status where a row has failed, or the run was cut short: what arrived is in its folders.
    """
    from bench.cluster.admission import ClusterError
    from bench.gate.repetition import join
    from bench.records.schema import RecordError
    from bench.report.summary import row_line

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    try:
        for process, record in run.measure_rest():
            if reporter is not None and config.get_verbosity() == 0:
                reporter.write(f"\n[process {process}] {row_line(record, tell.labels(config))}", flush=True)
        joined = [record for folder in run.folders for record in join(folder)]
    except KeyboardInterrupt:
        config.hook.pytest_keyboard_interrupt(excinfo=pytest.ExceptionInfo.from_current())
        return pytest.ExitCode.INTERRUPTED
    except (ClusterError, RecordError, OSError) as error:
        if reporter is not None:
            reporter.write_line(f"\n{error}", red=True)
        return pytest.ExitCode.INTERRUPTED
    failed = any(record["status"] == "failed" for record in joined)
    return pytest.ExitCode.TESTS_FAILED if failed else None


def _tell_joined(folder: Path, own: Mapping[str, Subject]) -> pytest.ExitCode:
    """Prints the summary of a run over processes, and writes its charts and its report.

    Args:
        own: the subjects of the user's cells.
    """
    from bench.records.run_folder import read_run
    from bench.report.html import REPORT_FILE, write_report
    from bench.report.summary import summary_lines

    records = read_run(folder).records
    labels = {name: subject.label for name, subject in {**SUBJECTS, **own}.items()}
    for line in summary_lines(records, labels):
        print(line)
    print(f"records: {folder}/records.csv")
    if any(record["ratio"] is not None for record in records):
        print(f"charts:  {tell.written(lambda: tell.drawn(folder, records))}")
    print(f"report:  {tell.written(lambda: str(write_report([folder], folder / REPORT_FILE)))}")
    failed = any(record["status"] == "failed" for record in records)
    return pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
