"""Peephole LSTM, JANET, minimal gated unit and IndRNN, against their references."""

import numpy as np
import pytest

from cells import GatedCell, IndRNNCell, JANETCell, MGUCell, PeepholeLSTMCell
from cells.reference import reference_for
from cells.tests.support import FEATURES, UNITS, assert_gradients, assert_same, data, drawn, in_rnn

EQUATIONS = [
    (PeepholeLSTMCell, {}),
    (PeepholeLSTMCell, {"use_bias": False, "activation": "softsign"}),
    (JANETCell, {}),
    (JANETCell, {"beta": 0.25, "use_bias": False}),
    (MGUCell, {}),
    (MGUCell, {"use_bias": False}),
    (IndRNNCell, {}),
    (IndRNNCell, {"use_bias": False, "activation": "tanh"}),
]


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize(("cell_class", "arguments"), EQUATIONS)
def test_computes_its_reference_and_its_gradients(cell_class, arguments, implementation):
    cell = drawn(cell_class(UNITS, dtype="float64", implementation=implementation, **arguments))
    inputs, states = data(cell)
    outputs, final = reference_for(cell)(cell.get_weights(), inputs, states)
    assert_same(in_rnn(cell)(inputs, initial_state=states), [outputs, *final])
    assert_gradients(cell, reference_for(cell))


@pytest.mark.parametrize(("cell_class", "arguments"), EQUATIONS)
def test_its_configuration_makes_an_equal_cell(cell_class, arguments):
    cell = cell_class(UNITS, **arguments)
    again = cell_class.from_config(cell.get_config())
    assert again.get_config() == cell.get_config()
    for argument, value in arguments.items():
        assert again.get_config()[argument] == value


def test_the_weights_of_a_group_share_its_initialiser_regulariser_and_constraint():
    cell = PeepholeLSTMCell(
        UNITS, kernel_initializer="ones", kernel_regularizer="l2", kernel_constraint="non_neg"
    )
    cell.build((None, FEATURES))
    np.testing.assert_array_equal(cell.input_peephole, np.ones(UNITS))
    assert cell.output_peephole.regularizer is cell.kernel_regularizer
    assert cell.output_peephole.constraint is cell.kernel_constraint


def test_a_cell_without_recurrent_products_has_no_weights_for_them():
    cell = drawn(IndRNNCell(UNITS))
    assert [weight.name for weight in cell.weights] == ["kernel", "bias", "recurrent_vector"]
    assert cell.recurrent_kernel is None
    with pytest.raises(TypeError, match="recurrent_dropout"):
        IndRNNCell(UNITS, recurrent_dropout=0.5)


def test_late_input_takes_the_vectors_too():
    class Cell(GatedCell):
        gates = ("f", "h")
        late = ("h",)
        vectors = {"scale": "bias"}  # noqa: RUF012

        def late_input(self, gates, states, *vectors):
            return vectors[0] * states[0]

        def update(self, gates, states, *vectors):
            return gates[1], [gates[1]]

    cell = drawn(Cell(UNITS, dtype="float64", use_bias=False))
    inputs, states = data(cell)
    kernel, recurrent, scale = cell.get_weights()
    expected = inputs[:, 0] @ kernel[:, UNITS:] + (scale * states[0]) @ recurrent[:, UNITS:]
    assert_same(cell(inputs[:, 0], states)[0], expected)
