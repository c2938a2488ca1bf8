"""Break-even: after how many calls a program has paid back that it starts more slowly. Reads records only."""

import math
from collections.abc import Iterable, Mapping

from bench.report import views
from bench.report.views import Record
from bench.timing.intervals import Interval


def calls_to_pay(extra_s: float, beside_s: float, ratio: Interval) -> Interval | None:
    """After how many calls a start that takes longer is paid back.

    Args:
        extra_s: by how much longer it takes to trace and compile, seconds, above 0.
        beside_s: the time of a call of the other program.
        ratio: time of a call / the other's.

    Returns:
        with the interval that the ratio's makes, infinite above where that holds 1; None where a call takes
        no less time, and nothing is ever paid back.
    """
    if ratio.value >= 1:
        return None
    value, low, high = (
        extra_s / (beside_s * (1 - each)) if each < 1 else math.inf
        for each in (ratio.value, ratio.low, ratio.high)
    )
    return Interval(value, low, high)


def in_words(calls: Interval) -> str:
    """`412 calls`, `1 call`: whole calls, rounded up."""
    whole = math.ceil(calls.value)
    return f"{whole:,} call{'' if whole == 1 else 's'}"


def loops(records: Iterable[Record]) -> Mapping[tuple, Record]:
    """Keras' loops, plain, by their case and by equation, mode and shape: the built-in layer, else `RNN`."""
    plain = [
        record
        for record in records
        if record["status"] == "ok" and record["layer"] in ("builtin", "rnn") and not views.options(record)
    ]
    built_in_last = sorted(plain, key=lambda record: record["layer"] == "builtin")
    return {(record["case"],): record for record in plain} | {
        _key(record): record for record in built_in_last
    }


def loop_of(record: Record, known: Mapping[tuple, Record]) -> Record | None:
    """The loop to hold a record against: its baseline where that is one; None where none was measured."""
    return known.get((record["baseline"],)) or known.get(_key(record))


def ratio_to(record: Record, loop: Record) -> Interval | None:
    """Time of a call / the loop's: the pair's where the two were timed in turns, the quotient of their ratios
    where each was with the same third, else that of their times, without an interval."""
    if record["baseline"] == loop["case"]:
        return views.compared(record)
    if record["baseline"] == loop["baseline"] and record["ratio"] is not None and loop["ratio"] is not None:
        return views.quotient(views.ratio_of(record), views.ratio_of(loop))
    times = [views.time_of(each) for each in (record, loop)]
    if not times[0] or not times[1]:
        return None
    value = times[0].value / times[1].value
    return Interval(value, value, value)


def _key(record: Record) -> tuple:
    return (views.family(record), record["mode"], record["dtype"], *views.shape(record))
