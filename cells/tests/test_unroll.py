"""Static and dynamic unrolling: what `keras.layers.RNN` computes, over any cell."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from cells import (
    CandidateGRUCell,
    GRUCell,
    LearnedStateRNNCell,
    LSTMCell,
    MatrixMemoryCell,
    dynamic_unroll,
    static_unroll,
)
from cells.tests.support import (
    BATCH,
    FEATURES,
    TIMESTEPS,
    UNITS,
    arrays,
    assert_same,
    difference,
    drawn,
    in_rnn,
)

UNROLLS = [static_unroll, dynamic_unroll]
LENGTHS = np.array([0, 2, TIMESTEPS])


class StepCounterCell(keras.layers.Layer):
    """An integer in the state, one bare tensor: the output is x times the number of the step."""

    state_size = 1
    output_size = FEATURES

    def get_initial_state(self, batch_size=None):
        return keras.ops.zeros((batch_size, 1), dtype="int32")

    def call(self, inputs, states):
        count = states[0] + 1
        return inputs * keras.ops.cast(count, inputs.dtype), count


class WithoutInitialStateCell(keras.layers.Layer):
    """No `get_initial_state`, no `training`, a tuple of states."""

    state_size = (FEATURES, FEATURES)

    def call(self, inputs, states):
        first, second = states
        return inputs + second, (inputs, first)


def stack():
    return keras.layers.StackedRNNCells(
        [LSTMCell(UNITS, dtype="float64"), MatrixMemoryCell(3, keys=2, dtype="float64")], dtype="float64"
    )


MAKERS = {
    "lstm": lambda: LSTMCell(UNITS, dtype="float64"),
    "keras_gru": lambda: keras.layers.GRUCell(UNITS, dtype="float64"),
    "gru_candidate": lambda: CandidateGRUCell(UNITS, dtype="float64"),
    "matrix_memory": lambda: MatrixMemoryCell(UNITS, keys=3, dtype="float64"),
    "learned_state": lambda: LearnedStateRNNCell(UNITS, dtype="float64"),
    "stack": stack,
    "without_initial_state": lambda: WithoutInitialStateCell(dtype="float64"),
}


def sequences(timesteps=TIMESTEPS):
    return np.random.default_rng(1).normal(size=(BATCH, timesteps, FEATURES))


def states_like(layer):
    rng = np.random.default_rng(2)
    states = layer.get_initial_state(BATCH)
    return keras.tree.map_structure(lambda state: tf.constant(rng.normal(size=state.shape)), states)


# tracing is what takes time: in a graph one of each kind of state
CASES = [*((name, False) for name in MAKERS), ("lstm", True), ("matrix_memory", True)]


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize(("name", "is_compiled"), CASES)
def test_is_the_layer(name, unroll, lengths, is_compiled):
    """Outputs, states and the gradients of weights, inputs and initial states."""
    cell = drawn(MAKERS[name]())
    layer = in_rnn(cell, unroll=unroll is static_unroll, zero_output_for_mask=True)
    mask = None if lengths is None else tf.constant(np.arange(TIMESTEPS) < lengths[:, None])

    def by_layer(inputs, states):
        outputs, *final = layer(inputs, initial_state=states, mask=mask)
        return outputs, final

    def by_function(inputs, states):
        return unroll(cell, inputs, states, lengths)

    def with_gradients(run):
        def results(inputs, states):
            sources = [inputs, *keras.tree.flatten(states)]
            with tf.GradientTape() as tape:
                tape.watch(sources)
                found = run(inputs, states)
                total = sum(tf.reduce_sum(tf.sin(r)) for r in keras.tree.flatten(found))
            sources += [variable.value for variable in cell.trainable_variables]
            return found, tape.gradient(total, sources, unconnected_gradients="zero")

        return tf.function(results, autograph=False) if is_compiled else results

    inputs, states = tf.constant(sequences()), states_like(layer)
    assert_same(with_gradients(by_function)(inputs, states), with_gradients(by_layer)(inputs, states))


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("name", MAKERS)
def test_starts_where_the_layer_starts(name, unroll):
    cell = drawn(MAKERS[name]())
    outputs, *final = in_rnn(cell)(sequences())
    assert_same(unroll(cell, sequences()), [outputs, *final])


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("unroll", UNROLLS)
def test_time_major(unroll, lengths):
    cell = drawn(GRUCell(UNITS, dtype="float64"))
    outputs, final = unroll(cell, sequences(), sequence_length=lengths)
    swapped = unroll(cell, sequences().swapaxes(0, 1), sequence_length=lengths, time_major=True)
    assert_same(swapped, [arrays(outputs)[0].swapaxes(0, 1), final])


@pytest.mark.parametrize("unroll", UNROLLS)
def test_beyond_the_length_outputs_are_zero_and_states_stay(unroll):
    cell = drawn(LSTMCell(UNITS, dtype="float64"))
    outputs, final = arrays_of(unroll(cell, sequences(), sequence_length=LENGTHS))
    for row, length in enumerate(LENGTHS):
        assert np.all(outputs[row, length:] == 0)
        if length:
            alone, states = arrays_of(unroll(cell, sequences()[row : row + 1, :length]))
            assert_same([outputs[row : row + 1, :length], [s[row : row + 1] for s in final]], [alone, states])
        else:
            assert all(np.all(state[row] == 0) for state in final)


def arrays_of(results):
    outputs, states = results
    return arrays(outputs)[0], arrays(states)


@pytest.mark.parametrize("unroll", UNROLLS)
def test_integers_in_the_state_stay_integers(unroll):
    inputs = sequences().astype("float32")
    outputs, (count,) = unroll(StepCounterCell(), inputs, sequence_length=LENGTHS)
    steps = np.arange(1, TIMESTEPS + 1) * (np.arange(TIMESTEPS) < LENGTHS[:, None])
    assert_same([outputs, count], [inputs * steps[..., None], LENGTHS[:, None]], rtol=1e-6)
    assert count.dtype == "int32"


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("cell_class", [LSTMCell, keras.layers.LSTMCell])
def test_dropout_is_the_layers(cell_class, unroll):
    """The same masks from the same seed, new ones at every call, none outside of training."""
    rates = {"dropout": 0.4, "recurrent_dropout": 0.3, "seed": 7}
    cell, in_layer = (drawn(cell_class(UNITS, dtype="float64", **rates)) for _ in range(2))
    layer = in_rnn(in_layer)

    @tf.function(autograph=False)
    def by_function(inputs):
        return unroll(cell, inputs, training=True)

    inputs = tf.constant(sequences())
    for run in (by_function, lambda inputs: unroll(cell, inputs, training=True)):
        first, second = run(inputs), run(inputs)
        assert_same([first, second], [layer(inputs, training=True), layer(inputs, training=True)])
        assert difference(first, second) > 0.01
    assert_same(unroll(cell, inputs), in_rnn(drawn(cell_class(UNITS, dtype="float64")))(inputs))


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("cell_class", [LSTMCell, LearnedStateRNNCell])
def test_builds_the_cell(cell_class, unroll):
    """A learned initial state is asked for only after that."""
    cell = cell_class(UNITS)
    outputs, _ = unroll(cell, sequences())
    assert len(cell.weights) == len(drawn(cell_class(UNITS)).weights)
    assert_same(outputs, in_rnn(cell)(sequences())[0], rtol=1e-6)


@pytest.mark.parametrize("unroll", UNROLLS)
def test_takes_the_dtype_of_the_cell(unroll):
    """Also for states that come in another and are copied through, and in a graph, where a loop keeps it."""
    cell = drawn(LSTMCell(UNITS, dtype="mixed_float16"))
    states = [np.zeros((BATCH, UNITS))] * 2  # float64, as NumPy makes them
    run = tf.function(lambda inputs: unroll(cell, inputs, states, LENGTHS), autograph=False)
    outputs, final = run(sequences())
    assert {outputs.dtype, *(state.dtype for state in final)} == {tf.float16}


def operations(unroll, timesteps):
    cell = drawn(LSTMCell(UNITS))
    run = tf.function(lambda inputs: unroll(cell, inputs), autograph=False)
    traced = run.get_concrete_function(tf.TensorSpec((BATCH, timesteps, FEATURES)))
    return [operation.type for operation in traced.graph.get_operations()]


def test_only_the_dynamic_one_is_a_loop_in_the_graph():
    assert not [kind for kind in operations(static_unroll, 5) if "While" in kind]
    assert len([kind for kind in operations(dynamic_unroll, 5) if "While" in kind]) == 1


def test_only_the_static_graph_grows_with_the_timesteps():
    assert len(operations(static_unroll, 20)) > 3 * len(operations(static_unroll, 5))
    assert len(operations(dynamic_unroll, 20)) == len(operations(dynamic_unroll, 5))


def test_dynamic_takes_any_length_and_batch():
    cell = drawn(LSTMCell(UNITS, dtype="float64"))
    spec = tf.TensorSpec((None, None, FEATURES), tf.float64)
    run = tf.function(lambda x: dynamic_unroll(cell, x), autograph=False, input_signature=[spec])
    for timesteps in (1, 4):
        assert_same(run(sequences(timesteps)), in_rnn(cell)(sequences(timesteps)))


def test_dynamic_takes_no_timesteps():
    cell = drawn(LSTMCell(UNITS, dtype="float64"))
    outputs, final = dynamic_unroll(cell, sequences(0))
    assert outputs.shape == (BATCH, 0, UNITS)
    assert_same(final, cell.get_initial_state(BATCH), rtol=0)


def test_static_needs_a_fixed_number_of_timesteps():
    with pytest.raises(ValueError, match="fixed number of timesteps, not None"):
        operations(static_unroll, None)
    with pytest.raises(ValueError, match="fixed number of timesteps, not 0"):
        static_unroll(LSTMCell(UNITS), sequences(0))


@pytest.mark.parametrize("unroll", UNROLLS)
@pytest.mark.parametrize("lengths", [3, [1, 2], [[1], [2], [3]]])
def test_refuses_lengths_that_are_not_one_a_sequence(unroll, lengths):
    with pytest.raises(ValueError, match=r"sequence_length must have the shape \(3,\)"):
        unroll(LSTMCell(UNITS), sequences(), sequence_length=lengths)


def test_learned_initial_state_gets_its_gradient():
    cell = drawn(LearnedStateRNNCell(UNITS))
    for unroll in UNROLLS:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(unroll(cell, sequences().astype("float32"))[0])
        assert np.all(tape.gradient(loss, cell.initial_state.value) != 0)
