"""The worker's side of the contract: loads a user's cell and asks it one check at a time.

Importing this imports TensorFlow, quietly, and computes nothing: a nursery forks workers from here.
"""

import faulthandler
import gc
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.backend.quiet import no_chatter

with no_chatter():
    import tensorflow as tf

    from bench.contract.check_cell import Contract
    from bench.contract.report import CheckResult
    from bench.contract.switches import load_held

    tf.config.list_physical_devices()


class ContractService:
    """A user's cell, and the checks that it is asked.

    Args:
        trace: the path of the file that gets Python's traceback where a check ends the process by a signal
            or runs out of time.
    """

    def __init__(self, trace: str):
        logging.getLogger("tensorflow").setLevel(logging.CRITICAL)
        self._trace = open(trace, "w")  # noqa: SIM115 - open as long as the process lives
        faulthandler.enable(self._trace)
        gc.enable()  # nothing is timed here

    def load(
        self,
        target: str,
        kwargs: Mapping[str, Any],
        units: int,
        features: int | tuple[int, ...] | None,
        whole: bool,
        limit_s: float,
    ) -> tuple[str | None, list[tuple[str, str]]]:
        """Loads the target; the other arguments are those of `check_cell`, and the limit as in `ask`.

        Returns:
            The file that the cell stands in, and (name, question) of every check in their order.

        Raises:
            TargetError: it cannot be loaded.
        """
        with self._traced(limit_s):
            loaded = load_held(target, kwargs, whole)
        self._contract = Contract(loaded, units, features)
        checks = [(check.name, check.question) for check in self._contract.checks.values()]
        return (str(loaded.file) if loaded.file else None), checks

    def ask(self, name: str, found: Mapping[str, CheckResult], limit_s: float) -> CheckResult:
        """Asks one check; where it takes longer than the limit, the traceback is written.

        Raises:
            TargetError: nothing has been asked before, and the constructor raises.
        """
        with self._traced(limit_s):
            return self._contract.ask(name, found)

    @contextmanager
    def _traced(self, limit_s: float) -> Iterator[None]:
        """Writes the traceback after so many seconds, unless it is left before."""
        faulthandler.dump_traceback_later(limit_s, file=self._trace)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
