"""The questions that the contract asks a cell: one function each, whose docstring is the question.

Each takes `Cells`, makes the cells it needs, and returns what it saw, with a hint if something is good to
know; it raises `Refused` with what was expected and what was seen, or `Skipped` where it does not apply.
The table of them all, with what to change, is `bench.contract.check_cell.CHECKS`.
"""

import contextlib
import inspect
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from bench.contract.cell_under_test import (
    BATCH,
    SEED,
    STEPS,
    Cells,
    Refused,
    Seen,
    Skipped,
    agree,
    arrays,
    compiled,
    custom_classes,
    custom_objects,
    difference,
    dtype_policy,
    gradients,
    has_xla,
    initial_states,
    is_custom,
    is_tensor_shape,
    one_line,
    reached_states,
    run,
    shapes,
    step,
    variables_made,
    variables_used,
    walk,
)
from bench.contract.load_cell import TargetError

# --- protocol -----------------------------------------------------------------------------------------------


def layer(cells: Cells) -> str:
    """Is it a new Keras layer each time?"""
    cell, other = cells.new(), cells.new()
    if not isinstance(cell, keras.layers.Layer):
        raise Refused("a keras.layers.Layer, which tracks its weights", f"{type(cell).__name__}")
    if isinstance(cell, (keras.layers.RNN, keras.layers.Bidirectional)):
        change = "name the cell that runs one step, such as LSTMCell for LSTM"
        raise Refused("a cell, which runs one step", "a layer, which runs whole sequences", change)
    if cell is other:
        raise Refused("a new cell at each call", "the same one twice", "make the cell inside the function")
    return f"a {type(cell).__name__}"


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


def build(cells: Cells) -> str:
    """Can Keras build it?"""
    cell = cells.new()
    expected = "`build` to be a method that Keras can call"
    at = cells.line(r"^\s*self\.build\s*=")
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    cell.build((None, cells.features))
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    return f"builds {len(cell.weights)} weights for [batch, {cells.features}]"


def own_variables(cells: Cells) -> str:
    """Does each cell have variables of its own?"""
    one, other = cells.built(), cells.built()
    mine = {id(variable) for variable in one.variables}
    shared = [variable.path for variable in other.variables if id(variable) in mine]
    if shared:
        raise Refused("two cells to have no variable in common", f"both use {', '.join(shared)}")
    return f"{len(one.variables)} variables of its own"


def sublayers_built(cells: Cells) -> str:
    """Are sub-layers built with the cell?"""
    cell = cells.new()
    try:
        cell.build((None, cells.features))
    except Exception as error:
        raise Skipped("the cell cannot be built") from error
    unbuilt = [part for part in cell._flatten_layers(include_self=False) if not part.built]
    if unbuilt:
        with contextlib.suppress(Exception):  # what `call` has to say, `call` will say
            step(cell, cells.inputs()[:, 0], initial_states(cell))
    for part in unbuilt:
        if part.variables or type(part).build is not keras.layers.Layer.build:
            name = f"self.{_attribute(cell, part) or part.name}"
            change = f"call {name}.build(shape) in build, with the shape of what the sub-layer will be given"
            raise Refused(f"{name} to have its weights once the cell is built", "it has none yet", change)
    return "all sub-layers are built with the cell"


def _attribute(cell: Any, part: Any) -> str:
    """The name of the attribute of the cell or of one of its sub-layers that holds `part`, or ""."""
    attributes = [item for owner in cell._flatten_layers() for item in vars(owner).items()]
    return next((name for name, value in attributes if value is part), "")


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


def initial_state_shapes(cells: Cells) -> str:
    """Does the initial state have the shapes of state_size?"""
    cell = cells.built()
    sizes = _as_list(cell.state_size)
    for batch_size in (1, BATCH):
        states = _asked_states(cell, sizes, batch_size)
        if not _fits(sizes, states, batch_size):
            expected = f"one state [{batch_size}, …] for each entry of state_size {sizes}"
            raise Refused(expected, f"shapes {shapes(states)}", _tensor_state_advice(cell.state_size))
    return "one state for each entry of state_size"


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
        return f"state_size = {size} means {len(size)} states; for one state of that shape write [{size}]"
    return ""


