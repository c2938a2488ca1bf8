"""Write a run's CSV as its records are made, and read it back row by row.

The row of the case in flight stands in the file before the case starts, as `failed`/`killed`, and is replaced
when the case ends: whatever kills the process, the file is true.
"""

import csv
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, cast

from bench.records.files import open_regular, write_whole
from bench.records.schema import (
    BY_NAME,
    COLUMNS,
    DEFAULTS,
    EMPTY,
    KEY,
    KILLED,
    TRUTH,
    Column,
    Record,
    RecordError,
    Value,
    check_status,
    check_value,
)
from bench.records.text import counted

RECORDS_FILE = "records.csv"
# pandas writes its index without a name, and reads it back as `Unnamed: 0`
_INDEX = ("", "Unnamed: 0")
CUT = "the last line was cut and is left out"


class RecordWriter:
    """Writes a run's CSV, each record on the disk before the next case starts.

    `begin` writes the row of the case that is about to run, as `failed`/`killed`; `finish` writes the row of
    the case that has ended in its place. The file is replaced in one step each time, so that whatever kills
    the process, or fills the disk, leaves the rows that were there. Compared with a case's seconds, writing a
    few hundred rows is nothing.
    """

    def __init__(self, folder: Path):
        """Makes `folder`, which must not exist, and a CSV without rows; raises OSError where it cannot."""
        folder.mkdir(parents=True)
        self.path = folder / RECORDS_FILE
        self._header = line([column.name for column in COLUMNS])
        self._rows: list[bytes] = []
        self._write()

    def begin(self, record: Mapping[str, Value]) -> None:
        """Writes the row of the case in flight; raises OSError."""
        self._write(line({**record, **KILLED}.values()))

    def finish(self, record: Mapping[str, Value]) -> None:
        """Writes the row of the case that has ended, in place of that in flight; raises OSError."""
        self._rows.append(line(record.values()))
        self._write()

    def revise(self, number: int, record: Mapping[str, Value]) -> None:
        """Writes a row in place of the one that was finished as the `number`-th, from 0; raises OSError."""
        self._rows[number] = line(record.values())
        self._write()

    def _write(self, in_flight: bytes = b"") -> None:
        write_whole(self.path, b"".join((self._header, *self._rows, in_flight)))


def write_records(folder: Path, records: Iterable[Mapping[str, Value]]) -> None:
    """Writes the CSV of a run whose records are all there, in one step; raises OSError."""
    rows = [[column.name for column in COLUMNS], *(record.values() for record in records)]
    write_whole(folder / RECORDS_FILE, b"".join(map(line, rows)))


