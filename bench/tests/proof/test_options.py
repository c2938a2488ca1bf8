"""The options: each is really built, and proven; what is lost is found; the fast kernel's fate is told."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from bench.backend import devices, kernels, programs
from bench.backend.dropout_masks import DropoutMasks
from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.comparisons import comparisons
from bench.cases.subjects import SUBJECTS, NeedsStaticShape, UnsupportedOption, make_layer, user_subject
from bench.cases.sweeps import SWEEPS
from bench.proof.layer_reference import Cell, compose, run_composition
from bench.proof.problem import WrongAnswer, _check_masks, prepare
from bench.proof.verify import verify, verify_again
from bench.records.schema import COLUMNS, make_record
from bench.runner.row import names_of, outcome
from cells import LSTMCell
from cells.reference import lstm, simple_rnn

SHAPE = (3, 6, 4, 5)


def case_of(subject, mode="train", **options):
    cell, _, layer = subject.rpartition("-")
    return Case(cell, layer, mode, *SHAPE, **options)


def proven(subject, case):
    """The problem, the program and the proof."""
    problem = prepare(subject, case)
    program = programs.compile_program(problem.layer, case, problem.data)
    return problem, program, verify(problem, program.answer())


# --- what a layer must compute, in NumPy ---


def adding(weights, inputs, initial_states):
    """h' = h + x W."""
    outputs = initial_states[0][:, None] + np.cumsum(inputs @ weights[0], axis=1)
    return outputs, [outputs[:, -1]]


ADDING = Cell("adding", 1, 1, adding)
ONE = np.ones((1, 1))
STEPS = np.arange(1.0, 5.0).reshape(1, 4, 1)  # 1, 2, 3, 4
PLAIN = Case("adding", "rnn", "infer", 1, 4, 1, 1)


def run(case, cells=1, mask=None, cells_a_layer=1, zero_masked=False):
    """Outputs and states of a sequence of one unit, as lists."""
    composition = compose(case, [ADDING] * cells, cells_a_layer, zero_masked)
    mask = None if mask is None else np.array([mask], bool)
    outputs, states = run_composition(composition, [ONE] * cells, STEPS, [np.zeros((1, 1))] * cells, mask)
    return [output[0].tolist() for output in outputs], [float(state[0, 0]) for state in states]


def column(*values):
    return [[value] for value in values]


@pytest.mark.parametrize(
    ("options", "outputs", "state"),
    [
        ({}, column(1, 3, 6, 10), 10),
        ({"go_backwards": True}, column(4, 7, 9, 10), 10),
        ({"return_sequences": False}, [10], 10),
    ],
)
def test_a_loop(options, outputs, state):
    assert run(replace(PLAIN, **options)) == ([outputs], [state])


@pytest.mark.parametrize(
    ("mask", "held", "zeroed", "state"),
    [
        ([1, 1, 0, 0], column(1, 3, 3, 3), column(1, 3, 0, 0), 3),
        ([0, 0, 1, 1], column(0, 0, 3, 7), column(0, 0, 3, 7), 7),
        ([1, 0, 1, 0], column(1, 1, 4, 4), column(1, 0, 4, 0), 4),
        ([0, 0, 0, 0], column(0, 0, 0, 0), column(0, 0, 0, 0), 0),
    ],
)
def test_a_masked_step_keeps_the_states_and_repeats_the_output_or_gives_zeros(mask, held, zeroed, state):
    masked = replace(PLAIN, masked="right")
    assert run(masked, mask=mask) == ([held], [state])
    assert run(replace(masked, zero_output_for_mask=True), mask=mask) == ([zeroed], [state])
    assert run(masked, mask=mask, zero_masked=True) == ([zeroed], [state])
    assert run(replace(masked, return_sequences=False), mask=mask)[0] == [held[-1]]


def test_a_mask_goes_backwards_with_the_inputs():
    assert run(replace(PLAIN, masked="right", go_backwards=True), mask=[1, 1, 0, 0])[0] == [
        column(0, 0, 2, 3)
    ]


