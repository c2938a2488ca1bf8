"""The summary of a run in a few sentences, and what a record says."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.cases.case import MODES
from bench.report import formatting, labels, quantities, select
from bench.report.labels import Record
from bench.report.studies.options import option_costs
from bench.report.table import ratio_text

_MODE_NAMES = {"infer": "forward", "train": "forward and gradients"}


def of_run(records: Sequence[Record]) -> Iterator[str]:
    """The run in a few sentences: how many cases, who is fast and slow, XLA, options, training tasks."""
    yield _counts(records)
    base = [record for record in select.at_base(records) if record["ratio"] is not None]
    if base:
        yield f"What follows is at {labels.in_words(base[0])}; a ratio above 1 is slower than the baseline."
    yield from (_extremes(base, mode) for mode in MODES if _rivals(base, mode))
    yield from _noise(base)
    yield from _xla(base)
    yield from _options(records)
    yield from map(_task, filter(task_figures, records))


def _counts(records: Sequence[Record]) -> str:
    statuses = Counter(record["status"] for record in records)
    missing = ", ".join(select.counted_reasons(record for record in records if record["status"] != "ok"))
    known = quantities.precision_in_words(records)
    parts = [f"{len(records)} rows: {statuses['ok']} ok", missing or "none skipped or failed"]
    return ". ".join(filter(None, (", ".join(parts), known[:1].upper() + known[1:]))) + "."


def _rivals(base: Iterable[Record], mode: str) -> list[Record]:
    """The plain records of a mode that are compared with another subject, fastest first."""
    rivals = [
        record
        for record in base
        if record["mode"] == mode and not labels.options(record) and not is_with_itself(record)
    ]
    return sorted(rivals, key=_ratio)


def is_with_itself(record: Record) -> bool:
    return record["baseline"] == record["case"]


def _extremes(base: Iterable[Record], mode: str) -> str:
    rivals = _rivals(base, mode)
    name = f"{mode.capitalize()} ({_MODE_NAMES[mode]})"
    if len(rivals) == 1:
        return f"{name}: {_compared(rivals[0])}."
    fastest, slowest = rivals[0], rivals[-1]
    return f"{name}: fastest is {_compared(fastest)}; slowest is {_compared(slowest)}."


def _compared(record: Record) -> str:
    ratio = quantities.ratio_of(record)
    return f"{labels.label(record)} at {ratio_text(ratio)} of {labels.baseline_name(record)}"


def _noise(base: Iterable[Record]) -> Iterator[str]:
    noise = [quantities.ratio_of(record).value for record in base if is_with_itself(record)]
    if noise:
        between = f"{formatting.ratio(min(noise))} and {formatting.ratio(max(noise))}"
        yield f"Noise of this run: built-ins against a second instance of themselves lie between {between}."


def _xla(base: Sequence[Record]) -> Iterator[str]:
    """Says what XLA costs, of the cases that were timed in turns with the same without it."""
    pairs = [record for record in base if record["baseline"] == record["case"].removesuffix("-xla")]
    prices = sorted((each for each in pairs if labels.options(each)), key=_ratio)
    if prices:
        ends = [f"{ratio_text(quantities.ratio_of(each))} ({_who(each)})" for each in (prices[0], prices[-1])]
        yield f"XLA takes {' to '.join(dict.fromkeys(ends))} of the plain time."


def _ratio(record: Record) -> float:
    return quantities.ratio_of(record).value


def _options(records: Sequence[Record]) -> Iterator[str]:
    known = option_costs(records)
    times = known["cost"].dropna().map(lambda cost: cost.value).astype(float)
    if len(times):
        least, most = (_option(known.loc[place]) for place in (times.idxmin(), times.idxmax()))
        yield f"Options: the least time takes {least}; the most, {most}."


def _option(cost: Mapping[str, Any]) -> str:
    price = f"{ratio_text(cost['cost'])} of the time without"
    return f"{cost['name']} for {_who(cost['record'])}, at {price}"


def task_figures(record: Record) -> list[str]:
    texts: Mapping[str, Callable[[float], str]] = {
        "epoch_s": lambda value: f"{formatting.seconds(value)} an epoch",
        "characters_per_s": lambda value: f"{formatting.count(value)} characters a second",
        "loss": lambda value: f"loss {formatting.number(value)}",
    }
    return [text(value) for name, text in texts.items() if (value := record[name]) is not None]


def _task(record: Record) -> str:
    calls = [f"{record['timesteps']} steps a call"] if record["mode"] == "generate" else []
    named = ", ".join((labels.label(record), record["mode"], *calls, *labels.options(record)))
    return f"{record['sweep']}: {named}: {', '.join(task_figures(record))}."


def _who(record: Record) -> str:
    return f"{labels.label(record)}, {record['mode']}"


def of_record(record: Record) -> Iterator[str]:
    """A record in words: its figures, its kernel and its proof, or why there are none."""
    if record["status"] != "ok":
        yield ": ".join(str(part) for part in (record["status"], record["reason"], record["message"]) if part)
    if (time := quantities.time_of(record)) and record["ratio"] is not None:
        ratio = ratio_text(quantities.ratio_of(record))
        baseline = labels.baseline_name(record)
        yield (
            f"{labels.series_name(record)}: {formatting.seconds(time.value)} a call, "
            f"{ratio} the time of {baseline}."
        )
    if figures := task_figures(record):
        yield f"{', '.join(figures)}."
    if record["kernel"]:
        yield f"Kernel: {record['kernel']}{', compiled by XLA' if record['xla'] else ''}."
    if record["max_abs_error"] is not None and record["tolerance"] is not None:
        seen, allowed = (f"{record[name]:.2g}" for name in ("max_abs_error", "tolerance"))
        yield f"Proof ({record['proof']}): the largest error seen is {seen}, allowed is {allowed}."
