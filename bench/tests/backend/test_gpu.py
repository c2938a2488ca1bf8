"""What is said of the GPU, and `--require-gpu`; then, marked `gpu`, what only a GPU can show."""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import bench
from bench.backend import devices, kernels, programs
from bench.backend.data import Answer
from bench.cases.case import Case
from bench.cases.comparisons import Comparison
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.processes.peer_client import Peers
from bench.proof.problem import WrongAnswer, prepare
from bench.proof.verify import TF32_EPSILON, prove, verify
from bench.records.run_folder import read_environment
from bench.report import html
from bench.report.charts import run_charts
from bench.runner.run import Run
from bench.tests.fake_nvml import FakeNvml
from bench.timing import gpu_clocks
from bench.timing.blocks import Budget
from bench.timing.gpu_clocks import ClockState, Gpu, installed_nvml, throttled
from cells import SLSTMCell
from cells.engines import native
from cells.engines.recurrence import Equation

pytest_plugins = ["pytester"]

NAME = "NVIDIA H100"
SHAPE = (2, 4, 3, 4)
IDLE, SET, POWER, THERMAL = 0x1, 0x2, 0x4, 0x20


def problem_of(subject="lstm-builtin", mode="train", shape=SHAPE, **options):
    cell, _, layer = subject.rpartition("-")
    return prepare(SUBJECTS[subject], Case(cell, layer, mode, *shape, **options))


# --- what NVML says ---


def test_the_facts_of_the_gpu():
    assert Gpu(NAME, FakeNvml()).facts() == {"driver": "580.65.06", "driver_cuda": "12.9"}


def test_the_clocks_and_what_holds_them_down():
    state = Gpu(NAME, FakeNvml(IDLE | SET | POWER | THERMAL)).clock_state()
    assert state == ClockState(1.98e9, 2.619e9, ("power cap", "software thermal slowdown"))
    assert Gpu(NAME, FakeNvml(IDLE | SET)).clock_state().held_down_by == ()


def test_the_bits_are_those_of_nvml():
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py, the extra `gpu`, is not installed")
    bits = {
        getattr(pynvml, f"nvmlClocksThrottleReason{name}")
        for name in (
            *("SwPowerCap", "HwSlowdown", "SyncBoost"),
            *("SwThermalSlowdown", "HwThermalSlowdown", "HwPowerBrakeSlowdown"),
        )
    }
    assert set(gpu_clocks._HOLDING_DOWN) == bits
    assert (pynvml.NVML_CLOCK_SM, pynvml.NVML_CLOCK_MEM) == (FakeNvml.NVML_CLOCK_SM, FakeNvml.NVML_CLOCK_MEM)
    assert all(hasattr(pynvml, name) for name in vars(FakeNvml) if name.startswith("nvml"))


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [((0, 0), False), ((IDLE, SET), False), ((POWER, 0), True), ((0, THERMAL), True)],
)
def test_a_measurement_is_watched(reasons, expected):
    watched = Gpu(NAME, FakeNvml(*reasons))
    assert watched.watch("sweep case", lambda: "figures") == ("figures", expected)
    (noted,) = watched.clocks
    assert noted["case"] == "sweep case"
    assert bool(noted["before"]["held_down_by"]) == bool(reasons[0] & POWER)
    assert bool(noted["after"]["held_down_by"]) == bool(reasons[1] & THERMAL)


def test_what_is_unknown_is_empty():
    fast, slow = ClockState(1.0, 1.0, ()), ClockState(1.0, 1.0, ("power cap",))
    assert throttled((fast, None)) is None and throttled((None, None)) is None
    assert throttled((None, slow)) is True and throttled((fast, fast)) is False
    for unknown in (Gpu(None, FakeNvml(POWER)), Gpu(NAME, None), Gpu("another GPU", FakeNvml(POWER))):
        assert unknown.facts() == {} and unknown.clock_state() is None
        assert unknown.watch("case", lambda: 1) == (1, None) and unknown.clocks == []


def test_a_driver_that_does_not_tell_is_no_error(monkeypatch):
    def refuse(self, handle):
        raise FakeNvml.NVMLError("not supported")

    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetCurrentClocksEventReasons", refuse)
    assert Gpu(NAME, FakeNvml()).clock_state() is None
    assert Gpu(NAME, FakeNvml()).facts()["driver"] == "580.65.06"


def test_the_older_name_of_the_same_question(monkeypatch):
    older = FakeNvml.nvmlDeviceGetCurrentClocksEventReasons
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetCurrentClocksEventReasons")
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetCurrentClocksThrottleReasons", older, raising=False)
    assert Gpu(NAME, FakeNvml(POWER)).clock_state().held_down_by == ("power cap",)


