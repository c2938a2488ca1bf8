"""The proof: right cells pass it at their shape, and each planted fault is refused before any timing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import cells.reference
from bench.backend import programs
from bench.backend.data import Answer
from bench.cases.case import Case
from bench.cases.subjects import IN_PLAIN_KERAS, PEER_LAYERS, SUBJECTS, user_subject
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import Proof, verify, verify_again
from cells import GRUCell, LSTMCell
from cells.reference import REFERENCES

SHAPE = (3, 6, 4, 5)
PEERS = {n for n, s in SUBJECTS.items() if s.layer in PEER_LAYERS or s.peer}  # see test_peers.py


def proof_of(subject, case):
    problem = prepare(subject, case)
    program = programs.compile_program(problem.layer, case, problem.data)
    return verify(problem, program.answer())


# the engine compiles a library for each of these cells, in seconds: one of a kind is enough here, as every
# run proves all; training proves the outputs too
OF_A_KIND = ("layer_norm_gru", "rhn", "matrix_lstm")
IN_ENGINE = {f"{cell}-fused" for cell in IN_PLAIN_KERAS}
PLAIN_KERAS = {f"{cell}-rnn" for cell in IN_PLAIN_KERAS} | {f"{cell}-fused" for cell in OF_A_KIND}
REST = sorted(set(SUBJECTS) - PEERS - PLAIN_KERAS - IN_ENGINE)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *((name, mode) for name in REST for mode in ("infer", "train")),
        *((name, "train") for name in sorted(PLAIN_KERAS)),
    ],
)
def test_every_subject_is_right(name, mode):
    cell, _, layer = name.rpartition("-")
    proof = proof_of(SUBJECTS[name], Case(cell, layer, mode, *SHAPE))
    assert 0 < proof.max_abs_error < proof.tolerance < 1e-5
    assert (proof.gradient_error is None) == (mode == "infer")
    if mode == "train":
        assert 0 < proof.gradient_error < proof.gradient_tolerance < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"unroll": True},
        {"implementation": 1},
        {"stateful": True},
        {"jit_compile": True},
        {"return_sequences": False},
        {"go_backwards": True},
        {"use_bias": False},
        {"activation": "relu"},
        {"dtype": "float64"},
        {"dtype": "mixed_float16"},
        {"dtype": "mixed_bfloat16"},
    ],
    ids=str,
)
def test_every_option_is_right(options):
    proof = proof_of(SUBJECTS["lstm-rnn"], Case("lstm", "rnn", "train", *SHAPE, **options))
    assert proof.max_abs_error <= proof.tolerance


def test_reset_before_is_right():
    proof_of(SUBJECTS["gru-rnn"], Case("gru", "rnn", "train", *SHAPE, reset_after=False))


def test_a_dear_case_repeats_its_first_rows_and_all_are_compared(monkeypatch):
    monkeypatch.setattr("bench.proof.problem._REFERENCE_WORK", 2 * 6 * 9 * 5 * 4)
    case = Case("lstm", "rnn", "train", *SHAPE)
    problem = prepare(SUBJECTS["lstm-rnn"], case)
    assert problem.rows == 2
    assert np.array_equal(problem.data.inputs[2], problem.data.inputs[0])
    assert not np.array_equal(problem.data.inputs[1], problem.data.inputs[0])
    assert all(np.all(c[2] != c[0]) for c in problem.data.cotangents if c is not None)
    answer = programs.compile_program(problem.layer, case, problem.data).answer()
    assert 0 < verify(problem, answer).gradient_error < 1e-5
    outputs = [output.copy() for output in answer.outputs]
    outputs[0][2, 3, 1] += 1e-3
    with pytest.raises(WrongAnswer, match=r"the outputs: differ .* at row 2, step 3, unit 1"):
        verify(problem, Answer(outputs, answer.gradients))


def test_alike_cells_share_their_weights():
    case = Case("lstm", "builtin", "infer", *SHAPE)
    builtin = prepare(SUBJECTS["lstm-builtin"], case)
    ours = prepare(SUBJECTS["lstm-rnn"], Case("lstm", "rnn", "infer", *SHAPE), alike=builtin)
    other = prepare(SUBJECTS["slstm-rnn"], Case("slstm", "rnn", "infer", *SHAPE), alike=builtin)
    assert all(np.array_equal(a, b) for a, b in zip(builtin.data.weights, ours.data.weights, strict=True))
    assert other.data.weights[0].shape != builtin.data.weights[0].shape
    assert np.array_equal(builtin.data.inputs, other.data.inputs)


class SwappedGates(LSTMCell):
    def update(self, gates, states):
        i, f, g, o = gates
        return super().update([f, i, g, o], states)


class NoBias(LSTMCell):
    def _biases(self):
        return None, None


class ForgetBiasOfZero(LSTMCell):
    def get_bias_initializer(self):
        return self.bias_initializer


class StateOffByOne(LSTMCell):
    def update(self, gates, states):
        h, (new_h, c) = super().update(gates, states)
        return h, [new_h, states[1] + 0 * c]


class OutputOffByOne(LSTMCell):
    def update(self, gates, states):
        _, new_states = super().update(gates, states)
        return states[0], new_states


class SwappedActivation(LSTMCell):
    def update(self, gates, states):
        i, f, g, o = gates
        i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
        c = f * states[1] + i * self.recurrent_activation(g)
        h = o * self.activation(c)
        return h, [h, c]


class SlightlyWrong(LSTMCell):
    """A thousandth in one gate: far below what a plot would show."""

    def update(self, gates, states):
        i, f, g, o = gates
        return super().update([i, f * 1.001, g, o], states)


class WrongGradient(LSTMCell):
    def update(self, gates, states):
        i, f, g, o = gates
        return super().update([i, f, tf.stop_gradient(0.01 * g) + 0.99 * g, o], states)


class LeakingRows(LSTMCell):
    def update(self, gates, states):
        h, (_, c) = super().update(gates, states)
        return h, [h, c + 0.01 * keras.ops.mean(c, axis=0, keepdims=True)]


class NotANumber(LSTMCell):
    def update(self, gates, states):
        h, new_states = super().update(gates, states)
        return h / 0.0 * 0.0, new_states


class ResetBeforeForAfter(GRUCell):
    def update(self, gates, states):
        z, r, (from_x, from_h) = gates
        return super().update([z, r, (from_x, from_h * 0 + self.late_input([z, r], states))], states)


FAULTS = [
    (SwappedGates, "infer", "the outputs: differ"),
    (NoBias, "infer", "the outputs: differ"),
    (ForgetBiasOfZero, "infer", "the bias of ForgetBiasOfZero starts at 0"),
    (StateOffByOne, "infer", "differ"),
    (OutputOffByOne, "infer", "the outputs: differ"),
    (SwappedActivation, "infer", "the outputs: differ"),
    (SlightlyWrong, "infer", "the outputs: differ"),
    (NotANumber, "infer", "the outputs: differ from the reference by inf"),
    (LeakingRows, "infer", "differ"),
    (WrongGradient, "train", "the gradient of "),
    (ResetBeforeForAfter, "infer", "the outputs: differ"),
]


@pytest.mark.parametrize("fault, mode, message", FAULTS, ids=[fault[0].__name__ for fault in FAULTS])
@pytest.mark.parametrize("shape", [SHAPE, (32, 50, 64, 128)], ids=["small", "base"])
def test_planted_faults_are_refused(monkeypatch, fault, mode, message, shape):
    parent = fault.__mro__[1]
    monkeypatch.setitem(REFERENCES, fault, REFERENCES[parent])
    with pytest.raises(WrongAnswer, match=message) as refused:
        proof_of(user_subject("fault", fault, "lstm-builtin"), Case("fault", "rnn", mode, *shape))
    assert any(character.isdigit() for character in str(refused.value))


def test_a_gradient_that_is_wrong_in_a_repeated_row_alone_is_refused(monkeypatch):
    monkeypatch.setattr("bench.proof.problem._REFERENCE_WORK", 1)
    case = Case("lstm", "rnn", "train", *SHAPE)
    problem = prepare(SUBJECTS["lstm-rnn"], case)
    assert problem.rows == 1
    answer = programs.compile_program(problem.layer, case, problem.data).answer()
    wrong = answer.gradients["inputs"].copy()
    wrong[2] = 0
    with pytest.raises(WrongAnswer, match="the gradient of inputs"):
        verify(problem, Answer(answer.outputs, {**answer.gradients, "inputs": wrong}))


def test_a_large_state_does_not_loosen_the_tolerance_of_the_others(monkeypatch):
    class Large(LSTMCell):
        def update(self, gates, states):
            h, (new_h, c) = super().update(gates, [states[0], states[1] / 1e6])
            return h * self.factor, [new_h, c * 1e6]

    monkeypatch.setitem(
        REFERENCES, Large, cells.reference.Reference(_large, REFERENCES[LSTMCell].initial_bias)
    )
    case = Case("large", "rnn", "infer", *SHAPE)
    Large.factor = 1.0
    proof_of(user_subject("large", Large, "lstm-builtin"), case)
    Large.factor = 1.001
    with pytest.raises(WrongAnswer, match="the outputs"):
        proof_of(user_subject("large", Large, "lstm-builtin"), case)


def _large(weights, inputs, initial_states, activation=np.tanh, recurrent_activation=None):
    """An LSTM that keeps its second state a million times larger."""
    h, c = initial_states
    outputs, states = cells.reference.lstm(weights, inputs, [h, c / 1e6], activation)
    return outputs, [states[0], states[1] * 1e6]


def test_a_reference_that_overflows_proves_nothing(monkeypatch):
    def infinite(weights, inputs, initial_states, activation=None, recurrent_activation=None):
        outputs, states = cells.reference.lstm(weights, inputs, initial_states)
        return outputs * np.inf, states

    class Overflowing(LSTMCell):
        pass

    monkeypatch.setitem(
        REFERENCES, Overflowing, cells.reference.Reference(infinite, REFERENCES[LSTMCell].initial_bias)
    )
    with pytest.raises(WrongAnswer, match="the reference itself is not finite"):
        proof_of(user_subject("over", Overflowing, "lstm-builtin"), Case("over", "rnn", "infer", *SHAPE))


def test_a_user_cell_with_dropout_is_proven_with_what_it_drew():
    subject = user_subject(
        "dropping", lambda units: LSTMCell(units, dropout=0.5), "lstm-builtin", target="a.py:B"
    )
    problem = prepare(subject, Case("dropping", "rnn", "train", *SHAPE))
    assert problem.proof == "exact" and problem.drops
    proof_of(subject, problem.case)
    assert not prepare(subject, Case("dropping", "rnn", "infer", *SHAPE)).drops


def test_a_user_cell_may_start_its_bias_as_it_likes():
    subject = user_subject(
        "zero",
        lambda units: keras.layers.LSTMCell(units, unit_forget_bias=False),
        "lstm-builtin",
        target="a.py:B",
    )
    proof_of(subject, Case("zero", "rnn", "infer", *SHAPE))


def test_a_user_cell_without_a_reference_is_compared_with_itself():
    class Plain(keras.layers.Layer):
        state_size = output_size = 5

        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 5), name="kernel")
            self.built = True

        def call(self, inputs, states):
            h = keras.ops.relu(keras.ops.matmul(inputs, self.kernel) + 0.5 * states[0])
            return h, [h]

    subject = user_subject("plain", lambda units: Plain(), "lstm-builtin")
    case = Case("plain", "rnn", "train", *SHAPE)
    problem = prepare(subject, case)
    assert problem.proof == "consistent"
    answer = programs.compile_program(problem.layer, case, problem.data).answer()
    verify(problem, answer)
    wrong = {**answer.gradients, "kernel": answer.gradients["kernel"] * 1.01}
    with pytest.raises(WrongAnswer, match="the gradient of kernel"):
        verify(problem, Answer(answer.outputs, wrong))


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_what_a_cell_makes_in_build_and_in_call_has_the_dtype_of_its_case(dtype):
    """The twin in float64 too: its sublayer took float32, and the proof ended in TensorFlow's error."""

    class Sublayer(keras.layers.Layer):
        state_size = output_size = 5

        def build(self, input_shape):
            self.dense = keras.layers.Dense(5)
            self.dense.build(input_shape)

        def call(self, inputs, states):
            ones = keras.ops.ones((1, 5), dtype=self.compute_dtype if dtype != "float32" else None)
            h = keras.ops.tanh(self.dense(inputs) + states[0] * ones)
            return h, [h]

    subject = user_subject("sublayer", lambda units: Sublayer(), "lstm-builtin")
    case = Case("sublayer", "rnn", "infer", *SHAPE, dtype=dtype)
    problem = prepare(subject, case)
    verify(problem, programs.compile_program(problem.layer, case, problem.data).answer())