@pytest.mark.parametrize(
    ("merge_mode", "outputs"),
    [
        (None, [[[1, 10], [3, 9], [6, 7], [10, 4]]]),
        ("concat", [[[1, 10], [3, 9], [6, 7], [10, 4]]]),
        ("sum", [column(11, 12, 13, 14)]),
        ("mul", [column(10, 27, 42, 40)]),
        ("ave", [column(5.5, 6, 6.5, 7)]),
        ("none", [column(1, 3, 6, 10), column(10, 9, 7, 4)]),
    ],
)
def test_both_directions_are_merged(merge_mode, outputs):
    assert run(replace(PLAIN, bidirectional=True, merge_mode=merge_mode), 2) == (outputs, [10, 10])


def test_both_directions_zero_what_is_masked():
    case = replace(PLAIN, bidirectional=True, masked="right")
    assert run(case, 2, [1, 1, 0, 0])[0] == [[[1, 3], [3, 2], [0, 0], [0, 0]]]


def test_layers_turn_the_sequence_each_but_cells_within_one_do_not():
    backwards = replace(PLAIN, depth=2, go_backwards=True)
    assert run(backwards, 2) == ([column(10, 19, 26, 30)], [10, 30])
    assert run(backwards, 2, cells_a_layer=2) == ([column(4, 11, 20, 30)], [10, 30])
    assert run(replace(PLAIN, depth=2), 2) == run(replace(PLAIN, depth=2), 2, cells_a_layer=2)


def test_a_layer_of_too_few_cells_is_refused():
    with pytest.raises(ValueError, match="has 1 cell, where the case asks for 4"):
        compose(replace(PLAIN, bidirectional=True, depth=2), [ADDING])


def test_what_is_dropped_is_dropped_gate_by_gate():
    """Against an LSTM with the masks in its equation."""
    draw = np.random.default_rng(0)
    kernel, recurrent, bias = draw.normal(size=(4, 20)), draw.normal(size=(5, 20)), draw.normal(size=20)
    inputs, h, c = draw.normal(size=(3, 6, 4)), draw.normal(size=(3, 5)), draw.normal(size=(3, 5))
    of_inputs, of_states = draw.integers(0, 2, (4, 3, 4)) * 2.0, draw.integers(0, 2, (4, 3, 5)) * 2.0
    outputs, (last, _) = run_composition(
        compose(replace(PLAIN, dropout=0.5), [Cell("lstm", 3, 2, lstm)]),
        [kernel, recurrent, bias],
        inputs,
        [h, c],
        drops=[DropoutMasks(list(of_inputs), list(of_states))],
    )
    for step in range(6):
        i, f, g, o = (
            (inputs[:, step] * of_inputs[gate]) @ kernel[:, 5 * gate : 5 * gate + 5]
            + (h * of_states[gate]) @ recurrent[:, 5 * gate : 5 * gate + 5]
            + bias[5 * gate : 5 * gate + 5]
            for gate in range(4)
        )
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        assert np.allclose(outputs[0][:, step], h)
    assert np.allclose(last, h)


def test_a_complex_step_goes_through_all_of_it():
    case = replace(PLAIN, bidirectional=True, merge_mode="mul", depth=2, masked="left")
    cells = [Cell("simple_rnn", 2, 1, simple_rnn)] * 4
    draw = np.random.default_rng(0)
    weights = [draw.normal(size=(1, 1)) for _ in range(8)]
    states = [draw.normal(size=(2, 1)) for _ in range(4)]
    inputs, mask = draw.normal(size=(2, 4, 1)), np.array([[0, 0, 1, 1], [1, 1, 1, 1]], bool)
    drops = [DropoutMasks(draw.integers(0, 2, (2, 1)) * 2.0)] * 4

    def total(kernel):
        outputs, _ = run_composition(
            compose(case, cells), [kernel, *weights[1:]], inputs, states, mask, drops
        )
        return np.sum(outputs[0])

    by_difference = (total(weights[0] + 1e-6) - total(weights[0] - 1e-6)) / 2e-6
    assert np.isclose(np.imag(total(weights[0] + 1e-30j)) / 1e-30, by_difference, rtol=1e-6)


