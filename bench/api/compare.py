"""`compare`: times a cell against another, at a shape of one's own, in turns and after the proof."""

import difflib
import json
import math
import operator
import re
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.api.check import mapping
from bench.api.comparison_report import ComparisonReport
from bench.cases.case import MODES, SHAPE, Case
from bench.cases.comparisons import Comparison, like
from bench.cases.cost_estimate import check_size
from bench.cases.devices import check_backend_chosen
from bench.cases.subjects import SUBJECTS, WHOLE, Subject
from bench.cases.sweeps import Sweep
from bench.cases.user_cells import BASELINES, own_subject
from bench.contract.load_cell import FORM, Target
from bench.records.text import counted

if TYPE_CHECKING:
    from bench.processes.contract_worker import Verdicts
    from bench.runner.proving import Prover

Side = str | Callable[..., Any]


@dataclass(frozen=True)
class InLayer:
    """A side and what runs it: `rnn`, `keras.layers.RNN`; `fused`, `cells.FusedRNN`; or `layer`, itself, as
    it is or makes a whole layer or model."""

    made_by: Side
    layer: str


Shape = tuple[int, int, int, int]
_LAYERS = ("rnn", "fused")  # of a cell; the first where none is named
_MIN_ROUNDS = 6
_SWEEP = "compare"
_OF = Sweep("What does one cost, compared with the other?", (), longest_s=math.inf)  # the caller's patience


def compare(
    cell: Side,
    other: Side = "lstm",
    *,
    shape: Sequence[int],
    mode: str = "infer",
    seconds: float = 4.0,
    options: Mapping[str, Any] | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    step_shape: tuple[int, ...] | None = None,
    device: str | None = None,
    contract: bool = True,
    layer: bool | str = False,
) -> ComparisonReport:
    """Proves two cells and times them in turns, in this process: the time of `cell` / the time of `other`.

        bench.compare(MyCell, "lstm", shape=(16, 120, 40, 96), mode="train").assert_at_most(1.2)

    Args:
        cell, other: each a class, or a function that takes the number of units and returns a new cell, which
            is run in `keras.layers.RNN`; or a text that names one, `package.module:Name` or
            `path/to/file.py:Name`, with `-fused` behind it for the cell in `cells.FusedRNN`; or `lstm`,
            `gru`, `simple_rnn` for Keras' layers, or another subject of this project, such as `slstm-fused`.
        shape: batch size, timesteps, features, units.
        mode: `infer`, the forward pass, or `train`, forward and the gradients.
        seconds: how long the calls of both are timed. The proof and compiling come on top.
        options: fields of `bench.Case`, such as `{"bidirectional": True, "dtype": "mixed_bfloat16"}`; the
            other side gets the same, as far as it has them.
        kwargs: the other arguments of the cells that are not this project's.
        step_shape: the shape of a step of the inputs, where it is no vector; the features are its product.
        device: `cpu` or `gpu`; None is the GPU if TensorFlow sees one.
        contract: whether a cell is asked the cell contract first, once a process, as a run does: seconds.
        layer: what runs `cell`: `rnn`, or `fused` for `cells.FusedRNN`. True, or `layer`: it is, or makes, a
            whole layer or model: sequences in, whatever out. It is compared with itself, run eagerly in
            float64, before it is timed.

    Returns:
        The report: `.ratio`, `.interval`, `.medians`, `.proof`, `.kernel`, `.assert_at_most(1.2)`.

    Raises:
        TargetError: a cell cannot be loaded or made.
        BrokenContract, WrongAnswer: a cell breaks the contract, or its answer is wrong (AssertionErrors).
        UnsupportedOption: a side does not have an option.
        CaseError, ValueError: a shape, mode, name, option or time that cannot be; it names what can.
        TooLarge: by the estimate, both together take more memory than the machine has (a ValueError).
        UnsupportedBackend: Keras runs on another backend than TensorFlow.
    """
    (report,) = compare_each(
        InLayer(cell, _layer(layer)) if layer else cell,
        [other],
        shape=shape,
        modes=[mode],
        seconds=seconds,
        options=options,
        kwargs=kwargs,
        step_shape=step_shape,
        device=device,
        contract=contract,
    )
    return report


