"""What a cell promises to Keras and to its user, as one table of named checks.

`check_cell(MyCell)` asks a fresh cell every question of `CHECKS` and returns a `ContractReport`. A check
passes, fails with what was expected, what was seen and what to change, or is skipped: because it does not
apply, or because a check it needs has failed and its answer would say nothing new. What Keras itself does
to every custom cell is a hint on a check that passes, never a failure.

Shapes are tiny and everything runs on the CPU: the contract is about what is right, not what is fast.
A new check is a function here and an entry in `CHECKS`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import bench.contract.checks as ask
from bench.contract.cell_under_test import Cells, Refused, Seen, Skipped, dtype_policy, one_line, surroundings
from bench.contract.load_cell import Target

# --- values -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: the check's name in `CHECKS`.
        status: `ok`, `failed` or `skipped`.
        message: what was expected and what was seen, or why it was skipped.
        hint: of a failed check what to change and where, of another what is good to know; may be empty.
    """

    name: str
    status: str
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """Message and hint in one sentence."""
        lead = "change" if self.status == "failed" else "note"
        return f"{self.message}; {lead}: {self.hint}" if self.hint else self.message


@dataclass(frozen=True)
class ContractReport:
    """What all checks found, in the order of the table."""

    target: str
    checks: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        return self.having("failed")

    def having(self, status: str) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.checks if result.status == status)


@dataclass(frozen=True)
class Check:
    """One question to a cell.

    Attributes:
        name: as in reports.
        question: what is asked, for people.
        function: f(cells) -> what was seen, or `Seen` with a hint; raises `Refused` or `Skipped`.
        change: what to change where the function has nothing more precise to say.
        place: the method of the cell where the change is likely to be made.
        needs: checks without which this one would only repeat their failure.
    """

    name: str
    question: str
    function: Callable[[Cells], str | Seen]
    change: str
    place: str = "call"
    needs: tuple[str, ...] = ()


# --- the runner ---------------------------------------------------------------------------------------------


def check_cell(
    target: Target | Callable[..., Any],
    units: int = 16,
    features: int | None = None,
    checks: Sequence[Check] | None = None,
) -> ContractReport:
    """Asks every question of `CHECKS`, each with cells of its own.

    Args:
        target: a `Target`, or a class or function that takes `units` and returns a new cell.
        units: what the target is called with.
        features: size of the last axis of the inputs; by default 4 (5 if that is `units`), so that a mix-up
            of the two shows. A cell that needs as many features as units is checked with `features=units`.
        checks: those to ask, in the order of the table; by default all.

    Raises:
        TargetError: the constructor raises.
    """
    target = Target.of(target)
    cells = Cells(target, units, features or (5 if units == 4 else 4))
    results: list[CheckResult] = []
    with surroundings():
        cells.new()
        blocked: dict[str, str] = {}
        for check in CHECKS if checks is None else checks:
            root = next((blocked[need] for need in check.needs if need in blocked), None)
            result = _ask(check, cells) if root is None else _not_asked(check, root)
            if result.status == "failed" or root is not None:
                blocked[check.name] = root or check.name
            results.append(result)
    return ContractReport(target.text, tuple(results))


def _not_asked(check: Check, root: str) -> CheckResult:
    return CheckResult(check.name, "skipped", f"not asked, since `{root}` failed")


def _ask(check: Check, cells: Cells) -> CheckResult:
    try:
        with dtype_policy("float32"):
            seen = check.function(cells)
    except Skipped as skipped:
        return CheckResult(check.name, "skipped", str(skipped))
    except Refused as refused:
        at = refused.at or cells.where(check.place)
        return CheckResult(check.name, "failed", str(refused), _advice(refused.change or check.change, at))
    except Exception as error:
        message = f"expected no error; seen {one_line(error)}"
        at = cells.user_frame(error) or cells.where(check.place)
        return CheckResult(check.name, "failed", message, _advice(check.change, at))
    seen = seen if isinstance(seen, Seen) else Seen(seen)
    return CheckResult(check.name, "ok", seen.message, seen.hint)


def _advice(change: str, at: str) -> str:
    return f"{change} ({at})" if at else change


# --- the table ----------------------------------------------------------------------------------------------

# What a check needs so that its answer says something new.
RUNS = ("call", "state_structure", "state_shapes", "state_dtypes", "sublayers_built", "finite")
PURE = (*RUNS, "same_answer_twice", "hidden_state", "weights_created_once")

_HIDDEN = "what a step leaves for later steps has to be in the states, not in an attribute, list or variable"
_EAGER = "keep Python `if`, float() and .numpy() off tensors: use ops.where, ops.cond and static shapes"
_BATCH = "leave the first axis alone: no reshape, mean or constant of a fixed batch size"
_CONFIG = "let get_config return super().get_config() and every argument of __init__"
_DTYPE = "take dtypes from the inputs or from self.compute_dtype, and cast constants to them"
_SEQUENCE = "let call depend on its inputs, states and weights only"
_PADDING = "guard what has no derivative at zero inputs: add an epsilon before dividing or taking a root"
_GRADIENT = (
    "use the weight in call with operations that have a gradient, make it with trainable=False, "
    "or say in the cell why it has none: no_gradient = {name: reason}"
)
_SLOPE = (
    "compare call with its @tf.custom_gradient; if the gradient is a surrogate on purpose, "
    "say so in the cell: surrogate_gradient = reason"
)
_SHAPE = "let outputs and states keep a static rank and last axis: ops.reshape(h, (-1, self.units))"