# --- every option is built and proven ---

RIGHT = [
    ("lstm-builtin", {"masked": "right"}),
    ("gru-builtin", {"masked": "left", "go_backwards": True}),
    ("lstm-builtin", {"masked": "full", "zero_output_for_mask": True}),
    ("keras_gru-rnn", {"masked": "right", "unroll": True, "return_sequences": False}),
    ("gru-builtin", {"masked": "right", "jit_compile": True}),
    ("lstm-builtin", {"bidirectional": True, "merge_mode": "none"}),
    ("gru-builtin", {"bidirectional": True, "backward_layer": True, "merge_mode": "mul", "masked": "full"}),
    ("slstm-rnn", {"bidirectional": True, "return_sequences": False}),
    ("lstm-builtin", {"depth": 3, "masked": "right", "return_sequences": False}),
    ("keras_lstm-rnn", {"depth": 2, "go_backwards": True, "stateful": True}),
    ("slstm-fused", {"depth": 2, "masked": "right", "zero_output_for_mask": True}),
    ("lstm-builtin", {"static_timesteps": False, "static_batch": False, "masked": "right"}),
    ("slstm-fused", {"static_timesteps": False}),
    ("gru-builtin", {"static_batch": False, "return_sequences": False}),
    ("lstm-builtin", {"dropout": 0.5}),
    ("gru-builtin", {"dropout": 0.3, "recurrent_dropout": 0.4, "jit_compile": True}),
    ("gru-rnn", {"recurrent_dropout": 0.5, "reset_after": False}),
    ("keras_lstm-rnn", {"dropout": 0.5, "implementation": 1, "depth": 2}),
    ("slstm-fused", {"dropout": 0.5, "recurrent_dropout": 0.5, "masked": "right"}),
    ("lstm-rnn", {"dropout": 0.5, "dtype": "mixed_bfloat16", "bidirectional": True}),
]


@pytest.mark.parametrize(("subject", "options"), RIGHT, ids=str)
def test_every_option_is_right(subject, options):
    case = case_of(subject, **options)
    problem, program, proof = proven(SUBJECTS[subject], case)
    assert problem.proof == "exact" and bool(problem.drops) == bool(case.dropout or case.recurrent_dropout)
    assert proof.max_abs_error <= proof.tolerance and proof.gradient_error <= proof.gradient_tolerance
    assert program.trace_count() == 1
    verify_again(problem, program.answer(), program.answer(), proof)  # whatever it draws, it draws again


@pytest.mark.parametrize(
    ("subject", "options", "lost", "message"),
    [
        ("lstm-rnn", {"go_backwards": True}, {"go_backwards": False}, "the outputs"),
        (
            "lstm-rnn",
            {"masked": "right", "zero_output_for_mask": True},
            {"zero_output_for_mask": False},
            "outputs",
        ),
        ("lstm-rnn", {"bidirectional": True, "merge_mode": "sum"}, {"merge_mode": "ave"}, "the outputs"),
        (
            "lstm-rnn",
            {"bidirectional": True},
            {"bidirectional": False},
            "has 1 cell, where the case asks for 2",
        ),
        ("gru-builtin", {"depth": 2}, {"depth": 1}, "has 1 cell, where the case asks for 2"),
        ("gru-builtin", {"dropout": 0.5}, {"dropout": 0.0}, "nothing is dropped"),
        ("gru-rnn", {"dropout": 0.9}, {"dropout": 0.1}, "what is kept is scaled by 1.11"),
        (
            "gru-rnn",
            {"dropout": 0.5, "recurrent_dropout": 0.5},
            {"recurrent_dropout": 0.0},
            "the state: 0 drop",
        ),
    ],
    ids=str,
)
def test_an_option_that_changes_the_answer_and_is_lost_is_refused(subject, options, lost, message):
    broken = replace(SUBJECTS[subject], make=lambda case: SUBJECTS[subject].make(replace(case, **lost)))
    with pytest.raises(WrongAnswer, match=message):
        proven(broken, case_of(subject, **options))