def test_a_user_cells_own_reference_is_used(monkeypatch):
    class Own(LSTMCell):
        def reference(self, inputs, initial_states):
            outputs, states = cells.reference.lstm(self.get_weights(), inputs, initial_states)
            return outputs + self.off, states

    case = Case("own", "rnn", "train", *SHAPE)
    Own.off = 0
    assert proof_of(user_subject("own", Own, "lstm-builtin"), case).gradient_error < 1e-4
    Own.off = 1e-3
    with pytest.raises(WrongAnswer, match="the outputs"):
        proof_of(user_subject("own", Own, "lstm-builtin"), case)


def test_what_changes_while_it_is_timed_is_refused():
    case = Case("lstm", "rnn", "train", *SHAPE)
    problem = prepare(SUBJECTS["lstm-rnn"], case)
    before = programs.compile_program(problem.layer, case, problem.data).answer()
    proof = Proof(0.0, 1e-6, 0.0, 1e-6)
    verify_again(problem, before, before, proof)
    moved = Answer([before.outputs[0] + 1e-4, *before.outputs[1:]], before.gradients)
    with pytest.raises(WrongAnswer, match="after the timing, the outputs"):
        verify_again(problem, before, moved, proof)
    gradients = {**before.gradients, "kernel": before.gradients["kernel"] * np.nan}
    with pytest.raises(WrongAnswer, match="after the timing, the gradient of kernel"):
        verify_again(problem, before, Answer(before.outputs, gradients), proof)