def _check(function, change, place="call", needs=PURE) -> Check:
    return Check(function.__name__, function.__doc__.splitlines()[0], function, change, place, needs)


CHECKS = (
    _check(
        ask.layer, "subclass keras.layers.Layer and write call(self, inputs, states)", "__init__", needs=()
    ),
    _check(
        ask.state_size,
        "set self.state_size in __init__: a positive int, or a list with an int or a shape for each state",
        "__init__",
        needs=("layer",),
    ),
    _check(
        ask.build,
        "build(self, input_shape) makes the weights; the flag that Keras sets by itself is called `built`",
        "build",
        needs=("layer",),
    ),
    _check(
        ask.own_variables,
        "make weights and sub-layers in __init__ or build, not in the class or as a default argument",
        "__init__",
        needs=("build",),
    ),
    _check(
        ask.get_initial_state,
        "write get_initial_state(self, batch_size=None)",
        "get_initial_state",
        needs=("layer",),
    ),
    _check(
        ask.initial_state_shapes,
        "return one tensor [batch_size, …] for each entry of state_size",
        "get_initial_state",
        needs=("state_size", "build", "get_initial_state"),
    ),
    _check(ask.sublayers_built, "build every sub-layer in build", "build", needs=("layer",)),
    _check(
        ask.call,
        "write call(self, inputs, states) that returns output, [new states]",
        needs=("initial_state_shapes",),
    ),
    _check(
        ask.state_structure, "return one tensor for each entry of state_size, in a flat list", needs=("call",)
    ),
    _check(
        ask.state_shapes, "return every state in the shape that state_size says", needs=("state_structure",)
    ),
    _check(
        ask.state_dtypes, "return every state in the dtype that it is given in", needs=("state_structure",)
    ),
    _check(
        ask.output_size,
        "set self.output_size in __init__ to the last axis of the output [batch, output_size]",
        "__init__",
        needs=("call",),
    ),
    _check(
        ask.finite,
        "look for a logarithm, a root, a division or an exponential without bounds",
        needs=("state_shapes",),
    ),
    _check(
        ask.same_answer_twice,
        "draw random numbers only when training; keep nothing outside of the states",
        needs=RUNS,
    ),
    _check(ask.hidden_state, _HIDDEN, needs=RUNS),
    _check(
        ask.weights_created_once,
        "make weights and sub-layers in build and keep them in attributes",
        needs=RUNS,
    ),
    _check(ask.graph, _EAGER),
    _check(
        ask.weights_tracked,
        "make weights with self.add_weight, and keep sub-layers in attributes of the cell",
        "build",
        needs=(*RUNS, "weights_created_once"),
    ),
    _check(ask.xla, "use operations that XLA has, or set self.supports_jit = False", needs=("graph",)),
    _check(ask.causality, _HIDDEN),
    _check(ask.independent_samples, _BATCH),
    _check(ask.any_batch_size, _BATCH, needs=("graph", "independent_samples")),
    _check(ask.any_timesteps, "let nothing depend on how many steps there are", needs=("graph",)),
    _check(ask.weight_gradients, _GRADIENT, needs=(*PURE, "weights_tracked")),
    _check(
        ask.set_weights,
        "read weights in call only: no copy, transpose or random constant kept from __init__ or build",
        needs=(*PURE, "own_variables", "weights_tracked"),
    ),
    _check(ask.get_config, _CONFIG, "get_config", needs=("set_weights",)),
    _check(
        ask.save_load,
        "leave saving to Keras; what __init__ or build draws at random must be a weight",
        "__init__",
        needs=("get_config",),
    ),
    _check(ask.float64, _DTYPE, needs=("set_weights",)),
    _check(ask.mixed_float16, _DTYPE, needs=("set_weights",)),
    _check(ask.mixed_bfloat16, _DTYPE, needs=("set_weights",)),
    _check(ask.gradient, _SLOPE, needs=("float64", "weight_gradients")),
    _check(ask.unroll, _SEQUENCE),
    _check(ask.stateful, _SEQUENCE),
    _check(ask.go_backwards, _SEQUENCE),
    _check(ask.mask, _SHAPE, needs=("any_batch_size",)),
    _check(ask.zero_output_for_mask, _SHAPE),
    _check(ask.mask_gradients, _PADDING, needs=("mask", "weight_gradients")),
    _check(ask.return_state, _SEQUENCE),
    _check(
        ask.stacked,
        "return states as a list, and build for any number of features",
        needs=("any_batch_size", "own_variables", "output_size"),
    ),
    _check(ask.bidirectional, _SEQUENCE, needs=("get_config",)),
    _check(
        ask.dropout,
        "apply dropout if training, with masks from self.seed_generator = keras.random.SeedGenerator(seed)",
        needs=("set_weights",),
    ),
    _check(
        ask.initial_state,
        "make what call needs in call or build: Keras skips get_initial_state if it is given states",
        "get_initial_state",
    ),
    _check(ask.reference, "compare call with reference line by line", "reference"),
)