@pytest.mark.parametrize(
    ("options", "lost"),
    [
        ({"unroll": True}, "RNN has unroll False"),
        ({"stateful": True}, "RNN has stateful False"),
        ({"implementation": 1}, "GRUCell has implementation 2"),
        ({"use_bias": False}, "GRUCell has use_bias True"),
        ({"reset_after": False}, "GRUCell has reset_after True"),
        ({"activation": "softsign"}, "GRUCell has activation <function tanh"),
    ],
    ids=str,
)
def test_an_option_that_changes_no_answer_and_is_lost_is_refused(options, lost):
    (name,) = options
    plain = SUBJECTS["gru-rnn"]
    broken = replace(plain, make=lambda case: plain.make(replace(case, **{name: getattr(Case, name)})))
    with pytest.raises(UnsupportedOption, match=f"gru in RNN loses an option of the case: {lost}"):
        prepare(broken, case_of("gru-rnn", **options))


def test_bidirectional_copies_keras_cells_without_their_implementation():
    with pytest.raises(UnsupportedOption, match="LSTMCell has implementation 2"):
        prepare(SUBJECTS["lstm-builtin"], case_of("lstm-builtin", bidirectional=True, implementation=1))
    prepare(SUBJECTS["lstm-rnn"], case_of("lstm-rnn", bidirectional=True, implementation=1))


def test_a_layer_that_ignores_the_mask_is_refused():
    class Unmasked(keras.layers.RNN):
        def call(self, sequences, initial_state=None, mask=None, training=False):
            return super().call(sequences, initial_state, None, training)

    def make(case):
        return Unmasked(LSTMCell(case.units), return_sequences=True, return_state=True)

    with pytest.raises(WrongAnswer, match="the outputs: differ"):
        proven(replace(SUBJECTS["lstm-rnn"], make=make), case_of("lstm-rnn", "infer", masked="left"))


def test_the_backward_layer_is_one_of_its_own():
    case = case_of("lstm-builtin", bidirectional=True, backward_layer=True)
    layer = make_layer(SUBJECTS["lstm-builtin"], case)
    assert not layer.backward_layer.name.startswith("backward_")  # as the copies are called
    assert layer.backward_layer.go_backwards and not layer.forward_layer.go_backwards


@pytest.mark.parametrize(
    ("masked", "first"), [("right", [True]), ("left", [False, True]), ("full", [False])], ids=str
)
def test_the_masks(masked, first):
    data = prepare(SUBJECTS["lstm-rnn"], case_of("lstm-rnn", "infer", masked=masked)).data
    steps = data.mask.astype(int)
    assert steps.shape == SHAPE[:2] and 0 < steps.mean() < 1
    assert (steps.sum(axis=1).min() == 0) == (masked == "full")
    assert np.all(np.diff(steps, axis=1) <= 0) == (masked != "left")
    assert np.all(np.diff(steps, axis=1) >= 0) == (masked == "left")


# --- sizes that are left open ---


def test_a_size_that_an_option_must_know_is_not_left_open():
    for options, message in (
        ({"unroll": True, "static_timesteps": False}, "unroll needs the number of timesteps"),
        ({"stateful": True, "static_batch": False}, "stateful needs the batch size"),
    ):
        with pytest.raises(NeedsStaticShape, match=message) as refused:
            prepare(SUBJECTS["lstm-rnn"], case_of("lstm-rnn", **options))
        assert outcome(refused.value)["reason"] == "needs_static_shape"


def test_another_size_that_is_traced_again_is_found_out(monkeypatch):
    monkeypatch.setattr(programs, "_signature", lambda case, arguments: arguments)
    with pytest.raises(programs.TracedAgain):
        proven(SUBJECTS["minimal-rnn"], case_of("minimal-rnn", "infer", static_timesteps=False))


# --- dropout ---


