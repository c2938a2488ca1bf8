"""Find rows that cannot be: the one place that says which figures contradict each other or their case's id.

Every reader asks here, so that report, history, gate, advice and READMEs use the same rows. A rule works on
the numbers of one row and, element by element, on the columns of many.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.records import options
from bench.records.schema import COLUMNS, DEFAULTS, SHAPE, Value
from bench.records.text import one_line

_LEAST, _MOST = 1e-12, 1e18  # of anything: seconds, times as slow, operations of a call
# A ratio is of neighbouring calls, not the quotient of the medians, and times drift while they are
# measured. In 3,065 rows the two differed by 1.3% in the median, by a factor of 1.10 in one row of a hundred,
# and by 1.26 at most; beside other work on one core by 2.4.
_AGREEMENT = 5.0
NUMBERS = tuple(column.name for column in COLUMNS if column.kind is not str)
REQUIRED = tuple(column.name for column in COLUMNS if column.required)
# all that `contradicts_id` looks at: rows that have these in common need one look
NAMES = ("case", "baseline", "status", "subject", "mode", "cell", "layer", *SHAPE, *options.FIELDS)

_IN_ID = ("mode", "cell", "layer", *SHAPE)  # in this order, before the options

Numbers = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What cannot be.

    Attributes:
        columns: what the message names, the column to blame first.
        is_broken: takes the numbers of a row by column, nan where one is empty, and under `ok` whether its
            status is `ok`; or arrays of all these.
        message: what is wrong with the first column.
    """

    columns: tuple[str, ...]
    is_broken: Callable[[Numbers], Any]
    message: str


def _positive(name: str) -> Rule:
    return Rule((name,), lambda row: (row[name] < _LEAST) | (row[name] > _MOST), "must be above 0")


def _not_negative(name: str) -> Rule:
    return Rule((name,), lambda row: (row[name] < 0) | (row[name] > _MOST), "must not be negative")


def _share(name: str) -> Rule:
    return Rule((name,), lambda row: (row[name] < 0) | (row[name] >= 1), "must be from 0 to below 1")


def _part_of_a_timing(name: str) -> Rule:
    def is_broken(row: Numbers) -> Any:
        there = row["median_s"] == row["median_s"]  # an empty number, nan, is not equal to itself
        for other in _TIMING:
            there = there | (row[other] == row[other])
        return there & (row[name] != row[name])

    return Rule((name,), is_broken, "must be there, as in every timing")


def _proven(name: str, allowed: str) -> Rule:
    return Rule(
        (name, allowed), lambda row: row["ok"] & (row[name] > row[allowed]), "is more than its proof allows"
    )


_TIMING = ("median_s", "min_s", "rounds", "baseline_median_s", "ratio", "ratio_low", "ratio_high")
RULES: tuple[Rule, ...] = (
    *map(
        _positive,
        (
            *(*SHAPE, "depth", *_TIMING, "instances", "processes", "queued_s", "epoch_s", "characters_per_s"),
            *("sequences_per_s", "timesteps_per_s", "flops", "gflops_per_s", "roofline_fraction"),
        ),
    ),
    *map(
        _not_negative,
        (
            *("iqr_s", "trace_s", "compile_s", "sync_s", "graph_nodes", "peak_bytes", "retraces"),
            *("instance_spread", "load", "context_switches", "page_faults"),
            *("max_abs_error", "tolerance", "gradient_error", "gradient_tolerance"),
        ),
    ),
    *map(_share, ("dropout", "recurrent_dropout")),
    Rule(("stolen",), lambda row: (row["stolen"] < 0) | (row["stolen"] > 1), "must be from 0 to 1"),
    Rule(("drift",), lambda row: (row["drift"] < -1) | (row["drift"] > 1), "must be from -1 to 1"),
    *map(_part_of_a_timing, _TIMING),
    Rule(("min_s", "median_s"), lambda row: row["min_s"] > row["median_s"], "is above the median"),
    Rule(
        ("ratio", "ratio_low", "ratio_high"),
        lambda row: (row["ratio"] < row["ratio_low"]) | (row["ratio"] > row["ratio_high"]),
        "is outside its interval",
    ),
    Rule(
        ("ratio", "median_s", "baseline_median_s"),
        lambda row: (
            (row["ratio"] * row["baseline_median_s"] > _AGREEMENT * row["median_s"])
            | (_AGREEMENT * row["ratio"] * row["baseline_median_s"] < row["median_s"])
        ),
        f"is more than {_AGREEMENT:g} times, or less than 1 / {_AGREEMENT:g} of, what the medians say",
    ),
    _proven("max_abs_error", "tolerance"),
    _proven("gradient_error", "gradient_tolerance"),
)


