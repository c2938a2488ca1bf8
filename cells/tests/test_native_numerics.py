"""The native engine computes what TensorFlow does at special values: NaN, infinite, huge, tiny, saturated.

TensorFlow computes eagerly here: in a graph it rewrites `not (x > y)` to `x <= y`, which NaN tells apart, and
adds up several terms in another order.
"""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from cells import GatedCell, GRUCell, LSTMCell
from cells.engines import native, xla
from cells.engines.native import library, translation
from cells.engines.recurrence import Recurrence
from cells.tests.support import arrays
from cells.tests.test_fused_rnn import EveryKindCell, outputs_and_gradients, some_mask
from cells.tests.test_native import drawn_data, fused_natively, make

pytestmark = pytest.mark.skipif(library.compiler() is None, reason="there is no C++ compiler")

# Numbers smaller than the smallest normalised one, 1.18e-38, count as 0, as in TensorFlow; about there a last
# place decides.
TINY = 1.3e-38
MAGNITUDES: list[float] = [
    *(0, 1e-45, 1e-39, 1.4e-38, 1e-30, 1e-20, 1e-10, 1e-7, 1e-4, 0.5, 0.999999, 1, 1.5, 2, 3, 6, 7),
    # where tanh, erf, softplus and the logistic function become 1, x or 0
    *(
        3.5,
        4,
        7.9,
        7.907389,
        7.90739,
        8,
        8.02,
        8.7,
        9.01,
        9.02,
        9.2,
        10,
        13,
        14,
        15,
        16.6,
        16.63553,
        16.635534,
    ),
    *(17, 17.5, 18, 20, 50),
    # where exp overflows and underflows
    *(
        80,
        87,
        87.33,
        87.34,
        88,
        88.37,
        88.38,
        88.7,
        88.722,
        88.723,
        88.73,
        88.8,
        89,
        100,
        103.9,
        104,
        105,
        200,
    ),
    *(1e3, 1e5, 1e10, 1e19, 2e19, 1e38, 3.4e38, np.inf),  # 1e19 is the last whose square is finite
]
SPECIAL = np.array([np.nan, *MAGNITUDES, *np.negative(MAGNITUDES)], "float32")
DOUBLES: list[float] = [
    *(0, 1e-300, 1e-100, 1e-16, 1e-8, 0.1, 0.5, 0.624, 0.626, 1, 1.5, 2, 3, 6, 7, 9.5, 18, 20, 33, 35, 37),
    *(100, 700, 708, 709.7, 710, 745, 750, 1e3, 1e10, 1e100, 1e200, np.inf),
]
SPECIAL_DOUBLES = np.array([np.nan, *DOUBLES, *np.negative(DOUBLES)])


# The names of TensorFlow's operations by those of their operands.
BY_OPERANDS = {
    (
        "x",
    ): "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Cos Cosh Erf Erfc Exp Expm1 Floor Inv IsFinite IsInf IsNan "
    "Log Log1p Neg OnesLike Reciprocal Rint Round Rsqrt Sigmoid Sign Sin Sinh Sqrt Square Tan Tanh ZerosLike",
    ("features",): "Elu LeakyRelu Relu Relu6 Selu Softplus Softsign",
    ("input",): "Identity StopGradient",
    (
        "x",
        "y",
    ): "Add AddV2 DivNoNan Equal Greater GreaterEqual Less LessEqual Maximum Minimum Mul NotEqual Pow "
    "FloorDiv FloorMod RealDiv SquaredDifference Sub Xdivy",
    ("y", "dy"): "InvGrad ReciprocalGrad RsqrtGrad SigmoidGrad SqrtGrad TanhGrad",
    ("gradients", "features"): "LeakyReluGrad Relu6Grad ReluGrad SoftplusGrad SoftsignGrad",
    ("gradients", "outputs"): "EluGrad SeluGrad",
}


