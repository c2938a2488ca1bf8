"""`Progress`: says after each case which of how many it was, and how long the rest will take."""

import time
from collections.abc import Callable, Sequence


class Progress:
    """Counts the cases of a session.

    Args:
        expected_s: the seconds that each case is estimated to take, in their order; None where that is not
            known.
        clock: the seconds that have passed, from any start.
    """

    def __init__(self, expected_s: Sequence[float | None], clock: Callable[[], float] = time.monotonic):
        self._expected_s = expected_s
        self._clock = clock
        self._start = clock()
        self._done = 0

    def line(self, text: str) -> str:
        """`[3/26 · 40 s left] TEXT`, once for each case; the time is that of the estimate, corrected by how
        long the cases so far took instead of theirs."""
        self._done += 1
        count = f"{self._done}/{len(self._expected_s)}"
        left = self._left_s()
        return f"[{count}] {text}" if left is None else f"[{count} · {duration(left)} left] {text}"

    def _left_s(self) -> float | None:
        past, rest = self._expected_s[: self._done], self._expected_s[self._done :]
        estimate = _sum(past)
        left = _sum(rest)
        if not rest or not estimate or left is None:
            return None
        return left * (self._clock() - self._start) / estimate


def _sum(seconds: Sequence[float | None]) -> float | None:
    """None where one is not known."""
    known = [each for each in seconds if each is not None]
    return sum(known) if len(known) == len(seconds) else None


def duration(seconds: float) -> str:
    """A time to wait for: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
