"""Records: the columns, the CSV they are written to as they are made, and its reader.

One row a case and baseline. The row of the case in flight stands in the file before the case starts, as
`failed`/`killed`, and is replaced when the case ends: whatever kills the process, the file is true.
"""

import csv
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from bench.records.files import write_whole

RECORDS_FILE = "records.csv"
ENVIRONMENT_FILE = "environment.json"
TASKS_FILE = "tasks.json"
Value = str | int | float | bool | None
SHAPE = ("batch_size", "timesteps", "features", "units")


@dataclass(frozen=True)
class Column:
    """A column: its name, the kind of its values (str, int, float, bool) and what it says."""

    name: str
    kind: type
    meaning: str


def _columns(kind: type, **meanings: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind, meaning) for name, meaning in meanings.items())


COLUMNS: tuple[Column, ...] = (
    *_columns(
        str,
        run_id="the run: one process's worth of records, and the name of its folder",
        timestamp="when the case ended, ISO 8601, UTC",
        commit="the git commit of the code, `-dirty` after it where the tree had changes; empty: no checkout",
        machine="CPU (or GPU) model, cores and operating system: rows of different machines do not compare",
        device="`cpu` or `gpu`",
        backend="the Keras backend",
        tensorflow="TensorFlow's version",
        keras="Keras' version",
        sweep="the declared set of cases that this one was measured in",
        case="the case's id: `--case ID` measures it alone",
        subject="`cell-layer`",
        layer="what runs the cell: `builtin` (`keras.layers.LSTM` …) or `rnn` (`keras.layers.RNN`)",
        cell="the cell; `keras_lstm` … are Keras' own cells, in `keras.layers.RNN`",
        mode="`infer`: forward; `train`: forward and the gradients of weights, inputs and initial states; "
        "`fit`: a model is trained; `generate`: a trained model writes",
    ),
    *_columns(
        int,
        batch_size="sequences at once",
        timesteps="steps a sequence",
        features="width of a step's input",
        units="width of the state",
    ),
    *_columns(str, dtype="Keras dtype policy"),
    *_columns(bool, unroll="the loop over timesteps is unrolled into the graph"),
    *_columns(int, implementation="1: a matmul a gate; 2: one for all gates"),
    *_columns(
        bool,
        stateful="the states carry over to the next batch",
        jit_compile="compiled by XLA",
    ),
    *_columns(str, use_cudnn="the built-ins' argument: `auto`, `True`, `False`; empty: not set"),
    *_columns(
        bool,
        return_sequences="the outputs of all steps are returned, not of the last alone",
        go_backwards="the sequence runs from its end",
    ),
    *_columns(str, masked="the mask: `right`, `left`, `full`; empty: none"),
    *_columns(bool, zero_output_for_mask="masked steps give zeros; empty: no"),
    *_columns(
        float,
        dropout="share of the inputs dropped; empty: none",
        recurrent_dropout="share of the state dropped; empty: none",
    ),
    *_columns(str, activation="the cell's activation; empty: its default"),
    *_columns(
        bool,
        use_bias="gates have biases; empty: the cell's default",
        reset_after="GRU's argument; empty: the cell's default",
        bidirectional="in `keras.layers.Bidirectional`; empty: no",
    ),
    *_columns(str, merge_mode="of `Bidirectional`; `none` is Python's None; empty: not in one"),
    *_columns(bool, backward_layer="`Bidirectional` has a backward layer of its own; empty: no"),
    *_columns(int, depth="layers stacked; empty: one"),
    *_columns(
        bool,
        static_timesteps="the number of timesteps is known when compiling",
        static_batch="the batch size is known when compiling",
        time_major="time is the first axis",
        input_product="the product of the inputs and the kernel is computed; if not, it is given",
    ),
    *_columns(
        str,
        status="`ok`, `skipped` (could not run here) or `failed` (went wrong; carries no timing)",
        reason="why not `ok`, one of the reasons listed below",
        message="the same in a sentence",
        kernel="what the compiled graph runs the steps with: `cudnn`, `block`, `native` (the C++ engine of "
        "`FusedRNN`), `while` or `unrolled`; in PyTorch, `mkldnn` or `aten`; empty: the library does not say",
    ),
    *_columns(bool, xla="the program was compiled by XLA"),
    *_columns(
        str,
        fallback="the requirements of the cuDNN kernel that were missed, where it was asked for: by "
        "`use_cudnn`, or on a GPU by the built-ins themselves",
    ),
    *_columns(int, retraces="traces made while timing; must be 0"),
    *_columns(
        str,
        proof="`exact`: outputs, states, gradients were held against the reference; `consistent`: the cell "
        "has none, and was held against itself, run eagerly step by step in float64; `statistical`: what its "
        "dropout drew cannot be read, and was inferred from the gradients",
    ),
    *_columns(
        float,
        median_s="median time of a call, seconds",
        min_s="shortest time of a call, seconds",
        iqr_s="interquartile range of the time of a call, seconds",
        queued_s="time of a call in a queue of calls awaited once, seconds: what `median_s` is of latency, "
        "this is of throughput",
    ),
    *_columns(int, rounds="ABBA blocks timed"),
    *_columns(str, baseline="the id of the case it is compared with"),
    *_columns(
        float,
        baseline_median_s="median time of a call of the baseline in the same blocks, seconds",
        ratio="subject's time / baseline's time, median over the blocks; above 1 the subject is slower",
        ratio_low="lower end of the ratio's 95% interval",
        ratio_high="upper end of the ratio's 95% interval",
    ),
    *_columns(
        bool,
        converged="the interval is within ±2% of the ratio",
        throttled="the GPU's clocks were held down, by power or heat, before or after the timing; empty: "
        "unknown, or no GPU",
    ),
    *_columns(
        float,
        sequences_per_s="batch_size / median_s",
        timesteps_per_s="batch_size * timesteps / median_s",
        flops="floating point operations of a call: those of one step's graph, times the steps; two a "
        "multiply-add of a product, one an element of other arithmetic; in `train` with the gradients'",
        gflops_per_s="flops / median_s / 1e9",
        roofline_fraction="gflops_per_s as a share of the matmul peak, the better of TensorFlow's and XLA's, "
        "of the same process and dtype",
        trace_s="time to trace the program into a graph, seconds",
        compile_s="time of the first call, which compiles (XLA) or optimises the graph, seconds",
    ),
    *_columns(
        int,
        graph_nodes="operations in the graph and its function library",
        peak_bytes="how far making the program and its first call raised the memory of a process of its own: "
        "on a CPU the high-water mark over the resident size before, on a GPU the same of the allocator; "
        "empty: not measured in this sweep",
    ),
    *_columns(
        float,
        sync_s="time of waiting for a device that has nothing to do, seconds",
        max_abs_error="largest difference of outputs and states from the proof's, absolute",
        tolerance="the largest that was allowed",
        gradient_error="largest difference of a gradient from the proof's, relative to the gradient's norm",
        gradient_tolerance="the largest that was allowed",
        epoch_s="time of an epoch of a training task, seconds",
        characters_per_s="characters trained on or generated a second",
        loss="the training task's last loss",
    ),
)
BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
_EMPTY: dict[str, Value] = dict.fromkeys(BY_NAME)
KEY = ("run_id", "sweep", "case", "baseline")
# what only a row that is `ok` has
TIMINGS = (
    *("median_s", "min_s", "iqr_s", "queued_s", "rounds", "baseline_median_s"),
    *("ratio", "ratio_low", "ratio_high", "converged", "sequences_per_s", "timesteps_per_s"),
    *("gflops_per_s", "roofline_fraction", "epoch_s", "characters_per_s", "loss"),
)