def operation(name, operands):
    """A TensorFlow operation as a function of tensors of floats to one, where true is 1.

    A gradient is only asked for of what is none itself, and has one that is elementwise.
    """

    def function(*tensors):
        result = getattr(tf.raw_ops, name)(**dict(zip(operands, tensors, strict=True)))
        result = tf.cast(result, tensors[0].dtype)
        return tf.stop_gradient(result) if name.endswith("Grad") or name == "Xdivy" else result

    return function, len(operands)


# (function, number of operands) by name
OPERATIONS = {
    **{name: operation(name, operands) for operands, names in BY_OPERANDS.items() for name in names.split()},
    "LogicalAnd": (lambda x, y: tf.cast((x > 0) & (y > 0), x.dtype), 2),
    "LogicalOr": (lambda x, y: tf.cast((x > 0) | (y > 0), x.dtype), 2),
    "LogicalNot": (lambda x, y: tf.cast(~(x > y), x.dtype), 2),
    "Select": (lambda x, y: tf.raw_ops.Select(condition=x > 0, x=x, y=y), 2),
    "SelectV2": (lambda x, y: tf.where(y == 0, x, y), 2),
    "AddN": (lambda x, y: tf.add_n([x, y, x]), 2),
    "IdentityN": (lambda x, y: tf.identity_n([x, y])[1], 2),
    "a power of a constant": (lambda x: tf.pow(tf.constant(2, x.dtype), x), 1),
    "an infinite constant": (lambda x: x + tf.constant(-np.inf, x.dtype), 1),
    "a difference of products": (lambda x, y: x * y - abs(x) * abs(y), 2),
}

# How far results may differ, in units of the last place: each side's functions are right to 1 or 2, but
# TensorFlow's tanh to 5, its logistic function to 6, and its erfc, where it underflows, to 47.
ULPS = {"Erfc": 50, "Sigmoid": 8, "Tanh": 8}
# How far gradients may differ besides, relative to the result's: 1 - y and 1 - y² subtract a y near 1, whose
# last place is 6e-8.
ABSOLUTE = {"Sigmoid": 2e-7, "Tanh": 1e-6}


@functools.cache
def special_operands(dtype="float32"):
    """Each special value with each, and what is drawn of them for the gradients of the results."""
    special = SPECIAL if dtype == "float32" else SPECIAL_DOUBLES
    x, y = (each.ravel() for each in np.meshgrid(special, special))
    return x, y, np.random.default_rng(0).permutation(x)


def recurrence_of(functions, units, dtype="float32"):
    """A recurrence of one step: its gates are the functions' operands, its states their results."""

    def update(gates, states, vectors):
        gates = iter(gates)
        return [function(*(next(gates) for _ in range(count))) for function, count in functions]

    operands = sum(count for _, count in functions)
    return Recurrence(
        **{"units": units, "sums": operands, "separate": 0, "late": 0, "recurrent": False},
        **{"update": update, "late_input": None, "own_output": False, "states": len(functions), "vectors": 0},
        dtype=dtype,
    )


