"""The summary of a run in a few sentences, and what a record says."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

from bench.cases.case import MODES
from bench.records.text import counted
from bench.report import formatting, labels, quantities, select
from bench.report.labels import Record
from bench.report.studies.options import option_costs
from bench.report.table import ratio_text

_MODE_NAMES = {"infer": "forward", "train": "forward and gradients"}


def of_run(records: Sequence[Record]) -> Iterator[str]:
    """The run in a few sentences: how many cases, who is fast and slow, XLA, options, training tasks.

    What is said of one thing against another is the ratio of a pair that was timed in turns.
    """
    yield _counts(records)
    base = [record for record in select.at_base(records) if record["ratio"] is not None]
    if base:
        yield (
            f"What follows is at {labels.in_words(base[0])}, on {base[0]['machine']}; each ratio is of two "
            "that were timed in turns, above 1 is slower."
        )
    if hurt := quantities.hurt_in_words(records):
        yield f"The machine was busy: {hurt}."
    for mode in MODES:
        yield from _findings(f"{mode.capitalize()} ({_MODE_NAMES[mode]})", _rivals(base, mode), _compared)
    yield from _noise(base)
    costs = option_costs(records)
    for name, is_xla in (
        ("XLA, against the same without", True),
        ("Options, against the same without", False),
    ):
        timed = costs[costs["cost"].notna() & ((costs["option"] == "xla") == is_xla)]
        yield from _findings(name, sorted(timed["record"], key=_ratio), _priced)
    yield from map(_task, filter(task_figures, records))


def _counts(records: Sequence[Record]) -> str:
    statuses = Counter(record["status"] for record in records)
    missing = ", ".join(select.counted_reasons(record for record in records if record["status"] != "ok"))
    known = quantities.precision_in_words(records)
    parts = [f"{counted(len(records), 'row')}: {statuses['ok']} ok", missing or "none skipped or failed"]
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


def _findings(name: str, ratios: Sequence[Record], said: Callable[[Record], str]) -> Iterator[str]:
    """A sentence of what is surely faster and surely slower; the rest is counted. `ratios` is sorted."""
    found = {record["case"]: quantities.ratio_of(record) for record in ratios}
    faster = [record for record in ratios if found[record["case"]].high < 1]
    slower = [record for record in reversed(ratios) if found[record["case"]].low > 1]
    parts = [
        f"{word}: {', '.join(map(said, sure[:_MOST]))}{_others(len(sure) - _MOST)}"
        for word, sure in (("faster", faster), ("slower", slower))
        if sure
    ]
    unsure = len(ratios) - len(faster) - len(slower)
    parts += [f"not told apart: {unsure}"] if unsure else []
    if parts:
        yield f"{name}: {'; '.join(parts)}."


_MOST = 4  # findings of a sentence


def _others(count: int) -> str:
    return f" and {count} more" if count > 0 else ""


def _compared(record: Record) -> str:
    ratio = quantities.ratio_of(record)
    return f"{labels.label(record)} at {ratio_text(ratio)} of {labels.baseline_name(record)}"


def _noise(base: Iterable[Record]) -> Iterator[str]:
    noise = [quantities.ratio_of(record).value for record in base if is_with_itself(record)]
    if noise:
        between = f"{formatting.ratio(min(noise))} and {formatting.ratio(max(noise))}"
        yield f"Noise of this run: built-ins against a second instance of themselves lie between {between}."


def _ratio(record: Record) -> float:
    return quantities.ratio_of(record).value


def _priced(record: Record) -> str:
    option = " + ".join(labels.option_name(word) for word in labels.options(record) if word != "xla")
    return f"{', '.join(filter(None, (option, _who(record))))} {ratio_text(quantities.ratio_of(record))}"


def task_figures(record: Record) -> list[str]:
    texts: Mapping[str, Callable[[float], str]] = {
        "epoch_s": lambda value: f"{formatting.seconds(value)} an epoch",
        "characters_per_s": lambda value: f"{formatting.count(value)} characters a second",
        "loss": lambda value: f"loss {formatting.number(value)}",
    }
    return [text(value) for name, text in texts.items() if (value := record[name]) is not None]


def _task(record: Record) -> str:
    calls = [f"{counted(record['timesteps'], 'step')} a call"] if record["mode"] == "generate" else []
    named = ", ".join((labels.label(record), record["mode"], *calls, *labels.options(record)))
    return f"{record['sweep']}: {named}: {', '.join(task_figures(record))}."


def _who(record: Record) -> str:
    return f"{labels.label(record)}, {record['mode']}"


def _instances(record: Record) -> Iterator[str]:
    """Says of how many instances the ratio is; where they run at two speeds, both."""
    if not record["instances"]:
        return
    if record["instances"] == 1:
        yield "Of one instance: the ratio is that of the two programs that were timed."
        return
    speeds = quantities.two_speeds(record)
    if speeds is None:
        yield f"Of {record['instances']} instances."
        return
    low, high = (f"{formatting.ratio(median(group))} ({len(group)})" for group in speeds)
    yield f"Of {record['instances']} instances, which run at two speeds: {low} and {high}."


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
        yield from _instances(record)
        if quantities.is_hurt(record):
            yield f"The machine was busy: {quantities.busy_in_words(record)}."
    if figures := task_figures(record):
        yield f"{', '.join(figures)}."
    if record["kernel"]:
        yield f"Kernel: {record['kernel']}{', compiled by XLA' if record['xla'] else ''}."
    if record["max_abs_error"] is not None and record["tolerance"] is not None:
        seen, allowed = (f"{record[name]:.2g}" for name in ("max_abs_error", "tolerance"))
        yield f"Proof ({record['proof']}): the largest error seen is {seen}, allowed is {allowed}."
