"""What a cell has, to find out whether something of it was changed."""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic)
WEIGHTS = (keras.Variable, tf.Variable)
# What has no contents that could change, or none that an equation reads.
_LEAVES = (*WEIGHTS, tf.Tensor, tf.DType, ModuleType, type)
_LEAVES_OF_LAYERS = (*_LEAVES, keras.layers.Layer, keras.initializers.Initializer)
_UNCHANGING = (*_SCALARS, *_LEAVES_OF_LAYERS)
_OF_KERAS = frozenset(vars(keras.layers.Layer()))  # what every layer keeps for Keras itself


class _Same:
    """Equal to itself alone, also after what it holds has gone."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def contents(value, depth=5, leaves=_LEAVES):
    """What a value is made of, as nested tuples that are equal where nothing was changed.

    Args:
        value: anything.
        depth: how deep to look into it.
        leaves: types of which nothing is looked into.
    """
    if isinstance(value, _SCALARS):
        return type(value), value
    if isinstance(value, _Same):
        return value
    if isinstance(value, keras.Variable):
        return _Same(value), _Same(value._value)  # TensorFlow's variable, which may be replaced
    parts = None if depth == 0 or isinstance(value, leaves) else _parts(value)
    if not parts:
        return _Same(value)
    if isinstance(parts, bytes):
        return parts
    return type(value), *((name, contents(part, depth - 1, leaves)) for name, part in parts.items())


def is_plain(value):
    """Whether a value can only be replaced as a whole."""
    return isinstance(value, _SCALARS) or isinstance(contents(value), _Same)


def _parts(value):
    """What may change in a value, by names; the bytes of an array; None where nothing may."""
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, Mapping):
        return dict(enumerate([*value, *value.values()]))
    if isinstance(value, (list, tuple, set, frozenset)):
        return dict(enumerate(value))
    if isinstance(value, MethodType):
        return {"function": value.__func__, "self": value.__self__}
    if isinstance(value, partial):
        return {"function": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, FunctionType):
        return _parts_of_function(value)
    attributes = getattr(value, "__dict__", None)
    if not attributes:
        return None
    return {"": _Same(value), **{name: part for name, part in attributes.items() if name not in _OF_KERAS}}


def _parts_of_function(function):
    """What a function has from outside: its closure, its defaults, and the numbers among its globals."""
    if (function.__module__ or "").partition(".")[0] in ("keras", "tensorflow"):
        return None
    parts: dict[Any, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # nothing is in it yet
            parts[name] = cell.cell_contents
    parts.update(enumerate(function.__defaults__ or ()), **(function.__kwdefaults__ or {}))
    numbers = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    parts.update((name, value) for name, value in numbers.items() if isinstance(value, (int, float, complex)))
    return parts and {"": _Same(function), **parts}


# --- of a cell and all layers in it


def layers_of(cell):
    """The layers in a cell, itself among them; none where it is no layer."""
    return list(cell._flatten_layers()) if isinstance(cell, keras.Layer) else []


class Attributes:
    """The attributes of a cell and of the layers in it, as they were.

    Args:
        cell: a cell.
    """

    def __init__(self, cell):
        self._things = [(thing, _attributes(thing)) for thing in layers_of(cell) or [cell]]

    def changed(self):
        """The layers, and the names of their attributes, that are not what they were."""
        for thing, were in self._things:
            are = vars(thing)
            new = [name for name in are if name not in were and name not in _OF_KERAS]
            old = [n for n, was in were.items() if n not in are or _is_changed(thing, are[n], *was)]
            yield from ((thing, name) for name in new + old)

    def restore(self):
        """Gives what was changed the values that it had."""
        values = {id(thing): were for thing, were in self._things}
        for thing, name in list(self.changed()):
            vars(thing).pop(name, None)
            if name in values[id(thing)]:
                vars(thing)[name] = values[id(thing)][name][0]


def _attributes(thing):
    """The attributes of one layer, by name: (value, contents)."""
    names = [name for name in vars(thing) if name not in _OF_KERAS or name == "_dtype_policy"]
    return {name: (vars(thing)[name], _contents_in(thing, vars(thing)[name])) for name in names}


def _is_changed(thing, value, was, had):
    """Whether an attribute has other contents; where it has none, it is enough that it is the same."""
    if value is was and isinstance(value, _UNCHANGING) and not isinstance(value, keras.Variable):
        return False
    return _contents_in(thing, value) != had


def _contents_in(thing, value):
    """`contents` of a layer's attribute; what an attribute of Keras' own layers holds does not change."""
    depth = 1 if type(thing).__module__.startswith("keras.") else 3
    return contents(value, depth, _LEAVES_OF_LAYERS)
