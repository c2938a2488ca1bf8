"""Connects to a Dask cluster: one of worker processes on this machine, or one that a scheduler has."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import dask
from distributed import Client, LocalCluster, WorkerPlugin

from bench.cluster.admission import RESOURCE, ClusterError, check_address
from bench.records.environment import usable_cores
from bench.records.text import counted

_CONNECT_S = 5
# what a Dask worker does beside its task would run next to what is timed
QUIET = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # the scheduler keeps so many messages of each worker: with Dask's 1000, gigabytes for a hundred workers
    "distributed.admin.low-level-log-length": 10,
}


class IgnoreInterrupts(WorkerPlugin):
    """Leaves Ctrl-C, which the terminal sends to every process, to the client, which ends the workers."""

    def setup(self, worker) -> None:
        """Runs in the main thread of a worker's process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def local_client(workers: int) -> Iterator[Client]:
    """Starts so many workers on this machine, each to measure on its own cores; ends them with the block.

    Raises:
        ClusterError: there are fewer cores.
    """
    cores = usable_cores()
    if workers > cores:
        raise ClusterError(
            f"--workers {workers}: this machine has {counted(cores, 'core')} to measure on, and each worker "
            "needs one"
        )
    with (
        dask.config.set(QUIET),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            resources={RESOURCE: 1},
            memory_limit=0,
            silence_logs=logging.CRITICAL,  # what is lost is ours to tell
            dashboard_address="127.0.0.1:0",  # 8787 may be taken
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(IgnoreInterrupts())
        yield client


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """Connects to the scheduler at an address, `tcp://HOST:PORT`; the cluster stays when the block ends.

    Raises:
        ClusterError: that is no address, or no scheduler answers there.
    """
    check_address(address)
    try:
        client = Client(address, timeout=_CONNECT_S)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(f"--scheduler {address}: no scheduler answers there: {error}") from None
    with client:
        yield client
