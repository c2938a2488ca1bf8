"""Advice: the fastest verified ways to run a cell at a shape, from what was measured.

A way is a subject and the options that change its speed alone. Each is taken at the measured shape nearest
to the wished one, in factors (logarithms), and how near that is is said. Reads records only.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from bench.cases.case import id_parts, shape_id
from bench.cases.subjects import BACKENDS, PEER_LAYERS, SUBJECTS
from bench.records.environment import machine_key
from bench.records.frame import rows
from bench.records.schema import SHAPE
from bench.records.text import counted
from bench.report import formatting, labels, quantities, select
from bench.report.labels import Record
from bench.report.studies.loop_or_unroll import calls_to_pay, in_words
from bench.report.table import ratio_text
from bench.timing.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

Shape = Mapping[str, int]

# the options, as ids write them, that leave the answer as it is: the argument, and whether it is the layer's
_WAYS = {"unroll": ("unroll=True", True), "impl1": ("implementation=1", False), "xla": ("", True)}
_BUILTINS = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "SimpleRNN"}
# what runs a cell, as code: a layer around it, or a function of it and of the sequences
_LAYERS = {"rnn": "keras.layers.RNN", "fused": "cells.FusedRNN"}
_FUNCTIONS = {"static_unroll": "cells.static_unroll", "dynamic_unroll": "cells.dynamic_unroll"}
_DTYPE = "float32"
_AGE = ["timestamp", "run_id"]  # of a record, the newest last
_TOP = 3  # ways of a cell
_FAR = 4.0  # times the wished size, or a share of it, beyond which a case says little
_TOO_FAR = 8.0  # beyond which it says nothing: other kernels, other caches, other limits


class AdviceError(ValueError):
    """Advice that cannot be given, and why."""


@dataclass(frozen=True)
class Way:
    """A verified way to run a cell, at the measured shape nearest to the wished one, timed in turns with
    another.

    Attributes:
        record: the case.
        baseline: the name of the other, with its options; those of one baseline are ranked, and no others.
        baseline_start_s: the time to trace and compile that, None where it is not known.
        ratio: time / the baseline's.
        distance: from the wished shape, in powers of two.
    """

    record: Record
    baseline: str
    baseline_start_s: float | None
    ratio: Interval
    distance: float


def advice(
    frame: "pd.DataFrame", shape: Shape, mode: str, cell: str | None = None, device: str = "cpu"
) -> list[str]:
    """The advice in lines, from runs; raises AdviceError where they have nothing to advise from.

    Args:
        frame: of runs, as `bench.load` gives it.
    """
    measured = _of_one_machine(frame[frame["device"] == device], device)
    cells = _cells(measured, cell)
    lines = [f"{mode} at {labels.in_words(shape)}, on {device}", *_source(measured).splitlines(), ""]
    records = rows(measured[(measured["mode"] == mode) & measured["median_s"].notna()])
    found = {name: ways(records, shape, mode, name) for name in cells}
    if not any(found.values()):
        who = cell or "any cell"
        raise AdviceError(f"{mode}: nothing measured of {who} together with the built-in: add --measure")
    near = {name: [way for way in known if not _too_far(way.record, shape)] for name, known in found.items()}
    if not any(near.values()):
        nearest = min((way for known in found.values() for way in known), key=lambda way: way.distance)
        raise AdviceError(
            f"{mode} at {labels.in_words(shape)}: too far from all that was measured; the nearest case has "
            f"{_differences(nearest.record, shape)}: add --measure"
        )
    for name, known in near.items():
        for baseline, ranked in groupby(known, key=lambda way: way.baseline):
            lines += [
                f"{name}, against {baseline}:",
                *(f"  {line}" for way in [*ranked][:_TOP] for line in _described(way, shape)),
                "",
            ]
    left_out = sum(map(len, found.values())) - sum(map(len, near.values()))
    too_far = f"Left out: ways measured at shapes more than {_TOO_FAR:.0f} times away alone: {left_out}."
    return [
        *lines,
        *([too_far] if left_out else []),
        "Each ratio is of two that were timed in turns: the ways under one heading rank, and no others.",
        "Each cell is another equation: only the ways of one can stand for each other.",
    ]


def _of_one_machine(frame: "pd.DataFrame", device: str) -> "pd.DataFrame":
    """The rows of this machine, or else of the one that was measured last, under its newest libraries."""
    if frame.empty:
        raise AdviceError(f"no records of device {device}: measure some, or add --measure")
    here = frame[frame["machine"] == machine_key()]
    by_age = (frame if here.empty else here).sort_values(_AGE, na_position="first")
    newest = by_age.iloc[-1]
    for name in ("machine", "tensorflow", "keras"):
        frame = frame[frame[name] == newest[name]]
    return frame


def _source(frame: "pd.DataFrame") -> str:
    first, runs = frame.iloc[0], frame["run_id"].nunique()
    versions = f"TensorFlow {first['tensorflow']}, Keras {first['keras']}"
    measured = f"measured on {first['machine']}, {versions}, in {counted(runs, 'run')}"
    if first["device"] == "cpu" and first["machine"] != machine_key():
        return f"{measured}\nNOT this machine, which is {machine_key()}: --measure measures here"
    return measured


def _cells(frame: "pd.DataFrame", wished: str | None) -> list[str]:
    """The cells to advise on, by equation; raises AdviceError where the wished one was not measured."""
    subjects = sorted(rows(frame.drop_duplicates("subject")), key=labels.order)
    known = list(dict.fromkeys(map(labels.family, subjects)))
    if wished is not None and wished not in known:
        raise AdviceError(_no_cell(wished, "not measured", known))
    return known if wished is None else [wished]


def _no_cell(wished: str | None, why: str, known: Iterable[str]) -> str:
    if ":" in (wished or ""):
        why = (
            "a cell of a file goes by its name alone, once `python -m bench run --cell=FILE:CELL` measured it"
        )
    return f"--cell {wished}: {why}; there are {', '.join(known)}"


def ways(records: Iterable[Record], shape: Shape, mode: str, cell: str) -> list[Way]:
    """The ways to run a cell; each once a baseline, at its nearest shape, from its newest run.

    Those against the plain built-in come first, within one baseline the fastest. Of other baselines only
    what is surely faster is a way.
    """
    frame = select.framed(records, *_AGE, "baseline_median_s")
    known = (frame["mode"] == mode) & (frame["status"] == "ok") & (frame["dtype"] == _DTYPE)
    frame = frame[known & frame["median_s"].notna() & frame["record"].map(_is_same_answer).astype(bool)]
    starts = {(each.run_id, each.case): _start(each.record) for each in frame.itertuples()}
    timed = frame[frame["family"] == cell].dropna(subset=["baseline", "ratio", "baseline_median_s"])
    timed = timed[timed["baseline"].map(_is_way).astype(bool)]
    timed = timed.assign(
        against=timed["record"].map(_baseline_name),
        distance=timed["record"].map(lambda record: _distance(record, shape)),
    )
    by_distance = timed.sort_values(["distance", *_AGE], ascending=[True, *[False for _ in _AGE]])
    nearest = [
        Way(
            each.record,
            each.against,
            starts.get((each.run_id, each.baseline)),
            quantities.ratio_of(each.record),
            each.distance,
        )
        for each in by_distance.drop_duplicates(["subject", "options", "against"]).itertuples()
    ]
    gains = [way for way in nearest if _is_against_builtin(way) or way.ratio.high < 1]
    return sorted(gains, key=lambda way: (not _is_against_builtin(way), way.baseline, way.ratio.value))


def _is_against_builtin(way: Way) -> bool:
    return way.record["baseline"] == _builtin_id(way.record)


def _has_code(record: Record) -> bool:
    """True where a line of code can say how to run the record's subject: a peer has none."""
    layer = _layer(record)
    return record["cell"] in _BUILTINS if layer == "builtin" else layer in {**_LAYERS, **_FUNCTIONS}


