"""Declare what a record says: `Record` is the one table of columns; their documentation and dtypes follow.

A record is one case compared with one baseline.
"""

import math
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, TypedDict, get_args, get_type_hints

from bench.records.text import one_line

Value = Any  # of a record: str, int, float, bool or None, as `Record` says for each column
SHAPE = ("batch_size", "timesteps", "features", "units")


@dataclass(frozen=True)
class _Says:
    """What the declaration of a column says beside its type; the fields are those of `Column`."""

    meaning: str
    unit: str = ""
    default: Value = None


@dataclass(frozen=True)
class Column:
    """A column of the CSV and of the frame.

    Attributes:
        name: as the header has it.
        kind: str, int, float or bool.
        meaning: what it says, with its unit, and what it says where it is empty.
        unit: of a figure: `s`, `bytes`, `1/s`, `flop`, `Gflop/s`, `ratio` (of two times), or none.
        default: what an empty value stands for: an option that is not used; None is just empty.
        required: no row can do without it.
    """

    name: str
    kind: type
    meaning: str
    unit: str
    default: Value
    required: bool


class Record(TypedDict):
    """A record: every column in order, its type, what it says, its unit, and the default of an option.

    A column whose type has no None stands in every row. An option that is not used is written with its
    default; empty is what is unknown, or does not apply.
    """

    run_id: Annotated[str, _Says("the run: one process's worth of records, and the name of its folder")]
    timestamp: Annotated[str | None, _Says("when the case ended, ISO 8601, UTC")]
    commit: Annotated[
        str | None,
        _Says("the git commit of the code, `-dirty` after it where the tree had changes; empty: no checkout"),
    ]
    machine: Annotated[
        str,
        _Says(
            "the models of the GPU, where it computes, and of the CPU, cores and operating system: rows of "
            "different machines do not compare. A rehearsal's begins with `a rehearsal on`: its figures say "
            "nothing"
        ),
    ]
    worker: Annotated[
        str | None,
        _Says("the name of the worker that measured it, in a cluster; empty: the run's own process"),
    ]
    lost_workers: Annotated[
        str | None,
        _Says("the workers that were lost while they measured it: it was submitted once more elsewhere"),
    ]
    device: Annotated[str, _Says("`cpu` or `gpu`")]
    backend: Annotated[
        str, _Says("the back end of Keras that the subject runs on: `tensorflow`, `jax`, `torch`")
    ]
    tensorflow: Annotated[str, _Says("TensorFlow's version")]
    keras: Annotated[str, _Says("Keras' version")]
    sweep: Annotated[str, _Says("the declared set of cases that this one was measured in")]
    case: Annotated[str, _Says("the case's id: `--case ID` measures it alone")]
    subject: Annotated[str, _Says("`cell-layer`")]
    layer: Annotated[
        str,
        _Says(
            "what runs the cell: `builtin` (`keras.layers.LSTM` …), `rnn` (`keras.layers.RNN`), `fused` "
            "(`cells.FusedRNN`), one of `cells`' unroll functions, or another library"
        ),
    ]
    cell: Annotated[str, _Says("the cell; `keras_lstm` … are Keras' own cells, in `keras.layers.RNN`")]
    mode: Annotated[
        str,
        _Says(
            "`infer`: forward; `train`: forward and the gradients of weights, inputs and initial states; "
            "`fit`: a model is trained; `generate`: a trained model writes"
        ),
    ]
    batch_size: Annotated[int, _Says("sequences at once")]
    timesteps: Annotated[int, _Says("steps a sequence")]
    features: Annotated[int, _Says("width of a step's input")]
    units: Annotated[int, _Says("width of the state")]
    dtype: Annotated[str, _Says("Keras dtype policy", default="float32")]
    unroll: Annotated[bool, _Says("the loop over timesteps is unrolled into the graph", default=False)]
    implementation: Annotated[
        int | None, _Says("1: a matmul a gate; 2: one for all gates; empty: the subject has no such option")
    ]
    stateful: Annotated[bool, _Says("the states carry over to the next batch", default=False)]
    jit_compile: Annotated[bool, _Says("compiled by XLA", default=False)]
    use_cudnn: Annotated[
        str | None, _Says("the built-ins' argument: `auto`, `True`, `False`; empty: not given")
    ]
    return_sequences: Annotated[
        bool, _Says("the outputs of all steps are returned, not of the last alone", default=True)
    ]
    go_backwards: Annotated[bool, _Says("the sequence runs from its end", default=False)]
    masked: Annotated[str | None, _Says("the mask: `right`, `left`, `full`; empty: no mask")]
    zero_output_for_mask: Annotated[bool, _Says("masked steps give zeros", default=False)]
    dropout: Annotated[float, _Says("share of the inputs dropped", default=0.0)]
    recurrent_dropout: Annotated[float, _Says("share of the state dropped", default=0.0)]
    activation: Annotated[str | None, _Says("the cell's activation; empty: its default")]
    use_bias: Annotated[bool | None, _Says("gates have biases; empty: the cell's default")]
    reset_after: Annotated[bool | None, _Says("GRU's argument; empty: the cell's default")]
    bidirectional: Annotated[bool, _Says("in `keras.layers.Bidirectional`", default=False)]
    merge_mode: Annotated[str | None, _Says("of `Bidirectional`; `none` is Python's None; empty: not in one")]
    backward_layer: Annotated[bool, _Says("`Bidirectional` has a backward layer of its own", default=False)]
    depth: Annotated[int, _Says("layers stacked", default=1)]
    static_timesteps: Annotated[bool, _Says("the number of timesteps is known when compiling", default=True)]
    static_batch: Annotated[bool, _Says("the batch size is known when compiling", default=True)]
    time_major: Annotated[bool, _Says("time is the first axis", default=False)]
    input_product: Annotated[
        bool,
        _Says("the product of the inputs and the kernel is computed; if not, it is given", default=True),
    ]
    status: Annotated[
        str, _Says("`ok`, `skipped` (could not run here) or `failed` (went wrong; carries no timing)")
    ]
    reason: Annotated[str | None, _Says("why not `ok`, one of the reasons listed below")]
    message: Annotated[str | None, _Says("the same in a sentence")]
    kernel: Annotated[
        str | None,
        _Says(
            "what the compiled graph runs the steps with: `cudnn`, `block`, `native` (the C++ engine of "
            "`FusedRNN`), `while` or `unrolled`; in PyTorch, `mkldnn` or `aten`; in ONNX Runtime, the "
            "operator; `eager`: Keras' loop on PyTorch, step by step; empty: the library does not say"
        ),
    ]
    xla: Annotated[bool | None, _Says("the program was compiled by XLA")]
    fallback: Annotated[
        str | None,
        _Says(
            "the requirements of the cuDNN kernel that were missed, where it was asked for: by `use_cudnn`, "
            "or on a GPU by the built-ins themselves; of `FusedRNN` on a CPU, why its native engine did not "
            "run"
        ),
    ]
    retraces: Annotated[int | None, _Says("traces made while timing; must be 0")]
    proof: Annotated[
        str | None,
        _Says(
            "`exact`: outputs, states, gradients were compared with the reference; `consistent`: the cell "
            "has none, and was compared with itself, run eagerly step by step in float64; `statistical`: "
            "what its dropout drew cannot be read, and was inferred from the gradients"
        ),
    ]
    median_s: Annotated[float | None, _Says("median time of a call, seconds", "s")]
    min_s: Annotated[float | None, _Says("shortest time of a call, seconds", "s")]
    iqr_s: Annotated[float | None, _Says("interquartile range of the time of a call, seconds", "s")]
    queued_s: Annotated[
        float | None,
        _Says(
            "time of a call in a queue of calls awaited once, seconds: what `median_s` is of latency, this "
            "is of throughput",
            "s",
        ),
    ]
    rounds: Annotated[int | None, _Says("ABBA and BAAB blocks timed")]
    instances: Annotated[
        int | None,
        _Says(
            "how often the two programs were compiled, with weights and inputs elsewhere in memory, each "
            "time a draw of a speed; from 3 on the ratio's interval is over these, and true of the layers; "
            "below it is over blocks, and true of the programs that were timed; empty: one, in a run from "
            "before they were counted"
        ),
    ]
    processes: Annotated[
        int | None,
        _Says(
            "in how many processes it was measured, 3 or more; the ratio, its interval and `instance_ratios` "
            "are then over these; empty: one"
        ),
    ]
    instance_spread: Annotated[
        float | None,
        _Says(
            "standard deviation between the instances' ratios, relative, without what their blocks differ "
            "by; empty: too few instances to tell"
        ),
    ]
    instance_ratios: Annotated[
        str | None, _Says("the ratio of each instance, from the lowest to the highest, a blank between them")
    ]
    baseline: Annotated[str | None, _Says("the id of the case it is compared with; empty: a training task")]
    baseline_median_s: Annotated[
        float | None,
        _Says("median time of a call of the baseline in the same blocks, seconds", "s"),
    ]
    ratio: Annotated[
        float | None,
        _Says(
            "subject's time / baseline's time; above 1 the subject is slower. The geometric mean of the "
            "instances', each that of the ratios of neighbouring calls, where what is far off counts less; "
            "with fewer than 3 instances the median of those ratios",
            "ratio",
        ),
    ]
    ratio_low: Annotated[float | None, _Says("lower end of the ratio's 95% interval", "ratio")]
    ratio_high: Annotated[float | None, _Says("upper end of the ratio's 95% interval", "ratio")]
    converged: Annotated[bool | None, _Says("the interval is within ±2% of the ratio")]
    drift: Annotated[
        float | None,
        _Says(
            "rank correlation of a block's time and its ratio, -1 to 1: the machine throttled or warmed up; "
            "empty: none that is more than chance"
        ),
    ]
    load: Annotated[
        float | None,
        _Says(
            "processes that ran or waited to, in the minute before the end of the timing, on the cores that "
            "the process may use: their share of the machine's; above the number of these cores others ran; "
            "empty: unknown"
        ),
    ]
    stolen: Annotated[
        float | None,
        _Says("share of the cores' time that the hypervisor took while timing; empty: unknown"),
    ]
    context_switches: Annotated[
        int | None,
        _Says("how often the measuring process had to leave a core while timing; empty: unknown"),
    ]
    page_faults: Annotated[
        int | None,
        _Says("pages that the measuring process had to get from the disk while timing; empty: unknown"),
    ]
    throttled: Annotated[
        bool | None,
        _Says(
            "the GPU's clocks were held down, by power or heat, before or after the timing; empty: unknown, "
            "or no GPU"
        ),
    ]
    sequences_per_s: Annotated[float | None, _Says("batch_size / median_s", "1/s")]
    timesteps_per_s: Annotated[float | None, _Says("batch_size * timesteps / median_s", "1/s")]
    flops: Annotated[
        float | None,
        _Says(
            "floating point operations of a call: those of one step's graph, times the steps; two a "
            "multiply-add of a product, one an element of other arithmetic; in `train` with the gradients'",
            "flop",
        ),
    ]
    gflops_per_s: Annotated[float | None, _Says("flops / median_s / 1e9", "Gflop/s")]
    roofline_fraction: Annotated[
        float | None,
        _Says(
            "gflops_per_s as a share of the matmul peak, the better of TensorFlow's and XLA's, of the same "
            "process and dtype"
        ),
    ]
    trace_s: Annotated[float | None, _Says("time to trace the program into a graph, seconds", "s")]
    compile_s: Annotated[
        float | None,
        _Says("time of the first call, which compiles (XLA) or optimises the graph, seconds", "s"),
    ]
    graph_nodes: Annotated[int | None, _Says("operations in the graph and its function library")]
    peak_bytes: Annotated[
        int | None,
        _Says(
            "how far making the program and its first call raised the memory of a process of its own, bytes: "
            "on a CPU the high-water mark over the resident size before, on a GPU the same of the allocator; "
            "empty: not measured in this sweep",
            "bytes",
        ),
    ]
    sync_s: Annotated[
        float | None, _Says("time of waiting for a device that has nothing to do, seconds", "s")
    ]
    max_abs_error: Annotated[
        float | None, _Says("largest difference of outputs and states from the proof's, absolute")
    ]
    tolerance: Annotated[float | None, _Says("the largest that was allowed")]
    gradient_error: Annotated[
        float | None,
        _Says("largest difference of a gradient from the proof's, relative to the gradient's norm"),
    ]
    gradient_tolerance: Annotated[float | None, _Says("the largest that was allowed")]
    epoch_s: Annotated[float | None, _Says("time of an epoch of a training task, seconds", "s")]
    characters_per_s: Annotated[float | None, _Says("characters trained on or generated a second", "1/s")]
    loss: Annotated[float | None, _Says("the training task's last loss")]