@pytest.mark.parametrize(
    ("visible", "known"), [("0", True), ("0,1", True), ("GPU-1", True), ("3", False), ("MIG-7", False)]
)
def test_the_gpu_is_the_first_that_tensorflow_may_use(monkeypatch, visible, known):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert bool(Gpu(NAME, FakeNvml()).facts()) is known


def test_nvml_may_be_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert installed_nvml() is None


# --- what a run says of it ---


class Benchmark:
    """Stands for pytest-benchmark's fixture."""

    enabled = True

    def __init__(self):
        self.extra_info = {}

    def pedantic(self, target, setup, teardown, rounds):
        for _ in range(rounds):
            setup()
            target()
            teardown()


@pytest.fixture
def smoke(monkeypatch):
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (Grid(("lstm-builtin",), (SHAPE,), modes=("infer",)),)))
    case = Case("lstm", "builtin", "infer", *SHAPE)
    return Comparison("tiny", case, case)


def test_a_throttled_case_says_so_and_the_clocks_stand_in_the_environment(tmp_path, monkeypatch, smoke):
    run = Run(tmp_path / "run", "cpu", SUBJECTS)
    assert read_environment(tmp_path / "run")["gpu"] == {}
    run._gpu = Gpu(NAME, FakeNvml(IDLE, POWER))
    record = run.measure(smoke, Benchmark(), Budget(0.01, 1))
    assert record["status"] == "ok" and record["throttled"] is True
    (noted,) = read_environment(tmp_path / "run")["clocks"]
    assert noted["case"] == f"tiny {smoke.case.id}"
    assert noted["after"] == {"sm_hz": 1.98e9, "memory_hz": 2.619e9, "held_down_by": ["power cap"]}


def test_without_a_gpu_nothing_is_said(tmp_path, smoke):
    record = Run(tmp_path / "run", "cpu", SUBJECTS).measure(smoke, Benchmark(), Budget(0.01, 1))
    assert record["status"] == "ok" and record["throttled"] is None
    assert "clocks" not in read_environment(tmp_path / "run")


def test_the_facts_name_both_precisions(monkeypatch):
    monkeypatch.setattr(devices, "gpu_name", lambda: NAME)
    monkeypatch.setattr(devices, "tf32", lambda: True)
    facts = json.loads(json.dumps(devices.gpu_facts()))
    assert facts["name"] == NAME and {"cuda", "cudnn"} <= set(facts)
    assert facts["tf32"] == {"proof": False, "timing": True}


# --- what is warm before anything is timed ---


def test_on_a_gpu_cudnn_and_xla_are_loaded_before_the_first_case(monkeypatch):
    """Played by this CPU, where what is asked of a GPU that is not there is computed."""
    made, compiled = [], []
    layer, function = keras.layers.LSTM, tf.function
    monkeypatch.setattr(keras.layers, "LSTM", lambda units: (made.append(units), layer(units))[1])

    def watched(*given, **options):
        compiled.append(options.get("jit_compile", False))
        return function(*given, **options)

    monkeypatch.setattr(tf, "function", watched)
    devices.warm_up("cpu")
    assert not made and True not in compiled
    devices.warm_up("gpu")
    assert made and True in compiled


def test_the_matmul_peak_is_of_numbers_that_differ(monkeypatch):
    seen = []
    monkeypatch.setattr(devices, "_PEAK_SIZES", {"cpu": 16})
    monkeypatch.setattr(devices, "_PEAK_S", 0.0)
    monkeypatch.setattr(tf, "cast", lambda tensor, dtype: (seen.append(tensor.numpy()), tensor)[1])
    assert devices.matmul_peak.__wrapped__("float32", "cpu") > 0
    assert len(np.unique(seen[0])) > 200


def test_the_cpu_that_cannot_be_measured_any_more_is_a_sentence(monkeypatch):
    def refuse(*_):
        raise RuntimeError("Visible devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_visible_devices", refuse)
    with pytest.raises(devices.NoDevice, match="CUDA_VISIBLE_DEVICES=-1 hides it"):
        devices.choose_device("cpu")


@pytest.mark.parametrize(("gpus", "native_runs"), [([], True), (["GPU:0"], False)])
def test_the_native_engine_asks_which_gpus_are_used(monkeypatch, gpus, native_runs):
    """One that is there and hidden is none."""
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["GPU:0"])
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: gpus)
    monkeypatch.setattr(native, "operations", lambda header, source, bits, meanwhile: ("forward", "backward"))
    monkeypatch.setattr(native, "header_of", lambda recurrence: "header")
    monkeypatch.setattr(native, "checked", lambda header, check: None)
    cell = SLSTMCell(4)
    cell.build((None, 3))
    recurrence = Equation(cell).recurrence
    if native_runs:
        assert len(native.programs(recurrence)) == 2
    else:
        with pytest.raises(native.Unavailable, match="TensorFlow uses a GPU"):
            native.programs(recurrence)