def _layer(record: Record) -> str:
    """What runs the record's cell; on another back end it is a layer of Keras', or `RNN`."""
    if record["layer"] not in BACKENDS:
        return record["layer"]
    return "builtin" if record["cell"] in _BUILTINS else "rnn"


def _is_same_answer(record: Record) -> bool:
    """True where a line of code can say the record's case, and its options leave the answer as it is."""
    return _has_code(record) and set(labels.options(record)) <= set(_WAYS)


def _distance(record: Record, shape: Shape) -> float:
    return math.hypot(*(math.log2(_factor(record, shape, name)) for name in SHAPE))


def _is_way(case: str) -> bool:
    """True where a line of code can say the case of this id, and its options leave the answer as it is."""
    parts = id_parts(case)
    return _has_code({"cell": parts.cell, "layer": parts.layer}) and set(parts.options) <= set(_WAYS)


def _baseline_name(record: Record) -> str:
    """The baseline's name with its options, `as it comes` where it has none."""
    parts = id_parts(str(record["baseline"]))
    label = labels.baseline_label(record)
    return (
        f"{label}, {labels.option_name('-'.join(parts.options))}" if parts.options else f"{label} as it comes"
    )


def _builtin_id(record: Record) -> str:
    """The id of the built-in that the record's subject stands for, at the record's shape, without options."""
    subject = SUBJECTS.get(record["subject"])
    name = subject.baseline if subject else id_parts(record["baseline"]).subject
    return f"{record['mode']}-{name}-{shape_id(record)}"


def _factor(record: Record, shape: Shape, name: str) -> float:
    return record[name] / shape[name]


