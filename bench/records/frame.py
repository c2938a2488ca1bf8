"""Read runs into a pandas DataFrame: one row a record, columns with real dtypes.

`arrays` converts the files, many at once. A file that pandas might take for something else is read row by row
by `csv_file`, which names what is wrong.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from bench.records import plausible
from bench.records.arrays import Columns, array_of, as_floats, convert, final, is_empty, records_of
from bench.records.csv_file import (
    CUT,
    is_cut,
    parsed,
    read_header,
    same_twice,
)
from bench.records.environment import flat
from bench.records.files import open_regular
from bench.records.run_folder import check_not_mixed, left_out, read_environment, record_files
from bench.records.schema import (
    BY_NAME,
    KEY,
    STATUSES,
    ImpossibleRow,
    Record,
    RecordError,
    Value,
)

if TYPE_CHECKING:
    import pandas as pd

_BLOCK_BYTES = 2**24  # converted at once: some 20,000 rows
_BLOCK_ROWS = 20_000  # the same, where rows are read one by one
Paths = Path | str | Sequence[Path | str]
Choice = str | Iterable[str] | None


def load(
    path: Paths = "results", *, sweep: Choice = None, status: Choice = None, environment: bool = False
) -> "pd.DataFrame":
    """Loads the records of runs, one a row.

    Args:
        path: a folder of runs, a run's folder, a CSV of records, or several of these.
        sweep: the sweep, or the sweeps, to choose; None chooses all.
        status: the same of `ok`, `skipped` and `failed`.
        environment: adds what each run ran on, a column a fact, such as `environment.machine.cores`.

    Returns:
        the columns that `bench.records.schema.Record` declares, in its order, and `run`, the folder of the
        record's run. Texts are categories or strings; integers int64, truth values bool, or Int64 and boolean
        where a value may be missing; other numbers float64. An option that is not used has its default, in
        runs of older versions too.

    Raises:
        ImpossibleRow: a row cannot be; it names file and row.
        RecordError: a file cannot be read, with its row; a sweep or a status is not there, with those that
            are. `load_with_notices` leaves out instead what cannot be read or cannot be.
    """
    frame, problems = _load(path, environment)
    if problems:
        raise problems[0].error
    return _chosen(frame, sweep, status)


def load_with_notices(
    path: Paths = "results", *, sweep: Choice = None, status: Choice = None, environment: bool = False
) -> tuple["pd.DataFrame", list[str]]:
    """Loads what can be used of runs; the arguments are those of `load`.

    Returns:
        the frame that `load` gives, without the runs that cannot be read and the rows that cannot be; and for
        each run that is left out, wholly or in part, a line that says why.

    Raises:
        RecordError: there is no run, or a sweep or a status is not there.
    """
    frame, problems = _load(path, environment)
    return _chosen(frame, sweep, status), [problem.notice for problem in problems]


def rows(frame: "pd.DataFrame") -> list[Record]:
    """The records of a frame's rows, None where a value is missing."""
    return cast(list[Record], records_of(frame, BY_NAME))


def _chosen(frame: "pd.DataFrame", sweep: Choice, status: Choice) -> "pd.DataFrame":
    for name, choice, known in (
        ("sweep", sweep, frame["sweep"].dropna().unique()),
        ("status", status, STATUSES),
    ):
        wanted = [choice] if isinstance(choice, str) else choice if choice is None else list(choice)
        if wanted is None:
            continue
        if strange := [each for each in wanted if each not in known]:
            raise RecordError(f"{name} {strange[0]!r}: not there; there are {', '.join(sorted(known))}")
        frame = frame[frame[name].isin(wanted)]
    return frame.reset_index(drop=True)


# --- files ---


@dataclass(frozen=True)
class _Problem:
    """What is wrong with a file: as a notice of what is left out, and as an error that names its row."""

    notice: str
    error: RecordError


@dataclass
class _Reading:
    """Files as they are being read.

    Attributes:
        files: the CSVs.
        chunks: what was read of them, some rows each.
        problems: what is wrong, by the number of the file.
        odd: the numbers of the files that are to be read row by row.
    """

    files: list[Path]
    chunks: list[Columns] = field(default_factory=list)
    problems: dict[int, list[_Problem]] = field(default_factory=dict)
    odd: set[int] = field(default_factory=set)

    def tell(self, number: int, notice: str, error: RecordError | None = None) -> None:
        self.problems.setdefault(number, []).append(_Problem(notice, error or RecordError(notice)))

    def leave_out(self, number: int, error: RecordError) -> None:
        """Leaves out a file that cannot be used."""
        self.forget(number)
        self.tell(number, f"left out: {error}", error)

    def forget(self, number: int) -> None:
        for chunk in self.chunks:
            if (chunk["file"] == number).any():
                _keep(chunk, chunk["file"] != number)


@dataclass(frozen=True)
class _Part:
    """Whole rows of a file: the number of the file, that of the first row, and the text."""

    number: int
    first_row: int
    text: bytes

    @property
    def count(self) -> int:
        return self.text.count(b"\n")


