"""The gradients, and training by them."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import tree

from bench.contract.advice import LOSSES
from bench.contract.cell_under_test import (
    BATCH,
    Cells,
    arrays,
    dtype_policy,
    gradients,
    is_excused,
    reached_states,
    run,
    total_of,
    walk,
)
from bench.contract.check import Refused, Seen, Skipped, check, counted

_SLOPE = (
    "compare call with its @tf.custom_gradient; if the gradient is a surrogate on purpose, "
    "say so in the cell: surrogate_gradient = reason"
)


@check(_SLOPE, needs=("float64", "weight_gradients"))
def gradient(cells: Cells) -> Seen | str:
    """Are gradients the slopes of the answer?

    Autodiff against differences in float64: along a random direction for each source, its derivative must
    lie between the slopes to the left and to the right, which are one unless the direction meets a kink.
    """
    with dtype_policy("float64"):
        cell, inputs = cells.under("float64"), cells.inputs(3)
        if getattr(cell, "surrogate_gradient", None):
            raise Skipped(f"the cell says its gradient is a surrogate: {cell.surrogate_gradient}")
        states = reached_states(cell, cells.inputs(3, seed=1))
        weights = [weight for weight in cell.trainable_variables if not is_excused(cell, weight)]
        moving = [
            keras.Variable(value, dtype="float64", trainable=False)
            for value in tree.flatten([inputs, *states])
        ]
        names = ["the inputs", *(f"state {i}" for i in range(len(moving) - 1))]
        names += [f"the weight {weight.name!r}" for weight in weights]

        def total() -> Any:
            start = tree.pack_sequence_as(states, [variable.value for variable in moving[1:]])
            return total_of(walk(cell, moving[0].value, start))

        sources = [*moving, *weights]
        found = gradients(total, sources)
        for name, source, slope in zip(names, sources, found, strict=True):
            _compare_slopes(name, source, slope, total)
        return f"agrees with differences along {counted(len(sources), 'direction')}"


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


@check(LOSSES, needs=("xla", "weight_gradients"))
def fit(cells: Cells) -> Seen:
    """Can a model with it be fitted?"""
    cell, hint = cells.built(), ""
    try:
        loss = _loss_of_fit(cells, cell)
    except Exception as error:
        if "EagerPyFunc" not in str(error):
            raise
        cell, hint = (
            cells.built(),
            "with tf.py_function in call a model fits with run_eagerly=True alone",
        )
        loss = _loss_of_fit(cells, cell, run_eagerly=True)
    if not np.isfinite(loss):
        raise Refused("a finite loss over two steps of fit", f"{loss}", _DIVERGES)
    for weight in cell.weights:
        if not np.isfinite(arrays(weight.value)[0]).all():
            raise Refused(f"the weight {weight.name!r} to stay finite in fit", "NaN or infinity", _DIVERGES)
    return Seen("two steps of fit with Adam", hint)


def _loss_of_fit(cells: Cells, cell: Any, **options: Any) -> float:
    """The loss over two steps of fit, which Keras compiles as it does for everybody."""
    inputs = np.concatenate([arrays(cells.inputs(seed=seed))[0] for seed in (0, 1)])
    outputs = run(cell, cells.inputs())[0]
    targets = np.zeros((len(inputs), *outputs.shape[1:]))
    model = _Model(keras.layers.RNN(cell, return_sequences=True))
    model.compile("adam", "mse", **options)
    history = model.fit(inputs, targets, batch_size=BATCH, shuffle=False, verbose=0)
    return history.history["loss"][0]


_DIVERGES = "look for a root, a norm, a logarithm or a division that has no gradient where training starts"


class _Model(keras.Model):
    """A model of one layer, whatever the shapes of its inputs and outputs."""

    def __init__(self, layer: Any) -> None:
        super().__init__(name="fitted")
        self.layer = layer

    def call(self, sequences: Any, training: bool = False) -> Any:
        """The layer's answer."""
        return self.layer(sequences, training=training)
