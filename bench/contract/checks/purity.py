"""A step is a function of its inputs, states and weights alone: it keeps nothing, makes nothing, and is one
in a graph, for every sample, batch size and number of timesteps."""

import contextlib
from typing import Any

import keras
import numpy as np
from keras import ops

from bench.contract.advice import EAGER
from bench.contract.cell_under_test import (
    BATCH,
    STEPS,
    Cells,
    agree,
    attribute_of,
    compiled,
    difference,
    has_xla,
    initial_states,
    reached_states,
    run,
    samples,
    step,
    variables_made,
    variables_used,
)
from bench.contract.check import RUNS, Refused, Seen, Skipped, check, counted
from bench.contract.switches import changed_since, values

_HIDDEN = "what a step leaves for later steps has to be in the states, not in an attribute, list or variable"
_BATCH = "leave the first axis alone: no reshape, mean or constant of a fixed batch size"


@check("draw random numbers only when training; keep nothing outside of the states", needs=RUNS)
def same_answer_twice(cells: Cells) -> str:
    """Is the answer the same twice?"""
    first, others, changed = _asked_again(cells)
    what = "the same answer to the same inputs and states"
    if changed and difference(others, first) > cells.tolerance():
        return "not the same, since the cell's attributes change"  # which `hidden_state` says
    return agree(others, first, cells.tolerance(), what)


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
    if isinstance(value, keras.Variable):
        return ops.convert_to_numpy(value.value).tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, (list, tuple, dict, set)):
        return len(value)
    return value


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(one: Any, other: Any) -> bool:
        plain = isinstance(one, (bytes, int, float, str)) and isinstance(other, type(one))
        return one is other or (plain and one == other)

    return [name for name, value in after.items() if not same(before.get(name), value)]


@check(_HIDDEN, needs=RUNS)
def hidden_state(cells: Cells) -> Seen:
    """Is there no state but the states?"""
    first, others, changed = _asked_again(cells)
    names = ", ".join(f"self.{name}" for name in changed)
    if not names:
        return Seen("no attribute changes from call to call")
    what = f"an answer that does not depend on {names}, which changes from call to call"
    at = cells.line(rf"self\.{changed[0]}\b", "call")
    return Seen(agree(others, first, cells.tolerance(), what, at=at), f"{names} changes from call to call")


@check("change nothing for the whole process in a cell: it would change every other cell too", needs=RUNS)
def switches(cells: Cells) -> Seen:
    """Does it leave the switches of TensorFlow, Keras and Python alone?"""
    before = values()
    cell, inputs = cells.built(), cells.inputs()
    step(cell, inputs[:, 0], initial_states(cell))
    with contextlib.suppress(Exception):  # what a graph has to say, `graph` will say
        compiled(lambda x: run(cell, x))(inputs)
    changed = changed_since(before)
    if changed:
        raise Refused("the switches of the process to stay as they are", f"{', '.join(changed)} changed")
    loading = f"loading its file changed {', '.join(cells.target.switched)}; undone here, and in a run"
    return Seen("no switch changes", loading if cells.target.switched else "")


@check("make weights and sub-layers in build and keep them in attributes", needs=RUNS)
def weights_created_once(cells: Cells) -> str:
    """Are weights made once, in build?"""
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    made = variables_made(lambda: run(cell, inputs))
    if made:
        raise Refused("all weights to be made in build", f"{', '.join(sorted(set(made)))} made in call again")
    return f"{counted(len(cell.weights), 'weight')}, made in build"


@check(EAGER)
def graph(cells: Cells) -> str:
    """Does a graph answer as eager execution does?"""
    cell, inputs = cells.built(), cells.inputs()
    return agree(
        compiled(lambda x: run(cell, x))(inputs),
        run(cell, inputs),
        cells.tolerance(),
        "the same answer from a graph as from eager execution",
    )