def _column(name: str, declared: Any) -> Column:
    allowed, says = get_args(declared)
    kinds = [kind for kind in get_args(allowed) or (allowed,) if kind is not NoneType]
    required = allowed is kinds[0] and says.default is None
    return Column(name, kinds[0], says.meaning, says.unit, says.default, required)


COLUMNS: tuple[Column, ...] = tuple(
    _column(name, declared) for name, declared in get_type_hints(Record, include_extras=True).items()
)
BY_NAME: dict[str, Column] = {column.name: column for column in COLUMNS}
DEFAULTS: dict[str, Value] = {column.name: column.default for column in COLUMNS}
KEY = ("run_id", "sweep", "case", "baseline")
# the texts that stand for an empty value, the last two in a CSV that another program has written
EMPTY = ("", "NaN", "<NA>")
# as Python writes them, as spreadsheets do, and as pandas does where other values of the column are empty
TRUTH = {
    **dict.fromkeys(("True", "TRUE", "true", "1.0"), True),
    **dict.fromkeys(("False", "FALSE", "false", "0.0"), False),
}
# what only a row that is `ok` has
TIMINGS = (
    *("median_s", "min_s", "iqr_s", "queued_s", "rounds", "baseline_median_s"),
    *("instances", "processes", "instance_spread", "instance_ratios", "drift"),
    *("ratio", "ratio_low", "ratio_high", "converged", "sequences_per_s", "timesteps_per_s"),
    *("gflops_per_s", "roofline_fraction", "epoch_s", "characters_per_s", "loss"),
)

