"""Floating point operations counted in graphs: against the closed formulas, and for cells that have none."""

import keras
import pytest
import tensorflow as tf

from bench.backend import devices, layers
from bench.backend.flops import Flops, Uncountable, count
from bench.backend.layers import step_flops
from bench.cases.case import Case
from bench.cases.subjects import SUBJECTS, make_layer, user_subject
from bench.proof.problem import prepare

SHAPE = (3, 5, 7, 8)  # batch size, timesteps, features, units: all different
GATES = {"minimal": 1, "simple_rnn": 1, "slstm": 2, "gru": 3, "lstm": 4}


def layer_of(subject, case: Case):
    return layers.built_layer(lambda: make_layer(subject, case), case, 1)


def flops_of(subject: str, mode: str = "infer", **options) -> Flops:
    cell, layer = subject.split("-")
    case = Case(cell, layer, mode, *SHAPE, **options)
    found = step_flops(layer_of(SUBJECTS[subject], case), case)
    assert found is not None
    return found


def products(gates: int, mode: str, input_product: bool = True) -> int:
    """The closed formula for one step: 2 · gates · (features + units) · units · batch; thrice in training."""
    batch_size, _, features, units = SHAPE
    forward = 2 * gates * ((features if input_product else 0) + units) * units * batch_size
    return forward if mode == "infer" else 3 * forward


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize(
    "subject",
    ["simple_rnn-builtin", "lstm-builtin", "gru-builtin", "minimal-rnn", "slstm-rnn", "lstm-fused"],
)
def test_the_products_are_those_of_the_closed_formula(subject, mode):
    counted = flops_of(subject, mode)
    assert counted.products == products(GATES[subject.split("-")[0]], mode)
    assert 0 < counted.elementwise < counted.products


@pytest.mark.parametrize(
    "options", [{"implementation": 1}, {"unroll": True}, {"jit_compile": True}, {"dtype": "mixed_bfloat16"}]
)
def test_options_that_compute_the_same_count_the_same_products(options):
    assert flops_of("lstm-builtin", "train", **options).products == products(4, "train")


def test_a_stack_in_both_directions_is_the_sum_of_its_cells():
    """Forward and backward over the features, and over both outputs of the level below."""
    batch_size, _, features, units = SHAPE
    wide = sum(2 * (2 * 4 * (width + units) * units * batch_size) for width in (features, 2 * units))
    assert flops_of("lstm-builtin", bidirectional=True, depth=2).products == wide


def test_cells_stacked_in_one_loop_are_all_counted():
    batch_size, _, features, units = SHAPE
    both = sum(2 * 4 * (width + units) * units * batch_size for width in (features, units))
    assert flops_of("keras_lstm-rnn", depth=2).products == both


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_without_the_input_product_that_is_left_out(mode):
    assert flops_of("gru-fused", mode, input_product=False).products == products(3, mode, input_product=False)


class Low(keras.layers.Layer):
    """Somebody's own: a recurrent matrix of rank 2 over a sub-layer."""

    def __init__(self, units):
        super().__init__()
        self.units = self.state_size = units
        self.dense = keras.layers.Dense(units)

    def build(self, shape):
        self.dense.build(shape)
        self.down = self.add_weight(shape=(self.units, 2), name="down")
        self.up = self.add_weight(shape=(2, self.units), name="up")

    def call(self, inputs, states):
        h = keras.ops.tanh(self.dense(inputs) + states[0] @ self.down @ self.up)
        return h, [h]


def test_somebodys_own_cell_is_counted_from_its_graph():
    batch_size, _, features, units = SHAPE
    case = Case("low", "rnn", "infer", *SHAPE)
    counted = step_flops(layer_of(user_subject("low", Low, "lstm-builtin"), case), case)
    assert counted.products == 2 * batch_size * (features * units + 2 * units + 2 * units)
    assert counted.elementwise == 3 * batch_size * units  # the bias, the sum, the tanh


class Looping(Low):
    def call(self, inputs, states):
        h = tf.while_loop(lambda h: True, lambda h: (tf.tanh(h),), (states[0],), maximum_iterations=3)[0]
        return h, [h]


def test_what_cannot_be_counted_has_no_figure():
    case = Case("looping", "rnn", "infer", *SHAPE)
    assert step_flops(layer_of(user_subject("looping", Looping, "lstm-builtin"), case), case) is None


def graph_of(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    return tf.function(function, autograph=False).get_concrete_function(*specs).graph.outputs


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (lambda a, b: a @ b, [(2, 3), (3, 5)], Flops(60, 0)),
        (lambda a, b: tf.matmul(a, b, transpose_a=True), [(3, 2), (3, 5)], Flops(60, 0)),
        (lambda a, b: tf.matmul(a, b, transpose_b=True), [(2, 3), (5, 3)], Flops(60, 0)),
        (lambda a, b: a @ b, [(7, 2, 3), (7, 3, 5)], Flops(420, 0)),
        (lambda a, b: tf.einsum("bi,bij->bj", a, b), [(7, 3), (7, 3, 5)], Flops(210, 0)),
        (lambda a, b: tf.tanh(a) + b, [(2, 3), (2, 3)], Flops(0, 12)),
        (lambda a, b: a + b, [(2, 1), (1, 3)], Flops(0, 6)),
        (lambda a, b: tf.reduce_sum(a * b), [(2, 3), (2, 3)], Flops(0, 12)),
        (lambda a, b: tf.concat([a, b], 0)[:1], [(2, 3), (2, 3)], Flops()),
        (
            lambda a, b: (tf.tanh(a), a @ b)[0],
            [(2, 3), (3, 2)],
            Flops(0, 6),
        ),  # what is not used is not counted
        (
            lambda a, b: (lambda t: t * t)(tf.tanh(a)),
            [(2, 3), (1,)],
            Flops(0, 12),
        ),  # what is used twice is once
        (lambda a, b: tf.cast(tf.cast(a, tf.int32) + 1, tf.float32), [(2, 3), (1,)], Flops()),
    ],
)
def test_what_counts_how_much(function, shapes, expected):
    assert count(graph_of(function, *shapes)) == expected


def test_an_open_size_cannot_be_counted_and_is_named():
    with pytest.raises(Uncountable, match="shape"):
        count(graph_of(lambda a: tf.tanh(a), (None, 3)))


def test_the_matmul_peak_is_measured_once_for_a_dtype_and_believable():
    peak = devices.matmul_peak("float32", "cpu")
    assert devices.matmul_peak("float32", "cpu") == peak
    assert 1e8 < peak < 1e14


def test_warming_up_and_the_memory_mark_do_no_harm():
    devices.warm_up()
    rise = devices.memory_mark("cpu")
    prepare(SUBJECTS["lstm-rnn"], Case("lstm", "rnn", "infer", *SHAPE))
    assert rise() is None or rise() >= 0