def call(cells: Cells) -> str:
    """Does a step return its output and its states?"""
    cell = cells.built()
    result = cell(cells.inputs()[:, 0], tuple(initial_states(cell)))
    expected = "call to return a pair: (output, [new states])"
    if ops.is_tensor(result):
        raise Refused(expected, f"one tensor {tuple(result.shape)}", "write `return output, [state]`")
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        count = len(result) if isinstance(result, (list, tuple)) else type(result).__name__
        raise Refused(expected, f"{count} values", "write `return output, [state, …]`")
    if not ops.is_tensor(result[0]):
        raise Refused(expected, f"an output of type {type(result[0]).__name__}")
    return f"returns an output {tuple(result[0].shape)} and its states"


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
        return f"{len(states)} states of shapes {shapes(list(states))}"
    return f"{_skeleton(states)}".replace("'", "")


def _one_step(cells: Cells) -> tuple[list[Any], list[Any]]:
    """All states before a step, and after it."""
    cell = cells.built()
    states = initial_states(cell)
    _, new = step(cell, cells.inputs()[:, 0], states)
    return tree.flatten(states), tree.flatten(new)


def state_shapes(cells: Cells) -> str:
    """Do states keep their shapes?"""
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        if tuple(old.shape) != tuple(new.shape):
            raise Refused(f"state {index} to keep its shape {tuple(old.shape)}", f"{tuple(new.shape)}")
    return "the new states have the shapes of the old"


def state_dtypes(cells: Cells) -> str:
    """Do states keep their dtypes?"""
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        before, after = map(keras.backend.standardize_dtype, (old.dtype, new.dtype))
        if before != after:
            change = f"Keras hands states over in the compute dtype: ops.cast(state, states[{index}].dtype)"
            raise Refused(f"state {index} to keep the dtype it is given in, {before}", after, change)
    return "the new states have the dtypes of the old"


def output_size(cells: Cells) -> str:
    """Is the output of the size declared?"""
    cell = cells.built()
    output, _ = step(cell, cells.inputs()[:, 0], initial_states(cell))
    declared = getattr(cell, "output_size", None)
    said = declared if declared is not None else _as_list(cell.state_size)[0]
    name = "output_size" if declared is not None else "output_size, or else the first entry of state_size,"
    shape = tuple(output.shape)
    if not isinstance(said, int) or shape != (BATCH, said):
        change = f"set self.output_size = {shape[-1]} in __init__" if len(shape) == 2 else ""
        at = cells.line(r"^\s*(self\.|def )?output_size\b")
        raise Refused(f"{name} to say the size of the output {shape}", f"{said}", change, at)
    return f"the output is {shape}, as declared"


def finite(cells: Cells) -> str:
    """Are outputs and states finite numbers?"""
    cell = cells.built()
    outputs, states = walk(cell, cells.inputs())
    for name, values in (("outputs", outputs), ("states", states)):
        if not all(np.isfinite(array).all() for array in arrays(values)):
            raise Refused(f"finite {name} over {STEPS} steps of random inputs", "NaN or infinity")
    return "outputs and states are finite"


# --- purity -------------------------------------------------------------------------------------------------


def same_answer_twice(cells: Cells) -> str:
    """Is the answer the same twice?"""
    first, others, changed = _asked_again(cells)
    what = "the same answer to the same inputs and states"
    if changed and difference(others, first) > cells.tolerance():
        return "not the same, since the cell's attributes change"  # which `hidden_state` says
    return agree(others, first, cells.tolerance(), what)


def hidden_state(cells: Cells) -> Seen:
    """Is there no state but the states?"""
    first, others, changed = _asked_again(cells)
    names = ", ".join(f"self.{name}" for name in changed)
    if not names:
        return Seen("no attribute changes from call to call")
    what = f"an answer that does not depend on {names}, which changes from call to call"
    at = cells.line(rf"self\.{changed[0]}\b", "call")
    return Seen(agree(others, first, cells.tolerance(), what, at=at), f"{names} changes from call to call")


def _asked_again(cells: Cells) -> tuple[Any, list[Any], list[str]]:
    """An answer, the answers to the same question at once and after another one, and the names of the
    attributes that had changed."""
    cell, inputs = cells.built(), cells.inputs()
    states = reached_states(cell, inputs)
    before, first = _attributes(cell), step(cell, inputs[:, 2], states)
    at_once = step(cell, inputs[:, 2], states)
    step(cell, inputs[:, 3], initial_states(cell))
    later = step(cell, inputs[:, 2], states)
    return [first, first], [at_once, later], _changed(before, _attributes(cell))


