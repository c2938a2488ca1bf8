"""Keras' own tests of its recurrent layers, with `FusedRNN` in the place of `keras.layers.RNN`.

They are read from the installed Keras, which brings them along; `keras.layers.LSTM`, `GRU` and `SimpleRNN`
are built on `FusedRNN` for them. What `FusedRNN` refuses is left out: it unrolls nothing, so that `unroll` is
passed over, and it has no eligibility for cuDNN.
"""

import importlib
import inspect
from functools import partialmethod
from pathlib import Path

import keras

from cells import FusedRNN

FOLDER = Path(inspect.getfile(keras.layers.RNN)).parent
FILES = ("rnn", "lstm", "gru", "simple_rnn", "stacked_rnn_cells", "bidirectional")


@keras.saving.register_keras_serializable("keras_own_tests")
class RNN(FusedRNN):
    """`FusedRNN` that passes `unroll` over."""

    def __init__(self, cell, *args, unroll=False, **kwargs):
        super().__init__(cell, *args, **kwargs)


def fused(layer_class):
    """A layer of Keras that has its own cell, on `FusedRNN`."""
    body = {"inner_loop": FusedRNN.inner_loop, "__module__": __name__}
    made = type(layer_class.__name__, (layer_class, RNN), body)
    return keras.saving.register_keras_serializable("keras_own_tests")(made)


class Layers:
    """`keras.layers` with the layers that run cells replaced."""

    def __getattr__(self, name):
        return getattr(keras.layers, name)


for replacement in (RNN, *map(fused, (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN))):
    setattr(Layers, replacement.__name__, replacement)


def own_tests(name):
    """The test class of one of Keras' files."""
    module = importlib.import_module(f"keras.src.layers.rnn.{name}_test")
    module.layers = Layers()
    (found,) = (
        each for each in vars(module).values() if inspect.isclass(each) and each.__name__.endswith("Test")
    )
    return found


for file in FILES:
    if (FOLDER / f"{file}_test.py").exists():
        found = own_tests(file)
        if file == "stacked_rnn_cells":  # run by Keras' loop, whose seven training steps take half a minute
            found.run_layer_test = partialmethod(found.run_layer_test, run_training_check=False)
        globals()[f"Test_{file}"] = found
        del found