STATUSES = ("ok", "skipped", "failed")
REASONS: dict[str, str] = {
    "unsupported": "skipped: the subject does not have that option",
    "needs_static_shape": "skipped: an option must know the size that another leaves open",
    "no_device": "skipped: the machine does not have that device",
    "not_installed": "skipped: a package that the subject needs is not installed; the extra `peers` has it",
    "too_large": "skipped: by an estimate it takes more memory or time than there is",
    "compile_timeout": "skipped: tracing and compiling hit the limit, `--compile-limit`",
    "wrong_answer": "failed: the proof refused the answer, before or after the timing",
    "kernel": "failed: the fast kernel was demanded, and another one runs",
    "contract": "failed: the cell breaks the cell contract; `python -m bench check` says where",
    "out_of_memory": "failed: it ran out of memory, or hit the limit, `--memory-limit`",
    "error": "failed: it raised",
    "killed": "failed: the process ended while the case was in flight",
}

# what the row of a case in flight says until the case ends
KILLED: dict[str, str] = {
    "status": "failed",
    "reason": "killed",
    "message": REASONS["killed"].partition(": ")[2],
}


class RecordError(ValueError):
    """A record or a file of records that is not valid; the message names the file, the row and the column."""


def make_record(**values: Value) -> dict[str, Value]:
    """A record: every column, in order, None where nothing is given.

    Raises:
        RecordError: an unknown column, a value of the wrong kind, a number that is not finite, an unknown
            status or reason, or a timing in a row that is not `ok`.
    """
    unknown = sorted(set(values) - set(BY_NAME))
    if unknown:
        raise RecordError(f"no such columns: {', '.join(unknown)}")
    return _status_checked({column.name: _checked(column, values.get(column.name)) for column in COLUMNS})


