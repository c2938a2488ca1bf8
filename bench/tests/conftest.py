"""Fixtures of several rooms: a process that has imported TensorFlow, from which runs fork their workers."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes.worker import Nursery

# pytest-benchmark measures nothing in a worker of xdist; the runs inside of tests are to measure
os.environ.pop("PYTEST_XDIST_WORKER", None)


class Kept:
    """A nursery that the end of a run does not end.

    Attributes:
        folder: the folder that it and its workers stand in.
    """

    def __init__(self, nursery: Nursery, folder: Path):
        self._nursery, self.folder = nursery, folder

    @property
    def alive(self) -> bool:
        return self._nursery.alive

    def fork(self, connection):
        return self._nursery.fork(connection)

    def wait(self, pid):
        return self._nursery.wait(pid)

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def nursery(tmp_path_factory) -> Iterator[Kept | None]:
    """One for all tests: it takes seconds to import TensorFlow. None where no process can be forked."""
    from bench.processes import isolated

    folder, here = tmp_path_factory.mktemp("nursery"), Path.cwd()
    os.chdir(folder)
    try:
        made = isolated.nursery("cpu")
    finally:
        os.chdir(here)
    yield None if made is None else Kept(made, folder)
    if made is not None:
        made.close()


@pytest.fixture
def one_nursery(nursery, monkeypatch) -> Kept | None:
    """The same, from which the runs that a test makes in this process fork their workers too."""
    for name in ("bench.processes.isolated.nursery", "bench.runner.proving.nursery"):
        monkeypatch.setattr(name, lambda device: nursery)
    return nursery