def _load(path: Paths, environment: bool) -> tuple["pd.DataFrame", list[_Problem]]:
    """All records that can be used, and what is wrong with the others."""
    paths = [path] if isinstance(path, (str, Path)) else path
    reading = _Reading([file for each in paths for file in record_files(Path(each))])
    for header, parts in _batches(reading):
        _convert(reading, header, parts)
    for number in sorted(reading.odd):
        _read_row_by_row(reading, number)
    columns = _joined(reading)
    _leave_out_repeated(reading, columns)
    _leave_out_impossible(reading, columns)
    check_not_mixed(_machines(reading, columns))
    frame = _frame(reading, columns)
    if environment:
        frame = _with_environment(frame, reading, columns["file"])
    return frame, [problem for _, problems in sorted(reading.problems.items()) for problem in problems]


def _machines(reading: _Reading, columns: Columns) -> Iterator[tuple[Path, str]]:
    """The files, each with the hardware keys of its rows."""
    import pandas as pd

    found = pd.DataFrame({"file": columns["file"], "machine": columns["machine"]}).drop_duplicates()
    for number, machine in found.itertuples(index=False):
        yield reading.files[number], str(machine)


def _batches(reading: _Reading) -> Iterator[tuple[list[str], list[_Part]]]:
    """Parts of files that have the same header, as many as are worth a call of pandas."""
    waiting: dict[tuple[str, ...], list[_Part]] = {}
    sizes: Counter[tuple[str, ...]] = Counter()
    for number, file in enumerate(reading.files):
        try:
            with open_regular(file) as opened:
                header = tuple(read_header(file, opened.readline()))
                for part in _parts(opened, number):
                    waiting.setdefault(header, []).append(part)
                    sizes[header] += len(part.text)
                    if sizes[header] >= _BLOCK_BYTES:
                        del sizes[header]
                        yield list(header), waiting.pop(header)
                if is_cut(opened):
                    reading.tell(number, f"{file}: {CUT}")
        except (RecordError, OSError):  # `csv_file` says what is wrong
            reading.odd.add(number)
    for header, parts in waiting.items():
        yield list(header), parts


def _parts(opened: BinaryIO, number: int) -> Iterator[_Part]:
    """The rows of an opened file behind its header, so many at once."""
    rest, row = b"", 2
    while block := opened.read(_BLOCK_BYTES):
        whole, newline, rest = (rest + block).rpartition(b"\n")
        if newline:
            part = _Part(number, row, whole + newline)
            row += part.count
            yield part


def _convert(reading: _Reading, header: list[str], parts: list[_Part]) -> None:
    """Converts parts of files at once, or else each alone, or else leaves a file to be read row by row."""
    parts = [part for part in parts if part.number not in reading.odd]
    columns = convert(header, b"".join(part.text for part in parts)) if parts else None
    if columns is not None:
        columns["file"] = np.concatenate([np.full(part.count, part.number) for part in parts])
        columns["row"] = np.concatenate([part.first_row + np.arange(part.count) for part in parts])
        reading.chunks.append(columns)
    elif len(parts) > 1:
        for part in parts:
            _convert(reading, header, [part])
    else:
        reading.odd.update(part.number for part in parts)


def _read_row_by_row(reading: _Reading, number: int) -> None:
    """Reads a file by `csv_file`, which either understands it or names what is wrong."""
    file = reading.files[number]
    reading.forget(number)
    try:
        with open_regular(file) as opened:
            records, row = parsed(file, opened), 2
            while some := cast(list[dict[str, Value]], list(islice(records, _BLOCK_ROWS))):
                columns = {name: array_of(name, [record[name] for record in some]) for name in BY_NAME}
                columns["file"] = np.full(len(some), number)
                columns["row"] = row + np.arange(len(some))
                row += len(some)
                reading.chunks.append(columns)
    except RecordError as error:
        reading.leave_out(number, error)
    except OSError as error:
        reading.leave_out(number, RecordError(f"{file}: cannot be read: {error}"))


def _keep(columns: Columns, kept: "np.ndarray") -> None:
    """Keeps only the rows that are marked."""
    for name in columns:
        columns[name] = columns[name][kept]


def _joined(reading: _Reading) -> Columns:
    """Joins the chunks, in the order of files and rows, and uses them up, which saves half the memory."""
    empty: Columns = {name: array_of(name, []) for name in BY_NAME}
    chunks = reading.chunks or [{**empty, "file": np.zeros(0, int), "row": np.zeros(0, int)}]
    joined = {name: _together([chunk.pop(name) for chunk in chunks]) for name in [*chunks[0]]}
    reading.chunks.clear()
    if (np.diff(joined["file"]) < 0).any():
        order = np.lexsort((joined["row"], joined["file"]))
        for name in joined:
            joined[name] = joined[name].take(order)
    return joined


def _together(arrays: list[Any]) -> Any:
    import pandas as pd

    if isinstance(arrays[0], pd.Categorical):
        return pd.api.types.union_categoricals(arrays, sort_categories=True)
    if isinstance(arrays[0], np.ndarray):
        return np.concatenate(arrays)
    return pd.concat([pd.Series(array) for array in arrays], ignore_index=True).array