STATUSES = ("ok", "skipped", "failed")
REASONS: dict[str, str] = {
    "unsupported": "skipped: the subject does not have that option",
    "needs_static_shape": "skipped: an option must know the size that another leaves open",
    "not_for_cudnn": "skipped: cuDNN fails at it, or ignores its option; `use_cudnn=False` measures it",
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
_MOST = 2**63  # a column of integers holds 64 bits


class RecordError(ValueError):
    """A record or a file that is not valid; the message, one line, names the file, the row and the column."""

    def __init__(self, message: object):
        super().__init__(one_line(message))


class ImpossibleRow(RecordError):
    """A row that can be read, and that cannot be: its figures contradict each other or its case's id."""


def make_record(**values: Value) -> dict[str, Value]:
    """A record: every column, in order; what is not given has its default, or is None.

    Raises:
        RecordError: an unknown column, a value of the wrong kind, a number that is not finite or an integer
            beyond 64 bits, an unknown status or reason, or a timing in a row that is not `ok`.
    """
    unknown = sorted(set(values) - set(BY_NAME))
    if unknown:
        raise RecordError(f"no such columns: {', '.join(unknown)}")
    return check_status({column.name: check_value(column, values.get(column.name)) for column in COLUMNS})


def check_value(column: Column, value: Value) -> Value:
    """The value as the column holds it; raises RecordError where it cannot."""
    if isinstance(value, str):
        value = _as_one_line(value)
        if column.name == "use_cudnn":  # a text, which others take for a truth value
            value = str(TRUTH.get(value, value))
    if value is None or value in EMPTY:
        return column.default
    if column.kind is float and type(value) is int and -_MOST <= value < _MOST:
        value = float(value)
    if type(value) is not column.kind:
        raise RecordError(f"{column.name}: {value!r} is not a {column.kind.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordError(f"{column.name}: {value!r} is not finite")
    if type(value) is int and not -_MOST <= value < _MOST:
        raise RecordError(f"{column.name}: {value!r} does not fit into 64 bits")
    return value


def _as_one_line(text: str) -> str:
    """The text as it can stand in a row: on one line, and in characters that a file can hold."""
    return " ".join(text.encode(errors="backslashreplace").decode().splitlines())


def check_status(record: dict[str, Value]) -> dict[str, Value]:
    """The record, whose values are checked; raises RecordError where they do not go with its status."""
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
