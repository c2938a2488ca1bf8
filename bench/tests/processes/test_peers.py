"""The peers: their weights are Keras' in another layout, they are proven like any subject, and without their
packages they are skipped."""

import ast
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

import bench
from bench.backend.layers import weight_names
from bench.backend.programs import compile_program
from bench.cases.case import Case
from bench.cases.comparisons import Comparison, comparisons
from bench.cases.subjects import (
    BACKENDS,
    SUBJECTS,
    NotInstalled,
    Subject,
    UnsupportedOption,
    check_installed,
)
from bench.cases.sweeps import SWEEPS
from bench.cases.user_cells import UserCells
from bench.processes import peer_client
from bench.processes.peer_client import Peers, warmed_up
from bench.processes.peers import layout
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import verify
from bench.records.run_folder import read_environment
from bench.runner.run import Run
from bench.timing.blocks import Budget
from cells import reference

SHAPE = (3, 6, 4, 5)
REMOTE = {name: subject for name, subject in SUBJECTS.items() if subject.peer}
OTHERS_LIBRARIES = {name: subject for name, subject in REMOTE.items() if subject.kind == "peer"}
EQUATIONS = {"lstm": reference.lstm, "gru": reference.gru, "simple_rnn": reference.simple_rnn}
BENCH = Path(bench.__file__).parent


def installed(peer: str) -> bool:
    needed = {name for subject in REMOTE.values() if subject.peer == peer for name in subject.requires}
    return all(find_spec(name) for name in needed)


def needs(peer: str):
    return pytest.mark.skipif(not installed(peer), reason=f"the packages of {peer} are not installed")


def case_of(name: str, mode: str, **options) -> Case:
    return Case(SUBJECTS[name].cell, SUBJECTS[name].layer, mode, *SHAPE, **options)


# --- layouts: the peers' equations from their documents, on translated weights, against Keras' -------


def drawn(cell: str, seed: int = 7) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Random weights in Keras' layout, inputs and initial states."""
    batch_size, timesteps, features, units = SHAPE
    width = len(layout.KERAS[cell]) * units
    draw = np.random.default_rng(seed).standard_normal
    bias = draw((2, width) if cell == "gru" else (width,))
    states = [draw((batch_size, units)) for _ in range(2 if cell == "lstm" else 1)]
    return (
        [draw((features, width)), draw((units, width)), bias],
        draw((batch_size, timesteps, features)),
        states,
    )


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm_step(i, f, g, o, c):
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return [sigmoid(o) * np.tanh(c), c]


def torch_step(cell, x, states, w_ih, w_hh, b_ih, b_hh):
    """torch.nn's equations: LSTM's gates i, f, g, o; GRU's r, z, n."""
    of_x, of_h = x @ w_ih.T + b_ih, states[0] @ w_hh.T + b_hh
    if cell == "simple_rnn":
        return [np.tanh(of_x + of_h)]
    if cell == "lstm":
        return lstm_step(*np.split(of_x + of_h, 4, axis=1), states[1])
    (r_x, z_x, n_x), (r_h, z_h, n_h) = np.split(of_x, 3, axis=1), np.split(of_h, 3, axis=1)
    z = sigmoid(z_x + z_h)
    return [(1 - z) * np.tanh(n_x + sigmoid(r_x + r_h) * n_h) + z * states[0]]


def onnx_step(cell, x, states, w, r, b):
    """ONNX' equations: LSTM's gates i, o, f, c; GRU's z, r, h with linear_before_reset."""
    b_x, b_h = np.split(b[0], 2)
    of_x, of_h = x @ w[0].T + b_x, states[0] @ r[0].T + b_h
    if cell == "simple_rnn":
        return [np.tanh(of_x + of_h)]
    if cell == "lstm":
        i, o, f, c = np.split(of_x + of_h, 4, axis=1)
        return lstm_step(i, f, c, o, states[1])
    (z_x, r_x, h_x), (z_h, r_h, h_h) = np.split(of_x, 3, axis=1), np.split(of_h, 3, axis=1)
    z = sigmoid(z_x + z_h)
    return [(1 - z) * np.tanh(h_x + sigmoid(r_x + r_h) * h_h) + z * states[0]]


