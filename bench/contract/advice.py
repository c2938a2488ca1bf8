"""What to change in a cell whose check raised an error, and where: by where and why the error arose.

First by what the cell changed for the whole process, then by what the error says, then by what would make
the cell run (fewer features, steps that are images, two inputs a step), then by the method that it arose in,
and only then by the check that was running.
"""

import difflib
import inspect
import math
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from keras import ops, tree

from bench.contract.cell_under_test import BATCH, Cells, initial_states, step
from bench.contract.check import Check, Refused, counted
from bench.contract.report import NO_EXIT

COMPLEX = "Keras casts every state to the compute dtype: keep the real and the imaginary part as two states"
DTYPES = "take dtypes from the inputs or from self.compute_dtype, and cast constants to them"
EAGER = "keep Python `if`, float() and .numpy() off tensors: use ops.where, ops.cond and static shapes"
LOSSES = (
    "what is made in a step cannot leave the loop over the steps: no add_loss, activity_regularizer or "
    "metric in call; put a regularizer on a weight, or return the term as an output"
)
OPS = "use keras.ops in call, not NumPy: what NumPy computes has no gradient, and stands in no graph"
CONFIG = "let get_config return super().get_config() and every argument of __init__"

# what the text of an error says -> what to change
_CAUSES = {
    r"InaccessibleTensorError|out of scope|add_loss|add_metric": LOSSES,
    r"complex(64|128)": COMPLEX,
    r"is a (double|float|half|bfloat16) tensor|type (float|double|half|bfloat16)\w* of argument|"
    r"float64.*float32|float32.*float64": DTYPES,
    r"not a valid scope name": "name the class in letters of ASCII, digits and _: TensorFlow takes no others",
    r"KerasTensor cannot be used": "use keras.ops in call, not tf: Keras also asks for shapes alone",
    r"symbolic .*(bool|iterat|NumPy)|OperatorNotAllowedInGraph|NumPy call": EAGER,
}

# the method that an error arose in -> what to change
_METHODS = {
    "__init__": "let __init__ make the cell from its arguments alone, any number of times",
    "build": "let build(self, input_shape) take one shape, [None, features], and make every weight from it",
    "get_initial_state": "let get_initial_state(self, batch_size=None) return one tensor [batch_size, …] for "
    "each entry of state_size",
    "call": "mend this line: call(self, inputs, states) is given one step, [batch, features], and a list of "
    "states, [batch, units] each unless state_size says otherwise",
    "get_config": CONFIG,
    "from_config": "let from_config return a new cell: return cls(**config)",
    "reference": "let reference(self, inputs, initial_states) take and return NumPy arrays",
}

# the checks that first build and run the cell; one that they pass runs at these sizes
_FIRST = ("build", "own_variables", "initial_state_shapes", "call")


def advice(error: BaseException, check: Check, cells: Cells, switched: list[str]) -> tuple[str, str]:
    """(what to change, `file:line` where, or "") for a check that raised `error`.

    Args:
        switched: the switches of the process that the cell changed before.
    """
    if isinstance(error, Refused):
        return error.change or check.change, error.at or cells.where(check.at)
    at = cells.user_frame(error) or cells.where(check.at)
    if switched:
        return f"leave {', '.join(switched)} alone: a cell changes nothing for the whole process", at
    if isinstance(error, SystemExit):
        return NO_EXIT, at
    probed = _what_would_run(error, cells) if check.name in _FIRST else ""
    named = _by_attribute(error, cells) or _by_name(error, cells)
    return _by_text(error) or probed or named or _by_method(error, check, cells), at


