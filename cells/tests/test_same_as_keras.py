"""`FusedRNN` wherever `keras.layers.RNN` is right: optimizers, recomputed gradients, own objects, dropout of
every policy, equations that change, masks and states of every shape, and files of other formats.
"""

import inspect
import warnings
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.python.eager import record

import cells
from cells import FusedRNN, GRUCell, LSTMCell, PeepholeLSTMCell, SimpleRNNCell, SLSTMCell
from cells.engines import native
from cells.engines.native import check, library
from cells.engines.native.translation import header_of
from cells.engines.recurrence import Equation
from cells.tests.support import BATCH, FEATURES, UNITS, assert_same, drawn

TIMESTEPS = 4
INPUTS = np.random.default_rng(0).normal(size=(BATCH, TIMESTEPS, FEATURES)).astype("float32")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TARGETS = np.ones((BATCH, 1), "float32")
KERAS_CELLS = [keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell]
ENGINES = ["native", "xla"]
needs_compiler = pytest.mark.skipif(library.compiler() is None, reason="there is no C++ compiler")


def engines(function):
    return pytest.mark.parametrize("engine", [pytest.param("native", marks=needs_compiler), "xla"])(function)


def model_of(layer, **options):
    return keras.Sequential([keras.Input((TIMESTEPS, FEATURES), **options), layer, keras.layers.Dense(1)])


def value_and_gradients(layer, inputs=INPUTS, call=None, **options):
    """The sum of a layer's squared outputs, and its gradients for the weights."""
    weights = [weight.value for weight in layer.cell.trainable_weights]
    with tf.GradientTape() as tape:
        results = (call or layer)(tf.constant(inputs), **options)
        total = sum(tf.reduce_sum(tf.cast(each, "float32") ** 2) for each in tf.nest.flatten(results))
    return total, tape.gradient(total, weights)


def assert_same_as_rnn(cell, tolerance=CLOSE, engine="auto", **options):
    """The layer and `keras.layers.RNN` have the same value and gradients with the same cell."""
    seed = getattr(cell, "seed_generator", None)
    found = []
    for layer in (
        FusedRNN(cell, engine=engine, dtype=cell.dtype_policy),
        keras.layers.RNN(cell, dtype=cell.dtype_policy),
    ):
        layer.build(INPUTS.shape)
        if seed is not None:
            seed.state.assign([7, 0])
        found.append(value_and_gradients(layer, **options))
    assert_same(*found, **tolerance)


# --- optimizers