def test_a_share_that_is_not_the_rate_is_refused():
    kept = np.random.default_rng(0).random((32, 64)) >= 0.3
    _check_masks("the inputs", [kept / 0.7], 0.3)
    with pytest.raises(WrongAnswer, match=r"the inputs: 0\.3\d* is dropped, where the rate is 0\.5"):
        _check_masks("the inputs", kept / 0.5, 0.5)


class HiddenDropout(keras.layers.Layer):
    """h' = tanh(dropout(x) W + h), by a layer that shows no mask."""

    scale = 1.0

    def __init__(self, units):
        super().__init__()
        self.state_size = self.output_size = units
        self.drop = keras.layers.Dropout(0.4, seed=1)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.state_size), name="kernel")
        self.drop.build(input_shape)

    def call(self, inputs, states, training=False):
        x = self.drop(inputs, training=training) * (self.scale if training else 1.0)
        h = keras.ops.tanh(keras.ops.matmul(x, self.kernel) + states[0])
        return h, [h]


class ScaledWrong(HiddenDropout):
    scale = 1.01


class StateDropout(HiddenDropout):
    def call(self, inputs, states, training=False):
        h = keras.ops.matmul(inputs, self.kernel) + keras.ops.tile(
            self.drop(states[0][:, :4], training=training)[:, :1], (1, self.state_size)
        )
        return h, [h]


def test_dropout_that_hides_what_it_drew_is_inferred():
    subject = user_subject("hidden", HiddenDropout, "lstm-builtin", target="a.py:B")
    problem, _, proof = proven(subject, case_of("hidden-rnn"))
    assert problem.proof == "statistical" and problem.rows == SHAPE[0]
    assert proof.gradient_error <= proof.gradient_tolerance
    infer, _, _ = proven(subject, case_of("hidden-rnn", "infer"))
    assert infer.proof == "consistent"


def test_dropout_that_hides_what_it_drew_and_scales_wrongly_is_refused():
    with pytest.raises(WrongAnswer, match="the outputs: differ"):
        proven(user_subject("wrong", ScaledWrong, "lstm-builtin", target="a.py:C"), case_of("wrong-rnn"))


def test_dropout_that_cannot_be_inferred_is_not_timed():
    with pytest.raises(UnsupportedOption, match="no dropout of inputs, and cannot be proven"):
        proven(user_subject("state", StateDropout, "lstm-builtin", target="a.py:D"), case_of("state-rnn"))


def test_a_cell_without_a_reference_that_shows_its_masks_is_compared_with_itself_with_them():
    class Own(LSTMCell):
        def update(self, gates, states):
            h, (_, c) = super().update(gates, states)
            return h / 2, [h / 2, c]

    subject = user_subject(
        "own", lambda units: Own(units, dropout=0.5, recurrent_dropout=0.5), "lstm-builtin", target="a.py:E"
    )
    problem, _, proof = proven(subject, case_of("own-rnn"))
    assert problem.proof == "consistent" and problem.drops
    assert proof.max_abs_error <= proof.tolerance


# --- the fast kernel ---


def cudnn_graph(where):
    """The GraphDef of a function that holds cuDNN's operation, traced and not run."""

    def cudnn():
        return tf.raw_ops.CudnnRNNV3(
            input=tf.zeros((2, 3, 4)),
            input_h=tf.zeros((2, 1, 5)),
            input_c=tf.zeros((2, 1, 5)),
            params=tf.zeros((220,)),
            sequence_lengths=tf.fill([2], 3),
            rnn_mode="lstm",
            time_major=False,
        ).output

    def in_a_loop():
        return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x + cudnn()), (0, tf.zeros((2, 3, 5))))

    program = {"the graph": cudnn, "a function": lambda: tf.function(cudnn)() + 1, "a loop": in_a_loop}[where]
    return tf.function(program).get_concrete_function().graph.as_graph_def()


@pytest.mark.parametrize("where", ["the graph", "a function", "a loop"])
def test_the_cudnn_kernel_is_found_wherever_it_stands(where):
    graph = cudnn_graph(where)
    assert any(node.op == "CudnnRNNV3" for node in graph.node) == (where == "the graph")
    assert kernels.kernel_of(list(kernels.graph_nodes(graph))) == "cudnn"


