"""`Programs`: what a peer's process does for the one that measures."""

import gc
import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from bench.processes.peers import Arrays, Loaded, PeerData
from bench.timing.blocks import time_call
from bench.timing.memory import memory_mark

# A peer's threads go on spinning after a call, in wait for the next: PyTorch's for 8 ms, ONNX Runtime's for
# 40. Whoever is timed next, in another process, would have one core less.
_STILL_S = 0.005  # how long they must have slept; the system counts what threads compute every 4 ms
_STILL_SHARE = 0.1  # of that time, that the process may have computed
_LONGEST_S = 1.0  # after which it is let be


class Programs:
    """The programs of one peer, numbered from 0 in the order in which they were loaded.

    Args:
        peer: a module of `bench.processes.peers`.
    """

    def __init__(self, peer: str):
        self._peer = import_module(f"bench.processes.peers.{peer}")
        self._loaded: list[Loaded] = []

    def environment(self) -> dict[str, Any]:
        """The peer's versions and threads."""
        return self._peer.environment()

    def load(
        self, cell: str, mode: str, data: PeerData, options: Mapping[str, Any]
    ) -> tuple[int, dict[str, Any]]:
        """Loads one more program, with the options that are not the default; returns its number and its
        facts, and with them `peak_bytes`, how far the memory rose."""
        rise = memory_mark()
        loaded = self._peer.load(cell, mode, data, **options)
        self._loaded.append(loaded)
        gc.collect()
        return len(self._loaded) - 1, {"peak_bytes": rise(), **loaded.facts}

    def run(self, number: int) -> None:
        """Computes a program once."""
        self._loaded[number].run()

    def time(self, number: int) -> float:
        """Seconds of one call of a program; returns when its threads are still."""
        seconds = time_call(self._loaded[number].run)
        wait_until_still()
        return seconds

    def queue(self, number: int, count: int) -> float:
        """Seconds of that many calls; a peer's call returns when it has finished."""

        def run() -> None:
            for _ in range(count):
                self._loaded[number].run()

        seconds = time_call(run)
        wait_until_still()
        return seconds

    def answer(self, number: int) -> tuple[Arrays, Arrays]:
        """A program's answer, see `Loaded`."""
        return self._loaded[number].answer()

    def trace_count(self, number: int) -> int:
        """The number of times a program has been traced."""
        return self._loaded[number].trace_count()


def wait_until_still() -> None:
    """Until this process computes no more, or a second has passed."""
    end = time.monotonic() + _LONGEST_S
    while time.monotonic() < end:
        computed = time.process_time()
        time.sleep(_STILL_S)
        if time.process_time() - computed < _STILL_SHARE * _STILL_S:
            return