@check(
    "make weights with self.add_weight, and keep sub-layers in attributes of the cell",
    at="build",
    needs=(*RUNS, "weights_created_once"),
)
def weights_tracked(cells: Cells) -> str:
    """Are all weights tracked?"""
    cell, inputs = cells.built(), cells.inputs()
    states = initial_states(cell)
    used = variables_used(lambda: step(cell, inputs[:, 0], states))
    tracked = {id(variable.value) for variable in cell.variables}
    lost = [variable for variable in used if id(variable) not in tracked]
    if lost:
        attribute = attribute_of(cell, lost[0])
        names = ", ".join(f"{variable.name.partition(':')[0]} {tuple(variable.shape)}" for variable in lost)
        seen = f"{f'self.{attribute}' if attribute else names}, which is not"
        at = cells.line(rf"^\s*self\.{attribute}\b") if attribute else ""
        raise Refused("every variable that call uses to be in cell.weights", seen, at=at)
    return f"{counted(len(used), 'variable')} that call uses, all tracked"


@check("use operations that XLA has, or set self.supports_jit = False", needs=("graph",))
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


@check(_HIDDEN)
def causality(cells: Cells) -> str:
    """Are outputs independent of later inputs?"""
    cell, inputs = cells.built(), cells.inputs()
    future = ops.concatenate([inputs[:, :2], cells.inputs(seed=1)[:, 2:]], axis=1)
    outputs, _ = run(cell, inputs)
    others, _ = run(cell, future)
    return agree(
        others[:, :2], outputs[:, :2], cells.tolerance(), "outputs that do not depend on later inputs"
    )


@check(_BATCH)
def independent_samples(cells: Cells) -> Seen:
    """Are the samples of a batch independent?"""
    cell, inputs = cells.built(), cells.inputs()
    changed = ops.concatenate([cells.inputs(seed=1)[:1], inputs[1:]], axis=0)
    whole = run(cell, inputs)
    others, seen = (samples(result, slice(1, None)) for result in (whole, run(cell, changed)))
    what = "samples of a batch that do not change each other's answers"
    message = agree(seen, others, cells.tolerance(), what)
    return Seen(message, _dependence_in_training(cells, changed, whole))


def _dependence_in_training(cells: Cells, changed: Any, infer: Any) -> str:
    """A hint for a cell whose samples change each other's answers in training only."""
    if difference(run(cells.built(), cells.inputs(), training=True), infer) <= cells.tolerance():
        return ""
    others, seen = (samples(cells.trained(given), slice(1, None)) for given in (cells.inputs(), changed))
    if difference(seen, others) <= cells.tolerance():
        return ""
    return "in training the samples of a batch depend on each other, as batch normalisation makes them"


@check(_BATCH, needs=("graph", "independent_samples"))
def any_batch_size(cells: Cells) -> str:
    """Does any batch size work?"""
    cell, inputs = cells.built(), cells.inputs()
    whole = run(cell, inputs)
    first = samples(whole, slice(0, 1))
    agree(run(cell, inputs[:1]), first, cells.tolerance(), "a batch of 1 to be as the first sample of 3")
    many = compiled(lambda x: run(cell, x), (None, STEPS, *cells.step_shape))
    agree(many(inputs), whole, cells.tolerance(), "a graph for any batch size to answer as for 3")
    return agree(many(inputs[:1]), first, cells.tolerance(), "one answer at batch sizes 1, 3 and None")


@check("let nothing depend on how many steps there are", needs=("graph",))
def any_timesteps(cells: Cells) -> str:
    """Does any number of timesteps work?"""
    cell, longest = cells.built(), 3 * STEPS
    inputs = cells.inputs(longest)
    outputs, _ = run(cell, inputs)
    for timesteps in (1, STEPS):
        shorter, _ = run(cell, inputs[:, :timesteps])
        what = f"{counted(timesteps, 'timestep')} to be as the first of {longest}"
        agree(shorter, outputs[:, :timesteps], cells.tolerance(), what)
    many = compiled(lambda x: run(cell, x)[0], (BATCH, None, *cells.step_shape))
    agree(many(inputs[:, :1]), outputs[:, :1], cells.tolerance(), "a graph for any timesteps to answer for 1")
    return agree(
        many(inputs), outputs, cells.tolerance(), f"one answer at 1, {STEPS}, {longest} and None timesteps"
    )