def _by_text(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return next((change for pattern, change in _CAUSES.items() if re.search(pattern, text)), "")


def _by_attribute(error: BaseException, cells: Cells) -> str:
    """Where an attribute is not there: the line that should have made it, if there is one."""
    missing = (
        re.search(r"has no attribute '(\w+)'", str(error)) if isinstance(error, AttributeError) else None
    )
    if missing is None:
        return ""
    name = missing.group(1)
    for method in ("build", "__init__", "get_initial_state"):
        line = cells.line(rf"\bself\.{name}\b\s*[:=]", method)
        if line:
            return (
                f"make self.{name} each time: {method} did not come to {line}; is it in an `if`, or is "
                "`built` set before?"
            )
    return ""


# what Python says of a name that is not there
_UNKNOWN = (
    r"'(?P<owner>\w+)' object has no attribute '(?P<name>\w+)'",
    r"module '(?P<module>[\w.]+)' has no attribute '(?P<name>\w+)'",
    r"name '(?P<name>\w+)' is not defined",
)


def _by_name(error: BaseException, cells: Cells) -> str:
    """Where a name is not there: the nearest that is, or where to make it."""
    found = next(filter(None, (re.search(pattern, str(error)) for pattern in _UNKNOWN)), None)
    if found is None or not isinstance(error, (AttributeError, NameError)):
        return ""
    parts = found.groupdict()
    if owner := parts.get("owner"):
        known = _attributes(owner, cells)
        return _nearest(parts["name"], known, "self.", "set it in __init__ or build") if known else ""
    if module := parts.get("module"):
        known = dir(sys.modules.get(module))
        return _nearest(parts["name"], known, f"{module}.", "look it up in the module's documentation")
    return f"import or define {parts['name']}"


def _attributes(owner: str, cells: Cells) -> list[str]:
    """The names that a cell of this class has, once it is built if it can be; none of another class."""
    try:
        cell = cells.built()
    except Exception:
        cell = cells.new()
    return dir(cell) if type(cell).__name__ == owner else []


def _nearest(name: str, known: Iterable[str], prefix: str, otherwise: str) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {prefix}{near[0]}?" if near else f"there is no {prefix}{name}: {otherwise}"


def _by_method(error: BaseException, check: Check, cells: Cells) -> str:
    method = cells.user_method(error, _METHODS)
    asks_more = check.at == "call" and check.name != "call"  # than that a step runs
    return check.change if method == "call" and asks_more else _METHODS.get(method, check.change)


# --- what would make the cell run ---------------------------------------------------------------------------


def _what_would_run(error: BaseException, cells: Cells) -> str:
    """The advice of the first trial in which the cell can be built and takes a step, or ""."""
    for change, step_shapes in _trials(error, cells):
        if _runs(cells, step_shapes):
            return change
    return _state_size_that_runs(cells)


_MOST_STATES = 3  # that a trial gives a cell


def _state_size_that_runs(cells: Cells) -> str:
    """The advice for a cell whose `state_size` is not what its `call` takes: states of `units` run, or ""."""
    try:
        said = cells.new().state_size
    except Exception:
        return ""
    for count in range(1, _MOST_STATES + 1):
        sizes = [cells.units] * count
        if sizes != (list(said) if isinstance(said, (list, tuple)) else [said]) and _runs_from(cells, sizes):
            wanted = sizes if count > 1 else cells.units
            return (
                f"state_size is {said}, and call takes {_COUNTS[count]} of {cells.units}, the units: set "
                f"self.state_size so that it is {wanted} here"
            )
    return ""


_COUNTS = {1: "one state", 2: "two states", 3: "three states"}


def _runs_from(cells: Cells, sizes: list[int]) -> bool:
    """Whether a new cell takes a step from states of these sizes, and returns states of the same."""
    try:
        cell = cells.new()
        cell.build(cells.build_shape)
        states = [ops.zeros((BATCH, size)) for size in sizes]
        _, after = step(cell, cells.inputs()[:, 0], states)
        return [tuple(state.shape) for state in after] == [(BATCH, size) for size in sizes]
    except Exception:
        return False


def _trials(error: BaseException, cells: Cells) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
    """(what to change, the shapes of the inputs of one step): what the cell may have been made for."""
    if len(cells.step_shape) > 1:
        return
    (features,), units = cells.step_shape, cells.units
    if features != units:
        yield f"the cell takes as many features as units: ask with --features={units}", [(units,)]
    for number in _numbers(error) - {features, units}:
        yield f"the cell takes {counted(number, 'feature')}: ask with --features={number}", [(number,)]
    for shape in _image_shapes(cells, features):
        text = ",".join(map(str, shape))
        yield f"a step of the inputs is no vector: give its shape, --step-shape={text}", [shape]
    for sizes in ((features, 1), (features, features), (features, units), (features, 1, 1), (features,) * 3):
        count = {2: "two", 3: "three"}[len(sizes)]
        yield (
            f"Keras 3 passes one tensor a step, not {count}: concatenate them along the last axis, and take "
            "them apart in call",
            [(size,) for size in sizes],
        )


def _numbers(error: BaseException) -> set[int]:
    """The first few small numbers in an error's text, of which one may be the features wanted."""
    return {int(number) for number in re.findall(r"\b\d{1,3}\b", str(error))[:8] if int(number) > 0}


def _image_shapes(cells: Cells, features: int) -> Iterator[tuple[int, ...]]:
    """Shapes of a step like those of the states that are no vectors, with one and with more channels."""
    try:
        sizes = cells.new().state_size
    except Exception:
        return
    for size in sizes if isinstance(sizes, (list, tuple)) else []:
        if isinstance(size, (list, tuple)) and len(size) > 1:
            yield from ((*size[:-1], channels) for channels in (1, 3, features))


def _runs(cells: Cells, step_shapes: list[tuple[int, ...]]) -> bool:
    """Whether a new cell can be built for inputs of these shapes and takes a step with them."""
    shapes = [(None, *shape) for shape in step_shapes]
    inputs = [ops.ones((BATCH, *shape)) / math.prod(shape) for shape in step_shapes]
    many = len(step_shapes) > 1
    try:
        cell = cells.new()
        cell.build(shapes if many else shapes[0])
        output, _ = step(cell, tuple(inputs) if many else inputs[0], initial_states(cell))
    except Exception:
        return False
    return all(map(ops.is_tensor, tree.flatten(output)))


# --- arguments of call that Keras does not give -------------------------------------------------------------


def arguments_not_given(call: Any) -> tuple[list[str], list[str]]:
    """The arguments of a cell's `call` that Keras 3 never passes: (those that it needs, the others)."""
    needed: list[str] = []
    optional: list[str] = []
    parameters = list(inspect.signature(call).parameters.values())[2:]
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name not in ("training", "mask"):
            (needed if parameter.default is parameter.empty else optional).append(parameter.name)
    return needed, optional