OPTIMIZERS = sorted(
    name
    for name, each in vars(keras.optimizers).items()
    if inspect.isclass(each)
    and issubclass(each, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")  # which wrap others
)


def test_every_optimizer_trains_in_a_graph():
    layer = FusedRNN(drawn(keras.layers.LSTMCell(UNITS)))
    layer.build(INPUTS.shape)
    optimizers = {name: getattr(keras.optimizers, name)() for name in OPTIMIZERS}
    for optimizer in optimizers.values():
        optimizer.build(layer.trainable_variables)

    @tf.function(autograph=False)
    def train():
        _, gradients = value_and_gradients(layer)
        weights = [[tf.identity(each.value) for each in layer.trainable_variables]]
        for name, optimizer in optimizers.items():
            with tf.name_scope(name):
                optimizer.apply(gradients, layer.trainable_variables)
            weights.append([tf.identity(each.value) for each in layer.trainable_variables])
        return weights

    weights = train()
    for before, after, name in zip(weights, weights[1:], optimizers, strict=False):
        assert all(np.isfinite(weight).all() for weight in after), name
        assert not all(np.array_equal(*pair) for pair in zip(before, after, strict=True)), name


def test_fits_with_the_default_optimizer():
    model = model_of(FusedRNN(keras.layers.GRUCell(UNITS)))
    model.compile(loss="mse", jit_compile=False)
    assert np.isfinite(model.fit(INPUTS, TARGETS, verbose=0).history["loss"]).all()


@engines
@pytest.mark.parametrize("shape", [(BATCH, TIMESTEPS, FEATURES), (None, None, FEATURES)])
@pytest.mark.parametrize("make", [partial(GRUCell, dropout=0.5, implementation=1), PeepholeLSTMCell])
def test_gradients_have_the_shapes_of_what_they_are_of(make, shape, engine):
    layer = FusedRNN(make(UNITS), engine=engine)
    layer.build(INPUTS.shape)

    @tf.function(input_signature=[tf.TensorSpec(shape), tf.TensorSpec((None, None, UNITS))])
    def gradients(inputs, states):
        sources = [
            inputs,
            *tf.unstack(states, len(layer.state_size)),
            *(each.value for each in layer.trainable_weights),
        ]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            total = tf.reduce_sum(
                layer(sources[0], initial_state=sources[1 : 1 + len(layer.state_size)], training=True)
            )
        gradients = tape.gradient(total, sources)
        if layer.cell.dropout:
            gradients[0].set_shape(shape)  # what drops the inputs is not ours
        for gradient, source in zip(gradients, sources, strict=True):
            known = zip(gradient.shape.as_list(), source.shape, strict=True)
            assert all(found == size or size is None for found, size in known)
        return total

    gradients.get_concrete_function()


# --- gradients where recording is off


class ScaledCell(SimpleRNNCell):
    """A coefficient that a test may choose, so that its equation is new."""

    def __init__(self, units, *, scale=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.scale = scale

    def update(self, gates, states):
        h = self.scale * self.activation(gates[0])
        return h, [h]


RECOMPUTED = {
    "tf.recompute_grad": lambda layer: tf.recompute_grad(lambda inputs: layer(inputs)),
    "tf.function inside": lambda layer: tf.recompute_grad(tf.function(lambda inputs: layer(inputs))),
    "tf.function outside": lambda layer: tf.function(tf.recompute_grad(lambda inputs: layer(inputs))),
}


@needs_compiler
@pytest.mark.parametrize("recompute", RECOMPUTED.values(), ids=RECOMPUTED)
def test_a_first_use_that_recomputes_has_its_gradients(recompute, engine="native"):
    layer = FusedRNN(drawn(ScaledCell(UNITS, scale=0.75)), engine=engine)
    layer.build(INPUTS.shape)
    expected = value_and_gradients(keras.layers.RNN(layer.cell))
    assert_same(value_and_gradients(layer, call=recompute(layer)), expected, **CLOSE)
    assert_same(value_and_gradients(layer), expected, **CLOSE)


def test_a_first_use_that_recomputes_has_its_gradients_under_xla():
    test_a_first_use_that_recomputes_has_its_gradients(RECOMPUTED["tf.recompute_grad"], "xla")


@pytest.mark.parametrize("mode", ["full", "activations"])
def test_keras_rematerialises_it(mode):
    with keras.RematScope(mode=mode):
        layer = FusedRNN(drawn(keras.layers.GRUCell(UNITS)))
    assert_same(value_and_gradients(layer), value_and_gradients(keras.layers.RNN(layer.cell)), **CLOSE)


def test_what_is_compiled_does_not_depend_on_recording():
    cell = drawn(GRUCell(UNITS))
    expected = header_of(Equation(cell).recurrence)
    for scope in (record.stop_recording, tf.init_scope, tf.GradientTape):
        with scope():
            assert header_of(Equation(cell).recurrence) == expected


@needs_compiler
@pytest.mark.parametrize("what", ["values", "gradients"])
def test_a_library_that_computes_something_else_is_found_out(what):
    recurrence = Equation(drawn(GRUCell(UNITS, reset_after=False))).recurrence
    assert check.Trial(recurrence, lambda _, of_trial: native.programs(of_trial)).fault(None) is None

    def programs_of(_, of_trial):
        forward, backward = native.programs(of_trial)
        wrong = lambda results: tf.nest.map_structure(tf.zeros_like, results)  # noqa: E731
        if what == "values":
            return lambda *args: (wrong(forward(*args)[0]), *forward(*args)[1:]), backward
        return forward, lambda *args: wrong(backward(*args))

    assert check.Trial(recurrence, programs_of).fault(None) == f"its {what}"


def test_a_gradient_that_is_zero_by_mistake_is_found_out(monkeypatch):
    monkeypatch.setattr(
        "cells.engines.recurrence.pull_back", lambda _, variables, __: [0 * each for each in variables]
    )
    assert "gradient is not that of its values" in Equation(drawn(LSTMCell(UNITS))).refusal


def straight_through(x):
    """1 above 0 and 0 below, with the gradient of x: it is not that of its values, and is wanted so."""
    return x + tf.stop_gradient(tf.cast(x > 0, x.dtype) - x)


@tf.custom_gradient
def clipped_gradient(x):
    return tf.tanh(x), lambda upstream: tf.clip_by_value(upstream, -0.01, 0.01)


@pytest.mark.parametrize("activation", [straight_through, clipped_gradient])
def test_a_gradient_written_by_hand_is_taken(activation):
    cell = drawn(SimpleRNNCell(UNITS, activation=activation))
    assert_same_as_rnn(cell, engine="xla")


# --- the user's own cell


class Softer:
    """An activation that is an object, and unknown to Keras."""

    def __init__(self, slope):
        self.slope = slope

    def __call__(self, x):
        return x / (1 + self.slope * keras.ops.abs(x))


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape, dtype=dtype) / 2


class Small(keras.regularizers.Regularizer):
    def __call__(self, x):
        return keras.ops.sum(x**2) / 7


class Positive(keras.constraints.Constraint):
    def __call__(self, w):
        return keras.ops.relu(w)


ACTIVATIONS = [Softer(2), lambda x: keras.ops.tanh(2 * x), partial(keras.ops.leaky_relu, negative_slope=0.3)]
OBJECTS = {
    "activation": [*ACTIVATIONS, keras.layers.LeakyReLU(0.25), "relu"],
    "recurrent_activation": [Softer(1)],
    **{f"{kind}_initializer": [Ones()] for kind in ("kernel", "recurrent", "bias")},
    **{f"{kind}_regularizer": [Small()] for kind in ("kernel", "recurrent", "bias")},
    **{f"{kind}_constraint": [Positive()] for kind in ("kernel", "recurrent", "bias")},
}


@pytest.mark.parametrize(("name", "values"), OBJECTS.items(), ids=OBJECTS)
def test_every_argument_may_be_an_object(name, values):
    for value, cell_class in zip(values, [*KERAS_CELLS, GRUCell, SLSTMCell], strict=False):
        cell = cell_class(UNITS, **{name: value})
        layer, plain = FusedRNN(cell), keras.layers.RNN(cell)
        assert_same(layer(INPUTS), plain(INPUTS), **CLOSE)
        assert_same(layer.losses, plain.losses, **CLOSE)
        assert len(layer.variables) == len(plain.variables)


@pytest.mark.parametrize("cell_class", KERAS_CELLS)
def test_a_model_has_the_variables_and_states_of_keras(cell_class):
    cell = cell_class(UNITS, dropout=0.5)
    layers = [layer_class(cell) for layer_class in (FusedRNN, keras.layers.RNN)]
    found = []
    for layer in layers:
        layer.build(INPUTS.shape)
        trainable = [tf.ones_like(each.value) for each in layer.trainable_variables]
        others = [tf.identity(each.value) for each in layer.non_trainable_variables]
        found.append(layer.stateless_call(trainable, others, INPUTS, training=False))
    assert_same(*found, **CLOSE)
    model = model_of(layers[0])
    assert keras.models.clone_model(model).count_params() == model_of(layers[1]).count_params()
    model.quantize("int8")
    assert model.predict(INPUTS, verbose=0).shape == (BATCH, 1)


class OverridingCell(keras.layers.GRUCell):
    def call(self, inputs, states, training=False):
        output, states = super().call(inputs, states, training)
        return 2 * output, states


def test_a_subclass_of_keras_cells_is_a_plain_cell():
    assert_same_as_rnn(drawn(OverridingCell(UNITS)))


# --- dropout and policies


RATES = [(0.5, 0), (0, 0.5), (1.0, 0), (0, 1.0)]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("make", [*KERAS_CELLS, partial(keras.layers.LSTMCell, implementation=1), GRUCell])
def test_every_policy_has_every_dropout(make, policy):
    at = 2 * (len(policy) % 2)
    rates_of = [(0.5, 0.5)] if policy == "float64" else [(0.5, 0.5), *RATES[at : at + 2]]  # XLA compiles each
    for drop_x, drop_h in rates_of:
        rates = {"dropout": drop_x, "recurrent_dropout": drop_h}
        cell = make(UNITS, seed=3, dtype=policy, recurrent_initializer="uniform", **rates)
        results = []
        for layer in (FusedRNN(cell, dtype=policy), keras.layers.RNN(cell, dtype=policy)):
            layer.build(INPUTS.shape)
            cell.seed_generator.state.assign([7, 0])
            results.append(tf.cast(layer(INPUTS, training=True), "float32"))
        tolerance = {"float64": 1e-6, "float16": 1e-2, "bfloat16": 5e-2}[cell.compute_dtype]
        assert_same(*results, rtol=tolerance, atol=tolerance)


# --- equations that change


class Slope:
    def __init__(self, value):
        self.value = value

    def __call__(self, x):
        return self.value * keras.ops.tanh(x)


class ManyReadsCell(SimpleRNNCell):
    """Reads an attribute, one of its class, one through a property and a method, a list and an object."""

    of_class = 1.0

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.attribute, self.items, self._hidden, self.thing = 1.0, [1.0, {"a": 1.0}], 1.0, Slope(1.0)
        self.array = np.ones(())

    @property
    def of_property(self):
        return self._hidden

    def of_method(self):
        return self.items[0] * self.items[1]["a"]

    def update(self, gates, states):
        h = self.of_class * self.attribute * self.of_property * self.of_method() * GLOBAL * float(self.array)
        h = h * self.thing(super().update(gates, states)[0])
        return h, [h]


GLOBAL = 1.0
CHANGES = {
    "attribute": lambda cell: setattr(cell, "attribute", 2.0),
    "of its class, hidden": lambda cell: setattr(cell, "of_class", 2.0),
    "of its class": lambda cell: setattr(ManyReadsCell, "of_class", 2.0),
    "through a property": lambda cell: setattr(cell, "_hidden", 2.0),
    "in a list": lambda cell: cell.items.__setitem__(0, 2.0),
    "in a dict in a list": lambda cell: cell.items[1].__setitem__("a", 2.0),
    "in an object": lambda cell: setattr(cell.thing, "value", 2.0),
    "in an array": lambda cell: cell.array.__iadd__(1.0),
    "a global": lambda cell: globals().__setitem__("GLOBAL", 2.0),
    "the activation": lambda cell: setattr(cell, "activation", keras.ops.sin),
    "the update": lambda cell: setattr(ManyReadsCell, "update", SimpleRNNCell.update),
}


@pytest.fixture
def unchanged(monkeypatch):
    monkeypatch.setattr(ManyReadsCell, "of_class", 1.0)
    monkeypatch.setattr(ManyReadsCell, "update", ManyReadsCell.update)
    monkeypatch.setitem(globals(), "GLOBAL", 1.0)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_the_equation_reads_may_change(unchanged, change):
    cell = drawn(ManyReadsCell(UNITS))
    equation = Equation(cell)
    assert equation.recurrence and equation.is_of(cell)
    change(cell)
    assert not equation.is_of(cell)
    assert Equation(cell).is_of(cell)


def test_calls_change_nothing_that_the_equation_reads():
    for cell in (
        keras.layers.LSTMCell(UNITS, activation=keras.layers.LeakyReLU(0.1), dropout=0.5),
        ManyReadsCell(UNITS),
    ):
        layer = FusedRNN(cell, engine="xla")
        layer(INPUTS, training=True)
        equation = layer._equation
        for training in (False, True):
            layer(INPUTS, training=training)
        tf.function(layer)(INPUTS)
        assert layer._equation is equation


@engines
def test_a_changed_activation_is_heeded_at_once_and_after_a_retrace(engine, tmp_path):
    cell = drawn(keras.layers.GRUCell(UNITS))
    layer, plain = FusedRNN(cell, engine=engine), keras.layers.RNN(cell)
    inputs = tf.constant(INPUTS)
    old = value_and_gradients(plain)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(inputs) ** 2)
    cell.activation = keras.activations.relu
    gradients = tape.gradient(total, [each.value for each in cell.trainable_weights])
    assert_same((total, gradients), old, **CLOSE)  # of what the tape saw
    assert_same(value_and_gradients(layer), value_and_gradients(plain), **CLOSE)
    assert_same(tf.function(layer)(inputs), plain(inputs), **CLOSE)
    model = model_of(layer)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same(loaded.predict(INPUTS, verbose=0), model.predict(INPUTS, verbose=0), **CLOSE)