# --- TF32: off in the proof, as configured in the timing ---


@pytest.mark.parametrize(
    ("capability", "override", "expected"),
    [((9, 0), None, True), ((8, 0), "1", True), ((7, 5), None, False), ((9, 0), "0", False)],
)
def test_whether_products_are_rounded_to_tf32(monkeypatch, capability, override, expected):
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: ["GPU:0"])
    details = {"compute_capability": capability}
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device: details)
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if override:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", override)
    assert devices.tf32() is expected
    with devices.full_precision():
        assert devices.tf32() is False
    assert devices.tf32() is expected
    case = problem_of(mode="infer").case
    assert devices.rounds_to_tf32(case) is False  # on the CPU


def _rounded_on_this_cpu(monkeypatch, factor):
    """Plays a GPU that multiplies each answer by `factor` where TF32 is not switched off."""
    compile_program = programs.compile_program
    compiled = []

    def rounding(layer, case, data):
        program = compile_program(layer, case, data)
        full = not tf.config.experimental.tensor_float_32_execution_enabled()
        compiled.append("full" if full else "tf32")

        def answer():
            found = program.answer()
            by = 1.0 if full else factor
            gradients = {name: by * gradient for name, gradient in found.gradients.items()}
            return Answer([by * output for output in found.outputs], gradients)

        return programs.Program(**{**vars(program), "answer": answer})

    monkeypatch.setattr(programs, "compile_program", rounding)
    monkeypatch.setattr(devices, "rounds_to_tf32", lambda case: True)
    return compiled


def test_what_is_proven_is_in_full_precision_and_what_is_timed_as_configured(monkeypatch):
    compiled = _rounded_on_this_cpu(monkeypatch, 1 + TF32_EPSILON)
    problem = problem_of()
    program, answer, proof = prove(problem)
    assert compiled == ["full", "tf32"]
    assert proof.max_abs_error <= proof.tolerance < 1e-4  # float32's, not TF32's
    with pytest.raises(WrongAnswer):  # which the rounded answer would not have passed
        verify(problem, answer)
    assert np.array_equal(program.answer().outputs[0], answer.outputs[0])


def test_what_is_timed_may_not_differ_by_more_than_tf32_does(monkeypatch):
    _rounded_on_this_cpu(monkeypatch, 1.5)
    with pytest.raises(WrongAnswer, match="in TF32, "):
        prove(problem_of())


def test_without_tf32_one_program_is_proven_and_timed(monkeypatch):
    compiled = _rounded_on_this_cpu(monkeypatch, 1.0)
    monkeypatch.setattr(devices, "rounds_to_tf32", lambda case: False)
    prove(problem_of(mode="infer"))
    assert compiled == ["full"]


# --- --require-gpu ---

BENCHMARK = Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py"


@pytest.fixture
def tiny(pytester, monkeypatch, smoke):
    """run(*options): pytest on the sweep `tiny` and a test marked `gpu`, where TensorFlow sees no GPU."""
    monkeypatch.setattr(run_charts, "draw", lambda folder, records: [])
    monkeypatch.setattr(html, "write_report", lambda folders, target: target)
    monkeypatch.setattr(devices, "gpu_name", lambda: None)
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")
    pytester.makepyfile(
        test_marked="import pytest\n@pytest.mark.gpu\ndef test_on_gpu(): pass\ndef test_on_cpu(): pass\n"
    )

    def run(*options):
        return pytester.runpytest_inprocess(
            *("--sweep=tiny", "--results=results", "--benchmark-max-time=0.01", *options)
        )

    return run


def test_a_test_for_a_gpu_is_skipped_without_one_and_says_why(tiny):
    result = tiny("-m", "gpu", "-rs", "--benchmark-skip")
    result.assert_outcomes(skipped=1, deselected=2)
    result.stdout.fnmatch_lines(["SKIPPED * needs a GPU: TensorFlow sees no GPU on this machine"])
    assert result.ret == 0


def test_a_test_for_a_gpu_fails_without_one_where_it_is_required(tiny):
    result = tiny("-m", "gpu", "--benchmark-skip", "--require-gpu")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--require-gpu: TensorFlow sees no GPU on this machine*"])


