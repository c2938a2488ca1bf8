"""What does scheduling cost? A run of 10,000 comparisons on 100 workers, with a stand-in for the timing.

Collected only when asked for by name: `pytest bench/benchmarks/cluster.py`; `--results=DIR` is where
`cluster.json` is written. The workers are threads of one process, which so also bears their part: what is
found is the most that it can be. It takes about four minutes, and wants a quiet machine.
"""

import json
import resource
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.cases.comparisons import Comparison, comparisons
from bench.cases.subjects import SUBJECTS
from bench.cluster.station import About, Record, Setup, worker_name
from bench.records.csv_file import read_records
from bench.timing.blocks import Budget

WORKERS, COMPARISONS = 100, 10_000
STAND_IN_S = 2.0  # of the stand-in, which sleeps
COMPARISON_S = 6.0  # of a real comparison, by the committed runs of `options`
MOST_SHARE = 0.01
MEGABYTE = 1e6
_VERSIONS: dict[str, str | None] = {"tensorflow": "2.21", "keras": "3.15", "commit": None}


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        wall_s: seconds of all.
        busy_s: seconds of the processor, of client, scheduler and the workers' own part.
        memory_bytes: how far the memory rose.
    """

    workers: int
    comparisons: int
    wall_s: float
    busy_s: float
    memory_bytes: float

    @property
    def of_a_comparison_s(self) -> float:
        """Processor seconds a comparison."""
        return self.busy_s / self.comparisons

    def share(self, comparison_s: float, workers: int | None = None) -> float:
        """The part of the time that one processor schedules, where a comparison takes so long."""
        return self.of_a_comparison_s * (workers or self.workers) / comparison_s


def introduce(setup: Setup) -> About:
    name = worker_name()
    return About(name, f"host {name}", (0,), "stand-in", _VERSIONS)


def measure(setup: Setup, comparison: Comparison, budget: Budget) -> Record:
    time.sleep(STAND_IN_S)
    return {"status": "ok", "median_s": 1.0, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}


def many(count: int) -> list[Comparison]:
    """So many different comparisons, of the sweep `options` with more units each time."""
    swept = comparisons(["options"])
    found = []
    for number in range(count):
        round_, place = divmod(number, len(swept))
        case, baseline = swept[place].case, swept[place].baseline
        units = case.units + round_
        row = replace(swept[place], case=replace(case, units=units), baseline=replace(baseline, units=units))
        found.append(row)
    return found


def cost_of(workers: int, count: int, folder: Path) -> Cost:
    """What a run of so many comparisons on so many workers takes."""
    import dask
    from distributed import Client, LocalCluster

    from bench.cluster.connect import QUIET
    from bench.cluster.dispatch import Dispatcher, Duties

    rows = many(count)
    arguments = {"n_workers": workers, "threads_per_worker": 1, "processes": False, "memory_limit": 0}
    with (
        dask.config.set(QUIET),
        LocalCluster(**arguments, resources={"bench": 1}, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        run = Dispatcher(
            *(client, folder, rows, SUBJECTS, Setup(), _VERSIONS, Budget(1.0, 1), workers),
            duties=Duties(introduce, measure),
        )
        memory = _resident()
        wall, busy = time.monotonic(), time.process_time()
        for row in rows:
            run.measure(row)
        wall, busy = time.monotonic() - wall, time.process_time() - busy
        run.close()
    assert len(read_records(folder)) == count, "every row is on the disk"
    return Cost(workers, count, wall, busy, _resident() - memory)


def _resident() -> float:
    """The most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_scheduling(tmp_path, request):
    """Scheduling takes at most a hundredth of the time, and the memory does not grow with the rows."""
    pytest.importorskip("distributed")
    part, whole = (
        cost_of(WORKERS, count, tmp_path / str(count)) for count in (COMPARISONS // 10, COMPARISONS)
    )
    found = {
        "workers": WORKERS,
        "comparisons": COMPARISONS,
        "stand_in_s": STAND_IN_S,
        "comparison_s": COMPARISON_S,
        "wall_s": whole.wall_s,
        "ideal_s": STAND_IN_S * COMPARISONS / WORKERS,
        "scheduling_s_a_comparison": whole.of_a_comparison_s,
        "share": whole.of_a_comparison_s / COMPARISON_S,
        "processor_share": whole.share(COMPARISON_S),
        "processor_share_of_1000_workers": whole.share(COMPARISON_S, 1000),
        "client_bytes": whole.memory_bytes,
        "client_bytes_of_a_tenth": part.memory_bytes,
        "threads": threading.active_count(),
    }
    results = request.config.getoption("results")
    if results:
        results.mkdir(parents=True, exist_ok=True)
        (results / "cluster.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    assert found["share"] <= MOST_SHARE
    assert whole.memory_bytes <= part.memory_bytes + 200 * MEGABYTE
