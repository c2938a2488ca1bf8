"""Views: which of a run's records answer which question. Charts and tables draw the same ones.

A case's id names every option that is not the default, so that the options are read from the id: a column
that is added later needs no change here.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.cases import options as options_of_cases
from bench.cases.case import MODES
from bench.cases.subjects import EQUATIONS, SUBJECTS, equation_of
from bench.records.schema import SHAPE, Value
from bench.timing.intervals import Interval

Record = Mapping[str, Value]
AXES = {"timesteps": "timesteps", "batch_size": "batch size", "units": "units"}
_IN_WORDS = {
    "batch_size": "batch {}",
    "timesteps": "{} timesteps",
    "features": "{} features",
    "units": "{} units",
}
# the groups of options; one of several options belongs to the first that any of them is in
OPTION_GROUPS = options_of_cases.GROUPS
# the sweeps that end in charts of their own; the others' have those of any run
OWN_CHARTS = ("options", "static_dynamic", "scaling", "deepbench", "char_shape", "peers", "fused")
_ELSEWHERE = {subject.layer: subject.runs_in for subject in SUBJECTS.values() if subject.runs_in}
FAMILIES = tuple(EQUATIONS)[:5]


def label(record: Record) -> str:
    """What people call the record's subject: `keras LSTM`, `slstm in RNN`."""
    subject = str(record["subject"])
    if subject in SUBJECTS:
        return SUBJECTS[subject].label
    return f"{record['cell']} in RNN" if record["layer"] == "rnn" else subject


def baseline_label(record: Record) -> str:
    """What people call the subject that the record is compared with."""
    _, cell, layer, *_ = f"{record['baseline']}---".split("-")
    return label({"subject": f"{cell}-{layer}", "cell": cell, "layer": layer})


def against(record: Record) -> str:
    """What people call the record's baseline; a second instance of itself shows the noise."""
    return "itself (noise)" if record["baseline"] == record["case"] else baseline_label(record)


def faster_than(record: Record) -> str:
    """What a ratio below 1 says of the record's subject."""
    layer = f"{record['baseline']}---".split("-")[2]
    if layer in _ELSEWHERE:
        return f"faster than {_ELSEWHERE[layer]}"
    return "faster than Keras' loop" + (" under XLA" if str(record["baseline"]).endswith("-xla") else "")


def family(record: Record) -> str:
    """The cell's equation: Keras' own `keras_lstm` is an `lstm`."""
    return equation_of(str(record["cell"]))


def order(record: Record) -> tuple:
    """Sorts subjects: by equation, then the built-in layer, Keras' cell, ours, and the rest by name."""
    name, layer = family(record), str(record["layer"])
    known = FAMILIES.index(name) if name in FAMILIES else len(FAMILIES)
    own = not str(record["cell"]).startswith("keras_")
    return (known, name, layer != "builtin", layer != "rnn", layer, own)


def short_shape(record: Record, names: Iterable[str] = SHAPE) -> str:
    """The sizes of the shape, or some of them, as `b32 t50`."""
    return " ".join(f"{name[0]}{record[name]}" for name in names)


def shape(record: Record) -> tuple[Value, ...]:
    return tuple(record[name] for name in SHAPE)


def in_words(record: Record, *, without: Iterable[str] = ()) -> str:
    """The shape in words, but for the dimensions `without`."""
    left_out = set(without)
    return " · ".join(text.format(record[name]) for name, text in _IN_WORDS.items() if name not in left_out)


def options(record: Record) -> tuple[str, ...]:
    """The options that are not the default, in the words of the case's id."""
    _, _, rest = str(record["case"]).partition(f"{record['mode']}-{record['subject']}-")
    return tuple(rest.split("-")[len(SHAPE) :])


def option_name(option: str) -> str:
    """An option, or several, as one writes it in Python: `implementation=1` for the id's `impl1`."""
    return " + ".join(_option(word)[1] for word in option.split("-"))


def option_group(option: str) -> str:
    """The group that an option, or several, belongs to: one of `OPTION_GROUPS`, or `Other`."""
    groups = [_option(word)[0] for word in option.split("-")]
    return min(groups, key=[*OPTION_GROUPS, "Other"].index)


def _option(word: str) -> tuple[str, str]:
    """The group and the name of one word of an id."""
    try:
        return options_of_cases.describe(word)
    except options_of_cases.UnknownOption:
        return "Other", word


def is_plain(record: Record) -> bool:
    """Whether all options but XLA are at their default."""
    return set(options(record)) <= {"xla"}


def counted_reasons(records: Iterable[Record]) -> list[str]:
    """How many of the records are not there and why: `2 failed (killed)`, `1 skipped (unsupported)`."""
    reasons = Counter(
        "without the figure" if record["status"] == "ok" else f"{record['status']} ({record['reason']})"
        for record in records
    )
    return [f"{count} {reason}" for reason, count in sorted(reasons.items())]


def of_sweep(records: Iterable[Record], name: str) -> list[Record]:
    return [record for record in records if record["sweep"] == name]


def by_shape(records: Iterable[Record]) -> list[Record]:
    """The records with those of a shape together, shapes in the order in which they come first."""
    records = list(records)
    shapes = list(dict.fromkeys(map(shape, records)))
    return sorted(records, key=lambda record: shapes.index(shape(record)))


def of_any_sweep(records: Iterable[Record]) -> list[Record]:
    """The records of the sweeps that have no charts of their own."""
    return [record for record in records if record["sweep"] not in OWN_CHARTS]