def compare_each(
    cell: Side | InLayer,
    others: Sequence[Side | InLayer],
    *,
    shape: Sequence[int],
    modes: Sequence[str] = ("infer",),
    seconds: float = 4.0,
    options: Mapping[str, Any] | str | None = None,
    kwargs: Mapping[str, Any] | None = None,
    step_shape: tuple[int, ...] | None = None,
    device: str | None = None,
    contract: bool = True,
) -> Iterator[ComparisonReport]:
    """Compares `cell` with each of the others in each mode; the arguments are those of `compare`."""
    sizes = _shape(shape)
    _check_step_shape(step_shape, sizes)
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"mode {mode!r}: must be one of {', '.join(MODES)}")
    if not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
        raise ValueError(f"seconds {seconds!r}: must be a positive number")
    changes, arguments = _options(options or {}), mapping("kwargs", kwargs)
    check_backend_chosen()
    from bench.backend import devices

    device = device or ("gpu" if devices.gpu_name() else "cpu")
    subjects, sides = _subjects((cell, *others), arguments, step_shape)
    first, *rest = sides
    rows = []
    for mode in modes:
        case = Case(first.cell, first.layer, mode, *sizes, **{**changes, "device": device})
        rows += [Comparison(_SWEEP, case, like(other.name, case, subjects), _OF) for other in rest]
    return _measured(rows, subjects, seconds, _known_verdicts(sides), contract)


def _layer(layer: bool | str) -> str:
    if layer is True:
        return WHOLE
    if layer not in (*_LAYERS, WHOLE):
        raise ValueError(f"layer {layer!r}: must be one of {', '.join(_LAYERS)}, {WHOLE}")
    return layer


def _shape(shape: Sequence[int]) -> Shape:
    """The four sizes; a text such as `16,120,40,96` says them too."""
    from bench.cases.read_options import read_shape

    if isinstance(shape, str):
        return read_shape(shape)
    try:
        batch_size, timesteps, features, units = map(operator.index, shape)
    except (TypeError, ValueError):
        raise ValueError(
            f"shape {shape!r}: must be ({', '.join(SHAPE)}), such as (16, 120, 40, 96)"
        ) from None
    Case("any", "any", "infer", batch_size, timesteps, features, units)
    return batch_size, timesteps, features, units


def _check_step_shape(step_shape: tuple[int, ...] | None, shape: Shape) -> None:
    """Raises ValueError for a shape of a step that is none, or that has other features than the shape."""
    if step_shape is None:
        return
    if not isinstance(step_shape, Sequence) or not all(type(size) is int and size > 0 for size in step_shape):
        raise ValueError(f"step_shape {step_shape!r}: must be positive integers, such as (8, 8, 1)")
    if math.prod(step_shape) != shape[2]:
        raise ValueError(
            f"step_shape {step_shape!r}: has {counted(math.prod(step_shape), 'feature')}, and the shape "
            f"{shape[2]}"
        )


def _options(options: Mapping[str, Any] | str) -> dict[str, Any]:
    """The options, if each is an option of a case; what it may be is for `Case` to say. A text such as
    `bidirectional,depth=2` says them too."""
    from bench.cases.read_options import read_option
    from bench.records.options import FIELDS

    if isinstance(options, str):
        return read_option(options)
    options = mapping("options", options)
    for name in options:
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, n=3) or FIELDS
            raise ValueError(f"options: no option {name!r}; there are {', '.join(near)}")
    return options


# --- who is compared ---------------------------------------------------------------------------------


def _subjects(
    sides: Sequence[Side | InLayer], kwargs: dict[str, Any], step_shape: tuple[int, ...] | None
) -> tuple[dict[str, Subject], list[Subject]]:
    """All subjects by name, and that of each side. A user's cell whose name is taken gets a number."""
    known, found = dict(SUBJECTS), []
    made: dict[Any, Subject] = {}
    names: dict[Any, str] = {subject.cell: subject.cell for subject in SUBJECTS.values()}
    for side in sides:
        made_by = side.made_by if isinstance(side, InLayer) else side
        if not isinstance(made_by, Hashable):  # no class, function or text
            Target.of(made_by)
        if side not in made:
            made[side] = _subject(side, kwargs, step_shape, names)
        found.append(made[side])
        known[made[side].name] = made[side]
    return known, found


def _subject(
    side: Side | InLayer, kwargs: dict[str, Any], step_shape: tuple[int, ...] | None, names: dict[Any, str]
) -> Subject:
    """The subject of a side; `names` are those of the cells so far, by what makes them."""
    made_by, layer = (side.made_by, side.layer) if isinstance(side, InLayer) else (side, "")
    if isinstance(made_by, str) and ":" not in made_by and layer != WHOLE:
        return _named(f"{made_by}-{layer}" if layer else made_by)
    text = None
    if isinstance(made_by, str):
        from bench.contract.switches import load_held

        made_by, layer = (made_by, layer) if layer else _split(made_by)
        target, text = load_held(made_by, kwargs, layer == WHOLE), made_by
    else:
        target = replace(Target.of(made_by, **kwargs), whole=layer == WHOLE)
    names.setdefault(made_by, _unlike(_name_of(target.text), names.values()))
    return own_subject(
        names[made_by],
        target,
        text,
        _json(kwargs) if text else "{}",
        None if target.whole else step_shape,
        layer or _LAYERS[0],
    )