@pytest.fixture(scope="module", autouse=True)
def no_trial():
    """A library's own trial draws operands that many of these operations have no number for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "checked", lambda header, fault_of: None)
        yield


def natively(functions, operands, upstream):
    """Of each function with a number of operands the result, and the gradients of all operands, flat."""
    recurrence = recurrence_of(functions, len(upstream), upstream.dtype.name)
    inputs = tf.reshape(tf.stack(operands), [1, 1, -1])
    states = [tf.zeros([1, len(upstream)], upstream.dtype)] * len(functions)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        _, results = xla.run(
            native.programs(recurrence),
            {"inputs": inputs, "vectors": [], "states": states},
            {},
            **{"zero_masked": False, "sequence": False, "save": True},
        )
    gradients = tape.gradient(results, inputs, output_gradients=[upstream[None]] * len(functions))
    return [result[0].numpy() for result in results], list(tf.reshape(gradients, [-1, len(upstream)]).numpy())


def by_tensorflow(functions, operands, upstream):
    """The same as `natively`."""
    operands = iter(map(tf.constant, operands))
    results, gradients = [], []
    for function, count in functions:
        own = [next(operands) for _ in range(count)]
        with tf.GradientTape() as tape:
            tape.watch(own)
            result = function(*own)
        results.append(result.numpy())
        gradients += tape.gradient(result, own, output_gradients=upstream, unconnected_gradients="zero")
    return results, [gradient.numpy() for gradient in gradients]


@functools.cache
def both(dtype="float32"):
    """By name (found, expected), a result and the gradients of its operands; all in one library."""
    x, y, upstream = special_operands(dtype)
    functions = list(OPERATIONS.values())
    operands = [each for _, count in functions for each in (x, y)[:count]]
    by_name = {}
    (found, found_gradients), (expected, expected_gradients) = (
        run(functions, operands, upstream) for run in (natively, by_tensorflow)
    )
    at = 0
    for name, one, other in zip(OPERATIONS, found, expected, strict=True):
        end = at + OPERATIONS[name][1]
        by_name[name] = (one, found_gradients[at:end]), (other, expected_gradients[at:end])
        at = end
    return by_name


def assert_agrees(found, expected, ulps, absolute=0.0):
    """No number, infinite, zero and negative at the same places, and else as near."""
    found, expected = (
        np.where(np.abs(each) < TINY, np.copysign(0, each), each) for each in (found, expected)
    )
    with np.errstate(invalid="ignore"):
        near = np.abs(found - expected) <= np.maximum(
            ulps * np.spacing(np.abs(np.float32(expected))), absolute
        )
    near = np.where(np.isfinite(expected) & (expected != 0), near, found == expected)
    same = np.where(np.isnan(expected), np.isnan(found), near & (np.signbit(found) == np.signbit(expected)))
    names = ("x", "y", "upstream", "native", "TensorFlow")
    wrong = [np.compress(~same, each)[:5] for each in (*special_operands(), found, expected)]
    assert np.all(same), dict(zip(names, wrong, strict=True))


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_at_special_values(name):
    (found, found_gradients), (expected, expected_gradients) = both()[name]
    assert_agrees(found, expected, ULPS.get(name, 4))
    upstream = np.abs(np.nan_to_num(special_operands()[2]))
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        assert_agrees(one, other, ulps=8, absolute=ABSOLUTE.get(name, 0) * upstream)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_of_doubles(name):
    """To 1e-13, and infinite or no number where TensorFlow's is; 1 - y and 1 - y² to 4e-15 of a y near 1."""
    (found, found_gradients), (expected, expected_gradients) = both("float64")[name]
    if name == "Erf":  # TensorFlow's is no number where x² overflows
        expected = np.where(np.abs(special_operands("float64")[0]) > 1e150, found, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-300)
    least = 4e-15 * np.abs(np.nan_to_num(special_operands("float64")[2]))
    for one, other in zip(found_gradients, expected_gradients, strict=True):
        with np.errstate(invalid="ignore"):
            same = np.abs(one - other) <= np.maximum(1e-13 * np.abs(other), least)
        assert np.all(same | (one == other) | (np.isnan(one) & np.isnan(other)))


def test_every_operation_that_the_engine_knows_is_tested(monkeypatch):
    class Operations(dict):
        def __getitem__(self, name):
            translated.add(name)
            return super().__getitem__(name)

    translated = set()
    monkeypatch.setattr(translation, "_OPERATIONS", Operations(translation._OPERATIONS))
    translation.header_of(recurrence_of(list(OPERATIONS.values()), units=5))
    assert translated == set(translation._OPERATIONS)


def floats(low, high):
    """All float32 numbers from one to another, both positive."""
    low, high = np.float32([low, high]).view("int32")
    return np.arange(low, high, dtype="int32").view("float32")


