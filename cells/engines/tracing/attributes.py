"""What a cell has, to find out whether something of it was changed."""

import keras
import numpy as np

_OF_KERAS = frozenset(vars(keras.layers.Layer()))  # what every layer keeps for Keras itself
_SCALARS = (type(None), bool, int, float, complex, str, bytes, np.generic)


class _Same:
    """Equal to itself alone; holds what it stands for, so that no other takes its place in memory."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def contents(value, depth=3):
    """What a value is made of, equal where nothing was changed."""
    if isinstance(value, _SCALARS):
        return type(value), value
    if isinstance(value, np.ndarray):
        return value.shape, value.tobytes()
    if depth and isinstance(value, dict):
        return tuple((name, contents(part, depth - 1)) for name, part in value.items())
    if depth and isinstance(value, (list, tuple, set)):
        return type(value), *(contents(part, depth - 1) for part in value)
    return _Same(value)


def attributes_of(thing):
    """The attributes of a cell, a layer in it, or any object, by name: (value, contents)."""
    return {
        name: (value, contents(value))
        for name, value in getattr(thing, "__dict__", {}).items()
        if name not in _OF_KERAS or name == "_trainable"
    }


def changed_attributes(thing, were):
    """The names of those that differ from what they were."""
    are = getattr(thing, "__dict__", {})
    names = [name for name in are if name not in were and name not in _OF_KERAS]
    return names + [
        name for name, (_, content) in were.items() if name not in are or contents(are[name]) != content
    ]


def restore(thing, name, were):
    """Gives an attribute the value that it had."""
    if name in were:
        vars(thing)[name] = were[name][0]
    else:
        vars(thing).pop(name, None)