def _split(text: str) -> tuple[str, str]:
    """What a text names, and the layer behind it: of `my_cells.py:MyCell-fused` it is `fused`."""
    name, dash, layer = text.rpartition("-")
    if not dash or ":" in layer:  # of a file's name
        return text, _LAYERS[0]
    if layer not in _LAYERS:
        raise ValueError(f"{text}: layer {layer!r}: must be one of {', '.join(_LAYERS)}")
    return name, layer


def _named(name: str) -> Subject:
    full = f"{name}-builtin" if name in BASELINES else name
    if full not in SUBJECTS:
        near = difflib.get_close_matches(name, [*BASELINES, *SUBJECTS], n=3) or ["slstm-fused"]
        raise ValueError(
            f"{name!r}: must be one of {', '.join(BASELINES)}, {FORM}, or a subject of this project, such as "
            f"{', '.join(near)}"
        )
    return SUBJECTS[full]


def _name_of(text: str) -> str:
    """What stands behind the last colon or function of a target's text, as ids may hold it."""
    last = text.rpartition(":")[2].rpartition("<locals>.")[2]
    return re.sub(r"[^A-Za-z0-9_.]", "_", last)


def _unlike(name: str, taken: Collection[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _json(kwargs: Mapping[str, Any]) -> str:
    try:
        return json.dumps(kwargs)
    except TypeError as error:
        raise ValueError(f"kwargs {kwargs!r}: of a cell named by a text must be JSON ({error})") from None


# --- proving and timing ------------------------------------------------------------------------------

_verdicts: "list[Verdicts]" = []  # of the classes and functions of this process, each asked once


def _known_verdicts(sides: Sequence[Subject]) -> "Verdicts":
    """What the contract has said; of a text it is asked again, for its file may have changed."""
    from bench.processes.contract_worker import Verdicts

    if any(side.target for side in sides):
        return Verdicts()
    if not _verdicts:
        _verdicts.append(Verdicts())
    return _verdicts[0]


def _measured(
    rows: Sequence[Comparison],
    subjects: Mapping[str, Subject],
    seconds: float,
    verdicts: "Verdicts",
    contract: bool,
) -> Iterator[ComparisonReport]:
    from bench.runner.proving import Prover

    prover = Prover(rows[0].case.device, subjects, isolate=False, verdicts=verdicts, check_contracts=contract)
    try:
        for row in rows:
            yield _report(row, prover, subjects, seconds)
    finally:
        prover.close()


def _report(
    row: Comparison, prover: "Prover", subjects: Mapping[str, Subject], seconds: float
) -> ComparisonReport:
    from bench.backend.libraries import tf
    from bench.contract.switches import held
    from bench.proof.verify import verify_again
    from bench.timing.blocks import Budget, Instances, plain_rounds, time_pair

    case = row.case
    check_size(row)
    with held():  # the seeds of who calls, above all
        tf.config.run_functions_eagerly(False)
        subject, baseline = prover.pair(row)
        more = None
        if row.retraced:
            more = Instances(
                lambda numbers: prover.legs_of_more(subject, baseline, numbers),
                subject.program.again_s + baseline.program.again_s,
            )
        budget = Budget(seconds, _MIN_ROUNDS)
        timing = time_pair(*prover.legs(subject, baseline), plain_rounds, budget, case.mode, more)
        verify_again(subject.problem, subject.answer, subject.program.answer(), subject.proof)
    return ComparisonReport(
        subjects[case.subject].label,
        f"{'a second ' if row.baseline == case else ''}{subjects[row.baseline.subject].label}",
        case.mode,
        (case.batch_size, case.timesteps, case.features, case.units),
        case.options,
        timing.ratio.value,
        (timing.ratio.low, timing.ratio.high),
        (timing.median_s, timing.baseline_median_s),
        subject.problem.proof,
        subject.proof.max_abs_error,
        subject.proof.tolerance,
        subject.program.kernel,
        baseline.program.kernel,
        timing.rounds,
        tuple(
            subjects[side.problem.case.subject].label.removesuffix(" in FusedRNN")
            for side in (subject, baseline)
            if _in_keras_loop(side.problem.layer)
        ),
    )


def _in_keras_loop(layer: Any) -> bool:
    """True for a layer with a `FusedRNN` that none of its engines runs."""
    from bench.cases.layers.stack import loops_of

    asked = [loop.chosen_engine for loop in loops_of(layer) if hasattr(loop, "chosen_engine")]
    return any(engine() == "keras" for engine in asked)
