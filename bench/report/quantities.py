"""Quantities of a record with their intervals: its ratio, its time, its throughput, its start."""

import math
from collections.abc import Iterable

import numpy as np

from bench.report.labels import Record
from bench.timing.intervals import Interval


def ratio_of(record: Record) -> Interval:
    """The record's ratio to its baseline with its interval."""
    value = record["ratio"]
    low, high = record["ratio_low"], record["ratio_high"]
    return Interval(value, value if low is None else low, value if high is None else high)


def quotient(above: Interval, below: Interval) -> Interval:
    """The quotient of two independent ratios; their intervals' relative widths add in quadrature."""
    value = above.value / below.value
    down = math.hypot(math.log(above.value / above.low), math.log(below.high / below.value))
    up = math.hypot(math.log(above.high / above.value), math.log(below.value / below.low))
    return Interval(value, value * math.exp(-down), value * math.exp(up))


def time_of(record: Record) -> Interval | None:
    """The median time of a call, with half the interquartile range on each side, not below the shortest."""
    if record["median_s"] is None:
        return None
    median, half = record["median_s"], (record["iqr_s"] or 0.0) / 2
    shortest = median if record["min_s"] is None else record["min_s"]
    return Interval(median, max(median - half, min(shortest, median)), median + half)


def throughput_of(record: Record) -> Interval | None:
    """The sequences a second, at the times of `time_of`."""
    time = time_of(record)
    if time is None:
        return None
    batch_size = record["batch_size"]
    return Interval(*(batch_size / value for value in (time.value, time.high, time.low)))


def compared(record: Record) -> Interval | None:
    """The ratio to the baseline, or None where there is none."""
    return None if record["ratio"] is None else ratio_of(record)


def inverse(ratio: Interval) -> Interval:
    """The gain in speed, from the ratio of times."""
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


def exactly(record: Record, name: str) -> Interval | None:
    """A figure that has no interval, or None where it was not taken."""
    value = record[name]
    return None if value is None else Interval(value, value, value)


def queued(record: Record) -> Interval | None:
    """The time of a call in a queue that is awaited once / that of a call that is awaited."""
    in_queue, awaited = record["queued_s"], record["median_s"]
    if in_queue is None or awaited is None:
        return None
    value = in_queue / awaited
    return Interval(value, value, value)


def start_of(record: Record) -> Interval | None:
    """The time to trace and to compile, seconds; None where it was not taken."""
    if record["compile_s"] is None:
        return None
    start = record["compile_s"] + (record["trace_s"] or 0.0)
    return Interval(start, start, start)


def precision_in_words(records: Iterable[Record]) -> str:
    """Says how well the ratios are known: how far the ends of their 95% intervals lie from them."""
    ratios = [ratio_of(record) for record in records if record["ratio"] is not None]
    if not ratios:
        return ""
    widths = [max(ratio.high / ratio.value, ratio.value / ratio.low) - 1 for ratio in ratios]
    half, most = np.quantile(widths, (0.5, 0.9))
    return f"half of the ratios are known to ±{half:.1%}, nine in ten to ±{most:.1%}"