GPU = Case("lstm", "builtin", "train", *SHAPE, device="gpu")


@pytest.mark.parametrize(
    ("options", "missed"),
    [
        ({"unroll": True}, "unroll"),
        ({"activation": "softsign"}, "activation"),
        ({"use_bias": False}, "use_bias"),
        ({"recurrent_dropout": 0.5}, "recurrent_dropout"),
        ({"cell": "gru", "reset_after": False}, "reset_after"),
        ({"masked": "left"}, "mask"),
        ({"masked": "full"}, "mask"),
        ({"jit_compile": True}, "jit_compile"),
        ({"device": "cpu"}, "no_gpu"),
        ({"unroll": True, "use_bias": False}, "unroll, use_bias"),
        ({"bidirectional": True, "depth": 2, "activation": "relu"}, "activation"),
        ({"dtype": "mixed_bfloat16"}, "dtype"),
        ({}, "unknown"),
    ],
    ids=str,
)
def test_what_fell_back_says_which_requirement_it_missed(options, missed):
    case = replace(GPU, use_cudnn="auto", **options)
    layer = make_layer(SUBJECTS[case.subject], case)
    assert kernels.fallback_of(layer, case, "while") == missed
    assert kernels.fallback_of(layer, case, "cudnn") is None
    unsaid = replace(case, use_cudnn=None)
    assert kernels.fallback_of(layer, unsaid, "while") == (missed if case.device == "gpu" else None)
    assert kernels.fallback_of(layer, replace(case, use_cudnn="False"), "while") is None
    if missed in ("dtype", "unknown"):
        kernels.check_kernel_possible(layer, replace(case, use_cudnn="True"))
        with pytest.raises(kernels.KernelMissed, match="the kernel is 'while'"):
            kernels.fallback_of(layer, replace(case, use_cudnn="True"), "while")
    elif case.device == "gpu":
        with pytest.raises(kernels.KernelMissed, match=f"cannot run, for {missed}") as refused:
            kernels.check_kernel_possible(layer, replace(case, use_cudnn="True"))
        assert outcome(refused.value)["reason"] == "kernel"


def test_the_recurrent_activation_is_a_requirement_too():
    layer = keras.layers.GRU(3, recurrent_activation="hard_sigmoid")
    assert kernels.missed_requirements(layer, GPU) == ["recurrent_activation"]


def test_a_layer_that_never_had_the_fast_kernel_did_not_fall_back():
    layer = make_layer(SUBJECTS["lstm-rnn"], GPU)
    assert kernels.fallback_of(layer, GPU, "while") is None


def test_fused_rnn_says_why_its_native_engine_does_not_run(monkeypatch):
    from cells.engines import native

    def unavailable(_):
        raise native.Unavailable("there is no C++\ncompiler")

    monkeypatch.setattr(native, "programs", unavailable)
    case = replace(case_of("gru-fused", "infer"), depth=2, bidirectional=True)
    layer = make_layer(SUBJECTS["gru-fused"], case)
    layer.build((case.batch_size, case.timesteps, case.features))
    said = "the native engine cannot: there is no C++ compiler"
    assert kernels.fallback_of(layer, case, "while") == said
    assert kernels.fallback_of(layer, case, "native") is None
    assert kernels.fallback_of(layer, replace(case, jit_compile=True), "while") is None


def test_on_a_cpu_the_demanded_kernel_is_no_device_and_auto_falls_back():
    with pytest.raises(devices.NoDevice, match="runs on a GPU only") as refused:
        proven(SUBJECTS["lstm-builtin"], case_of("lstm-builtin", "infer", use_cudnn="True"))
    assert outcome(refused.value)["status"] == "skipped"
    assert outcome(refused.value)["reason"] == "no_device"
    _, program, _ = proven(SUBJECTS["gru-builtin"], case_of("gru-builtin", "infer", use_cudnn="auto"))
    assert (program.kernel, program.fallback) == ("while", "no_gpu")


