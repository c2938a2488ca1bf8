"""Labels: what people call a subject, a baseline, an option, a shape. Tables, charts and pages use the same.

A case's id names every option that is not the default, so that the options are read from the id: a column
that is added later needs no change here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bench.cases.case import CaseError, IdParts, id_parts
from bench.cases.subjects import BACKENDS, EQUATIONS, SUBJECTS, equation_of
from bench.records import options as options_of_cases
from bench.records.schema import SHAPE, Value
from bench.records.text import counted

Record = Mapping[str, Any]  # its columns and their types: `bench.records.schema.Record`
AXES = {"timesteps": "timesteps", "batch_size": "batch size", "units": "units"}
_IN_WORDS: dict[str, Callable[[int], str]] = {
    "batch_size": "batch {}".format,
    "timesteps": lambda number: counted(number, "timestep"),
    "features": lambda number: counted(number, "feature"),
    "units": lambda number: counted(number, "unit"),
}
# the groups of options; one of several options belongs to the first that any of them is in
OPTION_GROUPS = options_of_cases.GROUPS
_ELSEWHERE = {subject.layer: subject.runs_in for subject in SUBJECTS.values() if subject.runs_in}
# of a user's cell or layer
_USER_LABELS = {
    "rnn": "{} in RNN",
    "fused": "{} in FusedRNN",
    "layer": "{}",
    **{name: f"{{}} in RNN on {backend.label}" for name, backend in BACKENDS.items()},
}
FAMILIES = tuple(EQUATIONS)[:5]


def label(record: Record) -> str:
    """The record's subject, as people call it: `keras LSTM`, `slstm in RNN`."""
    subject, layer = record["subject"], record["layer"]
    if subject in SUBJECTS:
        return SUBJECTS[subject].label
    return _USER_LABELS[layer].format(record["cell"]) if layer in _USER_LABELS else subject


def baseline_label(record: Record) -> str:
    """The subject that the record is compared with, as people call it."""
    baseline = _baseline(record)
    if baseline is None:
        return str(record["baseline"] or "")
    return label({"subject": baseline.subject, "cell": baseline.cell, "layer": baseline.layer})


def _baseline(record: Record) -> IdParts | None:
    """The parts of the baseline's id; None where there is none, or one that is no id."""
    try:
        return id_parts(str(record["baseline"]))
    except CaseError:
        return None


def baseline_name(record: Record) -> str:
    """The baseline that the record is compared with, its options too: `keras LSTM, XLA`.

    A second instance of the same shows the noise.
    """
    if record["baseline"] == record["case"]:
        return "itself (noise)"
    baseline = _baseline(record)
    return ", ".join((baseline_label(record), *map(option_name, baseline.options if baseline else ())))


def is_baseline_under_xla(record: Record) -> bool:
    """True where the baseline is compiled by XLA."""
    baseline = _baseline(record)
    return baseline is not None and "xla" in baseline.options


def plain_baseline_name(record: Record) -> str:
    """The same without XLA, where what is under XLA, subject and baseline, has a place of its own."""
    name = baseline_name(record)
    return name.removesuffix(f", {option_name('xla')}") if "xla" in options(record) else name


def faster_than(record: Record) -> str:
    """Says what a ratio below 1 means for the record's subject."""
    baseline = _baseline(record)
    if baseline and baseline.layer in _ELSEWHERE:
        return f"faster than {_ELSEWHERE[baseline.layer]}"
    return "faster than Keras' loop" + (" under XLA" if str(record["baseline"]).endswith("-xla") else "")


def family(record: Record) -> str:
    """The cell's equation: Keras' own `keras_lstm` is an `lstm`."""
    return equation_of(record["cell"])


def order(record: Record) -> tuple:
    """Sorts subjects: by equation, then the built-in layer, Keras' cell, ours, and the rest by name."""
    name, layer = family(record), record["layer"]
    known = FAMILIES.index(name) if name in FAMILIES else len(FAMILIES)
    own = not record["cell"].startswith("keras_")
    return (known, name, layer != "builtin", layer != "rnn", layer, own)


def shape(record: Record) -> tuple[Value, ...]:
    return tuple(record[name] for name in SHAPE)


def short_shape(record: Record, names: Iterable[str] = SHAPE) -> str:
    """The sizes of the shape, or some of them, as `b32 t50`."""
    return " ".join(f"{name[0]}{record[name]}" for name in names)


def in_words(record: Record, *, without: Iterable[str] = ()) -> str:
    """The shape in words, but for the dimensions `without`."""
    left_out = set(without)
    return " · ".join(text(record[name]) for name, text in _IN_WORDS.items() if name not in left_out)


def options(record: Record) -> tuple[str, ...]:
    """The options that are not the default, in the words of the case's id."""
    _, _, rest = record["case"].partition(f"{record['mode']}-{record['subject']}-")
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


def options_in_words(record: Record) -> str:
    """The options that are not the default, as one writes them in Python."""
    return ", ".join(map(option_name, options(record))) or "–"


def shape_in_numbers(record: Record) -> str:
    return " · ".join(str(size) for size in shape(record))


def series_name(record: Record) -> str:
    """A line's name in a legend: the subject and its options."""
    return ", ".join((label(record), *map(option_name, options(record))))