@pytest.mark.parametrize("cell", EQUATIONS)
@pytest.mark.parametrize(
    ("translated", "step"),
    [(layout.to_torch, torch_step), (layout.to_onnx, onnx_step)],
    ids=["torch", "onnx"],
)
def test_the_peers_equations_on_translated_weights_are_keras(cell, translated, step):
    weights, inputs, states = drawn(cell)
    expected, expected_states = EQUATIONS[cell](weights, inputs, states)
    outputs = []
    for x in np.moveaxis(inputs, 1, 0):
        states = step(cell, x, states, *translated(cell, weights))
        outputs.append(states[0])
    np.testing.assert_allclose(np.stack(outputs, axis=1), expected, atol=1e-12)
    np.testing.assert_allclose(states, expected_states, atol=1e-12)


@pytest.mark.parametrize("cell", EQUATIONS)
def test_what_goes_to_torch_comes_back(cell):
    weights, *_ = drawn(cell)
    for got, expected in zip(layout.from_torch(cell, layout.to_torch(cell, weights)), weights, strict=True):
        np.testing.assert_array_equal(got, expected)


# --- proven like any subject --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def peers():
    peers = Peers()
    yield peers
    peers.close()


def remote_rows():
    for name, subject in OTHERS_LIBRARIES.items():
        for mode in ("infer",) if subject.layer == "onnx" else ("infer", "train"):
            yield pytest.param(name, mode, id=f"{mode}-{name}", marks=needs(subject.peer))


@pytest.mark.parametrize(("name", "mode"), list(remote_rows()))
def test_a_peer_is_right(peers, name, mode):
    problem = prepare(SUBJECTS[name], case_of(name, mode))
    program = peers.program(SUBJECTS[name].peer, problem)
    answer = program.answer()
    proof = verify(problem, answer)
    assert 0 < proof.max_abs_error < proof.tolerance < 1e-5
    if mode == "train":
        states = [f"initial_state {i}" for i in range(2 if "lstm" in problem.case.cell else 1)]
        assert list(answer.gradients) == ["kernel", "recurrent_kernel", "bias", "inputs", *states]
        assert 0 < proof.gradient_error < proof.gradient_tolerance < 1e-4
    else:
        assert answer.gradients == {}
    traces = program.trace_count()
    program.run()
    assert 0 < program.time() < 10
    assert program.trace_count() == traces <= 1
    assert program.compile_s > 0 and not program.xla


ON_BACKENDS = ("lstm", "gru", "keras_lstm", "slstm", "learned_state")


@pytest.mark.parametrize("cell", ON_BACKENDS)
@pytest.mark.parametrize("layer", [pytest.param(name, marks=needs(name)) for name in BACKENDS])
def test_a_cell_is_right_on_another_back_end(peers, layer, cell):
    name = f"{cell}-{layer}"
    problem = prepare(SUBJECTS[name], case_of(name, "train"))
    program = peers.program(layer, problem)
    answer = program.answer()
    proof = verify(problem, answer)
    assert 0 < proof.max_abs_error < proof.tolerance < 1e-5
    assert 0 < proof.gradient_error < proof.gradient_tolerance < 1e-4
    assert list(answer.gradients)[: len(problem.layer.weights)] == weight_names(problem.layer)
    program.run()
    assert program.trace_count() <= 1 and program.time() > 0
    assert (program.kernel, program.xla) == (("while", True) if layer == "keras_jax" else ("eager", False))


@pytest.mark.parametrize("layer", [pytest.param(name, marks=needs(name)) for name in BACKENDS])
def test_a_back_end_forgets_nothing_when_it_infers(peers, layer):
    problem = prepare(SUBJECTS[f"gru-{layer}"], case_of(f"gru-{layer}", "infer"))
    answer = peers.program(layer, problem).answer()
    assert answer.gradients == {} and verify(problem, answer).max_abs_error > 0


USERS = '''
import keras
import tensorflow as tf
from keras import ops


class Counting(keras.layers.Layer):
    """A state of integers beside one of floats, a weight that is not trained, another output than units."""

    def __init__(self, units, gain=1.0, **kwargs):
        super().__init__(**kwargs)
        self.units, self.gain = units, gain
        self.state_size = [units, 1]
        self.output_size = units + 1

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", trainable=False, name="scale")

    def call(self, inputs, states):
        h, count = states
        h = ops.tanh(self.gain * ops.matmul(inputs, self.kernel) * self.scale + h)
        return ops.concatenate([h, count], axis=-1), [h, count + 1]


class Tied(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs, states):
        h = ops.tanh(ops.matmul(inputs, self.kernel) + states[0])
        h = tf.tanh(h)  # of a PyTorch tensor that needs no gradient, by way of NumPy
        return h, [h]
'''


