"""The references: right by hand, exact in their derivatives, and strict enough to see a wrong cell."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest

from cells import CELLS, GRUCell, LSTMCell, MinimalRNNCell, SimpleRNNCell, SLSTMCell
from cells.reference import ACTIVATIONS, REFERENCES, reference_for
from cells.tests.support import (
    EXACT,
    UNITS,
    assert_same,
    complex_step,
    data,
    difference,
    drawn,
    in_rnn,
)

LN2, LN3 = math.log(2), math.log(3)  # σ(0) = 1/2, σ(±ln 3) = 3/4, 1/4, tanh(ln 2) = 3/5, tanh(ln 3) = 4/5
X, H = 2.0, 3.0  # the input and the first state of the examples by hand


def test_every_cell_has_a_reference():
    for name, cell_class in CELLS.items():
        assert cell_class in REFERENCES, name
        assert reference_for(drawn(cell_class(UNITS))) is not None


def test_a_cell_may_bring_its_own_reference():
    """It reads its weights from the cell: those it is held against are set there."""

    class Own(MinimalRNNCell):
        def reference(self, inputs, initial_states):
            return inputs @ self.get_weights()[0], initial_states

    cell = drawn(Own(1, dtype="float64"), features=1)
    weights = [np.full((1, 1), 2.0), np.zeros((1, 1))]
    outputs, states = reference_for(cell)(weights, np.full((1, 1, 1), 3.0), ["states"])
    assert outputs == 6
    assert states == ["states"]


def test_an_unknown_cell_has_no_reference():
    assert reference_for(keras.layers.Layer()) is None


@pytest.mark.parametrize("activation", [lambda x: x, keras.activations.mish])
def test_an_unknown_activation_is_named(activation):
    with pytest.raises(NotImplementedError, match=r"no NumPy form of the activation.*tanh"):
        reference_for(drawn(SimpleRNNCell(UNITS, activation=activation)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_keras(name):
    function = keras.saving.get_registered_object(name) or keras.activations.get(name)
    z = np.array([-9.0, -6.5, -3.2, -2.6, -1.0, -1e-3, 0.0, 1e-3, 1.0, 2.4, 2.7, 3.1, 6.5, 9.0])
    np.testing.assert_allclose(ACTIVATIONS[name](z), function(keras.ops.convert_to_tensor(z)), **EXACT)
    step = 1e-6
    central = (ACTIVATIONS[name](z + step) - ACTIVATIONS[name](z - step)) / (2 * step)
    derivative = ACTIVATIONS[name](z + 1e-20j).imag / 1e-20
    smooth = z != 0 if name in ("relu", "relu6", "softsign") else np.full(z.shape, True)
    np.testing.assert_allclose(derivative[smooth], central[smooth], rtol=1e-7, atol=1e-9)


# --- derivatives


@pytest.mark.parametrize("name", CELLS)
def test_complex_step_is_the_central_difference(name):
    cell = drawn(CELLS[name](UNITS, dtype="float64"))
    reference = reference_for(cell)
    inputs, states = data(cell)
    weights = cell.get_weights()
    rng = np.random.default_rng(3)
    point = [*weights, inputs, *states]
    direction = [rng.normal(size=array.shape) for array in point]
    outputs, final = reference(weights, inputs, states)
    cotangents = [rng.normal(size=array.shape) for array in (outputs, *final)]

    def total(*moved):
        outputs, final = reference(moved[: len(weights)], moved[len(weights)], moved[len(weights) + 1 :])
        return sum(np.sum(r * c) for r, c in zip((outputs, *final), cotangents, strict=True))

    def moved(step):
        return total(*(value + step * by for value, by in zip(point, direction, strict=True)))

    step = 1e-5
    central = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(complex_step(total, point, direction), central, rtol=1e-6)


def test_a_reference_keeps_the_dtype_it_is_given():
    cell = drawn(LSTMCell(UNITS, dtype="float64"))
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs.astype("complex128"), states)
    assert {array.dtype for array in (outputs, *final)} == {np.dtype("complex128")}


# --- by hand: one unit, one feature, one step


def weights_for(*sums, biases=1):
    """[W, R, b] that give the pre-activations `sums` at X and H, half from x, a quarter from h and from b."""
    sums = np.array([sums])
    bias = sums[0] / 4 if biases == 1 else np.stack([sums[0] / 8, sums[0] / 8])
    return [sums / 2 / X, sums / 4 / H, bias]


def first_step(name, weights, states, **settings):
    reference = REFERENCES[CELLS[name]].recurrence
    states = [np.array([[state]]) for state in states]
    outputs, final = reference(weights, np.array([[[X]]]), states, **settings)
    return [outputs.item(), *(state.item() for state in final)]


def test_minimal_by_hand():
    assert first_step("minimal", [np.array([[5.0]]), np.array([[7.0]])], [H]) == [31, 31]  # 2*5 + 3*7


def test_simple_rnn_by_hand():
    np.testing.assert_allclose(first_step("simple_rnn", weights_for(LN2), [H]), [0.6, 0.6])


def test_lstm_by_hand():
    c = 2 * (LN3 - 0.45)  # so that c' = 1/2 c + 3/4 * 3/5 = ln 3, and h' = 1/4 * 4/5
    found = first_step("lstm", weights_for(LN3, 0, LN2, -LN3), [H, c])
    np.testing.assert_allclose(found, [0.2, 0.2, LN3])


def test_gru_with_reset_after_by_hand():
    # z = 1/4, r = 3/4; x W and its bias give a, h R and its bias give (ln 2 - a) / r
    *weights, bias = weights_for(-LN3, LN3, LN2, biases=2)
    kernel, recurrent = weights
    from_x = kernel[0, 2] * X + bias[0, 2]
    recurrent[0, 2] = ((LN2 - from_x) / 0.75 - bias[1, 2]) / H
    h = 0.25 * H + 0.75 * 0.6
    np.testing.assert_allclose(first_step("gru", [kernel, recurrent, bias], [H], reset_after=True), [h, h])


def test_gru_without_reset_after_by_hand():
    kernel, recurrent, bias = weights_for(-LN3, LN3, LN2)
    recurrent[0, 2] /= 0.75  # r = 3/4 of h meet it
    h = 0.25 * H + 0.75 * 0.6
    np.testing.assert_allclose(first_step("gru", [kernel, recurrent, bias], [H], reset_after=False), [h, h])


def test_slstm_by_hand():
    c = 4 * (LN3 - 0.45)  # so that c' = 1/4 c + 3/4 * 3/5 = ln 3
    np.testing.assert_allclose(first_step("slstm", weights_for(-LN3, LN2), [H, c]), [0.8, 0.8, LN3])


def test_gru_candidate_by_hand():
    kernel, recurrent, _ = weights_for(LN3, -LN3, LN2)
    recurrent *= 2  # there is no bias: half from c
    recurrent[0, 2] /= 0.75
    found = first_step("gru_candidate", [kernel, recurrent], [H])
    np.testing.assert_allclose(found, [0.6, 0.25 * H + 0.75 * 0.6])


def test_dense_rnn_by_hand():
    kernel, recurrent, bias = weights_for(LN2)
    found = first_step("dense_rnn", [np.concatenate([kernel, recurrent]), bias], [H])
    np.testing.assert_allclose(found, [0.6, 0.6])


@pytest.mark.parametrize("initial_states", [None, [np.full((1, 1), H)]])
def test_learned_state_by_hand(initial_states):
    h_0 = np.array([H if initial_states is None else 99.0])  # states that are given come first
    reference = REFERENCES[CELLS["learned_state"]].recurrence
    outputs, _ = reference([*weights_for(LN2), h_0], np.array([[[X]]]), initial_states)
    np.testing.assert_allclose(outputs, 0.6)


def test_matrix_memory_by_hand():
    # two keys, one value: q = (1, 2), k = (3, 4) / √2, v = 5, o = 1/2, i = 3/4, f = 1/4, C = (8, 16)
    sums = np.array([1, 2, 3, 4, 5, 0, LN3, -LN3])
    weights = [sums[None] / 2 / X, sums / 2]
    memory = np.array([[[8.0], [16.0]]])
    reference = REFERENCES[CELLS["matrix_memory"]].recurrence
    outputs, (final,) = reference(weights, np.array([[[X]]]), [memory])
    wrote = np.array([11.25, 15]) / math.sqrt(2)
    np.testing.assert_allclose(final[0, :, 0], np.array([2, 4]) + wrote)
    np.testing.assert_allclose(outputs.item(), (2 + 2 * 4 + wrote[0] + 2 * wrote[1]) / 2)


def test_references_go_on_from_their_states():
    """Two steps are one step and, from its states, another."""
    for cell_class in CELLS.values():
        cell = drawn(cell_class(UNITS, dtype="float64"))
        reference, weights = reference_for(cell), cell.get_weights()
        inputs, states = data(cell, timesteps=2)
        first, between = reference(weights, inputs[:, :1], states)
        second, final = reference(weights, inputs[:, 1:], between)
        assert_same(reference(weights, inputs, states), [np.concatenate([first, second], axis=1), final])


# --- planted faults


def wrong_gate_order(cell_class):
    class Wrong(cell_class):
        def update(self, gates, states):
            first, second, *others = gates
            return super().update([second, first, *others], states)

    return Wrong


def missing_bias(cell_class):
    class Wrong(cell_class):
        def call(self, inputs, states, training=False):
            bias, self.bias = self.bias, None
            try:
                return super().call(inputs, states, training)
            finally:
                self.bias = bias

    return Wrong


def output_one_step_late(cell_class):
    class Wrong(cell_class):
        def update(self, gates, states):
            _, new_states = super().update(gates, states)
            return states[0], new_states

    return Wrong


def state_one_step_late(cell_class):
    class Wrong(cell_class):
        def update(self, gates, states):
            output, (*new_states, _) = super().update(gates, states)
            return output, [*new_states, states[-1]]

    return Wrong


def swapped_activation(cell_class):
    class Wrong(cell_class):
        def update(self, gates, states):
            kept = self.activation, self.recurrent_activation
            self.recurrent_activation, self.activation = kept
            try:
                return super().update(gates, states)
            finally:
                self.activation, self.recurrent_activation = kept

    return Wrong


FAULTS: dict[Callable[[type], type], list[type]] = {
    wrong_gate_order: [LSTMCell, GRUCell, SLSTMCell],
    missing_bias: [SimpleRNNCell, LSTMCell, GRUCell, SLSTMCell],
    output_one_step_late: [MinimalRNNCell, SimpleRNNCell, LSTMCell, GRUCell, SLSTMCell],
    state_one_step_late: [MinimalRNNCell, SimpleRNNCell, LSTMCell, GRUCell, SLSTMCell],
    swapped_activation: [SimpleRNNCell, LSTMCell, GRUCell, SLSTMCell],
}


def error_against_reference(cell, cell_class, **arguments):
    """How far the cell is from what `cell_class` must compute with the same weights."""
    drawn(cell)
    right = drawn(cell_class(UNITS, dtype="float64", **arguments))
    inputs, states = data(right)
    outputs, final = reference_for(right)(cell.get_weights(), inputs, states)
    return difference(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])


@pytest.mark.parametrize(
    ("fault", "cell_class"), [(fault, cell_class) for fault, those in FAULTS.items() for cell_class in those]
)
@pytest.mark.parametrize("reset_after", [True, False])
def test_a_planted_fault_shows(fault, cell_class, reset_after):
    arguments = {} if cell_class is not GRUCell else {"reset_after": reset_after}
    right, wrong = cell_class, fault(cell_class)
    cells = [made(UNITS, dtype="float64", **arguments) for made in (right, wrong)]
    errors = [error_against_reference(cell, cell_class, **arguments) for cell in cells]
    assert errors[0] < 1e-12
    assert errors[1] > 0.01


def test_a_forget_bias_of_zero_shows():
    cell = LSTMCell(UNITS, unit_forget_bias=False, dtype="float64")
    right = LSTMCell(UNITS, dtype="float64")
    errors = []
    for made in (right, cell):
        made.build((None, 2))
        kernel, recurrent, bias = made.get_weights()
        inputs, states = data(made)
        start = REFERENCES[LSTMCell].initial_bias(bias.shape)
        outputs, final = reference_for(right)([kernel, recurrent, start], inputs, states)
        errors.append(difference(in_rnn(made)(inputs, initial_state=states), [outputs, *final]))
    assert errors[0] < 1e-12
    assert errors[1] > 0.01


@pytest.mark.parametrize("name", CELLS)
def test_initial_bias_is_where_the_cell_starts(name):
    cell = CELLS[name](UNITS)
    cell.build((None, 2))
    bias = next((weight for weight in cell.weights if weight.name == "bias"), None)
    if bias is not None:
        np.testing.assert_array_equal(bias, REFERENCES[CELLS[name]].initial_bias(bias.shape))