def test_a_test_for_a_gpu_runs_where_there_is_one(tiny, monkeypatch):
    monkeypatch.setattr(devices, "gpu_name", lambda: NAME)
    tiny("-m", "gpu", "--benchmark-skip", "--require-gpu").assert_outcomes(passed=1, deselected=2)
    tiny("-m", "gpu", "--benchmark-skip", "--device=cpu").assert_outcomes(skipped=1, deselected=2)


def test_no_gpu_is_a_failure_where_one_is_required(tiny, pytester):
    result = tiny("--benchmark-only", "--require-gpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--require-gpu: TensorFlow sees no GPU on this machine"])
    assert not (pytester.path / "results").exists()


def test_requiring_a_gpu_contradicts_the_cpu(tiny):
    result = tiny("--require-gpu", "--device=cpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--require-gpu: contradicts --device=cpu"])


@pytest.mark.parametrize(("kernel", "code"), [("while", 1), ("cudnn", 0)])
def test_a_run_without_cudnn_fails_where_a_gpu_is_required(tiny, monkeypatch, kernel, code):
    """A run on this CPU under a GPU's name, whose graphs are said to hold the kernel."""
    monkeypatch.setattr("bench.session.gpu.missing", lambda config: None)
    monkeypatch.setattr("bench.session.gpu.device_of", lambda config: "cpu")
    monkeypatch.setattr(kernels, "kernel_of", lambda nodes: kernel)
    result = tiny("--benchmark-only", "--require-gpu", "-k", "test_cost")
    result.assert_outcomes(passed=1, deselected=2)
    assert result.ret == code
    said = "--require-gpu: no built-in layer ran on cuDNN" in result.stdout.str()
    assert said is bool(code)
    assert tiny("--benchmark-only", "-k", "test_cost").ret == 0


# --- on a GPU ---

ON_GPU = (32, 20, 16, 32)


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("subject", ["lstm-builtin", "gru-builtin", "lstm-rnn", "slstm-rnn", "slstm-fused"])
def test_the_gpu_answers_as_the_reference_on_the_cpu(subject, mode):
    program, _, proof = prove(problem_of(subject, mode, ON_GPU, device="gpu"))
    assert proof.max_abs_error <= proof.tolerance
    assert program.kernel == ("cudnn" if subject.endswith("builtin") else "while")


@pytest.mark.gpu
def test_the_gpu_answers_as_the_reference_under_xla():
    program, _, _ = prove(problem_of("lstm-builtin", "train", ON_GPU, jit_compile=True, device="gpu"))
    assert program.xla and program.kernel != "cudnn"


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize(
    ("name", "kernel"), [("lstm-torch", "cudnn"), ("gru-torch", "cudnn"), ("slstm-keras_jax", "while")]
)
def test_a_peer_answers_on_the_gpu_as_the_reference_on_the_cpu(name, kernel, mode):
    subject = SUBJECTS[name]
    if any(find_spec(package) is None for package in subject.requires):
        pytest.skip(f"{subject.requires} are not installed")
    peers = Peers()
    try:
        problem = problem_of(name, mode, ON_GPU, device="gpu")
        program, _, proof = prove(problem, lambda problem, _: peers.program(subject.peer, problem))
    finally:
        peers.close()
    assert proof.max_abs_error <= proof.tolerance
    assert program.kernel == kernel


@pytest.mark.gpu
def test_the_clock_stops_when_the_device_has_finished():
    """A product of 8192 x 8192 takes milliseconds; asking for it takes microseconds."""
    with tf.device("/gpu:0"):
        matrix = tf.random.normal((8192, 8192))
        product = tf.function(lambda: matrix @ matrix)
        product()
        wait = devices.wait_for_device()
        wait()
        asked = _seconds(lambda: product())
        wait()
        awaited = _seconds(lambda: (product(), wait()))
    assert awaited > 1e-3 and awaited > 3 * asked
    assert 0 < devices.sync_seconds() < 1e-2


def _seconds(run):
    from bench.timing.blocks import time_call

    return min(time_call(run) for _ in range(3))


@pytest.mark.gpu
def test_the_device_counts_its_memory():
    tf.config.experimental.reset_memory_stats("GPU:0")
    before = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    with tf.device("/gpu:0"):
        held = tf.zeros((64, 1024, 1024))
    assert tf.config.experimental.get_memory_info("GPU:0")["peak"] - before >= held.numpy().nbytes


@pytest.mark.gpu
def test_the_facts_of_this_gpu():
    facts = devices.gpu_facts()
    assert facts["name"] and facts["cuda"] and facts["cudnn"] and facts["tf32"]["proof"] is False
    if installed_nvml():
        found = Gpu(facts["name"], installed_nvml())
        assert found.facts()["driver"] and found.clock_state().sm_hz > 0