def test_saturates_where_tensorflow_does():
    """And so do gradients, which are made of the results."""
    functions = [(OPERATIONS[name][0], 1) for name in ("Tanh", "Sigmoid", "Exp")]
    for numbers, limit in [
        (floats(7.8, 8.1), 1),
        (floats(16.6, 16.7), 1),
        (floats(88.7, 88.8), np.inf),
        (-floats(87.3, 87.4), 0),
        (np.float32([-100, -1e38, -np.inf]), -1),
    ]:
        arguments = [numbers] * 3, np.ones_like(numbers)
        found, expected = (run(functions, *arguments)[0] for run in (natively, by_tensorflow))
        for one, other in zip(found, expected, strict=True):
            assert np.all(one[other == limit] == limit)


# --- in whole layers

SHAPES = [(1, 1), (3, 2), (17, 33)]  # units, batch: each leaves a part of a vector of units empty
EVERY_KIND = [  # of product that weights or states enter
    (LSTMCell, {}),
    (GRUCell, {}),
    (EveryKindCell, {}),
    (EveryKindCell, {"implementation": 1, "dropout": 0.4, "recurrent_dropout": 0.3, "seed": 3}),
]


def assert_computes_the_same(cell, inputs, states):
    """Outputs, states and gradients: no number and infinite at the same places, and else the same."""
    found, expected = (
        arrays(outputs_and_gradients(layer, cell, inputs, states))
        for layer in (fused_natively, keras.layers.RNN)
    )
    for one, other in zip(found, expected, strict=True):
        finite = np.isfinite(other)
        scale = 1 + np.max(np.abs(other), initial=0, where=finite)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize(("units", "batch"), SHAPES)
@pytest.mark.parametrize(("cell_class", "arguments"), EVERY_KIND)
def test_what_is_not_finite_spreads_as_in_keras(cell_class, arguments, units, batch):
    cell = make(cell_class, units, **arguments)
    inputs, states = drawn_data(cell, batch, timesteps=3)
    for row, value in enumerate([np.nan, np.inf, -np.inf][:batch]):
        inputs[row, 1, 1] = value
        states[-1][batch - 1 - row, units // 2] = value
    assert_computes_the_same(cell, inputs, states)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e38])
@pytest.mark.parametrize("cell_class", [LSTMCell, GRUCell, EveryKindCell])
def test_weights_that_are_not_finite_spread_as_in_keras(cell_class, value):
    cell = make(cell_class, units=17)
    inputs, states = drawn_data(cell, batch=2, timesteps=2)
    weights = cell.get_weights()
    for index in range(len(weights)):
        changed = [weight.copy() for weight in weights]
        changed[index].flat[changed[index].size // 2] = value
        cell.set_weights(changed)
        assert_computes_the_same(cell, inputs, states)


class RatioCell(GatedCell):
    """An equation that is no number where there is no unit: 0 / 0."""

    gates = ("a",)

    def update(self, gates, states):
        h = 1 + keras.ops.sigmoid(gates[0] / states[0])
        return h, [h]


@pytest.mark.parametrize(("units", "batch"), SHAPES)
def test_what_is_computed_where_there_is_no_unit_stays_there(units, batch):
    cell = make(RatioCell, units)
    inputs, states = drawn_data(cell, batch, timesteps=3)
    assert_computes_the_same(cell, inputs, [1 + np.abs(state) for state in states])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("cell_class", [LSTMCell, GRUCell, EveryKindCell])
def test_what_masked_steps_hold_changes_nothing(cell_class, value):
    """Neither outputs nor states nor gradients, where `keras.layers.RNN` has gradients of NaN."""
    cell = make(cell_class, units=17)
    inputs, states = drawn_data(cell, batch=33, timesteps=4)
    mask, results = some_mask(33, 4), []
    for held in (0.0, value):
        inputs[~mask] = held
        results.append(arrays(outputs_and_gradients(fused_natively, cell, inputs, states, mask)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)
