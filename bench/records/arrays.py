"""Turn the text of a CSV into arrays, a column each, as pandas does it in one go; and arrays into records.

pandas guesses, fills up and bears with a lot: a text that it might have got wrong is refused, to be read row
by row. It is imported where it is used: that takes most of a second.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from bench.records.csv_file import read_value
from bench.records.schema import (
    BY_NAME,
    COLUMNS,
    EMPTY,
    REASONS,
    STATUSES,
    TIMINGS,
    RecordError,
    Value,
)

# measured: nearly all values differ, and pandas converts them; of the other columns each different text is
# converted once
_MEASURED = frozenset(column.name for column in COLUMNS if column.kind is float and column.default is None)
_FREE_TEXTS = frozenset(("timestamp", "message", "fallback"))  # too many different ones for categories
_LONGEST_TEXT = 2**17  # of a value: the limit of Python's own CSV reader

Columns = dict[str, Any]  # by name, an array of numpy's or of pandas'


def convert(header: list[str], text: bytes) -> Columns | None:
    """Converts whole rows of a CSV; None where the arrays might not say what the text does."""
    split = _split(header, text)
    if split is None or not _is_split_right(split, text):
        return None
    try:
        columns = {name: _column(name, split[name]) for name in header if name in BY_NAME}
    except RecordError:
        return None
    for name, column in BY_NAME.items():
        if name not in columns:
            columns[name] = array_of(name, [column.default]).take(np.zeros(text.count(b"\n"), int))
    return columns if _has_right_statuses(columns) else None


def _split(header: list[str], text: bytes) -> "dict[str, np.ndarray | _Texts] | None":
    """The rows as pandas splits them, None where it cannot: measured columns as numbers, the others as texts.

    A row goes before them that keeps pandas from guessing: from taking texts that look like numbers, or a
    column of nothing but truth values, for numbers.
    """
    import pandas as pd

    kinds = {name: "float64" if name in _MEASURED else "category" for name in header}
    guard = ",".join("0.5" if kind == "float64" else "~" for kind in kinds.values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            split = pd.read_csv(
                BytesIO(f"{guard}\n".encode() + text),
                names=header,
                header=None,
                index_col=False,
                dtype=kinds,
                keep_default_na=False,
                na_values=list(EMPTY),
                skip_blank_lines=False,
            )
    except (ValueError, OverflowError, pd.errors.ParserError):
        return None
    return {
        name: values.to_numpy()[1:]
        if name in _MEASURED
        else _Texts([*values.cat.categories], values.cat.codes.to_numpy()[1:])
        for name, values in split.items()
    }


@dataclass(frozen=True)
class _Texts:
    """A column as pandas splits it: its different texts, and for each row the place of its text, or -1."""

    different: list[str]
    places: "np.ndarray"

    def counted(self) -> Iterator[tuple[str, int]]:
        """The different texts, and how many rows have each."""
        counts = np.bincount(self.places[self.places >= 0], minlength=len(self.different))
        return zip(self.different, counts.tolist(), strict=True)


def _is_split_right(split: "Mapping[str, np.ndarray | _Texts]", text: bytes) -> bool:
    """Whether a strict reader would split the text into the same values.

    pandas fills up short rows, cuts long ones and bears with stray quotes; then the text has another number
    of commas or quotes than its values.
    """
    lines = text.count(b"\n")
    if b"\0" in text or text.count(b"\r") not in (0, text.count(b"\r\n")):
        return False
    commas, quotes = lines * (len(split) - 1), 0
    for values in split.values():
        if len(values.places if isinstance(values, _Texts) else values) != lines:
            return False
        for value, count in values.counted() if isinstance(values, _Texts) else ():
            if len(value) > _LONGEST_TEXT:
                return False
            commas += count * value.count(",")
            quotes += count * (2 + 2 * value.count('"')) if set(value) & set(',"\r\n') else 0
    return commas == text.count(b",") and quotes == text.count(b'"')


def _column(name: str, values: "np.ndarray | _Texts") -> Any:
    """The column's values from what pandas has split; raises RecordError where they cannot be converted."""
    column = BY_NAME[name]
    if not isinstance(values, _Texts):
        if np.isinf(values).any():
            raise RecordError(f"{name}: not finite")
        return values
    different = [read_value(column, text) if count else None for text, count in values.counted()]
    return array_of(name, [*different, column.default]).take(values.places)  # -1, empty, is the last


def array_of(name: str, values: Sequence[Value]) -> Any:
    """The values as an array of the column's type, as it is before rows are left out: any may be missing."""
    import pandas as pd

    column = BY_NAME[name]
    if column.kind is float:
        return np.array(values, float)  # None becomes nan
    if column.kind is not str:
        return pd.array(values, dtype="Int64" if column.kind is int else "boolean")
    if name in _FREE_TEXTS:
        return pd.array(values, dtype="string")
    texts = sorted({value for value in values if value is not None}, key=str)
    return pd.Categorical(values, categories=pd.Index(texts, dtype=str))


def _has_right_statuses(columns: Columns) -> bool:
    """Whether each row has a status, a reason where it is not `ok`, and a timing only where it is."""
    status, reason = columns["status"], columns["reason"]
    ok = np.asarray(status == "ok")
    return (
        set(status.categories) <= set(STATUSES)
        and not status.isna().any()
        and set(reason.categories) <= set(REASONS)
        and bool((reason.isna() == ok).all())
        and not any((~is_empty(columns[name]) & ~ok).any() for name in TIMINGS)
    )


def is_empty(values: Any) -> "np.ndarray":
    return np.isnan(values) if isinstance(values, np.ndarray) else np.asarray(values.isna())


def as_floats(values: Any) -> "np.ndarray":
    return values if isinstance(values, np.ndarray) else values.to_numpy("float64", na_value=np.nan)


def records_of(columns: Mapping[str, Any], names: Iterable[str]) -> list[dict[str, Value]]:
    """Rows as mappings, None where a value is missing."""
    import pandas as pd

    names = list(names)
    lists = [
        values.astype(object).where(values.notna(), None).tolist()
        for values in (pd.Series(columns[name]) for name in names)
    ]
    return [dict(zip(names, row, strict=True)) for row in zip(*lists, strict=True)]


def final(name: str, values: Any) -> Any:
    """The column's array, of numpy's types where no value can be missing."""
    column = BY_NAME[name]
    if column.kind in (int, bool) and (column.required or column.default is not None):
        return values.to_numpy(column.kind)
    return values
