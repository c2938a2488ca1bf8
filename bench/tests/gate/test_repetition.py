"""Runs over processes: how their rows are joined, and what `--processes` refuses."""

import pytest

from bench.cluster.admission import ClusterError
from bench.gate import repetition
from bench.gate.repetition import FOLDER, joined, repeat
from bench.gate.repository import CannotMeasure
from bench.records.csv_file import RecordWriter, read_records
from bench.records.run_folder import write_environment
from bench.session.processes import measure_rest, without
from bench.tests.sample_records import record


def process(ratio: float, **figures):
    """The rows of a process: one whose ratio is as said, with a narrow interval."""
    interval = {"ratio": ratio, "ratio_low": 0.999 * ratio, "ratio_high": 1.001 * ratio}
    return [record("slstm-rnn", figures={**interval, **figures})]


def test_the_interval_is_over_processes_and_not_over_what_is_within_them():
    (row,) = joined("all", [process(0.9), process(1.0), process(1.1)])
    assert row["ratio"] == pytest.approx((0.9 * 1.1) ** (1 / 3))
    assert row["ratio_low"] < 0.8 and row["ratio_high"] > 1.2 and row["converged"] is False
    assert (row["processes"], row["run_id"]) == (3, "all")
    assert row["instance_ratios"] == "0.9000 1.0000 1.1000" and row["instance_spread"] is None


def test_times_are_the_median_of_the_processes_and_rates_follow():
    runs = [process(1.0, median_s=time, min_s=time / 2) for time in (0.010, 0.020, 0.030)]
    (row,) = joined("all", runs)
    assert (row["median_s"], row["min_s"]) == (0.020, 0.005)
    first = runs[0][0]
    assert row["sequences_per_s"] == pytest.approx(first["sequences_per_s"] / 2)


def test_a_row_that_went_wrong_in_one_process_is_that_row():
    wrong = [record("slstm-rnn", status="failed", reason="wrong_answer")]
    (row,) = joined("all", [process(1.0), wrong, process(1.0)])
    assert (row["status"], row["reason"], row["ratio"]) == ("failed", "wrong_answer", None)


def test_a_case_that_too_few_processes_came_to_is_left_out():
    assert joined("all", [process(1.0), process(1.0), []]) == []


def test_each_process_is_started_with_the_options_and_its_run_kept(tmp_path, monkeypatch):
    started = []

    def run_process(command, place, environment, log):
        started.append(command)
        (results,) = (text.removeprefix("--results=") for text in command if text.startswith("--results="))
        folder = log.parent / "running" / f"run-{len(started)}"
        assert results == str(folder.parent)
        RecordWriter(folder).finish(process(1.0 + 0.01 * len(started))[0])
        write_environment(folder, {"runtime": {}})
        return 0

    monkeypatch.setattr("bench.gate.session.run_process", run_process)
    folder = repeat(["--sweep=smoke"], 3, tmp_path, lambda text: None)
    assert len(started) == 3 and all("--sweep=smoke" in command for command in started)
    assert ["--reversed" in command for command in started] == [False, True, False], "they take turns"
    (row,) = read_records(folder)
    assert row["processes"] == 3 and row["run_id"] == folder.name
    assert sorted(path.name for path in (folder / FOLDER).iterdir()) == ["run-1", "run-2", "run-3"]


def test_a_users_cell_has_its_name_in_the_summary(tmp_path, monkeypatch, capsys):
    def run_process(command, place, environment, log):
        assert "--budget=2" in command, "each has its share of the time"
        folder = log.parent / "running" / f"run-{len(list(log.parent.glob('run-*')))}"
        RecordWriter(folder).finish(record("Own-rnn"))
        write_environment(folder, {"runtime": {}})
        return 0

    monkeypatch.setattr("bench.gate.session.run_process", run_process)
    monkeypatch.chdir(tmp_path)
    options = ["--benchmark-only", "--processes=3", "--cell=own.py:Own", "--budget=6", "--device=cpu"]
    assert pytest.main(["-p", "bench.plugin", "-p", "no:cacheprovider", str(tmp_path), *options]) == 0
    assert "Own in RNN, infer: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "lost", "expected"),
    [
        ("ok", None, None),
        ("failed", None, pytest.ExitCode.TESTS_FAILED),
        ("ok", ClusterError("the scheduler is lost"), pytest.ExitCode.INTERRUPTED),
    ],
)
def test_the_rows_of_a_clusters_processes_are_joined_once_all_are_there(tmp_path, status, lost, expected):
    class Run:
        folders = (tmp_path / "run",)

        def measure_rest(self):
            for number in (1, 2, 3):
                writer = RecordWriter(tmp_path / "run" / FOLDER / f"{number:02d}")
                reason = "error" if status == "failed" else None
                writer.finish(record("slstm-rnn", status=status, reason=reason))
                yield number, {}
                if lost:
                    raise lost

    class Config:
        class pluginmanager:
            get_plugin = staticmethod(lambda name: None)

    assert measure_rest(Config, Run()) == expected
    assert (tmp_path / "run" / "records.csv").exists() == (lost is None)


def test_a_process_without_a_run_is_named(tmp_path, monkeypatch):
    def run_process(command, place, environment, log):
        log.write_text("ERROR: --sweep: no such sweep")
        return 4

    monkeypatch.setattr("bench.gate.session.run_process", run_process)
    with pytest.raises(CannotMeasure, match="process 1 of 3: --sweep: no such sweep"):
        repeat(["--sweep=none"], 3, tmp_path, lambda text: None)
    with pytest.raises(CannotMeasure, match="--processes=2: must be 3 or more"):
        repeat([], 2, tmp_path, lambda text: None)
    assert repetition.FEWEST_INSTANCES == 3


@pytest.mark.parametrize(
    "arguments", [["--processes=3", "-k", "lstm", "--results=x"], ["--processes", "3", "-k", "lstm"]]
)
def test_a_process_gets_the_other_options(arguments):
    assert without(arguments, ("--processes", "--results")) == ["-k", "lstm"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--benchmark-only", "--processes=2"], "--processes=2: must be 3 or more"),
        (["--benchmark-only", "--processes=3", "--full"], "--processes: cannot be with --full"),
        (["--benchmark-only", "--processes=2", "--workers=2"], "--processes=2: must be 3 or more"),
        (["--benchmark-only", "--processes=3", "--cell=nothing"], "--cell nothing: expected"),
        (["--processes=3"], "--processes: measures, and so takes --benchmark-only"),
        (["--benchmark-only", "--processes=0"], "0: must be above zero"),
    ],
)
def test_what_cannot_be_measured_over_processes_is_named(options, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert pytest.main(["-p", "bench.plugin", "-p", "no:cacheprovider", str(tmp_path), *options]) == 4
    printed = capsys.readouterr()
    assert said in printed.out + printed.err