def impossible(record: Mapping[str, Value]) -> str | None:
    """What of a record cannot be, on one line that begins with its column; None where all can."""
    found = _impossible(record)
    return None if found is None else one_line(found)


def _impossible(record: Mapping[str, Value]) -> str | None:
    missing = next((name for name in REQUIRED if record[name] is None), None)
    if missing:
        return f"{missing} is empty"
    numbers = {name: math.nan if record[name] is None else float(record[name] or 0) for name in NUMBERS}
    for rule in RULES:
        if rule.is_broken({**numbers, "ok": record["status"] == "ok"}):
            values = ", ".join(f"{name} {record[name]}" for name in rule.columns)
            return f"{values}: {rule.columns[0]} {rule.message}"
    return contradicts_id(record)


def contradicts_id(record: Mapping[str, Value]) -> str | None:
    """What of a record its case's id contradicts, beginning with the column; None where they say the same.

    An id is `MODE-CELL-LAYER-bN-tN-fN-uN`, and then a word for each option that is not the default.
    """
    parts = str(record["case"]).split("-")
    for name, said, part in zip(_IN_ID, _said(record, _IN_ID), [*parts, *_IN_ID], strict=False):
        if said != part:
            return f"{name} {record[name]}: the case's id is {record['case']}"
    if record["subject"] != f"{record['cell']}-{record['layer']}":
        return f"subject {record['subject']}: the case's id is {record['case']}"
    return _contradicts_options(record, parts[len(_IN_ID) :]) or _contradicts_baseline(record)


def _said(record: Mapping[str, Value], columns: tuple[str, ...]) -> Iterator[str]:
    """What an id says of these columns."""
    for name in columns:
        yield f"{name[0]}{record[name]}" if name in SHAPE else str(record[name])


def _contradicts_options(record: Mapping[str, Value], words: list[str]) -> str | None:
    """What the words behind the shape say of each option, and its default of an option without a word."""
    try:
        named = dict(options.read(word) for word in words)
    except options.UnknownOption as error:
        return f"case {record['case']}: {error}"
    if len(named) < len(words):
        return f"case {record['case']}: an option stands there twice"
    for name in options.FIELDS:
        wanted = named.get(name, _UNNAMED.get(name, DEFAULTS[name]))
        if record[name] != wanted and not _is_brought(name, record):
            return f"{name} {record[name]}: the case's id is {record['case']}"
    return None


_UNNAMED = {"implementation": 2}  # what an option is that an id does not name, where that is no default


def _is_brought(name: str, record: Mapping[str, Value]) -> bool:
    """Whether an option is what it is by something else than the case's id."""
    value = record[name]
    return (
        (name == "implementation" and value is None)  # the subject has no such option
        or (name == "implementation" and value == 1 and bool(record["recurrent_dropout"]))
        or (name == "merge_mode" and value == "concat" and record["bidirectional"])
        or (name == "static_timesteps" and value is False and record["mode"] == "generate")
    )


def _contradicts_baseline(record: Mapping[str, Value]) -> str | None:
    """A case is compared with another of its mode and shape: a ratio of anything else says nothing."""
    if record["baseline"] is None:
        return None
    parts = str(record["baseline"]).split("-")
    mode, _, _, *sizes = _said(record, _IN_ID)
    if [*parts[:1], *parts[3 : len(_IN_ID)]] != [mode, *sizes]:
        return f"baseline {record['baseline']}: not of the mode and shape of the case {record['case']}"
    return None