def test_an_equation_that_changes_again_and_again_is_not_compiled_each_time(monkeypatch):
    monkeypatch.setattr("cells.fused_rnn.MOST_EQUATIONS", 2)
    cell = drawn(ScaledCell(UNITS))
    layer = FusedRNN(cell)
    layer.build(INPUTS.shape)
    for scale in (0.5, 1.0, 0.5):
        cell.scale = scale
        engine = layer.chosen_engine()
    assert engine == "keras" and "had 2 equations already" in layer.explain()
    assert_same_as_rnn(cell)


# --- masks and states of every shape


MASKS = [
    (BATCH, TIMESTEPS),
    (1, TIMESTEPS),
    (BATCH, TIMESTEPS, 1),
    (1, TIMESTEPS, 1),
    (BATCH, TIMESTEPS, UNITS),
]
NO_MASKS = [
    (TIMESTEPS,),
    (TIMESTEPS, BATCH),
    (BATCH, TIMESTEPS + 1),
    (BATCH, TIMESTEPS, 2, 1),
    (BATCH + 1, TIMESTEPS),
]


def open_function(layer, *shapes):
    """A function of inputs and a mask whose sizes are not known beforehand."""
    shapes = [[None, None, *shape[2:]] for shape in shapes]
    inputs = tf.TensorSpec([None, None, FEATURES])
    return tf.function(
        lambda inputs, mask: layer(inputs, mask=mask),
        input_signature=[inputs, tf.TensorSpec(*shapes, tf.bool)],
    )


