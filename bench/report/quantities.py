"""Quantities of a record with their intervals: its ratio, its time, its throughput, its start."""

import math
import re
from collections.abc import Iterable, Sequence
from statistics import median as median_of

import numpy as np

from bench.records.text import counted
from bench.report.labels import Record
from bench.timing.intervals import Interval


def ratio_of(record: Record) -> Interval:
    """The record's ratio to its baseline with its interval."""
    value = record["ratio"]
    low, high = record["ratio_low"], record["ratio_high"]
    return Interval(value, value if low is None else low, value if high is None else high)


_GROW_WITH_TIME = ("median_s", "min_s", "iqr_s", "queued_s")
_SHRINK_WITH_TIME = ("sequences_per_s", "timesteps_per_s", "gflops_per_s", "roofline_fraction")


def by_pairs(records: Iterable[Record]) -> list[Record]:
    """The records with the times that their pairs say: the baseline's time x the ratio.

    A baseline has one time in a run, the median over the rows that are compared with it. The times that rows
    were measured at lie minutes apart, and would rank subjects otherwise than the ratios do. Rates follow;
    what was not timed in a pair is as it was.
    """
    records = list(records)
    baselines: dict[tuple, list[float]] = {}
    for record in records:
        if _is_pair(record):
            baselines.setdefault(_baseline_key(record), []).append(record["baseline_median_s"])
    return [
        _at(record, median_of(baselines[_baseline_key(record)])) if _is_pair(record) else record
        for record in records
    ]


def _is_pair(record: Record) -> bool:
    return None not in (record["ratio"], record["baseline_median_s"], record["median_s"])


def _baseline_key(record: Record) -> tuple:
    return (record["run_id"], record["sweep"], record["baseline"])


def _at(record: Record, baseline_s: float) -> Record:
    """The record at the time that its pair says; a second instance of the baseline takes the baseline's."""
    ratio = 1.0 if record["baseline"] == record["case"] else record["ratio"]
    factor = ratio * baseline_s / record["median_s"]
    factors = dict.fromkeys(_GROW_WITH_TIME, factor) | dict.fromkeys(_SHRINK_WITH_TIME, 1 / factor)
    changed = {name: record[name] * by for name, by in factors.items() if record[name] is not None}
    return {**record, **changed}


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


_BUSY_LOAD = 1.5  # a core; what we measure alone makes a load of one
_STOLEN = 0.01  # of the cores' time


def is_hurt(record: Record) -> bool:
    """True where other work ran beside the record's measurement, or the hypervisor took of the time."""
    cores = _cores(record)
    is_loaded = cores is not None and (record["load"] or 0.0) > _BUSY_LOAD * cores
    return is_loaded or (record["stolen"] or 0.0) > _STOLEN


def busy_in_words(record: Record) -> str:
    """Says what else ran: `load 7.9 on 2 cores, 3% of the cores' time stolen`."""
    cores = _cores(record)
    on = f"{cores} core{'' if cores == 1 else 's'}"
    parts = [f"load {record['load']:.1f} on {on}"] if record["load"] is not None else []
    stolen = record["stolen"] or 0.0
    return ", ".join([*parts, *([f"{stolen:.0%} of the cores' time stolen"] if stolen > _STOLEN else [])])


def widened_by(records: Iterable[Record]) -> float | None:
    """How many times as wide as the others' the intervals of the run's hurt rows are; None where too few rows
    of a mode are hurt, or too few are not, to tell.

    The medians of the intervals' widths (log high / low) are compared within a mode, since training scatters
    more than inference does.
    """
    widths: dict[tuple[str, bool], list[float]] = {}
    for record in records:
        if record["ratio"] is not None and (ratio := ratio_of(record)).low < ratio.high:
            widths.setdefault((record["mode"], is_hurt(record)), []).append(math.log(ratio.high / ratio.low))
    known = {key: median_of(found) for key, found in widths.items() if len(found) >= _FEWEST_WIDTHS}
    factors = [
        known[mode, True] / known[mode, False] for mode, hurt in known if hurt and (mode, False) in known
    ]
    return math.exp(sum(map(math.log, factors)) / len(factors)) if factors else None


_WIDENED = 1.05  # as little is not said
_FEWEST_WIDTHS = 5  # of which a median is taken


def hurt_in_words(records: Sequence[Record]) -> str:
    """Says what ran beside the rows that other work hurt, and how much wider their intervals are, as far as
    the others tell; empty where none was hurt."""
    hurt = [record for record in records if record["status"] == "ok" and is_hurt(record)]
    if not hurt:
        return ""
    worst = max(hurt, key=lambda record: record["load"] or 0.0)
    factor = widened_by(records)
    measured = sum(record["status"] == "ok" for record in records)
    were = f"{len(hurt)} of {counted(measured, 'row')} {'was' if measured == 1 else 'were'}"
    said = f"{busy_in_words(worst)}: {were} measured beside other work"
    if factor is None:
        return f"{said}, and their intervals are wider for it"
    if factor < _WIDENED:
        return f"{said}; their intervals are no wider than those of the others"
    return f"{said}, and their intervals are {factor:.1f}x as wide as those of the others"


def _cores(record: Record) -> int | None:
    found = re.search(r"(\d+) cores?\b", str(record["machine"]))
    return int(found[1]) if found else None


_GAP = 0.05  # between the instances' ratios, relative: less is noise


def two_speeds(record: Record) -> tuple[list[float], list[float]] | None:
    """The instances' ratios in two groups, where they fall into two speeds that lie far apart; else None.

    A group has two instances at least, and the gap between the groups is twice as wide as either of them.
    """
    logarithms = sorted(math.log(float(ratio)) for ratio in str(record["instance_ratios"] or "").split())
    cuts = range(2, len(logarithms) - 1)
    cut = max(cuts, key=lambda number: logarithms[number] - logarithms[number - 1], default=None)
    if cut is None:
        return None
    low, high = logarithms[:cut], logarithms[cut:]
    gap = high[0] - low[-1]
    if gap < max(math.log(1 + _GAP), 2 * (low[-1] - low[0]), 2 * (high[-1] - high[0])):
        return None
    return [math.exp(each) for each in low], [math.exp(each) for each in high]


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


_OFF = 0.05  # a ratio of a layer to itself beyond which it is a false alarm


def coverage_in_words(against_itself: Sequence[Interval]) -> str:
    """Says how many of the intervals of a layer's ratio to itself hold 1, and how many ratios are far off."""
    held = sum(ratio.low <= 1 <= ratio.high for ratio in against_itself)
    off = sum(not 1 / (1 + _OFF) <= ratio.value <= 1 + _OFF for ratio in against_itself)
    count = len(against_itself)
    return (
        f"{held} of {count} intervals ({held / count:.1%}) hold 1, {off} of the ratios are off by "
        f"more than {_OFF:.0%}"
    )


def precision_in_words(records: Iterable[Record]) -> str:
    """Says how well the ratios are known: how far the ends of their 95% intervals lie from them."""
    ratios = [ratio_of(record) for record in records if record["ratio"] is not None]
    if not ratios:
        return ""
    widths = [max(ratio.high / ratio.value, ratio.value / ratio.low) - 1 for ratio in ratios]
    half, most = np.quantile(widths, (0.5, 0.9))
    return f"half of the ratios are known to ±{half:.1%}, nine in ten to ±{most:.1%}"
