"""Reading many rows, at a small size: what `bench/benchmarks/reading.py` measures at a large one."""

import cProfile

import pytest

from bench.__main__ import main
from bench.benchmarks.reading import write_runs
from bench.records.csv_file import RecordWriter
from bench.records.frame import load
from bench.tests.sample_records import default_run


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    writer = RecordWriter(tmp_path_factory.mktemp("template") / "run")
    for row in default_run():
        writer.finish(row)
    return writer.path


def history(folder, template, cases):
    write_runs(folder, template, cases, runs=10)
    return ["history", "--results", str(folder)]


def gate(folder, template, cases):
    for side in ("base", "head"):
        write_runs(folder / side, template, cases, runs=5, commit=side)
    return ["gate", "--baseline", str(folder / "base"), "--current", str(folder / "head")]


def test_the_rows_are_sound(tmp_path, template):
    write_runs(tmp_path, template, cases=300, runs=2)
    frame = load(tmp_path)
    assert len(frame) == 600
    assert frame["case"].nunique() == 300


def test_all_of_them_are_read(tmp_path, template, capsys):
    assert main(history(tmp_path / "history", template, 300)) == 0
    assert "300 cases compared" in (tmp_path / "history" / "README.md").read_text()
    assert main(gate(tmp_path / "gate", template, 300)) == 0
    lines = capsys.readouterr().out.splitlines()
    verdicts = [line for line in lines if line.startswith(("SAME ", "apart "))]
    assert len(verdicts) == 300


def report(folder, template, rows):
    folders = write_runs(folder, template, cases=10, runs=rows // 10)
    return ["report", *map(str, folders), f"--output={folder / 'report.html'}"]


@pytest.mark.parametrize("command", [report, history, gate])
def test_the_cost_grows_with_the_rows_and_no_faster(tmp_path, template, command):
    """Calls of functions are counted: they are the same on a busy machine."""

    def calls(cases: int) -> int:
        arguments = command(tmp_path / str(cases), template, cases)
        profile = cProfile.Profile()
        assert profile.runcall(main, arguments) == 0
        return sum(entry.callcount for entry in profile.getstats())

    calls(100)  # imports
    few, more, most = calls(250), calls(500), calls(1000)
    assert most - more <= 1.3 * 2 * (more - few)
