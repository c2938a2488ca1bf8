"""The plugin, tried by running pytest on the benchmarks with tiny sweeps."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import bench
from bench.cases.comparisons import comparisons
from bench.cases.subjects import SUBJECTS, user_subject
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.records.csv_file import read_records
from bench.records.files import write_whole
from bench.records.run_folder import read_environment
from bench.report.charts.run_charts import draw
from bench.report.html import write_report
from bench.session import tell
from bench.timing import blocks
from cells import LSTMCell
from cells.reference import REFERENCES

pytest_plugins = ["pytester"]

BENCHMARK = Path(bench.__file__).parent / "benchmarks" / "benchmark_cost.py"
ROOT = BENCHMARK.parents[2]
SHAPE = (2, 4, 3, 4)


@pytest.fixture
def tiny(pytester, monkeypatch):
    """run(*options): pytest --benchmark-only on a sweep `tiny` of two subjects, in an empty folder."""
    grid = Grid(("lstm-builtin", "slstm-rnn"), (SHAPE,))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("Does it run?", (grid,)))
    monkeypatch.setattr("bench.report.charts.run_charts.draw", lambda folder, records: [])
    monkeypatch.setattr("bench.report.html.write_report", lambda folders, target: target)
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")

    def run(*options, sweep="tiny", **keywords):
        sweeps = ["--sweep", sweep] if sweep else []
        return pytester.runpytest_inprocess(
            "--benchmark-only",
            "--benchmark-max-time=0.02",
            "--results=results",
            *sweeps,
            *options,
            **keywords,
        )

    return run


def only_run(pytester) -> Path:
    (folder,) = (pytester.path / "results").iterdir()
    return folder


def test_a_run_verifies_times_and_records(tiny, pytester):
    result = tiny("--benchmark-json=out.json")
    assert result.ret == 0
    result.assert_outcomes(passed=4)
    folder = only_run(pytester)
    records = read_records(folder)
    assert [record["case"] for record in records] == [
        "infer-lstm-builtin-b2-t4-f3-u4",
        "train-lstm-builtin-b2-t4-f3-u4",
        "infer-slstm-rnn-b2-t4-f3-u4",
        "train-slstm-rnn-b2-t4-f3-u4",
    ]
    for record in records:
        assert record["status"] == "ok" and record["proof"] == "exact" and record["run_id"] == folder.name
        assert 0 <= record["max_abs_error"] <= record["tolerance"]
        assert 0 < record["ratio_low"] <= record["ratio"] <= record["ratio_high"]
        assert record["median_s"] >= record["min_s"] > 0
        assert record["rounds"] >= 5 and record["retraces"] == 0
        assert record["trace_s"] > 0 and record["compile_s"] > 0
        assert record["kernel"] == "while" and record["graph_nodes"] > 10
        assert record["timesteps_per_s"] == pytest.approx(8 / record["median_s"])
        assert record["baseline"] == f"{record['mode']}-lstm-builtin-b2-t4-f3-u4"
    assert read_environment(folder)["machine"]["cores"] == os.cpu_count()
    result.stdout.fnmatch_lines(
        [
            "*slstm in RNN, train: * the time of keras LSTM*",
            "4 cases: 4 ok, 0 skipped, 0 failed*",
            f"records: *{folder.name}/records.csv",
        ]
    )
    assert _ratios_of_json(pytester) == [record["ratio"] for record in records]
    _check_a_line_a_case(result.outlines)
    assert not (pytester.path / ".benchmarks").exists()


def _ratios_of_json(pytester) -> list[float]:
    written = json.loads((pytester.path / "out.json").read_text())
    return [entry["extra_info"]["ratio"] for entry in written["benchmarks"]]


def _check_a_line_a_case(lines: list[str]) -> None:
    """Each case has a line, which says what came of it and what is left; what is timed again has another."""
    said = [line for line in lines if line.startswith("[") and not line.startswith("[again]")]
    assert len(said) == 4
    assert re.fullmatch(
        rf"\[1/4 · \d+ s left\] infer keras LSTM b2 t4 f3 u4: {_RATIO.format('a second keras LSTM')}", said[0]
    )
    assert re.match(rf"\[4/4\] train slstm in RNN b2 t4 f3 u4: {_RATIO.format('keras LSTM')}", said[3])


# a ratio, or of one that is wider than what it finds the ends
_RATIO = r"(?:[\d.]+x {0} \[[\d.]+, [\d.]+\]|between [\d.]+ and [\d.]+ times {0})(?: \(busy machine\))?"


def test_a_run_whose_disk_is_full_ends_in_a_line_and_keeps_its_rows(tiny, pytester, monkeypatch):
    written = []

    def write(path, content):
        if len(written) == 4:  # the header, a case begun and ended, another begun
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written.append(path)
        write_whole(path, content)

    monkeypatch.setattr("bench.records.csv_file.write_whole", write)
    result = tiny()
    folder = only_run(pytester)
    assert result.ret == 2
    result.stdout.fnmatch_lines(
        [f"*records cannot be written: [[]Errno 28] No space left on device: '*{folder.name}/records.csv'*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    assert [(record["status"], record["reason"]) for record in read_records(folder)] == [
        ("ok", None),
        ("failed", "killed"),
    ]
    assert sorted(file.name for file in folder.iterdir()) == ["environment.json", "records.csv"]


def test_a_run_ends_in_charts(tiny, pytester, monkeypatch):
    monkeypatch.setattr("bench.report.charts.run_charts.draw", draw)
    monkeypatch.setattr("bench.report.html.write_report", write_report)
    result = pytester.runpytest_inprocess(
        "--benchmark-only", "--sweep=smoke", "-k", "infer-lstm", "--results=r"
    )
    (folder,) = (pytester.path / "r").iterdir()
    drawn = list((folder / "charts").iterdir())
    assert {file.suffix for file in drawn} == {".png"}
    result.stdout.fnmatch_lines(
        [f"charts: *{len(drawn)} files in *{folder.name}/charts", f"report: *{folder.name}/report.html"]
    )
    assert "infer-lstm-builtin-b4-t10-f8-u16" in (folder / "report.html").read_text()


def test_two_runs_make_two_folders(tiny, pytester):
    assert tiny("-k", "infer-lstm").ret == 0
    time.sleep(1.01)  # in one process the run's name differs by the second
    assert tiny("-k", "infer-lstm").ret == 0
    assert len(list((pytester.path / "results").iterdir())) == 2


@pytest.mark.parametrize(
    "options, message",
    [
        (["--sweep=nonsense"], "invalid choice: 'nonsense' (choose from *default*smoke*"),
        (["--device=tpu"], "invalid choice: 'tpu' (choose from *auto*cpu*gpu*"),
        (["--device=gpu"], "--device gpu: TensorFlow sees no GPU on this machine; there is cpu"),
        (
            ["--case=infer-slstm-rnn-b2-t4-f3-u5"],
            "no such case; the nearest are infer-slstm-rnn-b2-t4-f3-u4*",
        ),
        (["--results=file/results"], "--results file/results: cannot be written: *"),
        (["--benchmark-max-time=nonsense"], "*nonsense*"),
    ],
)
def test_a_wrong_option_is_one_line_and_writes_nothing(tiny, pytester, options, message):
    import tensorflow as tf

    if options == ["--device=gpu"] and tf.config.list_physical_devices("GPU"):
        pytest.skip("there is a GPU")
    (pytester.path / "file").write_text("not a folder")
    result = tiny(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{message}"])
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(
    ("options", "sweep", "chosen"),
    [
        (["-k", "train-slstm"], "tiny", "tiny-train-slstm-rnn-b2-t4-f3-u4"),
        (["--case=infer-slstm-rnn-b2-t4-f3-u4"], "tiny", "tiny-infer-slstm-rnn-b2-t4-f3-u4"),
        (["--case=infer-slstm-rnn-b4-t10-f8-u16"], None, "smoke-infer-slstm-rnn-b4-t10-f8-u16"),
    ],
)
def test_k_and_case_select_by_id(tiny, options, sweep, chosen):
    lines = tiny(*options, "--collect-only", "-q", sweep=sweep).outlines
    assert [line.partition("[")[2].rstrip("]") for line in lines if "::" in line] == [chosen]


def test_seconds_are_those_that_pytest_benchmark_is_given(tiny, pytester):
    def said(*options):
        return pytester.runpytest_inprocess(
            "--benchmark-only", "--collect-only", "--sweep=tiny", *options
        ).stdout.str()

    ordinary = said()
    longer = said("--seconds=100")
    last = [re.findall(r"^4 cases, about .*", text, re.MULTILINE) for text in (ordinary, longer)]
    assert last[0] != last[1] and last[1][0] in said("--benchmark-max-time=100")
    result = tiny("--seconds=1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--seconds and --benchmark-max-time say the same: leave one out"])
    for wrong in ("0", "-1", "nan", "x", ""):
        assert pytester.runpytest_inprocess(f"--seconds={wrong}").ret == pytest.ExitCode.USAGE_ERROR


def test_a_wrong_cell_fails_and_the_sweep_goes_on(tiny, pytester, monkeypatch):
    class Wrong(LSTMCell):
        def update(self, gates, states):
            h, new_states = super().update(gates, states)
            return h * 1.001, new_states

    monkeypatch.setitem(REFERENCES, Wrong, REFERENCES[LSTMCell])
    monkeypatch.setitem(SUBJECTS, "wrong-rnn", user_subject("wrong", Wrong, "lstm-builtin"))
    grid = Grid(("wrong-rnn", "lstm-rnn"), (SHAPE,), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid,)))
    result = tiny()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(failed=1, passed=1)
    wrong, right = read_records(only_run(pytester))
    assert (wrong["status"], wrong["reason"]) == ("failed", "wrong_answer")
    assert "the outputs: differ from the reference by 0.0" in wrong["message"]
    assert wrong["median_s"] is wrong["ratio"] is None
    assert right["status"] == "ok"
    result.stdout.fnmatch_lines(["failed: infer-wrong-rnn-b2-t4-f3-u4: wrong_answer: the outputs*"])


def test_what_raises_or_is_not_supported_is_a_row_too(tiny, pytester, monkeypatch):
    def out_of_memory(case):
        raise MemoryError("too big")

    def broken(case):
        raise RuntimeError("no such thing\nat all")

    for name, make in (("memory", out_of_memory), ("broken", broken)):
        subject = user_subject(name, LSTMCell, "lstm-builtin")
        monkeypatch.setitem(SUBJECTS, subject.name, type(subject)(**{**vars(subject), "make": make}))
    grid = Grid(("memory-rnn", "broken-rnn"), (SHAPE,), modes=("infer",))
    unsupported = Grid(("simple_rnn-builtin",), (SHAPE,), ({"implementation": 1},), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid, unsupported)))
    result = tiny()
    result.assert_outcomes(failed=2, skipped=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    outcomes = [(r["status"], r["reason"], r["message"]) for r in read_records(only_run(pytester))]
    assert outcomes == [
        ("failed", "out_of_memory", "MemoryError: too big"),
        ("failed", "error", "RuntimeError: no such thing at all"),
        ("skipped", "unsupported", "keras SimpleRNN has no option implementation"),
    ]


def test_skipped_alone_is_no_failure(tiny, monkeypatch):
    unsupported = Grid(("simple_rnn-builtin",), (SHAPE,), ({"implementation": 1},), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (unsupported,)))
    assert tiny().ret == 0


def test_disabled_benchmarks_are_proven_and_write_nothing(tiny, pytester):
    result = pytester.runpytest_inprocess("--benchmark-disable", "--sweep=tiny", "--results=results")
    result.assert_outcomes(passed=4)
    assert not (pytester.path / "results").exists()


class Dropping:
    def __del__(self):
        raise KeyboardInterrupt


@pytest.mark.parametrize("is_dropped", [False, True])  # by Python, as in a callback of the garbage collector
def test_ctrl_c_leaves_the_case_in_flight_as_killed(tiny, pytester, monkeypatch, is_dropped):
    def interrupted(case):
        if not is_dropped:
            raise KeyboardInterrupt
        Dropping()
        time.sleep(5)

    subject = user_subject("stopped", LSTMCell, "lstm-builtin")
    monkeypatch.setitem(SUBJECTS, subject.name, type(subject)(**{**vars(subject), "make": interrupted}))
    grids = (Grid(("lstm-rnn",), (SHAPE,), modes=("infer",)), Grid(("stopped-rnn", "slstm-rnn"), (SHAPE,)))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", grids))
    result = tiny(no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    done, stopped = read_records(only_run(pytester))
    assert done["status"] == "ok"
    assert (stopped["status"], stopped["reason"]) == ("failed", "killed")
    result.stdout.fnmatch_lines(["failed: infer-stopped-rnn-b2-t4-f3-u4: killed: *"])


# hooks of another plugin that raise, as the source of a conftest
RAISING = {
    "terminal_summary": "def pytest_terminal_summary(): raise RuntimeError('another')",
    "sessionfinish": "def pytest_sessionfinish(): raise RuntimeError('another')",
    "logreport": "def pytest_runtest_logreport(report): assert report.when != 'call'",
    "logfinish": "def pytest_runtest_logfinish(): raise RuntimeError('another')",
}


@pytest.mark.parametrize("hook", RAISING)
def test_another_plugins_error_takes_no_summary_away(tiny, pytester, hook):
    pytester.makeconftest(f'pytest_plugins = ["bench.plugin"]\n{RAISING[hook]}')
    result = tiny("-k", "infer-lstm")
    _is_told_once(result, pytester)


def test_a_histogram_without_pygal_takes_no_summary_away(tiny, pytester, monkeypatch):
    for name in ("pygal", "pytest_benchmark.histogram"):
        monkeypatch.setitem(sys.modules, name, None)
    _is_told_once(tiny("-k", "infer-lstm", "--benchmark-histogram"), pytester)


def test_a_failed_comparison_of_pytest_benchmark_takes_no_summary_away(tiny, pytester):
    assert tiny("-k", "infer-lstm", "--benchmark-save=one", "--results=before").ret == 0
    (saved,) = (pytester.path / ".benchmarks").glob("*/*.json")  # what is saved stays
    content = json.loads(saved.read_text())
    content["benchmarks"][0]["stats"]["min"] = 1e-9
    saved.write_text(json.dumps(content))
    compare = ("--benchmark-compare", "--benchmark-compare-fail=min:1%")
    result = tiny("-k", "infer-lstm", *compare)
    assert result.ret != 0
    _is_told_once(result, pytester)


def _is_told_once(result, pytester):
    folder = only_run(pytester)
    for line in ("1 case: 1 ok, *", f"records: *{folder.name}/records.csv", "charts: *", "report: *"):
        assert len([each for each in result.outlines if fnmatch(each, line)]) == 1, line


def test_what_draws_may_raise_anything(tiny, monkeypatch):
    def fails(folder, records):
        raise ValueError("no\nfont")

    def stopped(folders, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.report.charts.run_charts.draw", fails)
    monkeypatch.setattr("bench.report.html.write_report", stopped)
    result = tiny("-k", "infer-lstm")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["charts:  cannot be written: ValueError: no font", "report:  interrupted"])


def test_without_pytest_benchmark_it_ends_in_a_line(pytester, monkeypatch):
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    pytester.makeconftest('pytest_plugins = ["bench.plugin"]')
    result = pytester.runpytest_inprocess("-p", "no:benchmark", "--collect-only")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "no:benchmark" in result.stderr.str()
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_a_clock_that_stands_still_is_the_reason(tiny, pytester, monkeypatch):
    monkeypatch.setattr(blocks.time_call, "__defaults__", (lambda: 1.0,))
    tiny("-k", "infer-lstm")
    (record,) = read_records(only_run(pytester))
    assert (record["status"], record["reason"]) == ("failed", "error")
    assert record["message"] == "BrokenClock: the clock does not go: a call took 0.0 s by it"


def test_kill_9_keeps_every_finished_row(tmp_path):
    command = [sys.executable, "-m", "bench", "run", "--sweep=smoke", "--benchmark-max-time=0.05"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None and _rows(tmp_path) < 3:
            time.sleep(0.02)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder,) = (tmp_path / "results").iterdir()
    *finished, last = read_records(folder)
    assert len(finished) >= 1 and all(record["status"] == "ok" for record in finished)
    assert (last["status"], last["reason"]) == ("failed", "killed")


def _rows(folder: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("results/*/records.csv"))


@cache
def _collected(*options) -> str:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_benchmark_only_leaves_the_tests_out():
    collected = _collected("--benchmark-only")
    assert (
        "bench/benchmarks/benchmark_cost.py::test_cost[default-infer-slstm-rnn-b32-t50-f64-u128]" in collected
    )
    assert "tests/" not in collected


def test_benchmark_skip_leaves_the_benchmarks_out():
    collected = _collected("--benchmark-skip", "bench/benchmarks", "bench/tests/timing")
    assert "bench/tests/timing/test_blocks.py::" in collected
    assert "bench/benchmarks/" not in collected


def _ids(*options) -> set[str]:
    """What `--collect-only` lists, between the brackets."""
    return {line.partition("[")[2].rstrip("]") for line in _collected(*options).splitlines() if "[" in line}


@pytest.mark.parametrize("option", ["--device=gpu", "--require-gpu"])
def test_a_gpus_cases_are_listed_where_there_is_none(option):
    of_gpu, of_cpu = (_ids("--benchmark-only", "--sweep=options", way) for way in (option, "--device=cpu"))
    assert {row.id for row in comparisons(["options"], device="gpu")} == {
        name.removeprefix("options-") for name in of_gpu
    }
    assert {name for name in of_gpu if name.endswith("-cudnn_auto")} and len(of_gpu - of_cpu) == 132
    assert len(of_cpu - of_gpu) == 110


def test_auto_chooses_for_the_cpu_without_tensorflow_where_no_gpu_can_be(pytester, monkeypatch):
    """In a process of its own, whose last hook looks at what has been imported."""
    pytester.makeconftest(
        """
        import sys
        pytest_plugins = ["bench.plugin"]
        def pytest_unconfigure():
            print("imported:", sorted({"tensorflow", "keras", "pandas"} & set(sys.modules)))
        """
    )
    shutil.copy(BENCHMARK, pytester.path / "test_cost.py")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    options = ("--benchmark-only", "--collect-only", "-q", "--sweep=options")
    result = pytester.runpytest_subprocess(*options)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*options-infer-lstm-builtin-b32-t40-f64-u64-impl1?", "imported: ?]"])


@pytest.mark.parametrize("name", ["gpu_name", "none"])
def test_auto_asks_tensorflow_where_a_gpu_may_be(tiny, monkeypatch, name):
    from bench.backend import devices

    monkeypatch.setattr("bench.session.gpu.may_have_gpu", lambda: True)
    monkeypatch.setattr(devices, "gpu_name", lambda: name if name == "gpu_name" else None)
    grid = Grid(("lstm-builtin",), (SHAPE,), ({"use_cudnn": "auto"},), devices=("gpu",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (grid, replace(grid, options=({},), devices=("cpu",)))))
    result = tiny("--collect-only", "-q")
    assert ("cudnn_auto" in result.stdout.str()) is (name == "gpu_name")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_measuring_again_that_is_cut_short_leaves_the_rows_and_the_summary(
    tiny, pytester, monkeypatch, error
):
    from bench.runner.run import Run

    def fails(*_):
        raise error

    monkeypatch.setattr(Run, "measure_again", fails)
    result = tiny("--mode=infer", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert ("KeyboardInterrupt !!!" in result.stdout.str()) == isinstance(error, KeyboardInterrupt)
    assert [record["status"] for record in read_records(only_run(pytester))] == ["ok", "ok"]
    result.stdout.fnmatch_lines(["2 cases: 2 ok, 0 skipped, 0 failed*"])


def test_what_is_wide_is_measured_again_and_its_row_written_anew(tiny, pytester, monkeypatch):
    from bench.runner.proving import Prover
    from bench.runner.refining import Timed
    from bench.timing.blocks import Plan
    from bench.timing.intervals import Interval

    more = property(lambda timed: Plan(2, 2, len(timed.instances)) if len(timed.instances) < 9 else None)
    monkeypatch.setattr(Timed, "plan", more)
    monkeypatch.setattr(Interval, "converged", False)
    proven, pair = [], Prover.pair

    def counted(prover, comparison):
        proven.append(comparison.id)
        return pair(prover, comparison)

    monkeypatch.setattr(Prover, "pair", counted)
    result = tiny("--benchmark-max-time=0.5", "--budget=5", "--mode=infer", "--benchmark-json=out.json")
    assert result.ret == 0
    records = read_records(only_run(pytester))
    assert [record["case"] for record in records] == [
        "infer-lstm-builtin-b2-t4-f3-u4",
        "infer-slstm-rnn-b2-t4-f3-u4",
    ]
    again = [line for line in result.outlines if line.startswith("[again] ")]
    assert len(again) >= 1
    assert sorted(proven) == [record["case"] for record in records]  # what is wide is kept as it was proven
    assert _ratios_of_json(pytester) == [record["ratio"] for record in records]
    for record in records:
        assert record["converged"] is False
        assert record["instances"] == len(record["instance_ratios"].split()) >= 9
        assert record["instance_spread"] >= 0 and record["retraces"] == 0
        assert record["timesteps_per_s"] == pytest.approx(8 / record["median_s"])


def test_what_fails_or_is_skipped_has_a_line_too(tiny, monkeypatch):
    unsupported = Grid(("simple_rnn-builtin",), (SHAPE,), ({"implementation": 1},), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "tiny", Sweep("?", (unsupported,)))
    tiny().stdout.fnmatch_lines(
        ["[[]1/1[]] infer keras SimpleRNN b2 t4 f3 u4, implementation=1: skipped: unsupported"]
    )


@pytest.mark.parametrize("option", ["-q", "-v"])
def test_quiet_has_dots_and_verbose_pytests_own_lines(tiny, option):
    lines = tiny(option, "-k", "infer-lstm").outlines
    assert not [line for line in lines if line.startswith("[1/1")]
    assert [line for line in lines if line.startswith("." if option == "-q" else "test_cost.py::test_cost[")]


@pytest.mark.parametrize("options", [[], ["--benchmark-columns=min"]])
def test_the_table_of_pytest_benchmark_is_there_where_it_is_asked_for(tiny, options):
    said = tiny("-k", "infer-lstm", *options).stdout.str()
    assert ("Name (time in" in said) is bool(options)
    assert ("compare by these" in said) is bool(options)


@pytest.mark.parametrize("option", ["", "--benchmark-sort=mean", "--benchmark-group-by=name"])
def test_other_options_ask_for_the_table_too(pytester, option):
    config = pytester.parseconfig("-p", "bench.plugin", *([option] if option else []))
    assert tell.wants_table(config) is bool(option)


@pytest.mark.parametrize(
    ("options", "first_s"),
    [
        ([], None),
        (["--budget=4"], 3 * 60),  # the rest is for rows that are measured again
        (["--budget=4", "--workers=2"], 8 * 60),  # whose workers measure each once
        (["--budget=4", "--processes=4"], 45),
    ],
)
def test_a_budget_leaves_time_to_measure_again(pytester, monkeypatch, options, first_s):
    from bench.session import limits

    asked = []
    monkeypatch.setattr(limits, "affordable_max_time", lambda rows, seconds, *_: asked.append(seconds) or 0.5)
    config = pytester.parseconfig("-p", "bench.plugin", "--benchmark-max-time=1", *options)
    budget_s, max_time_s = limits.shares(config, [None] * 10)
    assert asked == ([] if first_s is None else [first_s])
    assert (budget_s, max_time_s) == ((60.0, 1.0) if first_s is None else (240.0, 0.5))