def _checked(column: Column, value: Value) -> Value:
    if isinstance(value, str):
        value = _one_line(value)
    if value is None or value == "":
        return None
    if column.kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not column.kind:
        raise RecordError(f"{column.name}: {value!r} is not a {column.kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{column.name}: {value!r} is not finite")
    return value


def _one_line(text: str) -> str:
    """The text as it can stand in a row: on one line, and in characters that a file can hold."""
    return " ".join(text.encode(errors="backslashreplace").decode().splitlines())


def _status_checked(record: dict[str, Value]) -> dict[str, Value]:
    status, reason = record["status"], record["reason"]
    if status not in STATUSES:
        raise RecordError(f"status: {status!r} is not one of {', '.join(STATUSES)}")
    if status == "ok" and reason is not None:
        raise RecordError(f"reason: {reason!r} in a row that is ok")
    if status != "ok" and reason not in REASONS:
        raise RecordError(f"reason: {reason!r} is not one of {', '.join(REASONS)}")
    timings = [name for name in TIMINGS if record[name] is not None] if status != "ok" else []
    if timings:
        raise RecordError(f"{', '.join(timings)}: a timing in a row that is {status}")
    return record


class RecordWriter:
    """Writes a run's CSV, each record on the disk before the next case starts.

    `begin` writes the row of the case that is about to run, as `failed`/`killed`; `finish` puts the row of
    the case that has ended in its place. The file is replaced in one step each time, so that whatever kills
    the process leaves whole rows alone; beside a case's seconds, writing a few hundred rows is nothing.
    """

    def __init__(self, folder: Path):
        """Makes `folder`, which must not exist, and a CSV without rows; raises OSError where it cannot."""
        folder.mkdir(parents=True)
        self.path = folder / RECORDS_FILE
        self._finished = _line([column.name for column in COLUMNS])
        self._replace(self._finished)

    def begin(self, record: Mapping[str, Value]) -> None:
        """Writes the row of the case in flight."""
        self._replace(self._finished + _line({**record, **KILLED}.values()))

    def finish(self, record: Mapping[str, Value]) -> None:
        """Writes the row of the case that has ended, in place of the row of the case in flight."""
        self._finished += _line(record.values())
        self._replace(self._finished)

    def _replace(self, content: bytes) -> None:
        write_whole(self.path, content)


def _line(values: Iterable[Value]) -> bytes:
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
    found = path / RECORDS_FILE if path.is_dir() else path
    if not found.is_file():
        raise RecordError(f"{found}: no such file")
    return found


def read_records(path: Path) -> list[dict[str, Value]]:
    """The records of a run's folder or CSV.

    A last line that was cut is left out with a warning. Raises RecordError, with file and row, for
    anything else that is not a record.
    """
    file = records_file(path)
    try:
        whole, newline, cut = file.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise RecordError(f"{file}: cannot be read: {error}") from error
    records = list(_parsed(file, _decoded(file, whole + newline)))
    if cut:
        warnings.warn(f"{file}: the last line was cut and is left out", stacklevel=2)
    return records


