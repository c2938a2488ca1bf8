"""--processes: measure in processes that do the same without it, and tell of their rows, joined."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.cases.subjects import SUBJECTS
from bench.session import tell

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


def run(config) -> pytest.ExitCode:
    """Measures in so many processes.

    Raises:
        UsageError: an option contradicts it, or it cannot be measured or written.
    """
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

    options = without(config.invocation_params.args, ("--processes", "--results"))
    results = config.getoption("results") or config.rootpath / "results"
    try:
        folder = repeat(options, config.getoption("processes"), results, lambda text: print(text, flush=True))
    except (CannotMeasure, RecordError) as error:
        raise pytest.UsageError(str(error)) from error
    except OSError as error:
        raise pytest.UsageError(f"--results {results}: cannot be written: {error}") from error
    return _tell_joined(folder)


def _as_typed(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def without(arguments: Sequence[object], names: Sequence[str]) -> list[str]:
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
        print(f"charts:  {tell.written(lambda: tell.drawn(folder, records))}")
    print(f"report:  {tell.written(lambda: str(write_report([folder], folder / REPORT_FILE)))}")
    failed = any(record["status"] == "failed" for record in records)
    return pytest.ExitCode.TESTS_FAILED if failed else pytest.ExitCode.OK