def modes_of(records: Iterable[Record]) -> list[str]:
    """The modes of the records, forward first."""
    present = dict.fromkeys(str(record["mode"]) for record in records)
    return sorted(present, key=[*MODES, *present].index)


def default_id(record: Record) -> str:
    """The id of the same subject at the same shape, every option at its default."""
    sizes = "-".join(f"{name[0]}{record[name]}" for name in SHAPE)
    return f"{record['mode']}-{record['subject']}-{sizes}"


def at_base(records: Sequence[Record]) -> list[Record]:
    """The plain records at the shape that most subjects of the run share, one a case."""
    plain = [record for record in records if is_plain(record)]
    base = _base_shape(plain)
    return sorted(_one_a_case(record for record in plain if shape(record) == base), key=order)


def along(records: Sequence[Record], axis: str) -> list[Record]:
    """The plain records of the line through the base shape on which only `axis` varies.

    Only subjects that have two points or more on it are there.
    """
    base = at_base(records)
    if not base:
        return []
    fixed = [name for name in SHAPE if name != axis]
    line = [
        record
        for record in _one_a_case(filter(is_plain, records))
        if all(record[name] == base[0][name] for name in fixed)
    ]
    points = Counter(series(record) for record in line)
    kept = [record for record in line if points[series(record)] > 1]
    return sorted(kept, key=lambda record: (order(record), record[axis]))


def series(record: Record) -> tuple[Value, ...]:
    """What the points of one line share beside the shape."""
    return (record["subject"], record["mode"], *options(record))


@dataclass(frozen=True)
class OptionCost:
    """What an option costs a subject: `cost` is time with it / time without, None where it was not timed."""

    record: Record
    option: str
    cost: Interval | None


def option_costs(records: Sequence[Record]) -> list[OptionCost]:
    """The cost of each option that was measured alone, at the base shape, plain.

    The baseline may be the same case without the option, or another that the case without the option was
    compared with too; then the cost is the quotient of the two ratios.
    """
    base = {str(record["case"]): record for record in at_base(records)}
    costs = []
    for record in _one_a_case(records):
        words = options(record)
        if len(words) == 1 and words != ("xla",):
            without = str(record["case"]).removesuffix(f"-{words[0]}")
            if without in base:
                costs.append(OptionCost(record, words[0], _cost(record, base[without])))
    return sorted(costs, key=lambda cost: order(cost.record))


def _cost(record: Record, without: Record) -> Interval | None:
    if record["ratio"] is None:
        return None
    if record["baseline"] == without["case"]:
        return ratio_of(record)
    if without["ratio"] is None or record["baseline"] != without["baseline"]:
        return None
    return quotient(ratio_of(record), ratio_of(without))


def ratio_of(record: Record) -> Interval:
    """The record's ratio to its baseline with its interval."""
    value = _number(record["ratio"])
    low, high = record["ratio_low"], record["ratio_high"]
    return Interval(value, value if low is None else _number(low), value if high is None else _number(high))


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
    median, half = _number(record["median_s"]), _number(record["iqr_s"] or 0.0) / 2
    shortest = median if record["min_s"] is None else _number(record["min_s"])
    return Interval(median, max(median - half, min(shortest, median)), median + half)


def throughput_of(record: Record) -> Interval | None:
    """The sequences a second, at the times of `time_of`."""
    time = time_of(record)
    if time is None:
        return None
    batch_size = _number(record["batch_size"])
    return Interval(*(batch_size / value for value in (time.value, time.high, time.low)))


def compared(record: Record) -> Interval | None:
    """The ratio to the baseline, or None where there is none."""
    return None if record["ratio"] is None else ratio_of(record)


def inverse(ratio: Interval) -> Interval:
    """How many times faster, from how many times the time."""
    return Interval(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)


def exactly(record: Record, name: str) -> Interval | None:
    """A figure that has no interval, or None where it was not taken."""
    value = record[name]
    return None if value is None else Interval(_number(value), _number(value), _number(value))


def queued(record: Record) -> Interval | None:
    """The time of a call in a queue that is awaited once / that of a call that is awaited."""
    in_queue, awaited = record["queued_s"], record["median_s"]
    if in_queue is None or awaited is None:
        return None
    value = _number(in_queue) / _number(awaited)
    return Interval(value, value, value)


def start_of(record: Record) -> Interval | None:
    """The time to trace and to compile, seconds; None where it was not taken."""
    if record["compile_s"] is None:
        return None
    start = _number(record["compile_s"]) + _number(record["trace_s"] or 0.0)
    return Interval(start, start, start)


def _base_shape(plain: Sequence[Record]) -> tuple[Value, ...] | None:
    subjects: dict[tuple[Value, ...], set[Value]] = {}
    for record in plain:
        subjects.setdefault(shape(record), set()).add(record["subject"])
    return max(subjects, key=lambda key: len(subjects[key]), default=None)


def _one_a_case(records: Iterable[Record]) -> Iterator[Record]:
    """The first record of each case, or the first that is ok: sweeps may share cases."""
    first: dict[Value, Record] = {}
    for record in records:
        known = first.setdefault(record["case"], record)
        if known["status"] != "ok" and record["status"] == "ok":
            first[record["case"]] = record
    yield from first.values()


def _number(value: Value) -> float:
    """A figure of a record, for the type checker's sake."""
    assert isinstance(value, (int, float))
    return float(value)