def _decoded(file: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        raise RecordError(f"{file}, row {row}: not text: {error}") from error


def _parsed(file: Path, text: str) -> Iterator[dict[str, Value]]:
    rows = _rows(file, text)
    _, header = next(rows, (1, None))
    if header is None:
        raise RecordError(f"{file}, row 1: no columns: the file is empty or was cut there")
    _check_header(file, header)
    seen: set[tuple[Value, ...]] = set()
    for where, row in rows:
        record = _parsed_row(f"{file}, row {where}", header, row)
        key = tuple(record[name] for name in KEY)
        if key in seen:
            raise RecordError(f"{file}, row {where}: the same case twice: {', '.join(map(str, key))}")
        seen.add(key)
        yield record


def _rows(file: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows with their numbers, the header's being 1."""
    reader = csv.reader(io.StringIO(text), strict=True)
    for number in count(1):
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise RecordError(f"{file}, row {number}: not a CSV: {error}") from error
        if row is None:
            return
        yield number, row


def _check_header(file: Path, header: list[str]) -> None:
    for name, problem in (
        *((name, "unknown: made by a newer version?") for name in header if name not in BY_NAME),
        *((name, "there twice") for name in header if header.count(name) > 1),
        *((name, "missing") for name in (*KEY, "status") if name not in header),
    ):
        raise RecordError(f"{file}, row 1: column {name[:50]!r}: {problem}")


def _parsed_row(where: str, header: list[str], row: list[str]) -> dict[str, Value]:
    if len(row) != len(header):
        raise RecordError(f"{where}: {len(row)} values for {len(header)} columns")
    try:
        return _status_checked(
            _EMPTY | {name: _READ[name](text) for name, text in zip(header, row, strict=True) if text}
        )
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from error


_READERS: dict[type, Callable[[str], Value]] = {
    str: str,
    int: int,
    float: float,
    bool: {"True": True, "False": False}.__getitem__,
}


def _value(column: Column, text: str) -> Value:
    try:
        if "_" in text and column.kind is not str:  # Python reads 1_0 as 10
            raise ValueError(text)
        value = _READERS[column.kind](text)
    except (ValueError, KeyError):
        raise RecordError(f"{column.name}: {text!r} is not a {column.kind.__name__}") from None
    return _checked(column, value)


# the same few texts stand in row after row, but for measured figures: remembering them makes reading three
# times as fast
_READ: dict[str, Callable[[str], Value]] = {
    column.name: partial(_value, column)
    if column.kind is float
    else lru_cache(maxsize=512)(partial(_value, column))
    for column in COLUMNS
}


_NEEDED = ("case", "subject", "layer", "cell", "mode", *SHAPE)
_POSITIVE = (
    *SHAPE,
    *("median_s", "min_s", "baseline_median_s", "ratio", "ratio_low", "ratio_high", "epoch_s"),
    *("characters_per_s", "sequences_per_s", "timesteps_per_s", "gflops_per_s", "roofline_fraction"),
    "queued_s",
)
_NOT_NEGATIVE = ("iqr_s", "trace_s", "compile_s", "max_abs_error", "tolerance", "peak_bytes", "graph_nodes")
_BEYOND_BELIEF = 1e12  # of anything: seconds, sequences a second, times as slow


def impossible(record: Mapping[str, Value]) -> str | None:
    """What of a record cannot be, in words; None where all can. Whoever reads records leaves those out."""
    missing = [name for name in _NEEDED if record[name] is None]
    if missing:
        return f"no {missing[0]}"
    for names, least in ((_POSITIVE, 1 / _BEYOND_BELIEF), (_NOT_NEGATIVE, 0)):
        for name in names:
            if not _within(record[name], least):
                return f"{name} {record[name]}"
    median, shortest = record["median_s"], record["min_s"]
    if median is not None and shortest is not None and float(shortest) > float(median):
        return f"min_s {shortest} above median_s {median}"
    return _impossible_ratio(record)


def _within(value: Value, least: float) -> bool:
    return value is None or least <= float(value) <= _BEYOND_BELIEF


def _impossible_ratio(record: Mapping[str, Value]) -> str | None:
    ratio, low, high = (record[name] for name in ("ratio", "ratio_low", "ratio_high"))
    if ratio is None and record["median_s"] is None:
        return None
    if ratio is None or low is None or high is None:
        return f"ratio {ratio} with the interval [{low}, {high}]"
    if not float(low) <= float(ratio) <= float(high):
        return f"ratio {ratio} outside of its interval [{low}, {high}]"
    return None


def write_environment(folder: Path, environment: Mapping[str, Any]) -> None:
    """Writes the run's environment beside its CSV."""
    write_whole(folder / ENVIRONMENT_FILE, json.dumps(environment, indent=2, sort_keys=True) + "\n")


def read_environment(path: Path) -> dict[str, Any]:
    """The environment beside a run's CSV; raises RecordError where it cannot be read."""
    file = records_file(path).with_name(ENVIRONMENT_FILE)
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: cannot be read: {error}") from error


def write_tasks(folder: Path, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Writes what came out of the run's training tasks, beside their figures in the CSV.

    Args:
        tasks: for each its `sweep` and `case`, and weights, predictions or texts, fit for JSON.
    """
    text = json.dumps(tasks, indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(folder / TASKS_FILE, text + "\n")


def read_tasks(path: Path) -> list[dict[str, Any]]:
    """What came out of a run's training tasks, empty where it had none; raises RecordError where it cannot be
    read."""
    file = records_file(path).with_name(TASKS_FILE)
    if not file.exists():
        return []
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RecordError(f"{file}: cannot be read: {error}") from error