@engines
def test_masks_broadcast_as_in_keras(engine):
    cell = drawn(GRUCell(UNITS))
    layer, plain = (
        make(cell, return_sequences=True) for make in (partial(FusedRNN, engine=engine), keras.layers.RNN)
    )
    for shape in MASKS:
        if shape[-1] == UNITS:
            layer.engine = "auto"  # Keras' loop
        mask = np.random.default_rng(1).uniform(size=shape) > 0.4
        expected = plain(INPUTS, mask=mask)
        assert_same(layer(INPUTS, mask=mask), expected, **CLOSE)
        assert_same(layer(INPUTS, mask=mask.astype("float32")), expected, **CLOSE)
        if engine == "native" or shape == MASKS[1]:
            assert_same(open_function(layer, shape)(INPUTS, mask), expected, **CLOSE)
    layer.engine = engine
    mask = np.array([[True], [False], [True]])
    expected = plain(INPUTS, mask=np.broadcast_to(mask, MASKS[0]))
    assert_same(layer(INPUTS, mask=mask), expected, **CLOSE)


@pytest.mark.parametrize("shape", NO_MASKS)
def test_a_mask_that_does_not_fit_is_refused_with_both_shapes(shape):
    layer = FusedRNN(drawn(SLSTMCell(UNITS)))
    with pytest.raises(
        ValueError,
        match=rf"mask of the shape {shape}.*{INPUTS.shape}".replace("(", r"\(").replace(")", r"\)"),
    ):
        layer(INPUTS, mask=np.ones(shape, bool))


