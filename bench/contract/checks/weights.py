"""The weights: they get a gradient, decide the answer, and survive a config and a file."""

import inspect
import json
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bench.contract.advice import CONFIG
from bench.contract.cell_under_test import (
    NO_MODEL,
    STEPS,
    Cells,
    agree,
    custom_classes,
    custom_objects,
    difference,
    gradients,
    is_called,
    is_custom,
    is_excused,
    is_vector,
    reached_states,
    run,
    shapes,
    total_of,
)
from bench.contract.check import PURE, Refused, Seen, Skipped, check, counted

_GRADIENT = (
    "use the weight in call with operations that have a gradient, make it with trainable=False, "
    "or say in the cell why it has none: no_gradient = {name: reason}"
)


@check(_GRADIENT, needs=(*PURE, "weights_tracked"))
def weight_gradients(cells: Cells) -> Seen:
    """Does every weight receive a gradient?"""
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    excused = dict(getattr(cell, "no_gradient", {}))
    names = sorted(variable.name for variable in cell.trainable_variables)
    unknown = [key for key in excused if not any(is_called(v, key) for v in cell.trainable_variables)]
    if unknown:
        raise Refused(f"no_gradient to name trainable weights ({', '.join(names)})", f"{unknown}")
    found = gradients(lambda: total_of(run(cell, inputs)), cell.trainable_variables)
    zero = []
    for variable, gradient in zip(cell.trainable_variables, found, strict=True):
        if is_excused(cell, variable):
            continue
        if gradient is None or not np.isfinite(gradient).all():
            seen = "none" if gradient is None else "one that is not finite"
            change = _START if gradient is not None and _is_finite_elsewhere(cell, inputs) else ""
            raise Refused(f"a finite gradient for the weight {variable.name!r}", seen, change)
        zero += [] if gradient.any() else [variable.name]
    hint = f"the gradient of {', '.join(zero)} is zero on random inputs" if zero else ""
    excuse = "".join(f"; {name} has none: {reason}" for name, reason in excused.items())
    return Seen(
        f"{counted(len(found) - len(excused), 'trainable weight')} with a finite gradient{excuse}", hint
    )


_START = (
    "the gradient is finite from other states than the cell's own initial state: guard a root, a norm or a "
    "division there, with an epsilon inside of it"
)


def _is_finite_elsewhere(cell: Any, inputs: Any) -> bool:
    """Whether all gradients are finite where the cell starts from states that it can be in later."""
    start = reached_states(cell, inputs)
    found = gradients(lambda: total_of(run(cell, inputs, initial_state=start)), cell.trainable_variables)
    return all(gradient is None or np.isfinite(gradient).all() for gradient in found)


@check(
    "read weights in call only: no copy, transpose or random constant kept from __init__ or build",
    needs=(*PURE, "own_variables", "weights_tracked"),
)
def set_weights(cells: Cells) -> str:
    """Do set weights decide the answer?"""
    one, other, inputs = cells.built(seed=0), cells.built(seed=1), cells.inputs()
    run(other, inputs)
    other.set_weights(one.get_weights())
    what = "a cell that is given another's weights to answer as that one"
    return agree(run(other, inputs), run(one, inputs), cells.tolerance(), what)


@check(CONFIG, at="get_config", needs=("set_weights",))
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
        twin.build(cells.build_shape)
    if [w.shape for w in twin.weights] != [w.shape for w in cell.weights]:
        raise Refused("the same weights in the cell made again", f"{shapes(twin.weights)}")
    twin.set_weights(cell.get_weights())
    what = "the cell made again from its config to answer the same"
    seen = agree(run(twin, inputs), run(cell, inputs), cells.tolerance(), what)
    _check_arguments_kept(cells)
    silent = ", ".join(_not_in_config(cell, config["config"]))
    return Seen(seen, f"get_config says nothing of {silent}: a copy gets the default value" if silent else "")


def _check_arguments_kept(cells: Cells) -> None:
    """Refuses a config that does not change with an argument of the constructor that the cell heeds.

    Every argument with a default is tried at another value.
    """
    plain = cells.built()
    for name, other in _other_values(plain).items():
        try:
            changed = cells.built(**{name: other})
        except Exception:  # it takes no such argument, or no such value
            continue
        if _config(changed) == _config(plain) and _answers_differ(cells, name, other):
            seen = f"the same config with {name}={other!r} as without: a copy gets the default value"
            raise Refused(f"get_config to say the argument {name}", seen)


def _config(cell: Any) -> str:
    config = keras.saving.serialize_keras_object(cell)["config"]
    return json.dumps({key: value for key, value in config.items() if key != "name"}, sort_keys=True)


def _other_values(cell: Any) -> dict[str, Any]:
    """Another value for each argument of the cell's own constructor that has a default, by its name."""
    if not is_custom(type(cell)):
        return {}
    parameters = inspect.signature(type(cell).__init__).parameters
    return {
        name: _another(parameter.default)
        for name, parameter in parameters.items()
        if _another(parameter.default) is not None
    }


def _another(default: Any) -> Any:
    """Another value than an argument's default, of the same kind; None for a kind that has none to try."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default + 0.25 if default < 0.75 else default / 2
    if isinstance(default, str) and hasattr(keras.activations, default):
        return "tanh" if default == "softsign" else "softsign"
    return None


def _answers_differ(cells: Cells, name: str, other: Any) -> bool:
    """Whether an argument changes the weights' shapes or the answer, in training or not."""
    inputs = cells.inputs()
    try:
        plain, changed = cells.built(), cells.built(**{name: other})
        if [w.shape for w in plain.weights] != [w.shape for w in changed.weights]:
            return True
        pairs = [
            (run(changed, inputs), run(plain, inputs)),
            (cells.trained(inputs, **{name: other}), cells.trained(inputs)),
        ]
    except Exception:  # a value that it takes and cannot run with
        return False
    return any(difference(*pair) > cells.tolerance() for pair in pairs)


def _not_in_config(cell: Any, config: dict[str, Any]) -> list[str]:
    """Arguments of the constructor that the config does not mention."""
    if not is_custom(type(cell)):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(type(cell).__init__).parameters.values()
    return [p.name for p in list(parameters)[1:] if p.kind in named and p.name not in config]


@check(
    "leave saving to Keras; what __init__ or build draws at random must be a weight",
    at="__init__",
    needs=("get_config",),
)
def save_load(cells: Cells) -> Seen:
    """Does a saved model answer the same when loaded?"""
    cell, inputs = cells.built(), cells.inputs()
    if not is_vector(cell):
        raise Skipped(NO_MODEL)
    model = keras.Sequential(
        [keras.Input((STEPS, *cells.step_shape)), keras.layers.RNN(cell, return_sequences=True)]
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