@pytest.fixture
def users(tmp_path):
    """name, kwargs -> the subjects of a user's cell, by layer."""
    (tmp_path / "users.py").write_text(USERS)

    def subjects(name: str, **kwargs) -> dict[str, Subject]:
        own = UserCells.of([f"{tmp_path}/users.py:{name}"], kwargs=json.dumps(kwargs))
        return {subject.layer: subject for subject in own.subjects.values()}

    return subjects


@pytest.mark.parametrize("layer", [pytest.param(name, marks=needs(name)) for name in BACKENDS])
def test_a_users_cell_runs_on_another_back_end_with_its_arguments(peers, users, layer):
    subject = users("Counting", gain=1.5)[layer]
    problem = prepare(subject, Case("Counting", layer, "train", *SHAPE))
    answer = peers.program(layer, problem, subject.made_from).answer()
    verify(problem, answer)
    assert list(answer.gradients) == ["kernel", "inputs", "initial_state 0", "initial_state 1"]


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("layer", [pytest.param(name, marks=needs(name)) for name in BACKENDS])
def test_a_cell_that_calls_tensorflow_is_told_the_line(peers, users, layer, mode):
    subject = users("Tied")[layer]
    problem = prepare(subject, Case("Tied", layer, mode, *SHAPE))
    line = USERS.splitlines().index(USERS[USERS.index("        h = tf.tanh") :].partition("\n")[0]) + 1
    with pytest.raises(
        UnsupportedOption, match=rf"calls TensorFlow.*keras\.ops.*users\.py:{line}: h = tf\.tanh"
    ):
        peers.program(layer, problem, subject.made_from)


@needs("pytorch")
def test_one_sequence_keeps_its_axis(peers):
    problem = prepare(SUBJECTS["lstm-torch"], Case("lstm", "torch", "train", 1, 1, 2, 3))
    verify(problem, peers.program("pytorch", problem).answer())


@pytest.mark.parametrize(
    "peer", [pytest.param(p, marks=needs(p)) for p in ("pytorch", "onnx_runtime", "keras2")]
)
def test_a_peer_tells_its_version_and_threads(peers, peer):
    name = next(name for name, subject in REMOTE.items() if subject.peer == peer)
    peers.program(peer, prepare(SUBJECTS[name], case_of(name, "infer")))
    facts = peers.environment[peer]
    assert {
        package for subject in REMOTE.values() if subject.peer == peer for package in subject.requires
    } <= set(facts)
    assert isinstance(facts["intra_op_threads"], int)


@needs("keras2")
def test_keras_2_says_which_kernel_it_runs_and_not_the_one_it_carries_along(peers):
    problem = prepare(SUBJECTS["lstm-keras2"], case_of("lstm-keras2", "infer"))
    assert peers.program("keras2", problem).kernel == "while"


@needs("onnx_runtime")
def test_onnx_runtime_says_which_operator_it_runs(peers):
    problem = prepare(SUBJECTS["gru-onnx"], case_of("gru-onnx", "infer"))
    assert peers.program("onnx_runtime", problem).kernel == "gru"


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize(("name", "options"), [("lstm-block", {}), ("gru-block", {"reset_after": False})])
def test_a_fused_kernel_of_tensorflow_is_right(name, options, mode):
    problem = prepare(SUBJECTS[name], case_of(name, mode, **options))
    program = compile_program(problem.layer, problem.case, problem.data)
    assert program.kernel == "block"
    verify(problem, program.answer())


def test_the_fused_gru_is_the_one_that_resets_before():
    with pytest.raises(UnsupportedOption, match="reset_after=False only"):
        prepare(SUBJECTS["gru-block"], case_of("gru-block", "infer"))


@pytest.mark.parametrize(
    ("name", "mode", "fault", "message"),
    [
        pytest.param("gru-torch", "infer", "gates", "the outputs: differ", marks=needs("pytorch")),
        pytest.param("gru-torch", "train", "gradients", "the gradient of bias", marks=needs("pytorch")),
        pytest.param("lstm-onnx", "infer", "gates", "the outputs: differ", marks=needs("onnx_runtime")),
        pytest.param("gru-onnx", "infer", "reset", "the outputs: differ", marks=needs("onnx_runtime")),
        pytest.param("lstm-keras2", "infer", "states", "the outputs: differ", marks=needs("keras2")),
    ],
)
def test_a_wrong_translation_is_refused(name, mode, fault, message):
    peers = Peers("bench.tests.broken_peers:Broken", (fault,))
    try:
        problem = prepare(SUBJECTS[name], case_of(name, mode))
        answer = peers.program(SUBJECTS[name].peer, problem).answer()
        with pytest.raises(WrongAnswer, match=message):
            verify(problem, answer)
    finally:
        peers.close()