@engines
def test_what_masked_steps_hold_does_not_reach_the_outputs(engine):
    layer = FusedRNN(drawn(GRUCell(UNITS)), engine=engine, return_sequences=True, return_state=True)
    mask = np.ones((BATCH, TIMESTEPS), bool)
    mask[:, 2] = False
    for held in (np.nan, np.inf):
        inputs = INPUTS.copy()
        inputs[:, 2] = held
        assert_same(layer(inputs, mask=mask), layer(INPUTS, mask=mask), **CLOSE)


@pytest.mark.parametrize(
    ("engine", "is_clean"),
    [pytest.param("native", True, marks=needs_compiler), ("xla", False), ("keras", False)],
)
def test_what_masked_steps_hold_reaches_no_gradient_of_the_native_engine(engine, is_clean):
    layer = FusedRNN(drawn(GRUCell(UNITS)), engine=engine)
    mask = np.ones((BATCH, TIMESTEPS), bool)
    mask[:, 2] = False
    inputs = INPUTS.copy()
    inputs[:, 2] = np.nan
    inputs = tf.constant(inputs)
    layer.build(inputs.shape)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs, mask=mask, training=True)
    weights = [weight.value for weight in layer.trainable_weights]
    gradients = tape.gradient(outputs, [*weights, inputs])
    assert all(np.isfinite(gradient).all() == is_clean for gradient in gradients)
    assert np.isfinite(outputs).all()