def test_the_cudnn_kernel_zeroes_what_is_masked():
    masked = replace(GPU, masked="right")
    assert kernels.zeroes_masked_outputs(make_layer(SUBJECTS["lstm-builtin"], masked), masked)
    for other in (
        replace(masked, device="cpu"),
        replace(masked, use_cudnn="False"),
        replace(masked, unroll=True),
    ):
        assert not kernels.zeroes_masked_outputs(make_layer(SUBJECTS["lstm-builtin"], other), other)


# --- the record ---


def test_the_record_says_what_the_case_is():
    case = case_of(
        "lstm-builtin", bidirectional=True, masked="full", dropout=0.25, depth=2, static_batch=False
    )
    record = make_record(**names_of("options", case, case, SUBJECTS), status="ok")
    wanted = {"bidirectional": True, "merge_mode": "concat", "masked": "full", "dropout": 0.25, "depth": 2}
    wanted |= {
        "static_batch": False,
        "static_timesteps": True,
        "recurrent_dropout": 0.0,
        "backward_layer": False,
    }
    assert {name: record[name] for name in wanted} == wanted
    apart = case_of("lstm-builtin", recurrent_dropout=0.5)
    assert names_of("options", apart, apart, SUBJECTS)["implementation"] == 1
    plain = make_record(**names_of("options", case_of("lstm-builtin"), case, SUBJECTS), status="ok")
    used = {"bidirectional": False, "dropout": 0.0, "recurrent_dropout": 0.0, "depth": 1}
    assert {name: plain[name] for name in used} == used
    assert [plain[name] for name in ("merge_mode", "masked", "use_cudnn")] == [None] * 3
    assert {name for name in Case.__dataclass_fields__} <= {column.name for column in COLUMNS}


# --- the sweep ---


def rows_of(device):
    return comparisons(["options"], device=device)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_is_compared_with_the_same_subject_without_options(device):
    assert SWEEPS["options"].baselines == ("default_option",)
    for row in rows_of(device):
        by_fit = ("xla",) if cudnn.fit_compiles(row.baseline) else ()
        assert row.baseline.options == by_fit and row.baseline.subject == row.case.subject
        assert row.baseline.device == device
    assert 200 <= len(rows_of(device)) <= 260


def test_every_option_is_measured_alone_on_both_built_ins():
    alone = {*("unroll", "impl1", "stateful", "xla", "last_output", "backwards", "mask_right", "mask_left")}
    alone |= {
        *("mask_full", "dropout0.5", "recurrent_dropout0.5", "act_softsign", "no_bias", "bidirectional")
    }
    alone |= {
        *("depth2", "depth3", "mixed_float16", "mixed_bfloat16", "float64", "any_timesteps", "any_batch")
    }
    for subject, more in (("lstm-builtin", set()), ("gru-builtin", {"reset_before"})):
        for mode in ("infer", "train"):
            cases = [
                row.case for row in rows_of("cpu") if (row.case.subject, row.case.mode) == (subject, mode)
            ]
            found = {case.options[0] for case in cases if len(case.options) == 1}
            assert found - {"cudnn"} == alone | more
            merges = {case.merge_mode for case in cases if case.bidirectional}
            assert merges == {None, "sum", "mul", "ave", "none"}
            assert any(case.backward_layer for case in cases) and any(not case.options for case in cases)


def test_the_fast_kernel_is_swept_on_a_gpu_only_and_one_record_a_layer_says_so_on_a_cpu():
    demanded = [row.case for row in rows_of("cpu") if row.case.use_cudnn]
    assert sorted(case.subject for case in demanded) == ["gru-builtin", "lstm-builtin"]
    assert all(case.use_cudnn == "True" for case in demanded)
    on_gpu = [row.case for row in rows_of("gpu") if row.case.layer == "builtin"]
    for case in on_gpu:
        if not case.jit_compile and (case.implementation == 1 or case.masked in ("left", "full")):
            assert case.use_cudnn == "False", case.id
    assert {case.use_cudnn for case in on_gpu} == {None, "auto", "True", "False"}
