"""The protocol of a cell: what it says of itself, how it is built, and what one step returns."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from bench.contract.advice import COMPLEX, OPS, arguments_not_given
from bench.contract.cell_under_test import (
    BATCH,
    STEPS,
    Cells,
    arrays,
    attribute_of,
    initial_states,
    is_tensor_shape,
    one_line,
    shapes,
    step,
    walk,
)
from bench.contract.check import Refused, Seen, check, counted
from bench.contract.load_cell import TargetError


@check("subclass keras.layers.Layer and write call(self, inputs, states)", at="__init__", needs=())
def layer(cells: Cells) -> str:
    """Is it a new Keras layer each time?"""
    cell, other = cells.new(), cells.new()
    if not isinstance(cell, keras.layers.Layer):
        seen, change = _foreign(type(cell))
        raise Refused("a keras.layers.Layer, which tracks its weights", seen, change)
    if _is_whole_layer(cell):
        change = (
            "name the cell that runs one step, such as LSTMCell for LSTM; ask a whole layer with "
            "--layer, in Python with layer=True"
        )
        raise Refused("a cell, which runs one step", "a layer, which runs whole sequences", change)
    if cell is other:
        raise Refused("a new cell at each call", "the same one twice", "make the cell inside the function")
    return f"a {type(cell).__name__}"


def _is_whole_layer(cell: Any) -> bool:
    """True for a layer or model that runs sequences: its call takes no states, and it has no `state_size`."""
    if isinstance(cell, (keras.layers.RNN, keras.layers.Bidirectional, keras.Model)):
        return True
    return not hasattr(cell, "state_size") and _takes_inputs_alone(cell.call)


def _takes_inputs_alone(call: Callable) -> bool:
    parameters = inspect.signature(call).parameters.values()
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return False
    return [p.name for p in parameters if p.name not in ("training", "mask")][1:] == []


# where a class comes from that is no layer of Keras 3 -> what that is
_ELSEWHERE = {
    "tf_keras": "a layer of Keras 2",
    "tensorflow.python.keras": "a layer of TensorFlow's old Keras",
    "tensorflow": "a module of TensorFlow",
    "torch": "a module of PyTorch",
    "flax": "a module of Flax",
}


def _foreign(owner: type) -> tuple[str, str]:
    """What is seen of a class that is no layer of Keras, and what to change."""
    homes = [base.__module__ for base in owner.__mro__[1:]]
    for prefix, what in _ELSEWHERE.items():
        if any(f"{home}.".startswith(f"{prefix}.") for home in homes):
            return f"{owner.__name__}, {what}", "import keras from `keras`, and subclass keras.layers.Layer"
    return owner.__name__, ""


@check(
    "set self.state_size in __init__: a positive int, or a list with an int or a shape for each state",
    at="__init__",
    needs=("layer",),
)
def state_size(cells: Cells) -> str:
    """Does state_size say what the states are?"""
    size = getattr(cells.new(), "state_size", None)
    expected = "`state_size` set in __init__, an integer or a list with one entry a state"
    at = cells.line(r"^\s*(self\.|def )?state_size\b")
    if size is None:
        raise Refused(expected, "no `state_size` before the cell is built", at=at)
    if is_tensor_shape(size) or (isinstance(size, (list, tuple)) and any(map(is_tensor_shape, size))):
        change = "Keras 3 takes no tf.TensorShape here: write self.state_size = units, or [(rows, columns)]"
        raise Refused(expected, f"{size!r}", change, at)
    if not _is_size(size):
        raise Refused(expected, f"{size!r} of type {type(size).__name__}", at=at)
    return f"state_size is {size}"


def _is_size(size: Any) -> bool:
    if isinstance(size, (list, tuple)):
        return bool(size) and all(map(_is_size, size))
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


@check(
    "build(self, input_shape) makes the weights; the flag that Keras sets by itself is called `built`",
    at="build",
    needs=("layer",),
)
def build(cells: Cells) -> str:
    """Can Keras build it?"""
    cell = cells.new()
    expected = "`build` to be a method that Keras can call"
    at = cells.line(r"^\s*self\.build\s*=")
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    cell.build(cells.build_shape)
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    return (
        f"builds {counted(len(cell.weights), 'weight')} for [batch, {', '.join(map(str, cells.step_shape))}]"
    )


@check(
    "make weights and sub-layers in __init__ or build, not in the class or as a default argument",
    at="__init__",
    needs=("build",),
)
def own_variables(cells: Cells) -> str:
    """Does each cell have variables of its own?"""
    one, other = cells.built(), cells.built()
    mine = {id(variable) for variable in one.variables}
    shared = [variable.path for variable in other.variables if id(variable) in mine]
    if shared:
        raise Refused("two cells to have no variable in common", f"both use {', '.join(shared)}")
    return f"{counted(len(one.variables), 'variable')} of its own"


@check("write get_initial_state(self, batch_size=None)", at="get_initial_state", needs=("layer",))
def get_initial_state(cells: Cells) -> Seen | str:
    """Does get_initial_state take what Keras 3 gives it?"""
    method = getattr(cells.new(), "get_initial_state", None)
    if method is None:
        return "none: Keras starts from zeros"
    signature = inspect.signature(method)
    try:
        signature.bind(batch_size=1)
    except TypeError as error:
        raise _old_call(method, error) from error
    left_out = [name for name in _OLD_ARGUMENTS if name in signature.parameters]
    hint = f"{' and '.join(left_out)} are left out by Keras 3, which gives batch_size only"
    return Seen(f"get_initial_state{signature} takes batch_size", hint if left_out else "")


_OLD_ARGUMENTS = ("inputs", "dtype")


def _old_call(method: Callable, error: Exception) -> Refused:
    """The refusal of a get_initial_state that does not do with a batch size."""
    parameters = inspect.signature(method).parameters
    old = any(name in parameters for name in _OLD_ARGUMENTS)
    signature = f"get_initial_state({', '.join(parameters)}){', the signature of Keras 2' if old else ''}"
    return Refused(
        "get_initial_state(batch_size=…), as Keras 3 calls it, to work",
        f"{signature}: {one_line(error)}",
        "write get_initial_state(self, batch_size=None); the dtype is self.compute_dtype",
    )


@check(
    "return one tensor [batch_size, …] for each entry of state_size",
    at="get_initial_state",
    needs=("state_size", "build", "get_initial_state"),
)
def initial_state_shapes(cells: Cells) -> Seen:
    """Does the initial state have the shapes of state_size?"""
    cell = cells.built()
    sizes = _as_list(cell.state_size)
    for batch_size in (1, BATCH):
        states = _asked_states(cell, sizes, batch_size)
        if not _fits(sizes, states, batch_size):
            expected = f"one state [{batch_size}, …] for each entry of state_size {sizes}"
            raise Refused(expected, f"shapes {shapes(states)}", _tensor_state_advice(cell.state_size))
    return Seen("one state for each entry of state_size", _dtype_hint(cell, states))


def _dtype_hint(cell: Any, states: Any) -> str:
    """A hint for states that Keras casts; refuses those that this would change."""
    dtypes = [keras.backend.standardize_dtype(state.dtype) for state in tree.flatten(states)]
    strange = [dtype for dtype in dtypes if "complex" in dtype]
    if strange:
        raise Refused("states of real numbers", f"an initial state in {strange[0]}", COMPLEX)
    wide = [dtype for dtype in dtypes if keras.backend.is_float_dtype(dtype) and dtype != cell.compute_dtype]
    if not wide:
        return ""
    return (
        f"the initial state is {wide[0]}, which Keras casts to the compute dtype, {cell.compute_dtype}: make "
        "it with dtype=self.compute_dtype"
    )


def _asked_states(cell: Any, sizes: list[Any], batch_size: int) -> list[Any]:
    method = getattr(cell, "get_initial_state", None)
    if method is None:
        if all(isinstance(size, int) for size in sizes):
            return keras.layers.RNN(cell).get_initial_state(batch_size)
        change = "write get_initial_state(self, batch_size=None) that returns a tensor for each state"
        raise Refused("get_initial_state, since a state is a tensor", "no such method", change)
    try:
        states = method(batch_size=batch_size)
    except Exception as error:
        if any(name in inspect.signature(method).parameters for name in _OLD_ARGUMENTS):
            raise _old_call(method, error) from error
        raise
    return list(states) if tree.is_nested(states) else [states]


def _as_list(size: Any) -> list[Any]:
    return list(size) if isinstance(size, (list, tuple)) else [size]


def _fits(size: Any, state: Any, batch_size: int) -> bool:
    """Whether a structure of states has the shapes that `state_size` says, [batch_size, *size] each."""
    if isinstance(state, (list, tuple)):
        size = _as_list(size)
        return len(size) == len(state) and all(
            _fits(s, t, batch_size) for s, t in zip(size, state, strict=True)
        )
    return tuple(getattr(state, "shape", ())) == (batch_size, *_as_list(size))


def _tensor_state_advice(size: Any) -> str:
    if isinstance(size, tuple) and len(size) > 1:
        means = counted(len(size), "state")
        return f"state_size = {size} means {means}; for one state of that shape write [{size}]"
    return ""


@check("build every sub-layer in build", at="build", needs=("build",))
def sublayers_built(cells: Cells) -> str:
    """Are sub-layers built with the cell?"""
    cell = cells.new()
    cell.build(cells.build_shape)
    unbuilt = [part for part in cell._flatten_layers(include_self=False) if not part.built]
    if unbuilt:
        with contextlib.suppress(Exception):  # what `call` has to say, `call` will say
            step(cell, cells.inputs()[:, 0], initial_states(cell))
    for part in unbuilt:
        if part.variables or type(part).build is not keras.layers.Layer.build:
            name = f"self.{attribute_of(cell, part) or part.name}"
            change = f"call {name}.build(shape) in build, with the shape of what the sub-layer will be given"
            raise Refused(f"{name} to have its weights once the cell is built", "it has none yet", change)
    return "all sub-layers are built with the cell"


@check("write call(self, inputs, states) that returns output, [new states]", needs=("initial_state_shapes",))
def call(cells: Cells) -> Seen:
    """Does a step return its output and its states?"""
    cell = cells.built()
    needed, optional = arguments_not_given(cell.call)
    if needed:
        names = " or ".join(needed)
        change = f"Keras 3 passes no {names} to a cell: give them with the inputs, or as weights"
        raise Refused("call to need inputs and states alone", f"it needs {names} too", change)
    result = cell(cells.inputs()[:, 0], tuple(initial_states(cell)))
    expected = "call to return a pair: (output, [new states])"
    if ops.is_tensor(result):
        raise Refused(expected, f"one tensor {tuple(result.shape)}", "write `return output, [state]`")
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        many = isinstance(result, (list, tuple))
        seen = counted(len(result), "value") if many else f"a {type(result).__name__}"
        raise Refused(expected, seen, "write `return output, [state, …]`")
    if not ops.is_tensor(result[0]):
        change = OPS if isinstance(result[0], (np.ndarray, np.generic)) else ""
        raise Refused(expected, f"an output of type {type(result[0]).__name__}", change)
    hint = (
        f"Keras 3 passes no {' or '.join(optional)} to a cell: it is always as by default" if optional else ""
    )
    return Seen(f"returns an output {tuple(result[0].shape)} and its states", hint)


@check("return one tensor for each entry of state_size, in a flat list", needs=("call",))
def state_structure(cells: Cells) -> Seen | str:
    """Are there as many new states as old?"""
    cell = cells.built()
    states = initial_states(cell)
    _, new = cell(cells.inputs()[:, 0], tuple(states))
    bare = ops.is_tensor(new)
    if _skeleton([new] if bare else new) != _skeleton(states):
        raise Refused(f"new states of the same structure as the old, {shapes(states)}", _structure_text(new))
    hint = (
        "`return output, [state]` is what Keras documents; a bare state breaks where cells are stacked"
        if bare
        else ""
    )
    return Seen("the new states have the structure of the old", hint)


def _skeleton(states: Any) -> Any:
    if isinstance(states, (list, tuple)):
        return tuple(map(_skeleton, states))
    return "tensor" if ops.is_tensor(states) else type(states).__name__


def _structure_text(states: Any) -> str:
    if isinstance(states, (list, tuple)) and all(map(ops.is_tensor, states)):
        return f"{counted(len(states), 'state')} of shapes {shapes(list(states))}"
    return f"{_skeleton(states)}".replace("'", "")


@check("return every state in the shape that state_size says", needs=("state_structure",))
def state_shapes(cells: Cells) -> str:
    """Do states keep their shapes?"""
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        if tuple(old.shape) != tuple(new.shape):
            change = (
                "return every state in the shape that state_size says, or let state_size say another: it is "
                f"{cells.new().state_size}"
            )
            raise Refused(
                f"state {index} to keep its shape {tuple(old.shape)}", f"{tuple(new.shape)}", change
            )
    return "the new states have the shapes of the old"


def _one_step(cells: Cells) -> tuple[list[Any], list[Any]]:
    """All states before a step, and after it."""
    cell = cells.built()
    states = initial_states(cell)
    _, new = step(cell, cells.inputs()[:, 0], states)
    return tree.flatten(states), tree.flatten(new)


@check("return every state in the dtype that it is given in", needs=("state_structure",))
def state_dtypes(cells: Cells) -> str:
    """Do states keep their dtypes?"""
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        before, after = map(keras.backend.standardize_dtype, (old.dtype, new.dtype))
        if before != after:
            change = f"Keras hands states over in the compute dtype: ops.cast(state, states[{index}].dtype)"
            change = COMPLEX if "complex" in after else change
            raise Refused(f"state {index} to keep the dtype it is given in, {before}", after, change)
    return "the new states have the dtypes of the old"


@check(
    "set self.output_size in __init__ to the last axis of the output [batch, output_size]",
    at="__init__",
    needs=("call",),
)
def output_size(cells: Cells) -> str:
    """Is the output of the size declared?"""
    cell = cells.built()
    output, _ = step(cell, cells.inputs()[:, 0], initial_states(cell))
    declared = getattr(cell, "output_size", None)
    said = declared if declared is not None else _as_list(cell.state_size)[0]
    name = "output_size" if declared is not None else "output_size, or else the first entry of state_size,"
    shape = tuple(output.shape)
    if shape != (BATCH, *_as_list(said)):
        change = f"set self.output_size = {shape[-1]} in __init__" if len(shape) == 2 else ""
        at = cells.line(r"^\s*(self\.|def )?output_size\b")
        raise Refused(f"{name} to say the size of the output {shape}", f"{said}", change, at)
    return f"the output is {shape}, as declared"


@check(
    "let it be the width of the state or of the output; if it is something else, write a function of units",
    at="__init__",
    needs=("output_size", "state_shapes"),
)
def units(cells: Cells) -> Seen:
    """Is the cell as wide as its units?"""
    name = cells.target.units_argument
    for number in (cells.units, 2 * cells.units):
        try:
            cell = cells.target.make(number)
        except TargetError:
            continue  # of another number it makes nothing
        sizes = [cell.state_size, getattr(cell, "output_size", None)]
        if number not in tree.flatten(sizes):
            if not cells.built().weights:
                return Seen("no weights", f"its width does not follow {name}, by which a run calls its rows")
            raise Refused(
                f"an output or a state {number} wide with {name}={number}",
                f"state_size {sizes[0]}" + ("" if sizes[1] is None else f", output_size {sizes[1]}"),
            )
    return Seen(f"as wide as {name} says")


@check("look for a logarithm, a root, a division or an exponential without bounds", needs=("state_shapes",))
def finite(cells: Cells) -> str:
    """Are outputs and states finite numbers?"""
    cell = cells.built()
    outputs, states = walk(cell, cells.inputs())
    for name, values in (("outputs", outputs), ("states", states)):
        if not all(np.isfinite(array).all() for array in arrays(values)):
            raise Refused(f"finite {name} over {STEPS} steps of random inputs", "NaN or infinity")
    return "outputs and states are finite"