@engines
def test_states_may_be_one_for_all_sequences(engine):
    cell = drawn(LSTMCell(UNITS))
    layer, plain = FusedRNN(cell, engine=engine), keras.layers.RNN(cell)
    one = [np.full((1, UNITS), number, "float32") for number in (0.5, -1.0)]
    expected = plain(INPUTS, initial_state=one)
    assert_same(layer(INPUTS, initial_state=one), expected, **CLOSE)
    assert_same(layer(INPUTS, initial_state=[state[0] for state in one]), expected, **CLOSE)
    assert_same(tf.function(layer)(INPUTS, initial_state=one), expected, **CLOSE)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([(BATCH, UNITS)], "has 2 states, not 1"),
        ([(BATCH, UNITS)] * 3, "has 2 states, not 3"),
        ([(BATCH, UNITS), (BATCH, UNITS + 1)], r"state of the shape \(3, 6\).*\(3, 5\)"),
        ([(BATCH + 1, UNITS)] * 2, r"state of the shape \(4, 5\).*\(3, 5\)"),
        ([(1, BATCH, UNITS)] * 2, r"state of the shape \(1, 3, 5\).*\(3, 5\)"),
    ],
)
def test_states_that_do_not_fit_are_refused(shapes, message):
    layer = FusedRNN(drawn(LSTMCell(UNITS)))
    with pytest.raises(ValueError, match=message):
        layer(INPUTS, initial_state=[np.ones(shape, "float32") for shape in shapes])


@engines
def test_a_size_may_be_known_of_one_argument_alone(engine):
    cell = drawn(LSTMCell(UNITS))
    layer, plain = (
        layer_class(cell, return_state=True)
        for layer_class in (partial(FusedRNN, engine=engine), keras.layers.RNN)
    )
    layer.build(INPUTS.shape)
    state, mask = np.ones((BATCH, UNITS), "float32"), np.ones((BATCH, TIMESTEPS), bool)

    def gradient(layer, inputs, state, mask):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            final = layer(inputs, initial_state=[state, state], mask=mask)[-1]
            total = tf.reduce_sum(tf.ensure_shape(final, (BATCH, UNITS)) ** 2)
        return tape.gradient(total, inputs)

    expected = gradient(plain, tf.constant(INPUTS), state, None)
    arguments = INPUTS, state, mask
    for known in [(None, BATCH, None), (BATCH, None, None), (None, None, BATCH), (None, None)]:
        signature = [
            tf.TensorSpec((size, *array.shape[1:]), array.dtype)
            for size, array in zip(known, arguments, strict=False)
        ]

        @tf.function(input_signature=signature)
        def function(inputs, state, mask=None):
            return gradient(layer, inputs, state, mask)

        assert_same(function(*arguments[: len(known)]), expected, **CLOSE)


@pytest.mark.parametrize(
    ("engine", "units"), [pytest.param("native", UNITS, marks=needs_compiler), ("xla", UNITS), ("xla", 300)]
)
def test_no_sequences_give_none(engine, units):
    layer = FusedRNN(GRUCell(units), engine=engine, return_sequences=True)
    mask = np.zeros((0, TIMESTEPS), bool)
    assert layer(INPUTS[:0], mask=mask).shape == (0, TIMESTEPS, units)
    total, gradients = value_and_gradients(layer, INPUTS[:0], mask=mask)
    assert total == 0 and all(np.all(each == 0) for each in gradients)
    assert open_function(layer, mask.shape)(INPUTS[:0], mask).shape == (0, TIMESTEPS, units)


