"""Which sessions see a GPU: a machine with one, played before TensorFlow is asked."""

import os
import shutil
from pathlib import Path

import pytest

import bench
from bench.backend import devices as backend
from bench.cases import devices
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.report import html
from bench.report.charts import run_charts

pytest_plugins = ["pytester"]

BENCHMARK = Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py"
SHAPE = (2, 4, 3, 4)
NAME = "NVIDIA H100"


@pytest.fixture
def session(pytester, monkeypatch, tmp_path):
    """session(*options): a session with a benchmark and two tests, one for a GPU, on a machine that shows a
    GPU; it prints what it sees of CUDA_VISIBLE_DEVICES and of the growth of memory."""
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr(devices, "_GPU_FILES", (str(tmp_path / "nvidiactl"),))
    monkeypatch.setattr(run_charts, "draw", lambda folder, records: [])
    monkeypatch.setattr(html, "write_report", lambda folders, target: target)
    monkeypatch.setattr(backend, "gpu_name", lambda: None)
    for name in (*devices.NO_GPU, *devices.GROWTH):
        monkeypatch.delenv(name, raising=False)
    grid = Grid(("lstm-builtin", "slstm-rnn"), (SHAPE,), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid,)))
    pytester.makeconftest(
        """
        import os
        pytest_plugins = ["bench.plugin"]
        def pytest_report_header():
            seen = [os.environ.get(n) for n in ("CUDA_VISIBLE_DEVICES", "TF_FORCE_GPU_ALLOW_GROWTH")]
            return f"seen: {seen}"
        """
    )
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")
    pytester.makepyfile(
        test_marked="import pytest\n@pytest.mark.gpu\ndef test_on_gpu(): pass\ndef test_on_cpu(): pass\n"
    )

    def run(*options):
        before = dict(os.environ)
        done = pytester.runpytest_inprocess(
            *("--sweep=tiny", "--results=results", "--benchmark-max-time=0.01", *options)
        )
        after = {name: os.environ.get(name) for name in (*devices.NO_GPU, *devices.GROWTH)}
        assert after == {name: before.get(name) for name in after}  # as it was
        return done

    return run


HIDDEN, SHOWN = "seen: ['-1', None]", "seen: [None, 'true']"


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        (["--benchmark-skip"], HIDDEN),
        (["--benchmark-only", "--device=cpu"], HIDDEN),
        (["-m", "gpu", "--device=cpu"], HIDDEN),
        (["-m", "not gpu", "--benchmark-skip"], HIDDEN),
        ([], HIDDEN),
        (["--benchmark-only"], SHOWN),
        (["-m", "gpu", "--benchmark-skip"], SHOWN),
        (["--device=gpu"], SHOWN),
        (["--require-gpu"], SHOWN),
    ],
    ids=str,
)
def test_ordinary_tests_and_the_cpu_see_no_gpu(session, options, seen):
    assert seen in session("--collect-only", *options).stdout.str()


def test_in_a_mixed_session_it_is_said_that_the_gpu_is_hidden(session):
    said = "ordinary tests see no GPU; --benchmark-only measures on it"
    assert said in session("--collect-only").stdout.str()
    assert said not in session("--collect-only", "--benchmark-only").stdout.str()


def test_auto_says_that_tensorflow_sees_no_gpu_where_there_is_one(session):
    said = session("--benchmark-only", "--collect-only").stdout.str()
    assert "--device=auto: measures on the CPU: this machine shows a GPU" in said and "[gpu]" in said


@pytest.mark.parametrize("options", [["--device=gpu"], ["--require-gpu"]])
def test_a_gpu_that_was_asked_for_and_that_tensorflow_does_not_see_is_told_with_the_extra(session, options):
    result = session("--benchmark-only", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{options[0].replace('=', ' ')}: this machine shows a GPU *pip install*"])


def test_pytorchs_cudnn_is_refused_on_a_gpu(session, monkeypatch):
    monkeypatch.setattr("bench.session.start.clash_of_cudnn", lambda: "torch has brought a cuDNN")
    monkeypatch.setattr(backend, "gpu_name", lambda: NAME)
    result = session("--benchmark-only", "--device=gpu")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--device=gpu: torch has brought a cuDNN"])


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["-k", "lstm-builtin"], 1),
        (["-k", "slstm"], 0),
        (["--option=unroll", "-k", "lstm-builtin"], 0),
    ],
    ids=str,
)
def test_cudnn_is_required_where_a_chosen_row_could_run_on_it(session, monkeypatch, options, code):
    """A run on this CPU under a GPU's name."""
    monkeypatch.setattr("bench.session.gpu.missing", lambda config: None)
    monkeypatch.setattr("bench.session.gpu.device_of", lambda config: "cpu")
    result = session("--benchmark-only", "--require-gpu", *options)
    assert result.ret == code
    assert ("no built-in layer ran on cuDNN" in result.stdout.str()) is bool(code)


def test_no_test_starts_tensorflow_by_being_collected(started_tensorflow):
    """Nothing can be chosen of a GPU afterwards. It says most where all tests are collected."""
    assert started_tensorflow == []