def line(values: Iterable[Value]) -> bytes:
    """A line of a CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_text(value) for value in values])
    return text.getvalue().encode()


def _text(value: Value) -> str:
    if value is None:
        return ""
    return repr(value) if isinstance(value, float) else str(value)


def records_file(path: Path) -> Path:
    """The CSV that `path`, a run's folder or a CSV, stands for; raises RecordError where there is none."""
    path = Path(path)
    try:
        found = path / RECORDS_FILE if path.is_dir() else path
        found.stat()
    except FileNotFoundError:
        raise RecordError(f"{found}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise RecordError(f"{path}: cannot be read: {error}") from None
    return found


def read_records(path: Path) -> list[Record]:
    """The records of a run's folder or CSV; an empty value has the column's default.

    A last line that was cut is left out with a warning. What pandas or a spreadsheet makes of a CSV (numbers
    with a decimal point, a byte order mark, other line ends, an index) is read too.

    Raises:
        RecordError: with file and row, for anything else that is not a record.
    """
    file = records_file(path)
    with open_regular(file) as opened:
        records = list(parsed(file, opened))
        if is_cut(opened):
            warnings.warn(f"{file}: {CUT}", stacklevel=2)
    return records


def is_cut(opened: BinaryIO) -> bool:
    """Whether the last line of an opened CSV does not end."""
    size = opened.seek(0, os.SEEK_END)
    opened.seek(max(size - 1, 0))
    return opened.read(1) not in (b"\n", b"")


def parsed(file: Path, opened: BinaryIO) -> Iterator[Record]:
    """The records of an opened CSV, one after another; a last line that does not end is left out.

    Raises:
        RecordError: as `read_records` does.
    """
    rows = _rows(file, _texts(file, opened))
    header = _header(file, rows)
    seen: set[tuple] = set()
    for where, row in rows:
        record = _parsed_row(f"{file}, row {where}", header, row)
        key = tuple(cast(dict, record)[name] for name in KEY)
        if key in seen:
            raise RecordError(f"{file}, row {where}: {same_twice(key)}")
        seen.add(key)
        yield record


def same_twice(key: Iterable[Value]) -> str:
    """That two rows of a file are about the same case; `key` are its values of `KEY`."""
    return f"the same case twice: {', '.join(map(str, key))}"


def _texts(file: Path, opened: BinaryIO) -> Iterator[str]:
    """The lines that end, as text."""
    for number, whole in enumerate(opened, 1):
        if whole.endswith(b"\n"):
            try:
                yield whole.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise RecordError(f"{file}, row {number}: not text: {error}") from error


def _rows(file: Path, lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The rows with their numbers, the header's being 1."""
    reader = csv.reader(lines, strict=True)
    for number in count(1):
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise RecordError(f"{file}, row {number}: not a CSV: {error}") from error
        if row is None:
            return
        yield number, row


def read_header(file: Path, line: bytes) -> list[str]:
    """The columns that the first line of a CSV names; raises RecordError where it is no header."""
    return _header(file, _rows(file, _texts(file, io.BytesIO(line))))


def _header(file: Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, header = next(rows, (1, None))
    if header is None:
        raise RecordError(f"{file}, row 1: no columns: the file is empty or was cut there")
    _check_header(file, header)
    return header


def _check_header(file: Path, header: list[str]) -> None:
    """Raises RecordError for a column that is unknown, there twice or missing."""
    names = [name for name in header if name not in _INDEX]
    for name, problem in (
        *((name, "unknown: made by a newer version?") for name in names if name not in BY_NAME),
        *((name, "there twice") for name in names if names.count(name) > 1),
        *((name, "missing") for name in (*KEY, "status") if name not in names),
    ):
        raise RecordError(f"{file}, row 1: column {name[:50]!r}: {problem}")


def _parsed_row(where: str, header: list[str], row: list[str]) -> Record:
    if len(row) != len(header):
        raise RecordError(f"{where}: {counted(len(row), 'value')} for {counted(len(header), 'column')}")
    try:
        values = check_status(
            DEFAULTS
            | {
                name: _READ[name](text)
                for name, text in zip(header, row, strict=True)
                if text not in EMPTY and name in _READ
            }
        )
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from error
    return cast(Record, values)


def _integer(text: str) -> int:
    """An integer, also as pandas writes it where others of its column are empty: `2.0`."""
    try:
        return int(text)
    except ValueError:
        if len(text) > 40 or not float(text).is_integer():
            raise
        return int(float(text))


_READERS: dict[type, Callable[[str], Value]] = {
    str: str,
    int: _integer,
    float: float,
    bool: TRUTH.__getitem__,
}


def read_value(column: Column, text: str) -> Value:
    """The value that a text of a CSV stands for; raises RecordError where it stands for none."""
    try:
        if "_" in text and column.kind is not str:  # Python reads 1_0 as 10
            raise ValueError(text)
        value = _READERS[column.kind](text)
    except (ValueError, KeyError, OverflowError):
        raise RecordError(f"{column.name}: {text!r} is not a {column.kind.__name__}") from None
    return check_value(column, value)


# the same few texts stand in row after row, but for measured figures: remembering them makes reading three
# times as fast
_READ: dict[str, Callable[[str], Value]] = {
    column.name: partial(read_value, column)
    if column.kind is float
    else lru_cache(maxsize=512)(partial(read_value, column))
    for column in COLUMNS
}