@engines
def test_no_timesteps_are_refused_where_they_are_known_and_give_none_where_not(engine):
    layer = FusedRNN(drawn(GRUCell(UNITS)), engine=engine, return_sequences=True, return_state=True)
    layer.build(INPUTS.shape)
    with pytest.raises(ValueError, match=r"needs a timestep.*\(3, 0, 2\)"):
        layer(INPUTS[:, :0])
    state = np.ones((BATCH, UNITS), "float32")
    function = tf.function(
        layer, input_signature=[tf.TensorSpec([None, None, FEATURES]), [tf.TensorSpec([None, UNITS])]]
    )
    assert_same(function(INPUTS[:, :0], [state]), (np.ones((BATCH, 0, UNITS)), state))


# --- second derivatives and forward mode


def test_forward_mode_is_keras():
    cell = drawn(keras.layers.LSTMCell(UNITS))
    layer, plain = FusedRNN(cell, stateful=True), keras.layers.RNN(cell)
    layer.build(INPUTS.shape)
    for source in (tf.constant(INPUTS), cell.recurrent_kernel.value):
        found = []
        for each in (layer, plain):
            layer.reset_state()
            with tf.autodiff.ForwardAccumulator(source, tf.ones_like(source)) as accumulator:
                outputs = each(source if source.shape == INPUTS.shape else INPUTS)
            found.append(accumulator.jvp(outputs))
        assert_same(*found, **CLOSE)
    refused = pytest.raises(NotImplementedError, match=r"no forward mode through a tf\.function")
    with refused, tf.autodiff.ForwardAccumulator(source, tf.ones_like(source)):
        tf.function(layer)(INPUTS)


# --- arguments


@pytest.mark.parametrize("name", sorted(cells.CELLS))
def test_arguments_by_position_have_keras_order(name):
    ours = list(inspect.signature(cells.CELLS[name].__init__).parameters.values())[1:]
    by_position = [each.name for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD]
    if issubclass(cells.CELLS[name], cells.GatedCell):
        lstm, simple = (
            list(inspect.signature(cell.__init__).parameters)[1:]
            for cell in (keras.layers.LSTMCell, keras.layers.SimpleRNNCell)
        )
        assert by_position in (lstm[: len(by_position)], simple[: len(by_position)])
        assert len(by_position) <= 4


@pytest.mark.parametrize("name", sorted(cells.CELLS))
def test_numbers_of_numpy_are_arguments(name):
    cell = cells.CELLS[name](np.int64(UNITS))
    assert FusedRNN(cell, engine="keras")(INPUTS).shape == (BATCH, UNITS)
    assert type(cell.get_config()["units"]) is int


def test_implementation_0_is_keras():
    ours, theirs = (drawn(each.GRUCell(UNITS, implementation=0)) for each in (cells, keras.layers))
    for layer_class in (FusedRNN, keras.layers.RNN):
        assert_same(layer_class(ours)(INPUTS), layer_class(theirs)(INPUTS), **CLOSE)
    with pytest.raises(ValueError, match="implementation must be 1 or 2, not 3"):
        GRUCell(UNITS, implementation=3)


def test_runs_eagerly_where_tensorflow_is_told_to():
    tf.config.run_functions_eagerly(True)
    try:
        for engine in ENGINES:
            assert_same_as_rnn(drawn(GRUCell(UNITS)), engine=engine)
    finally:
        tf.config.run_functions_eagerly(False)


# --- files of other formats


@pytest.mark.parametrize("engine", ["auto", "xla"])
def test_is_converted_to_tflite(engine):
    layer = FusedRNN(drawn(keras.layers.LSTMCell(UNITS)), engine=engine)
    model = keras.Sequential([keras.Input(batch_shape=(1, TIMESTEPS, FEATURES)), layer])
    expected = model.predict(INPUTS[:1], verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interpreter moves to another package
        interpreter = tf.lite.Interpreter(
            model_content=tf.lite.TFLiteConverter.from_keras_model(model).convert()
        )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], INPUTS[:1])
    interpreter.invoke()
    assert_same(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), expected, **CLOSE)