# --- what a peer has not, and where it is ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "options", "message"),
    [
        ("lstm-onnx", "train", {}, "ONNX Runtime LSTM infers only"),
        ("lstm-torch", "infer", {"dtype": "float64"}, "not dtype float64"),
        ("lstm-block", "infer", {"jit_compile": True}, "not jit_compile True"),
        ("lstm-keras_jax", "infer", {"jit_compile": True}, "keras LSTM on JAX is .* not jit_compile True"),
        ("slstm-keras_torch", "train", {"dropout": 0.5}, "slstm in RNN on PyTorch has no option dropout"),
        ("gru-keras2", "infer", {"device": "gpu"}, "not device gpu"),
        ("gru-torch", "infer", {"go_backwards": True}, "has no option go_backwards"),
    ],
)
def test_what_a_peer_has_not_is_unsupported(name, mode, options, message):
    with pytest.raises(UnsupportedOption, match=message):
        prepare(SUBJECTS[name], case_of(name, mode, **options))


class _Told:
    """Stands for a peer's process: keeps what it is asked to load."""

    loaded: ClassVar[list[dict]] = []

    def __init__(self, *_, **__):
        pass

    def call(self, name, *arguments, **_):
        if name != "load":
            return {}
        self.loaded.append(arguments[-1])
        return 0, {}


@pytest.mark.parametrize("rounds", [False, True])
def test_a_peer_is_told_the_device_and_its_precision(monkeypatch, rounds):
    monkeypatch.setattr(peer_client, "Worker", _Told)
    monkeypatch.setattr(_Told, "loaded", [])
    monkeypatch.setattr(peer_client.devices, "rounds_to_tf32", lambda case: rounds)
    data = SimpleNamespace(weights=[], inputs=None, initial_states=[], cotangents=[])
    for device in ("cpu", "gpu"):
        case = case_of("lstm-torch", "infer", device=device)
        Peers().program("pytorch", SimpleNamespace(case=case, data=data))
    assert _Told.loaded == [{}, {"device": "gpu", "tf32": rounds}]


@pytest.mark.parametrize(("name", "peer"), [("lstm-torch", "pytorch"), ("slstm-keras_jax", "keras_jax")])
def test_a_gpu_that_a_peer_does_not_have_is_said(peers, name, peer):
    if not installed(peer):
        pytest.skip(f"the packages of {peer} are not installed")
    problem = prepare(SUBJECTS[name], case_of(name, "infer"))
    problem = replace(problem, case=replace(problem.case, device="gpu"))
    with pytest.raises(UnsupportedOption, match=r"PyTorch .* sees no GPU|JAX .* runs on the cpu"):
        peers.program(peer, problem)


def test_an_absent_package_is_named_with_the_extra_that_brings_it():
    absent = replace(SUBJECTS["lstm-torch"], requires=("no_such",))
    with pytest.raises(NotInstalled, match=r"^PyTorch nn.LSTM needs no_such, which .* extra `peers`$"):
        check_installed(absent)
    check_installed(SUBJECTS["lstm-builtin"])


class Benchmark:
    """As much of pytest-benchmark's fixture as a run asks for."""

    enabled = True

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, target, setup=lambda: None, teardown=lambda: None, rounds=1):
        for _ in range(rounds):
            setup()
            target()
            teardown()


def row_of(sweep: str, case: Case, baseline: str) -> Comparison:
    subject = SUBJECTS[baseline]
    return Comparison(sweep, case, replace(case, cell=subject.cell, layer=subject.layer), SWEEPS[sweep])


def test_a_row_whose_subject_or_baseline_is_not_installed_is_skipped_before_anything_is_built(monkeypatch):
    monkeypatch.setattr("bench.runner.proving.prepare", lambda *_: pytest.fail("something was built"))
    run = Run(None, "cpu", {**SUBJECTS, "lstm-torch": replace(SUBJECTS["lstm-torch"], requires=("no_such",))})
    for row in (
        row_of("peers", case_of("lstm-torch", "infer"), "lstm-builtin"),
        row_of("fused", case_of("lstm-fused", "infer"), "lstm-torch"),
    ):
        record = run.measure(row, Benchmark(), Budget(0.1, 1))
        assert (record["status"], record["reason"]) == ("skipped", "not_installed")
        assert "no_such" in record["message"]


