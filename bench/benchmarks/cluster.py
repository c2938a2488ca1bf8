"""What does a cluster cost? Its scheduling, with a stand-in for the timing, and the loss of a worker.

Collected only when asked for by name: `pytest bench/benchmarks/cluster.py --results=results` writes
`results/cluster.json`, which `python -m bench readme` puts into `results/cluster.md`. It takes about ten
minutes. The workers are threads of processes of their own, so that what this process takes is what the client
and the scheduler take.
"""

import asyncio
import json
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from bench.cases.comparisons import Comparison, comparisons
from bench.cases.subjects import SUBJECTS
from bench.cluster.station import About, Record, Setup, worker_name
from bench.records import environment
from bench.records.csv_file import read_records
from bench.timing.blocks import Budget

WORKERS = 100
SIZES = ((WORKERS, 1_000), (WORKERS, 10_000), (300, 1_500))  # workers, and comparisons
STAND_IN_S = 2.0  # of the stand-in, which sleeps; a real comparison takes longer
WORKERS_A_PROCESS = 50
LOST_OF = 40  # comparisons, of which each fourth loses its worker
MOST_SHARE = 0.01
MOST_BYTES = 50e6  # that 9,000 rows more may add to the memory of client and scheduler
_VERSIONS: dict[str, str | None] = {"tensorflow": "2.21", "keras": "3.15", "commit": None}
_BUDGET = Budget(1.0, 1)


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        wall_s: seconds from the first comparison to the last record.
        busy_s: seconds of the processor, of client and scheduler.
        memory_bytes: how far their memory rose.
    """

    workers: int
    comparisons: int
    wall_s: float
    busy_s: float
    memory_bytes: float

    @property
    def share(self) -> float:
        """The processor's time a comparison, as a share of the time that the stand-in takes."""
        return self.busy_s / self.comparisons / STAND_IN_S


def introduce(setup: Setup) -> About:
    name = worker_name()
    return About(name, f"host {name}", (0,), "stand-in", _VERSIONS)


def measure(setup: Setup, comparison: Comparison, budget: Budget) -> Record:
    time.sleep(STAND_IN_S)
    return {"status": "ok", "median_s": 1.0, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}


def measure_or_die(setup: Setup, comparison: Comparison, budget: Budget) -> Record:
    """As `measure`, but each fourth comparison kills its worker the first time; writes down when."""
    folder = Path(setup.files[0][0])
    with open(folder / comparison.id, "a") as log:
        print(time.time(), file=log)
    if comparison.case.units % 4 == 0 and len((folder / comparison.id).read_text().splitlines()) == 1:
        time.sleep(STAND_IN_S / 2)
        (folder / f"{comparison.id} lost").write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    return measure(setup, comparison, budget)


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


def host(address: str, names: Sequence[int]) -> None:
    """Runs workers of these names, each a thread of this process, until their scheduler ends."""
    import dask
    from distributed import Worker

    from bench.cluster.connect import QUIET

    async def run():
        start = partial(Worker, address, nthreads=1, resources={"bench": 1}, memory_limit=0)
        workers = await asyncio.gather(*(start(name=str(name)) for name in names))
        await asyncio.gather(*(worker.finished() for worker in workers))

    logging.getLogger("distributed").setLevel(logging.ERROR)
    with dask.config.set(QUIET):
        asyncio.run(run())


@contextmanager
def cluster_of(workers: int) -> Iterator:
    """A client of a scheduler in this process, whose workers run in others."""
    import dask
    from distributed import Client, LocalCluster

    from bench.cluster.connect import QUIET

    names = [range(first, workers)[:WORKERS_A_PROCESS] for first in range(0, workers, WORKERS_A_PROCESS)]
    options = {"processes": False, "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
    with dask.config.set(QUIET), LocalCluster(n_workers=0, **options) as cluster, Client(cluster) as client:
        spawn = multiprocessing.get_context("spawn")
        hosts = [spawn.Process(target=host, args=(cluster.scheduler_address, each)) for each in names]
        for process in hosts:
            process.start()
        try:
            client.wait_for_workers(workers, timeout=300)
            yield client
        finally:
            for process in hosts:
                process.terminate()
                process.join()


def cost_of(workers: int, count: int, folder: Path) -> Cost:
    """What a run of so many comparisons on so many workers takes."""
    from bench.cluster.dispatch import Dispatcher, Duties

    rows = many(count)
    with cluster_of(workers) as client:
        run = Dispatcher(
            *(client, folder, rows, SUBJECTS, Setup(), _VERSIONS, _BUDGET, workers),
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


def losses(folder: Path) -> list[float]:
    """For each worker that was lost in mid-case, the seconds until another began with the case."""
    from bench.cluster.connect import local_client
    from bench.cluster.dispatch import Dispatcher, Duties

    folder.mkdir()
    case = comparisons(["smoke"])[0]
    rows = [
        replace(case, case=replace(case.case, units=16 + number), baseline=replace(case.baseline, units=8))
        for number in range(LOST_OF)
    ]
    with local_client(2) as client:
        run = Dispatcher(
            *(client, folder / "run", rows, SUBJECTS, Setup(files=((str(folder), ()),)), _VERSIONS),
            *(_BUDGET, 2),
            duties=Duties(introduce, measure_or_die),
        )
        records = [run.measure(row) for row in rows]
        run.close()
    assert all(record["status"] == "ok" for record in records), "each was measured elsewhere"
    ids = [file.name.removesuffix(" lost") for file in folder.glob("* lost")]
    assert len(ids) == LOST_OF // 4 == sum(record["lost_workers"] is not None for record in records)
    return sorted(_last_line(folder / name) - _last_line(folder / f"{name} lost") for name in ids)


def _last_line(file: Path) -> float:
    return float(file.read_text().split()[-1])


def _resident() -> float:
    """The most memory that this process has had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_a_cluster_costs(tmp_path, request):
    """Scheduling takes at most a hundredth of the time, and the memory does not grow with the rows."""
    pytest.importorskip("distributed")
    costs = [cost_of(*size, tmp_path / f"{size}") for size in SIZES]
    found = {
        "machine": environment.machine_key(),
        "commit": environment.git_commit(),
        "timestamp": environment.timestamp(),
        "distributed": environment.version_of("distributed"),
        "stand_in_s": STAND_IN_S,
        "costs": [asdict(cost) for cost in costs],
        "losses_s": losses(tmp_path / "losses"),
    }
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    results = request.config.getoption("results")
    if results:
        results.mkdir(parents=True, exist_ok=True)
        (results / "cluster.json").write_text(text)
    part, whole, _ = costs
    assert whole.share <= MOST_SHARE
    assert whole.memory_bytes <= part.memory_bytes + MOST_BYTES