@pytest.mark.parametrize("cell_class", [keras.layers.GRUCell, cells.DenseRNNCell])
def test_is_exported_to_onnx(cell_class, tmp_path):
    pytest.importorskip("tf2onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = model_of(FusedRNN(cell_class(UNITS)))
    expected = model.predict(INPUTS, verbose=0)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    assert_same(session.run(None, {session.get_inputs()[0].name: INPUTS})[0], expected, **CLOSE)


class Encoder(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)


def test_weights_move_in_the_files_of_a_model_that_has_the_layer_as_an_attribute(tmp_path):
    layers = [FusedRNN(GRUCell(UNITS)), keras.layers.RNN(keras.layers.GRUCell(UNITS))]
    models = [Encoder(layer) for layer in layers]
    for one, other in (models, models[::-1]):
        drawn(one.layer.cell, seed=1), other(INPUTS)
        one(INPUTS)
        one.save_weights(tmp_path / "model.weights.h5")
        other.load_weights(tmp_path / "model.weights.h5")
        assert_same(other(INPUTS), one(INPUTS), **CLOSE)


# --- anything together


def random_step(layer, options, inputs, mask, states, optimizer):
    """A training step's results and gradients; the optimizer takes its step too."""

    def step():
        call = partial(layer, mask=mask, initial_state=states, training=True)
        call = tf.recompute_grad(call) if options["recompute"] else call
        value, gradients = value_and_gradients(layer, inputs, call=call)
        if optimizer is not None:
            optimizer.apply(gradients, layer.trainable_variables)
        return value, gradients

    return step() if options["run_eagerly"] else tf.function(step, autograph=False)()


@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(draw=st.data())
def test_trains_as_keras_whatever_is_asked(draw):
    choose = lambda *values: draw.draw(st.sampled_from(values))  # noqa: E731
    batch, steps, units = choose(1, 3, 40), choose(1, 4, 9), choose(1, 5, 17)
    rates = {name: choose(0.0, 0.4) for name in ("dropout", "recurrent_dropout")}
    policy = choose("float32", "float32", "float32", "mixed_float16", "float64")
    make = choose(
        *KERAS_CELLS, LSTMCell, GRUCell, PeepholeLSTMCell, partial(GRUCell, reset_after=False), stacked
    )
    cell = make(units, dtype=policy, seed=1, recurrent_initializer="uniform", **rates)
    names = ("return_sequences", "return_state", "go_backwards", "zero_output_for_mask")
    layer_options = {name: choose(False, True) for name in names}
    options = {"recompute": choose(False, True), "run_eagerly": choose(False, True)}
    mask_shape = choose(None, (batch, steps), (1, steps), (batch, steps, 1))
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(batch, steps, FEATURES)).astype("float32")
    mask = None if mask_shape is None else rng.uniform(size=mask_shape) > 0.4
    engine = choose("auto", "auto", "auto", "xla") if make is not stacked else "auto"
    optimizer = choose(*OPTIMIZERS)
    with_states = choose(False, True)
    found = []
    for layer in (
        FusedRNN(cell, engine=engine, dtype=policy, **layer_options),
        keras.layers.RNN(cell, dtype=policy, **layer_options),
    ):
        layer.build(inputs.shape)
        for each in (cell, *getattr(cell, "cells", [])):
            if hasattr(each, "seed_generator"):
                each.seed_generator.state.assign([7, 0])
        states = None
        if with_states:
            states = tf.nest.map_structure(lambda state: state + 0.5, layer.get_initial_state(batch))
        weights = layer.get_weights()
        used = getattr(keras.optimizers, optimizer)() if not found else None
        found.append(random_step(layer, options, inputs, mask, states, used))
        assert all(np.isfinite(weight).all() for weight in layer.get_weights())
        layer.set_weights(weights)
    tolerance = {"float32": 1e-3, "mixed_float16": 5e-2, "float64": 1e-8}[policy]
    for ours, theirs in zip(*map(tf.nest.flatten, found), strict=True):
        np.testing.assert_allclose(
            ours, theirs, rtol=tolerance, atol=tolerance * (1 + np.max(np.abs(theirs)))
        )


def stacked(units, **arguments):
    return keras.layers.StackedRNNCells([LSTMCell(units, **arguments), keras.layers.GRUCell(3, **arguments)])