def _attributes(cell: Any) -> dict[str, Any]:
    """What the cell's attributes hold: variables and lists by content, the rest by identity."""
    hidden = vars(keras.layers.Layer()).keys() | {"_dropout_mask", "_recurrent_dropout_mask"}
    own = {name: value for name, value in vars(cell).items() if name not in hidden}
    return {name: _content(value) for name, value in own.items()}


def _content(value: Any) -> Any:
    if isinstance(value, (keras.Variable, np.ndarray)):
        return np.asarray(getattr(value, "value", value)).tobytes()
    if isinstance(value, (list, tuple, dict, set)):
        return len(value)
    return value


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(one: Any, other: Any) -> bool:
        plain = isinstance(one, (bytes, int, float, str)) and isinstance(other, type(one))
        return one is other or (plain and one == other)

    return [name for name, value in after.items() if not same(before.get(name), value)]


def causality(cells: Cells) -> str:
    """Are outputs independent of later inputs?"""
    cell, inputs = cells.built(), cells.inputs()
    future = ops.concatenate([inputs[:, :2], cells.inputs(seed=1)[:, 2:]], axis=1)
    outputs, _ = run(cell, inputs)
    others, _ = run(cell, future)
    return agree(
        others[:, :2], outputs[:, :2], cells.tolerance(), "outputs that do not depend on later inputs"
    )


def independent_samples(cells: Cells) -> str:
    """Are the samples of a batch independent?"""
    cell, inputs = cells.built(), cells.inputs()
    changed = ops.concatenate([cells.inputs(seed=1)[:1], inputs[1:]], axis=0)
    others, seen = (_samples(run(cell, given), slice(1, None)) for given in (inputs, changed))
    what = "samples of a batch that do not change each other's answers"
    return agree(seen, others, cells.tolerance(), what)


def _samples(result: tuple[Any, Any], rows: slice) -> tuple[Any, Any]:
    return tree.map_structure(lambda value: value[rows], result)


def any_batch_size(cells: Cells) -> str:
    """Does any batch size work?"""
    cell, inputs = cells.built(), cells.inputs()
    whole = run(cell, inputs)
    first = _samples(whole, slice(0, 1))
    agree(run(cell, inputs[:1]), first, cells.tolerance(), "a batch of 1 to be as the first sample of 3")
    many = compiled(lambda x: run(cell, x), (None, STEPS, cells.features))
    agree(many(inputs), whole, cells.tolerance(), "a graph for any batch size to answer as for 3")
    return agree(many(inputs[:1]), first, cells.tolerance(), "one answer at batch sizes 1, 3 and None")


def any_timesteps(cells: Cells) -> str:
    """Does any number of timesteps work?"""
    cell, longest = cells.built(), 3 * STEPS
    inputs = cells.inputs(longest)
    outputs, _ = run(cell, inputs)
    for timesteps in (1, STEPS):
        shorter, _ = run(cell, inputs[:, :timesteps])
        what = f"{timesteps} timesteps to be as the first of {longest}"
        agree(shorter, outputs[:, :timesteps], cells.tolerance(), what)
    many = compiled(lambda x: run(cell, x)[0], (BATCH, None, cells.features))
    agree(many(inputs[:, :1]), outputs[:, :1], cells.tolerance(), "a graph for any timesteps to answer for 1")
    return agree(
        many(inputs), outputs, cells.tolerance(), f"one answer at 1, {STEPS}, {longest} and None timesteps"
    )


# --- weights ------------------------------------------------------------------------------------------------


def weights_created_once(cells: Cells) -> str:
    """Are weights made once, in build?"""
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    made = variables_made(lambda: run(cell, inputs))
    if made:
        raise Refused("all weights to be made in build", f"{', '.join(sorted(set(made)))} made in call again")
    return f"{len(cell.weights)} weights, made in build"


def weights_tracked(cells: Cells) -> str:
    """Are all weights tracked?"""
    cell, inputs = cells.built(), cells.inputs()
    states = initial_states(cell)
    used = variables_used(lambda: step(cell, inputs[:, 0], states))
    tracked = {id(variable.value) for variable in cell.variables}
    lost = [variable for variable in used if id(variable) not in tracked]
    if lost:
        attribute = _attribute(cell, lost[0])
        names = ", ".join(f"{variable.name.partition(':')[0]} {tuple(variable.shape)}" for variable in lost)
        seen = f"{f'self.{attribute}' if attribute else names}, which is not"
        at = cells.line(rf"^\s*self\.{attribute}\b") if attribute else ""
        raise Refused("every variable that call uses to be in cell.weights", seen, at=at)
    return f"all {len(used)} variables that call uses are tracked"


