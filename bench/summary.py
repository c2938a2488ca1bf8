"""The summary of a run, in words. Reads records only."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.records import Value

Record = Mapping[str, Value]


def summary_lines(records: Sequence[Record], labels: Mapping[str, str]) -> list[str]:
    """One line a subject and mode, then what did not run and why, then the counts.

    Args:
        labels: what people call a subject, by its name; a subject without one is called by its name.
    """
    measured = [record for record in records if record["status"] == "ok"]
    return [
        *_ratios(measured, labels),
        *_not_measured(records),
        *_counts(records, measured),
    ]


def _ratios(measured: Sequence[Record], labels: Mapping[str, str]) -> Iterator[str]:
    """The rows without options at the commonest shape; the XLA rows stand beside them."""
    if not measured:
        return
    shapes = Counter(_shape(record) for record in measured)
    shape = shapes.most_common(1)[0][0]
    here = {_plain_id(record): record for record in measured if _shape(record) == shape}
    yield f"at {shape}:"
    for record in here.values():
        if record["case"] != "-".join((str(record["mode"]), str(record["subject"]), shape)):
            continue
        xla = here.get(f"{record['case']}-xla")
        label = labels.get(str(record["subject"]), str(record["subject"]))
        against = _baseline_label(record, labels)
        line = f"  {label}, {record['mode']}: {_times(record)} the time of {against} {_interval(record)}"
        yield line + (f"; both under XLA {_times(xla)} {_interval(xla)}" if xla else "")
    others = len(measured) - sum(_shape(record) == shape for record in measured)
    if others:
        yield f"  and {others} rows at other shapes"


def _plain_id(record: Record) -> str:
    return str(record["case"])


def _shape(record: Record) -> str:
    return f"b{record['batch_size']}-t{record['timesteps']}-f{record['features']}-u{record['units']}"


def _baseline_label(record: Record, labels: Mapping[str, str]) -> str:
    baseline = str(record["baseline"])
    subject = "-".join(baseline.split("-")[1:3])
    label = labels.get(subject, subject)
    return f"a second {label}" if subject == record["subject"] else label


def _times(record: Record) -> str:
    return f"{record['ratio']:.2f}x"


def _interval(record: Record) -> str:
    return f"[{record['ratio_low']:.2f}, {record['ratio_high']:.2f}]"


def _not_measured(records: Sequence[Record]) -> Iterator[str]:
    for status in ("skipped", "failed"):
        for record in records:
            if record["status"] == status:
                yield f"{status}: {record['case']}: {record['reason']}: {record['message']}"


def _counts(records: Sequence[Record], measured: Sequence[Record]) -> Iterator[str]:
    statuses = Counter(str(record["status"]) for record in records)
    counts = ", ".join(f"{statuses[status]} {status}" for status in ("ok", "skipped", "failed"))
    converged = sum(bool(record["converged"]) for record in measured)
    yield f"{len(records)} cases: {counts}; {converged} of {len(measured)} intervals within ±2%"
