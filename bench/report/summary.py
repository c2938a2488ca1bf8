"""The summary of a run, in words. Reads records only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.records.schema import STATUSES
from bench.report import formatting
from bench.report.labels import Record, options
from bench.report.quantities import precision_in_words
from bench.report.select import at_base


def summary_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """One line a subject and mode, one a training task, then what did not run and why, then the counts.

    Args:
        labels: what people call a subject, by its name; a subject without one is called by its name.
    """
    measured = [record for record in records if record["status"] == "ok"]
    compared = [record for record in measured if record["ratio"] is not None]
    return [
        *_ratios(compared, labels),
        *_tasks(measured, labels),
        *_not_measured(records),
        *_throttled(measured),
        *_counts(records, compared),
    ]


def _ratios(compared: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    """The rows without options at the base shape; an XLA row joins the line of its plain one."""
    base = at_base(compared)
    by_case = {record["case"]: record for record in base}
    if base:
        yield f"at {_shape(base[0])}:"
    for case, record in by_case.items():
        if not options(record):
            xla = by_case.get(f"{case}-xla")
            under_xla = f"; both under XLA {_times(xla)} {_interval(xla)}" if xla else ""
            yield f"  {_ratio(record, labels)}{under_xla}"
        elif case.removesuffix("-xla") not in by_case:
            yield f"  under XLA: {_ratio(record, labels)}"
    others = len(compared) - len(by_case)
    if others:
        rows = "row" if others == 1 else "rows"
        yield f"  and {others} {rows} at other shapes, with other options or against other baselines"


def _ratio(record: Record, labels: Mapping[str, str]) -> str:
    return (
        f"{_label(record, labels)}, {record['mode']}: {_times(record)} the time of "
        f"{_baseline_label(record, labels)} {_interval(record)}"
    )


def _tasks(measured: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    for record in measured:
        figures = ", ".join(
            text.format(write(value))
            for name, (text, write) in _TASK_FIGURES.items()
            if (value := record[name]) is not None
        )
        if figures:
            calls = [f"{record['timesteps']} steps a call"] if record["mode"] == "generate" else []
            named = ", ".join((_label(record, labels), record["mode"], *calls, *options(record)))
            yield f"{record['sweep']}: {named}: {figures}"


_TASK_FIGURES = {
    "epoch_s": ("{} an epoch", formatting.seconds),
    "characters_per_s": ("{} characters/s", formatting.count),
    "loss": ("loss {}", formatting.number),
}


def _label(record: Record, labels: Mapping[str, str]) -> str:
    return labels.get(record["subject"], record["subject"])


def _shape(record: Record) -> str:
    return f"b{record['batch_size']}-t{record['timesteps']}-f{record['features']}-u{record['units']}"


def _baseline_label(record: Record, labels: Mapping[str, str]) -> str:
    subject = "-".join(str(record["baseline"]).split("-")[1:3])
    label = labels.get(subject, subject)
    return f"a second {label}" if subject == record["subject"] else label


def _times(record: Record) -> str:
    return f"{record['ratio']:.2f}x"


def _interval(record: Record) -> str:
    return f"[{record['ratio_low']:.2f}, {record['ratio_high']:.2f}]"


def _not_measured(records: Sequence[Record]) -> Iterator[str]:
    """A line for each cause; cases that did not run for the same one share it."""
    for status in ("skipped", "failed"):
        causes: dict[tuple, list[Record]] = {}
        for record in records:
            if record["status"] == status:
                causes.setdefault(_cause(record), []).append(record)
        for same in causes.values():
            others = f" and {len(same) - 1} more" if len(same) > 1 else ""
            yield f"{status}: {same[0]['case']}{others}: {same[0]['reason']}: {same[0]['message']}"


def _cause(record: Record) -> tuple:
    """Names what cases share that did not run for the same cause. Which checks a cell breaks is long to
    say, and may be said in other words by each process: it is about the cell, whatever the case."""
    about = record["cell"] if record["reason"] == "contract" else record["message"]
    return record["reason"], about


def _throttled(measured: Sequence[Record]) -> Iterator[str]:
    cases = [record["case"] for record in measured if record["throttled"]]
    if cases:
        others = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        yield f"throttled: {cases[0]}{others}: the GPU's clocks were held down"


def _counts(records: Sequence[Record], compared: Sequence[Record]) -> Iterator[str]:
    statuses = Counter(record["status"] for record in records)
    counts = ", ".join(f"{statuses[status]} {status}" for status in STATUSES)
    cases = len({record["case"] for record in records})
    rows = f" in {len(records)} rows" if len(records) > cases else ""
    yield "; ".join(filter(None, (f"{cases} cases{rows}: {counts}", precision_in_words(compared))))
