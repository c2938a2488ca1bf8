"""What does reading cost as runs grow? `report`, `history` and `gate` on many rows, in seconds and bytes.

Collected only when asked for by name: `pytest bench/benchmarks/reading.py`. It takes some minutes, and a
gigabyte of disk; `-s` prints the figures.
"""

import csv
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

MEGABYTE = 1e6
_START = datetime(2025, 1, 2, tzinfo=UTC)
_FIGURES = ("median_s", "min_s", "ratio", "ratio_low", "ratio_high")
_RATES = ("sequences_per_s", "timesteps_per_s", "gflops_per_s", "roofline_fraction")  # need not be there
_SCATTER = 0.01


@dataclass(frozen=True)
class Goal:
    """The most that a command may take: processor time, seconds; memory and its page, megabytes."""

    seconds: float
    memory: float
    page: float = 0


# the memory is that of the program alone: what a parent reads of a child includes the parent's own
_PROGRAM = """
import sys, time
from bench.__main__ import main
code = main(sys.argv[1:])
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(time.process_time(), peak, file=sys.stderr)
sys.exit(code)
"""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: processor time, which a busy machine stretches little.
        memory: the most that it had, bytes.
        page: the size of what it wrote, bytes; 0 where that does not grow.
    """

    seconds: float
    memory: float
    page: int = 0


def write_runs(folder: Path, template: Path, cases: int, runs: int, commit: str = "c0ffee") -> list[Path]:
    """Writes runs of so many different cases each, made from the rows of a real run.

    Args:
        folder: where the runs' folders are to be.
        template: a CSV of records of one sweep.
    """
    with open(template, newline="") as file:
        reader = csv.DictReader(file)
        rows = list({row["case"]: row for row in reader if row["ratio"]}.values())
    return [
        _write_run(folder / f"run-{number:03}", reader.fieldnames or (), _of_run(rows, cases, number, commit))
        for number in range(runs)
    ]


def _write_run(folder: Path, columns, rows: Iterator[dict[str, str]]) -> Path:
    folder.mkdir(parents=True)
    with open(folder / "records.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return folder


def _of_run(rows: list[dict[str, str]], cases: int, run: int, commit: str) -> Iterator[dict[str, str]]:
    """The rows again and again, with more units each time, and figures that scatter from run to run."""
    random = Random(f"{commit} {run}")
    time = f"{_START + timedelta(days=run):%Y-%m-%dT%H:%M:%SZ}"
    for number in range(cases):
        round_, place = divmod(number, len(rows))
        row = rows[place]
        old, new = f"-u{row['units']}", f"-u{int(row['units']) + 1000 * round_}"
        factor = random.gauss(1, _SCATTER)
        yield {
            **row,
            **{name: repr(float(row[name]) * factor) for name in _FIGURES},
            **dict.fromkeys(_RATES, ""),
            "run_id": f"{commit}-{run:03}",
            "timestamp": time,
            "commit": commit,
            "units": new.removeprefix("-u"),
            "case": row["case"].replace(old, new, 1),
            "baseline": row["baseline"].replace(old, new, 1),
        }


def cost_of(*arguments: object) -> Cost:
    """What `python -m bench ARGUMENTS` takes; raises CalledProcessError where it fails."""
    command = [sys.executable, "-c", _PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    seconds, kilobytes = done.stderr.split()[-2:]
    return Cost(float(seconds), float(kilobytes) * 1024)


@pytest.fixture(scope="session")
def template() -> Path:
    """A run of the sweep `default` of this checkout."""
    results = Path(__file__).parents[2] / "results"
    found = [file for file in sorted(results.glob("*/records.csv")) if ",default," in file.read_text()]
    return found[-1] if found else pytest.skip(f"{results}: holds no run of the sweep default")


def _report(folder: Path, template: Path, runs: int) -> Cost:
    folders, page = write_runs(folder, template, cases=100, runs=runs), folder / "report.html"
    return replace(cost_of("report", *folders, "--output", page), page=page.stat().st_size)


def _history(folder: Path, template: Path, cases: int) -> Cost:
    write_runs(folder, template, cases, runs=10)
    return cost_of("history", "--results", folder)


def _gate(folder: Path, template: Path, cases: int) -> Cost:
    for side in ("base", "head"):
        write_runs(folder / side, template, cases, runs=5, commit=side)
    return cost_of("gate", "--baseline", folder / "base", "--current", folder / "head")


# (measure, the sizes, rows for each unit of size, what may be taken at the largest)
GOALS = {
    "report": (_report, (10, 50, 100), 100, Goal(5, 500, 10)),
    "history": (_history, (100, 10_000, 20_000), 10, Goal(10, 500)),
    "gate": (_gate, (100, 50_000, 100_000), 10, Goal(30, 1000)),
}


@pytest.mark.parametrize("command", GOALS)
def test_reading(tmp_path, template, command):
    """The cost is within its goal, and grows with the rows and no faster."""
    measure, sizes, rows, goal = GOALS[command]
    start, part, whole = (measure(tmp_path / str(size), template, size) for size in sizes)
    for size, cost in zip(sizes, (start, part, whole), strict=True):
        page = f", page {cost.page / MEGABYTE:.1f} MB" if cost.page else ""
        print(
            f"{command} {rows * size:>9,} rows: {cost.seconds:.1f} s, {cost.memory / MEGABYTE:.0f} MB{page}"
        )
    assert whole.seconds <= goal.seconds
    assert whole.memory <= goal.memory * MEGABYTE
    assert whole.page <= goal.page * MEGABYTE
    times_the_rows = (sizes[2] - sizes[0]) / (sizes[1] - sizes[0])
    assert whole.seconds - start.seconds <= 1.5 * times_the_rows * (part.seconds - start.seconds)
