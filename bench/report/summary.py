"""The summary of a run, in words. Reads records only."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from bench.cases.case import id_parts, shape_id
from bench.records.schema import STATUSES
from bench.records.text import counted
from bench.report import formatting
from bench.report.labels import Record, option_name, options, short_shape
from bench.report.progress import duration
from bench.report.quantities import (
    coverage_in_words,
    hurt_in_words,
    is_hurt,
    precision_in_words,
    ratio_of,
    two_speeds,
)
from bench.report.select import base_shape, framed, grouped
from bench.timing.intervals import ENOUGH_KNOWN


def summary_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """One line a row, one a training task, then what did not run and why, then the counts.

    Args:
        labels: what people call a subject, by its name; a subject without one is called by its name.
    """
    measured = [record for record in records if record["status"] == "ok"]
    compared = [record for record in measured if record["ratio"] is not None]
    return [
        *_ratios(compared, labels),
        *_tasks(measured, labels),
        *_not_measured(records),
        *_not_native(measured),
        *_noted(measured),
        *_busy(measured),
        *_against_itself(compared),
        *_counts(records, compared),
    ]


def rest_line(wide: int, total: int, within_reach: int, seconds: float) -> str:
    """Says how many ratios are wider than ±2%, and how much more time would help how many of them."""
    said = f"{wide} of {counted(total, 'ratio')} {'is' if wide == 1 else 'are'} wider than ±2%"
    if not within_reach:
        return f"{said}; more time would not help"
    return f"{said}: about {duration(seconds)} more would bring {within_reach} there (--budget)"


def row_line(record: Record, labels: Mapping[str, str]) -> str:
    """What came of a row, in a line: `train slstm in RNN b32 t50 f64 u128: 0.71x keras LSTM [0.69, 0.74]`."""
    named = ", ".join((f"{_label(record, labels)} {short_shape(record)}", *map(option_name, options(record))))
    if record["status"] != "ok":
        found = f"{record['status']}: {record['reason']}"
    elif record["ratio"] is None:
        found = _task_figures(record) or "ok"
    else:
        found = _said(record, _baseline(record, labels)) + (" (busy machine)" if is_hurt(record) else "")
    return f"{record['mode']} {named}: {found}"


def _ratios(compared: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    """Every row, by shape and options, those of the base shape first; an XLA row joins the line of its plain
    one."""
    frame = framed(compared)
    frame = frame.assign(words=frame["options"].map(_but_xla))
    is_plain = frame["words"].str.len() == 0
    is_base = is_plain & frame["at"].isin([base_shape(frame[is_plain])])
    base_first = frame.iloc[(~is_base).argsort(kind="stable")]
    for (_, words), rows in base_first.groupby(["at", "words"], sort=False):
        in_order = rows.sort_values("order", kind="stable")["record"].tolist()
        yield f"at {', '.join((shape_id(in_order[0]), *map(option_name, words)))}:"
        yield from _lines(in_order, labels)


def _but_xla(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(word for word in words if word != "xla")


def _lines(rows: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    by_key = {(row["sweep"], row["case"], row["baseline"]): row for row in rows}
    under_xla = {key: row for key, row in by_key.items() if "xla" in options(row)}
    plain = {key: row for key, row in by_key.items() if key not in under_xla}
    for (sweep, case, baseline), row in plain.items():
        xla = under_xla.pop((sweep, f"{case}-xla", f"{baseline}-xla"), None)
        yield f"  {_ratio(row, labels)}{f'; both under XLA {_said(xla)}' if xla else ''}"
    for row in under_xla.values():
        yield f"  under XLA: {_ratio(row, labels)}"


def _ratio(record: Record, labels: Mapping[str, str]) -> str:
    said = _said(record, f"the time of {_baseline(record, labels)}")
    return f"{_label(record, labels)}, {record['mode']}: {said}"


def _tasks(measured: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    for record in measured:
        if figures := _task_figures(record):
            calls = [f"{counted(record['timesteps'], 'step')} a call"] if record["mode"] == "generate" else []
            named = ", ".join((_label(record, labels), record["mode"], *calls, *options(record)))
            yield f"{record['sweep']}: {named}: {figures}"


def _task_figures(record: Record) -> str:
    return ", ".join(
        text.format(write(value))
        for name, (text, write) in _TASK_FIGURES.items()
        if (value := record[name]) is not None
    )


_TASK_FIGURES = {
    "epoch_s": ("{} an epoch", formatting.seconds),
    "characters_per_s": ("{} characters/s", formatting.count),
    "loss": ("loss {}", formatting.number),
}


def _label(record: Record, labels: Mapping[str, str]) -> str:
    return labels.get(record["subject"], record["subject"])


def _baseline(record: Record, labels: Mapping[str, str]) -> str:
    """The baseline's name, with its options; those under XLA are said to be so beside the row's."""
    baseline = id_parts(str(record["baseline"]))
    label = labels.get(baseline.subject, baseline.subject)
    if record["baseline"] == record["case"]:
        return f"a second {label}"
    both_xla = "xla" in options(record) and "xla" in baseline.options
    words = [word for word in baseline.options if not (both_xla and word == "xla")]
    plain = "plain " if baseline.subject == record["subject"] and not words else ""
    return ", ".join((f"{plain}{label}", *map(option_name, words)))


def _said(record: Record, of: str = "") -> str:
    """The ratio, `of` what, and its interval; of one that is wider than what it finds, the ends alone."""
    ratio = ratio_of(record)
    if ratio.is_vague:
        return " ".join(filter(None, (f"between {ratio.low:.2f} and {ratio.high:.2f} times", of)))
    return " ".join(filter(None, (f"{ratio.value:.2f}x", of, f"[{ratio.low:.2f}, {ratio.high:.2f}]")))


def _not_measured(records: Sequence[Record]) -> Iterator[str]:
    """A line for each cause; cases that did not run for the same one share it."""
    for status in ("skipped", "failed"):
        for same in grouped((record for record in records if record["status"] == status), _cause):
            yield f"{status}: {_first(same)}: {same[0]['reason']}: {same[0]['message']}"


def _first(records: Sequence[Record]) -> str:
    """Names the first case and counts the others."""
    others = f" and {len(records) - 1} more" if len(records) > 1 else ""
    return f"{records[0]['case']}{others}"


def _cause(record: Record) -> tuple:
    """Names what cases share that did not run for the same cause. Which checks a cell breaks is long to
    say, and may be said in other words by each process: it is about the cell, whatever the case."""
    about = record["cell"] if record["reason"] == "contract" else record["message"]
    return record["reason"], about


def _not_native(measured: Sequence[Record]) -> Iterator[str]:
    """A line for each reason why a slower engine of `FusedRNN` was timed than its native one."""
    fused = (record for record in measured if record["layer"] == "fused" and record["fallback"])
    for same in grouped(fused, lambda record: record["fallback"]):
        yield f"not the native engine: {_first(same)}: {same[0]['fallback']}"


_NOTES: dict[str, tuple[Callable[[Record], Any], str]] = {
    "throttled": (lambda record: record["throttled"], "the GPU's clocks were held down"),
    "two speeds": (two_speeds, "each instance draws one of two and keeps it; the report has both"),
    "drift": (
        lambda record: record["drift"] is not None,
        "the ratio moved while it was measured: the machine throttles or warms up",
    ),
}


def _noted(measured: Sequence[Record]) -> Iterator[str]:
    """A line for each thing that may have changed what was measured."""
    for word, (is_so, meaning) in _NOTES.items():
        if rows := list(filter(is_so, measured)):
            yield f"{word}: {_first(rows)}: {meaning}"


def _busy(measured: Sequence[Record]) -> Iterator[str]:
    """One line where other work ran while it was measured."""
    if said := hurt_in_words(measured):
        yield f"busy machine: {said}"


def _against_itself(compared: Sequence[Record]) -> Iterator[str]:
    """How far the run's own noise lets its intervals be trusted, where it has a few rows that tell."""
    ratios = [ratio_of(record) for record in compared if record["baseline"] == record["case"]]
    if len(ratios) < _FEWEST_AGAINST_ITSELF:
        return
    known = _minutes([record for record in compared if ratio_of(record).converged], compared)
    said = f"{len(known) / len(compared):.0%} of all ratios are known to ±2%"
    if len(known) >= (enough := math.ceil(ENOUGH_KNOWN * len(compared))):
        said += f" ({ENOUGH_KNOWN:.0%} after {known[enough - 1]:.1f} minutes)"
    took = _minutes(compared, compared)[-1]
    yield f"layers against themselves: {coverage_in_words(ratios)}; {said}, in {took:.1f} minutes"


def _minutes(records: Sequence[Record], since: Sequence[Record]) -> list[float]:
    """When each was measured last, in minutes after the first of `since`; the earliest first."""
    start, *_ = sorted(map(_when, since))
    return sorted((_when(record) - start).total_seconds() / 60 for record in records)


def _when(record: Record) -> datetime:
    return datetime.fromisoformat(str(record["timestamp"]))


_FEWEST_AGAINST_ITSELF = 10


def _counts(records: Sequence[Record], compared: Sequence[Record]) -> Iterator[str]:
    statuses = Counter(record["status"] for record in records)
    counts = ", ".join(f"{statuses[status]} {status}" for status in STATUSES)
    cases = len({record["case"] for record in records})
    rows = f" in {counted(len(records), 'row')}" if len(records) > cases else ""
    yield "; ".join(filter(None, (f"{counted(cases, 'case')}{rows}: {counts}", precision_in_words(compared))))