@needs("pytorch")
def test_a_row_is_timed_in_both_processes_and_the_peer_stands_in_the_environment(tmp_path):
    run = Run(tmp_path / "run", "cpu", SUBJECTS)
    rows = [
        row_of("peers", case_of("lstm-torch", "infer"), "lstm-builtin"),
        row_of("fused", case_of("lstm-fused", "infer"), "lstm-torch"),
    ]
    for row in rows:
        record = run.measure(row, Benchmark(), Budget(0.1, 1))
        assert (record["status"], record["message"]) == ("ok", None)
        assert record["ratio"] > 0 and record["baseline"] == row.baseline.id
    assert read_environment(run.folder)["peers"]["pytorch"]["intra_op_threads"] >= 1


OTHERS = [file for file in sorted(BENCH.rglob("*.py")) if not {"peers", "tests"} & set(file.parts)]


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: str(file.relative_to(BENCH)))
def test_a_peers_package_is_imported_in_the_peers_process_alone(file):
    packages = {name for subject in REMOTE.values() for name in subject.requires}
    imported = {
        name
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not packages & {name.partition(".")[0] for name in imported}
    assert not {f"bench.processes.peers.{subject.peer}" for subject in REMOTE.values()} & imported


# --- the sweeps -----------------------------------------------------------------------------------------


def test_the_sweep_compares_every_peer_with_the_built_in_of_its_equation():
    rows = comparisons(["peers"])
    layers = ("torch", "onnx", "keras2", "block")
    assert {row.case.subject for row in rows} == {n for n, s in SUBJECTS.items() if s.layer in layers}
    for row in rows:
        assert row.baseline.subject == f"{row.case.cell}-builtin"
        assert (
            row.baseline.options
            == row.case.options
            == (("reset_before",) if row.case.subject == "gru-block" else ())
        )
        assert row.case.mode == "infer" or row.case.layer != "onnx"


def test_fused_is_compared_with_torch_where_torch_has_the_cell():
    rows = [row for row in comparisons(["fused"]) if row.baseline.layer == "torch"]
    cases = {row.case for row in comparisons(["fused"]) if row.case.layer == "fused"}
    fused = {case for case in cases if not case.jit_compile}
    largest = max(case.units for case in fused)  # a minute of its own
    assert {row.case for row in rows} == {
        case for case in fused if case.cell in ("lstm", "gru") and case.units < largest
    }
    assert all(row.id == f"{row.case.id}-vs-{row.case.cell}-torch" for row in rows)


def test_the_back_ends_are_compared_with_the_same_cell_on_tensorflow():
    rows = [row for row in comparisons(["backends"]) if row.case.layer in BACKENDS]
    assert {row.case.layer for row in rows} == set(BACKENDS)
    for row in rows:
        assert row.baseline.cell == row.case.cell and row.baseline.layer in ("builtin", "rnn")
        assert row.baseline.options == row.case.options == ()


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_no_fit_of_tensorflows_compiles_what_runs_elsewhere(device):
    """Where XLA is the default, on a GPU, it is not asked of a peer, which would refuse it."""
    rows = [row for sweep in ("fused", "backends", "peers") for row in comparisons([sweep], device=device)]
    elsewhere = [case for row in rows for case in (row.case, row.baseline) if SUBJECTS[case.subject].peer]
    assert elsewhere and not [case.id for case in elsewhere if case.jit_compile]


@needs("keras_jax")
def test_the_back_end_stands_in_the_row():
    run = Run(None, "cpu", SUBJECTS)
    row = row_of("backends", case_of("lstm-keras_jax", "infer"), "lstm-builtin")
    record = run.measure(row, Benchmark(), Budget(0.1, 1))
    run.close()
    assert (record["status"], record["backend"], record["xla"]) == ("ok", "jax", True)
    assert record["ratio"] > 0


def test_a_leg_beside_another_process_is_warmed_up_unless_it_is_long():
    calls = []
    seconds = iter((0.05, 0.001, 0.5, 0.5))

    def time():
        calls.append("timed")
        return next(seconds)

    leg = warmed_up(SimpleNamespace(queue=calls.append, time=time))
    assert [leg() for _ in range(4)] == [0.05, 0.001, 0.5, 0.5]
    assert calls == [1, "timed", 1, "timed", 10, "timed", "timed"]
