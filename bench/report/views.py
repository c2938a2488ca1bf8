"""The names that history and gate know: see `labels`, `quantities` and `select`."""

from bench.records.schema import SHAPE
from bench.report.labels import (
    Record,
    baseline_label,
    family,
    in_words,
    label,
    option_name,
    options,
    order,
    shape,
    short_shape,
)
from bench.report.quantities import ratio_of, time_of

__all__ = [
    "SHAPE",
    "Record",
    "baseline_label",
    "family",
    "in_words",
    "label",
    "option_name",
    "options",
    "order",
    "ratio_of",
    "shape",
    "short_shape",
    "time_of",
]
