"""What stands in for a worker's duties, so that the scheduling is tried without timing anything."""

import os
import signal
import time
from pathlib import Path

from bench.cases.comparisons import Comparison
from bench.cluster.station import About, Record, Setup, worker_name
from bench.records.schema import TIMINGS
from bench.tests import sample_records
from bench.timing.blocks import Budget

VERSIONS: dict[str, str | None] = {"tensorflow": "2.21", "keras": "3.15", "commit": "c0ffee"}
FATAL_ONCE, FATAL, ENDS_ITS_PROCESS = "gru", "minimal", "indrnn"  # the cells that end their worker


def setup(folder: Path) -> Setup:
    """A setup that tells the stand-ins where to write what they did."""
    return Setup(files=(("folder", ((str(folder), b""),)),))


def introduce(setup: Setup) -> About:
    name = worker_name()
    return About(name, "host", (int(name),), "one machine", VERSIONS)


def introduce_two_kinds(setup: Setup) -> About:
    name = worker_name()
    return About(name, f"host {name}", (0,), f"machine {name}", VERSIONS)


def measure(setup: Setup, comparison: Comparison, budget: Budget) -> Record | str:
    """A record without figures; a fatal cell kills the worker, once or each time."""
    folder, cell = Path(setup.files[0][1][0][0]), comparison.case.cell
    with open(folder / "measured", "a") as log:
        log.write(f"{comparison.case.id} {worker_name()}\n")
    if cell == ENDS_ITS_PROCESS:
        return "the worker's process ended: SIGSEGV"
    if cell == FATAL or (cell == FATAL_ONCE and not (folder / "killed").exists()):
        (folder / "killed").touch()
        time.sleep(0.3)  # that it has begun is on its way
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.05)
    return {"status": "ok", "median_s": 1.0, "ratio": 1.0}


def measure_in_process(setup: Setup, comparison: Comparison, budget: Budget) -> Record | str:
    """What can be a row; its ratio is that of the process: 0.9, 1, 1.1."""
    ended = measure(setup, comparison, budget)
    if isinstance(ended, str):
        return ended
    figures = sample_records.record("slstm-rnn")
    ratio = 0.8 + 0.1 * process_of(setup)
    own = {"ratio": ratio, "ratio_low": 0.99 * ratio, "ratio_high": 1.01 * ratio, "instance_ratios": None}
    return {**ended, **{name: figures[name] for name in TIMINGS}, **own}


def process_of(setup: Setup) -> int:
    """The number of the process that a setup is for."""
    return int(setup.process.rpartition(" ")[2])


def peers() -> dict[str, dict[str, str]]:
    """What two workers know of their peers: of one of them the versions differ."""
    return {"keras_jax": {"jax": "1"}, "keras_torch": {"torch": worker_name()}}