# --- rows that are left out ---


def _leave_out_repeated(reading: _Reading, columns: Columns) -> None:
    """Leaves out the files in which a case stands twice."""
    import pandas as pd

    keys = pd.DataFrame({name: columns[name] for name in ("file", *KEY)}, copy=False)
    repeated = np.flatnonzero(keys.duplicated())
    numbers, first = np.unique(columns["file"][repeated], return_index=True)
    for number, index in zip(numbers.tolist(), repeated[first], strict=True):
        key = [None if pd.isna(columns[name][index]) else columns[name][index] for name in KEY]
        where = f"{reading.files[number]}, row {columns['row'][index]}"
        reading.leave_out(number, RecordError(f"{where}: {same_twice(key)}"))
    if numbers.size:
        _keep(columns, ~np.isin(columns["file"], numbers))


def _leave_out_impossible(reading: _Reading, columns: Columns) -> None:
    """Leaves out the rows that cannot be."""
    size = len(columns["file"])
    known: dict[int, bool] = {}
    wrong = np.zeros(size, bool)
    for start in range(0, size, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        wrong[block] = _impossible({name: values[block] for name, values in columns.items()}, known)
    if not wrong.any():
        return
    refused = {name: values[wrong] for name, values in columns.items()}
    whats: dict[int, dict[int, str]] = {}
    places = zip(refused["file"].tolist(), refused["row"].tolist(), records_of(refused, BY_NAME), strict=True)
    for number, row, record in places:
        whats.setdefault(number, {})[row] = plausible.impossible(record) or "cannot be"
    for number, of_file in whats.items():
        file, first = reading.files[number], min(of_file)
        rows_of_file = int((columns["file"] == number).sum())
        error = ImpossibleRow(f"{file}, row {first}: {of_file[first]}")
        reading.tell(number, left_out(file, of_file, rows_of_file), error)
    _keep(columns, ~wrong)


def _impossible(columns: Columns, known: dict[int, bool]) -> "np.ndarray":
    """Which rows cannot be.

    Args:
        known: whether rows contradict their ids, by the hash of what is looked at; gets what is found.
    """
    numbers: Columns = {name: as_floats(columns[name]) for name in plausible.NUMBERS}
    numbers["ok"] = np.asarray(columns["status"] == "ok")
    wrong = _contradict(columns, known)
    for name in plausible.REQUIRED:
        wrong |= is_empty(columns[name])
    with np.errstate(all="ignore"):
        for rule in plausible.RULES:
            wrong |= rule.is_broken(numbers)
    return wrong


def _contradict(columns: Columns, known: dict[int, bool]) -> "np.ndarray":
    """Which rows contradict their ids; rows that say the same, of whatever run, are looked at once."""
    import pandas as pd

    names = pd.DataFrame({name: columns[name] for name in plausible.NAMES}, copy=False)
    hashes, first, which = np.unique(
        pd.util.hash_pandas_object(names, index=False).to_numpy(), return_index=True, return_inverse=True
    )
    keys = hashes.tolist()
    new = [place for place, key in enumerate(keys) if key not in known]
    different = {name: columns[name].take(first[new]) for name in plausible.NAMES}
    for place, record in zip(new, records_of(different, plausible.NAMES), strict=True):
        known[keys[place]] = plausible.contradicts_id(record) is not None
    return np.array([known[key] for key in keys], bool)[which]


# --- the frame ---


def _frame(reading: _Reading, columns: Columns) -> "pd.DataFrame":
    import pandas as pd

    made = {name: final(name, columns[name]) for name in BY_NAME}
    runs = [str(file.parent) for file in reading.files]
    made["run"] = pd.Categorical(runs).take(columns["file"]) if runs else pd.Categorical([])
    return pd.DataFrame(made, copy=False)


def _with_environment(frame: "pd.DataFrame", reading: _Reading, numbers: "np.ndarray") -> "pd.DataFrame":
    """The frame with the facts of each run's environment."""
    import pandas as pd

    facts: dict[int, dict[str, Any]] = {}
    for number in np.unique(numbers).tolist():
        try:
            found = read_environment(reading.files[number])
            facts[number] = dict(flat(found))
        except RecordError as error:
            reading.tell(number, str(error))
    names = dict.fromkeys(name for of_run in facts.values() for name in of_run)
    of_files = {
        f"environment.{name}": _inferred(
            [facts.get(number, {}).get(name) for number in range(len(reading.files))]
        )
        for name in names
    }
    more = {name: values.take(numbers) for name, values in of_files.items()}
    return pd.concat([frame, pd.DataFrame(more, index=frame.index)], axis=1)


def _inferred(values: list[Any]) -> Any:
    """The values as an array of their type, as one of texts where they have several."""
    import pandas as pd

    kinds = {type(value) for value in values} - {type(None)}
    if len(kinds) > 1 and not kinds <= {int, float}:
        values = [None if value is None else str(value) for value in values]
    return pd.array(values)