def _described(way: Way, shape: Shape) -> Iterator[str]:
    """A way in lines: what it is and its ratio, how near it was measured, what its start costs, the code."""
    record = way.record
    named = ", ".join((labels.label(record), *map(labels.option_name, labels.options(record))))
    yield f"{named}: {ratio_text(way.ratio)} the time of {way.baseline}"
    yield f"  {formatting.seconds(record['median_s'])} a call, {nearness(record, shape)}"
    yield f"  {break_even(way)}; proof: {record['proof'] or 'unknown'}"
    yield f"  {code(record, shape['units'])}"


def nearness(record: Record, shape: Shape) -> str:
    """Says how near a measured case is to the wished shape."""
    if not _differences(record, shape):
        return "measured at this very shape"
    far = _farthest(record, shape) > _FAR
    return f"measured at {_differences(record, shape)}" + (
        ": far, --measure would know better" if far else ""
    )


def _differences(record: Record, shape: Shape) -> str:
    """In what a measured case differs from the wished shape, in words."""
    others = [name for name in SHAPE if record[name] != shape[name]]
    return ", ".join(
        f"{labels.AXES.get(name, name)} {record[name]} instead of {shape[name]}" for name in others
    )


def _farthest(record: Record, shape: Shape) -> float:
    """The factor by which a measured case differs most from the wished shape, in any of its sizes."""
    factors = [_factor(record, shape, name) for name in SHAPE]
    return max(*factors, *(1 / factor for factor in factors))


def _too_far(record: Record, shape: Shape) -> bool:
    return _farthest(record, shape) > _TOO_FAR


def break_even(way: Way) -> str:
    """Says what a way costs before its first call, and after how many calls it has earned that."""
    start, plain = _start(way.record), way.baseline_start_s
    if start is None:
        return "what compiling costs is not known"
    takes = f"traces and compiles in {formatting.seconds(start)}"
    if way.record["case"] == way.record["baseline"]:
        return takes
    compared = f", {_the_other(way)} in {formatting.seconds(plain)}" if plain is not None else ""
    if plain is not None and start <= plain:
        return takes + compared
    calls = calls_to_pay(start - (plain or 0), way.record["baseline_median_s"], way.ratio)
    if calls is None:
        return f"{takes}{compared}: never pays"
    return f"{takes}{compared}: pays after {'at most ' if plain is None else ''}{in_words(calls)}"


def _the_other(way: Way) -> str:
    return "the built-in" if _is_against_builtin(way) else "the other"


def _start(record: Record) -> float | None:
    start = quantities.start_of(record)
    return start.value if start else None


def code(record: Record, units: int) -> str:
    """The line of code that is this way; `inputs` in it is a batch of sequences."""
    layer = _layer(record)
    given = [_WAYS[word] for word in labels.options(record)]
    of_layer, of_cell = (
        [argument for argument, is_layers in given if argument and is_layers == wanted]
        for wanted in (True, False)
    )
    cell = f"{_cell_class(record)}({', '.join([str(units), *of_cell])})"
    if layer == "builtin":
        made = f"{cell[:-1]}, {', '.join(['return_sequences=True', *of_layer])})"
    elif layer in _FUNCTIONS:
        made = f"outputs, states = {_FUNCTIONS[layer]}({cell}, inputs)"
    else:
        made = f"{_LAYERS[layer]}({', '.join([cell, 'return_sequences=True', *of_layer])})"
    if record["layer"] in BACKENDS:
        return f"{made}  # with KERAS_BACKEND={BACKENDS[record['layer']].name}"
    return f"{made}  # and model.compile(…, jit_compile=True)" if "xla" in labels.options(record) else made


def _cell_class(record: Record) -> str:
    """The class of a cell (of a built-in, the layer's), as code; a user's cell is called by its name."""
    cell = record["cell"]
    if _layer(record) == "builtin":
        return f"keras.layers.{_BUILTINS[cell]}"
    if record["subject"] not in SUBJECTS:
        return cell
    if cell.startswith("keras_"):
        return f"keras.layers.{_BUILTINS[cell.removeprefix('keras_')]}Cell"
    return f'cells.CELLS["{cell}"]'


def subjects_to_measure(cell: str | None) -> tuple[str, ...]:
    """The subjects to measure for a cell, their built-ins first."""
    ours = [s for s in SUBJECTS.values() if s.layer not in {*PEER_LAYERS, *BACKENDS}]
    wanted = [subject for subject in ours if cell in (None, subject.cell.removeprefix("keras_"))]
    if not wanted:
        known = dict.fromkeys(subject.cell.removeprefix("keras_") for subject in ours)
        raise AdviceError(_no_cell(cell, "there is no such cell", known))
    return tuple(dict.fromkeys([*(subject.baseline for subject in wanted), *(s.name for s in wanted)]))