def weight_gradients(cells: Cells) -> Seen:
    """Does every weight receive a gradient?"""
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    excused = dict(getattr(cell, "no_gradient", {}))
    names = sorted(variable.name for variable in cell.trainable_variables)
    unknown = [key for key in excused if not any(_is_called(v, key) for v in cell.trainable_variables)]
    if unknown:
        raise Refused(f"no_gradient to name trainable weights ({', '.join(names)})", f"{unknown}")
    found = gradients(lambda: _total(run(cell, inputs)), cell.trainable_variables)
    zero = []
    for variable, gradient in zip(cell.trainable_variables, found, strict=True):
        if _is_excused(cell, variable):
            continue
        if gradient is None or not np.isfinite(gradient).all():
            seen = "none" if gradient is None else "one that is not finite"
            raise Refused(f"a finite gradient for the weight {variable.name!r}", seen)
        zero += [] if gradient.any() else [variable.name]
    hint = f"the gradient of {', '.join(zero)} is zero on random inputs" if zero else ""
    excuse = "".join(f"; {name} has none: {reason}" for name, reason in excused.items())
    return Seen(f"{len(found) - len(excused)} trainable weights receive a finite gradient{excuse}", hint)


def _is_excused(cell: Any, variable: Any) -> bool:
    """Whether the cell's `no_gradient` names the weight, by its name or the end of its path."""
    return any(_is_called(variable, key) for key in getattr(cell, "no_gradient", {}))


def _is_called(variable: Any, name: str) -> bool:
    return f"/{variable.path}".endswith(f"/{name}")


def _total(result: Any, seed: int = 3) -> Any:
    """A random combination of all float tensors of a structure: one number with a gradient for all."""
    rng = np.random.default_rng(seed)
    total: Any = 0.0
    for value in tree.flatten(result):
        if keras.backend.is_float_dtype(value.dtype):
            factors = ops.convert_to_tensor(rng.uniform(0.5, 1.5, tuple(value.shape)), dtype=value.dtype)
            total = total + ops.sum(value * factors)
    return total


def set_weights(cells: Cells) -> str:
    """Do set weights decide the answer?"""
    one, other, inputs = cells.built(seed=0), cells.built(seed=1), cells.inputs()
    run(other, inputs)
    other.set_weights(one.get_weights())
    what = "a cell that is given another's weights to answer as that one"
    return agree(run(other, inputs), run(one, inputs), cells.tolerance(), what)


def get_config(cells: Cells) -> Seen:
    """Does get_config say all it takes to make the cell again?"""
    cell, inputs = cells.built(), cells.inputs()
    saved = json.dumps(keras.saving.serialize_keras_object(cell))
    config = json.loads(saved)
    with keras.saving.custom_object_scope(custom_objects(cell)):
        twin = keras.saving.deserialize_keras_object(json.loads(saved))  # from_config may change what it gets
        again = json.loads(json.dumps(keras.saving.serialize_keras_object(twin)))
    lost = [key for key, value in config["config"].items() if again["config"].get(key, ...) != value]
    if lost:
        raise Refused("the same config from the cell made again", f"other values of {', '.join(lost)}")
    if not twin.built:
        twin.build((None, cells.features))
    if [w.shape for w in twin.weights] != [w.shape for w in cell.weights]:
        raise Refused("the same weights in the cell made again", f"{shapes(twin.weights)}")
    twin.set_weights(cell.get_weights())
    what = "the cell made again from its config to answer the same"
    seen = agree(run(twin, inputs), run(cell, inputs), cells.tolerance(), what)
    silent = ", ".join(_not_in_config(cell, config["config"]))
    return Seen(seen, f"get_config says nothing of {silent}: a copy gets the default value" if silent else "")


def _not_in_config(cell: Any, config: dict[str, Any]) -> list[str]:
    """Arguments of the constructor that the config does not mention."""
    if not is_custom(type(cell)):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(type(cell).__init__).parameters.values()
    return [p.name for p in list(parameters)[1:] if p.kind in named and p.name not in config]


def save_load(cells: Cells) -> Seen:
    """Does a saved model answer the same when loaded?"""
    cell, inputs = cells.built(), cells.inputs()
    model = keras.Sequential(
        [keras.Input((STEPS, cells.features)), keras.layers.RNN(cell, return_sequences=True)]
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        loaded = keras.models.load_model(file, custom_objects=custom_objects(cell))
    what = "a saved and loaded model to answer the same"
    return Seen(agree(loaded(inputs), model(inputs), cells.tolerance(), what), _unregistered(cell))


def _unregistered(cell: Any) -> str:
    """A hint for classes that only this check's `custom_objects` made known to Keras."""
    names = [
        owner.__name__
        for owner in custom_classes(cell)
        if keras.saving.get_registered_object(keras.saving.get_registered_name(owner)) is not owner
    ]
    if not names:
        return ""
    return (
        f"{', '.join(names)} has no @keras.saving.register_keras_serializable(): without it "
        "keras.models.load_model needs custom_objects, and Bidirectional a keras.saving.custom_object_scope"
    )


# --- gradients ----------------------------------------------------------------------------------------------


def gradient(cells: Cells) -> Seen | str:
    """Are gradients the slopes of the answer?"""
    """Autodiff against differences in float64: along a random direction for each source, its derivative must
    lie between the slopes to the left and to the right, which are one unless the direction meets a kink."""
    with dtype_policy("float64"):
        cell, inputs = _cell_under(cells, "float64"), cells.inputs(3)
        if getattr(cell, "surrogate_gradient", None):
            raise Skipped(f"the cell says its gradient is a surrogate: {cell.surrogate_gradient}")
        states = reached_states(cell, cells.inputs(3, seed=1))
        weights = [weight for weight in cell.trainable_variables if not _is_excused(cell, weight)]
        moving = [
            keras.Variable(value, dtype="float64", trainable=False)
            for value in tree.flatten([inputs, *states])
        ]
        names = ["the inputs", *(f"state {i}" for i in range(len(moving) - 1))]
        names += [f"the weight {weight.name!r}" for weight in weights]

        def total() -> Any:
            start = tree.pack_sequence_as(states, [variable.value for variable in moving[1:]])
            return _total(walk(cell, moving[0].value, start))

        sources = [*moving, *weights]
        found = gradients(total, sources)
        for name, source, slope in zip(names, sources, found, strict=True):
            _compare_slopes(name, source, slope, total)
        return f"agrees with differences along {len(sources)} directions"


# Rounding errs by about 1e-16 / step relative to the total, curvature by step: 1e-10 and less, both far
# below the tolerance, and a kink is seldom met within so short a step.
_STEP, _SLOPE_TOLERANCE = 1e-6, 1e-6


def _compare_slopes(name: str, source: Any, slope: np.ndarray | None, total: Callable[[], Any]) -> None:
    here = np.asarray(source.value)
    direction = np.random.default_rng(5).standard_normal(here.shape)
    values = []
    for move in (-_STEP, 0.0, _STEP):
        source.assign(here + move * direction)
        values.append(float(total()))
    source.assign(here)
    left, right = np.diff(values) / _STEP
    auto = 0.0 if slope is None else float(np.sum(slope * direction))
    allowed = _SLOPE_TOLERANCE * (1 + abs(values[1]) + abs(left) + abs(right) + abs(auto))
    if not min(left, right) - allowed <= auto <= max(left, right) + allowed:
        raise Refused(
            f"the derivative with respect to {name} to be {(left + right) / 2:.6g}, as differences say",
            f"{auto:.6g} from autodiff",
        )


# --- one answer however it is run ---------------------------------------------------------------------------


def graph(cells: Cells) -> str:
    """Does a graph answer as eager execution does?"""
    cell, inputs = cells.built(), cells.inputs()
    return agree(
        compiled(lambda x: run(cell, x))(inputs),
        run(cell, inputs),
        cells.tolerance(),
        "the same answer from a graph as from eager execution",
    )


def xla(cells: Cells) -> str:
    """Does XLA compile it, to the same answer?"""
    cell, inputs = cells.built(), cells.inputs()
    if not cell.supports_jit:
        raise Skipped("the cell says supports_jit = False")
    if not has_xla():
        raise Skipped("this TensorFlow has no XLA for the CPU")
    return agree(
        compiled(lambda x: run(cell, x), xla=True)(inputs),
        run(cell, inputs),
        cells.tolerance(),
        "the same answer compiled with XLA as without",
    )


def unroll(cells: Cells) -> str:
    """Does the unrolled loop answer the same?"""
    cell, inputs = cells.built(), cells.inputs()
    what = "the same answer unrolled as in a loop"
    return agree(run(cell, inputs, unroll=True), run(cell, inputs), cells.tolerance(), what)


def stateful(cells: Cells) -> str:
    """Does a stateful layer in chunks answer as one pass?"""
    cell, inputs = cells.built(), cells.inputs()
    chunks = keras.layers.RNN(cell, return_sequences=True, stateful=True)
    outputs = ops.concatenate([chunks(inputs[:, :2]), chunks(inputs[:, 2:])], axis=1)
    whole, states = run(cell, inputs)
    what = "a stateful layer, given the sequence in chunks, to answer as for the whole"
    agree(chunks.states, states, cells.tolerance(), f"{what}, in its states")
    return agree(outputs, whole, cells.tolerance(), what)


def go_backwards(cells: Cells) -> str:
    """Is go_backwards the reversed sequence?"""
    cell, inputs = cells.built(), cells.inputs()
    what = "go_backwards to be as the reversed inputs"
    return agree(
        run(cell, inputs, go_backwards=True), run(cell, ops.flip(inputs, axis=1)), cells.tolerance(), what
    )


_LENGTHS = (STEPS, 2, 1)


def _mask() -> np.ndarray:
    """[BATCH, STEPS], true for the first steps of each sample."""
    return np.arange(STEPS) < np.array(_LENGTHS)[:, None]


def mask(cells: Cells) -> str:
    """Is a masked sequence as the truncated one?"""
    cell, inputs = cells.built(), cells.inputs()
    both = compiled(lambda x: [run(cell, x, mask=_mask(), unroll=unroll) for unroll in (False, True)])
    (outputs, states), unrolled = both(inputs)
    agree(unrolled, (outputs, states), cells.tolerance(), "a mask to do the same unrolled as in a loop")
    for sample, length in enumerate(_LENGTHS):
        rows = slice(sample, sample + 1)
        expected = run(cell, inputs[rows, :length])
        seen = _samples((outputs[:, :length], states), rows)
        agree(seen, expected, cells.tolerance(), "a right-padded sequence to be as the truncated one")
        padding = ops.repeat(expected[0][:, -1:], STEPS - length, axis=1)
        what = "the last output to be repeated over the padding"
        agree(outputs[rows, length:], padding, cells.tolerance(), what)
    return f"sequences of {_LENGTHS} steps, padded and masked, are as the truncated ones"


def zero_output_for_mask(cells: Cells) -> str:
    """Does zero_output_for_mask only zero masked outputs?"""
    cell, inputs = cells.built(), cells.inputs()
    outputs, states = run(cell, inputs, mask=_mask())
    zeroed = ops.where(_mask()[:, :, None], outputs, ops.zeros_like(outputs))
    seen = run(cell, inputs, mask=_mask(), zero_output_for_mask=True)
    return agree(
        seen, (zeroed, states), cells.tolerance(), "zeros for masked steps, and nothing else changed"
    )


def mask_gradients(cells: Cells) -> str:
    """Does zero padding leave the gradients alone?"""
    cell = cells.built()
    inputs = cells.inputs() * ops.cast(_mask()[:, :, None], "float32")  # padded with zeros, as people do
    weights = [weight for weight in cell.trainable_variables if not _is_excused(cell, weight)]

    def masked() -> Any:
        return _total([run(cell, inputs, mask=_mask())[1]])

    def truncated() -> Any:
        runs = [run(cell, inputs[i : i + 1, :length])[1] for i, length in enumerate(_LENGTHS)]
        return _total([tree.map_structure(lambda *states: ops.concatenate(states, axis=0), *runs)])

    seen, expected = gradients(masked, weights), gradients(truncated, weights)
    given = [(a, b) for a, b in zip(seen, expected, strict=True) if a is not None and b is not None]
    what = "padding with zeros not to change the gradients of the weights"
    return agree(
        [a for a, _ in given], [b for _, b in given], STEPS * cells.tolerance(), what
    )  # backwards adds up once more over the steps


def return_state(cells: Cells) -> Seen | str:
    """Does the layer answer as the steps one by one?"""
    cell, inputs = cells.built(), cells.inputs()
    seen = agree(
        run(cell, inputs), walk(cell, inputs), cells.tolerance(), "RNN to answer as the steps one by one"
    )
    last = keras.layers.RNN(cell)(inputs)
    agree(last, run(cell, inputs)[0][:, -1], cells.tolerance(), "the last output alone to be the last of all")
    return Seen(seen, _symbolic_shapes(cells))


def _symbolic_shapes(cells: Cells) -> str:
    """A hint where Keras gets the shapes of the states wrong, as it does for tensor-shaped ones."""
    layer = keras.layers.RNN(cells.built(), return_state=True)
    said = layer(keras.Input(batch_shape=(BATCH, STEPS, cells.features)))
    if shapes(tree.flatten(said)) == shapes(tree.flatten(layer(cells.inputs()))):
        return ""
    return "in a functional model with return_state=True keras.layers.RNN says other shapes for the states"


def stacked(cells: Cells) -> str:
    """Are stacked cells as stacked layers?"""
    lower, inputs = cells.built(), cells.inputs()
    width = step(lower, inputs[:, 0], initial_states(lower))[0].shape[-1]
    upper = cells.built(seed=1, features=width)
    for batch in (BATCH, 1):
        between, lower_states = run(lower, inputs[:batch])
        outputs, upper_states = run(upper, between)
        what = f"RNN([cell, cell]) to be as two layers, at batch size {batch}"
        seen = run([lower, upper], inputs[:batch])
        agree(seen, (outputs, lower_states, upper_states), 2 * cells.tolerance(), what)
        if batch > 1:  # in a graph a tensor where a list is wanted cannot be taken apart
            in_graph = compiled(lambda sequence: run([lower, upper], sequence))(inputs)
            agree(in_graph, seen, 2 * cells.tolerance(), f"{what}, in a graph")
    return f"RNN([cell, cell]) is as two layers, at batch sizes {BATCH} and 1"


def bidirectional(cells: Cells) -> str:
    """Does Bidirectional answer as both directions?"""
    cell, inputs = cells.new(), cells.inputs()
    with keras.saving.custom_object_scope(custom_objects(cell)):
        both = keras.layers.Bidirectional(keras.layers.RNN(cell, return_sequences=True))
        outputs = both(inputs)
    forth, back = both.forward_layer.cell, both.backward_layer.cell
    if {id(variable) for variable in forth.variables} & {id(variable) for variable in back.variables}:
        raise Refused("two clones with weights of their own", "one cell for both directions", _CLONES)
    backwards = ops.flip(run(back, ops.flip(inputs, axis=1))[0], axis=1)
    expected = ops.concatenate([run(forth, inputs)[0], backwards], axis=-1)
    what = "Bidirectional to be as both directions side by side"
    return agree(outputs, expected, cells.tolerance(), what)


_CLONES = "let from_config return a new cell each time: return cls(**config)"


def float64(cells: Cells) -> str:
    """Does it compute in float64?"""
    return _computes_in(cells, policy="float64", dtype="float64", variables="float64")


def mixed_float16(cells: Cells) -> str:
    """Does it compute in float16, with float32 weights?"""
    return _computes_in(cells, policy="mixed_float16", dtype="float16", variables="float32")


def mixed_bfloat16(cells: Cells) -> str:
    """Does it compute in bfloat16, with float32 weights?"""
    return _computes_in(cells, policy="mixed_bfloat16", dtype="bfloat16", variables="float32")


def _cell_under(cells: Cells, dtype: str) -> Any:
    """A cell that computes in this dtype under the policy of now; skips one that sets its own."""
    cell = cells.built()
    if cell.compute_dtype != dtype:
        raise Skipped(f"the cell sets its own dtype, {cell.dtype_policy.name}")
    return cell


def _computes_in(cells: Cells, policy: str, dtype: str, variables: str) -> str:
    float32 = cells.built()
    weights, expected = float32.get_weights(), run(float32, cells.inputs())
    with dtype_policy(policy):
        cell, inputs = _cell_under(cells, dtype), cells.inputs()
        _expect_dtype("the weights", cell.trainable_variables, variables)
        output, states = walk(cell, inputs)
        _expect_dtype("the output", [output], dtype)
        _expect_dtype("the states", tree.flatten(states), dtype)
        cell.set_weights(weights)
        seen = run(cell, inputs)
    tolerance = max(cells.tolerance(dtype), cells.tolerance("float32"))
    return agree(seen, expected, tolerance, f"under the policy {policy} the answer of float32, rounded")


def _expect_dtype(what: str, values: Sequence[Any], dtype: str) -> None:
    for value in values:
        seen = keras.backend.standardize_dtype(value.dtype)
        if keras.backend.is_float_dtype(seen) and seen != dtype:
            raise Refused(f"{what} to be {dtype}", seen)


def dropout(cells: Cells) -> str:
    """Is dropout for training only, and reproducible?"""
    names = [name for name in ("dropout", "recurrent_dropout") if _takes_rate(cells, name)]
    rates: dict[str, Any] = dict.fromkeys(names, 0.5)
    zero: dict[str, Any] = dict.fromkeys(names, 0.0)
    cell, plain, inputs = cells.built(**rates), cells.built(**zero), cells.inputs()
    plain.set_weights(cell.get_weights())
    infer = run(cell, inputs)
    agree(infer, run(plain, inputs), cells.tolerance(), "the answer without dropout when training=False")
    for name in names:
        alone: dict[str, Any] = {name: 0.5}
        if difference(run(cells.built(**alone), inputs, training=True), infer) <= cells.tolerance():
            raise Refused(f"{name}=0.5 to change the answer when training=True", "the same answer")
    trained, again = (_trained_anew(cells, rates) for _ in range(2))
    if difference(trained, infer) <= cells.tolerance():
        raise Skipped("training=True changes nothing, and the constructor takes no `dropout`")
    agree(again, trained, cells.tolerance(), "the same answer after keras.utils.set_random_seed")
    train = compiled(lambda x: run(cell, x, training=True))
    if difference(train(inputs), train(inputs)) <= cells.tolerance():
        raise Refused("a new mask for each sequence, in a graph too", "the same mask twice")
    return "active only in training, new for each sequence, and reproducible from a seed"


def _takes_rate(cells: Cells, name: str) -> bool:
    """Whether the constructor has this argument, a number by default, and does not refuse 0.5 for it."""
    default = cells.target.default(name)
    rate: dict[str, Any] = {name: 0.5}
    if isinstance(default, bool) or not isinstance(default, (int, float)):
        return False
    try:
        cells.new(**rate)
    except TargetError:
        return False
    return True


def _trained_anew(cells: Cells, rates: dict[str, Any]) -> Any:
    """The answer in training mode of a cell made after everything random has been set to one seed."""
    keras.utils.set_random_seed(SEED)
    return run(cells.built(**rates), cells.inputs(), training=True)


def initial_state(cells: Cells) -> Seen:
    """Is a given initial state used as the cell's own?"""
    started, cell, inputs = cells.built(), cells.built(), cells.inputs()
    states = initial_states(started)
    whole = run(started, inputs)
    what = "an initial_state given to the layer to be used as the cell's own would"
    seen = agree(run(cell, inputs, initial_state=states), whole, cells.tolerance(), what)
    head, middle = run(cell, inputs[:, :2])
    tail, final = run(cell, inputs[:, 2:], initial_state=middle)
    joined = (ops.concatenate([head, tail], axis=1), final)
    agree(joined, whole, cells.tolerance(), "a run continued from its states to be as one run")
    return Seen(seen, _nonzero_start(started, inputs))


def _nonzero_start(cell: Any, inputs: Any) -> str:
    """A hint for a cell that does not start from zeros, if this Keras forgets that at a reset."""
    if not any(array.any() for array in arrays(initial_states(cell))):
        return ""
    layer = keras.layers.RNN(cell, stateful=True)
    layer.build(inputs.shape)
    layer.reset_state()
    if difference(layer.states, initial_states(cell)) == 0:
        return ""
    return (
        "the initial state is not zero: a fresh stateful keras.layers.RNN keeps it, but reset_state() and a "
        "second build overwrite it with zeros; cells.RNN asks the cell again"
    )


def reference(cells: Cells) -> str:
    """Does it compute what its reference computes?"""
    cell, inputs = cells.built(), cells.inputs()
    if not hasattr(cell, "reference"):
        raise Skipped("the cell has no method reference(self, inputs, initial_states)")
    start = reached_states(cell, cells.inputs(seed=1))
    result = cell.reference(arrays(inputs)[0], tree.map_structure(lambda state: arrays(state)[0], start))
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        raise Refused("reference to return (outputs, [final states])", type(result).__name__)
    outputs, states = run(cell, inputs, initial_state=start)
    for what, seen, expected in (("outputs", outputs, result[0]), ("states", states, list(result[1]))):
        if [a.shape for a in arrays(seen)] != [b.shape for b in arrays(expected)]:
            raise Refused(f"{what} of the reference of shapes {shapes(seen)}", shapes(expected))
        agree(seen, expected, cells.tolerance(), f"the {what} that the reference computes")
    return "outputs and final states are those of the reference"
