"""A rehearsal's rows are marked, and no reader mixes them with a measurement's."""

import pytest

from bench.cases.comparisons import Task, comparisons, tasks
from bench.cases.rehearsal import rehearsed
from bench.gate.revisions import CannotCompare, check_comparable, read_side
from bench.history.timeline import read_histories
from bench.records.csv_file import RecordWriter
from bench.records.environment import REHEARSAL, machine_key
from bench.records.frame import load, load_with_notices
from bench.records.schema import RecordError
from bench.report import readme
from bench.report.html import write_report
from bench.report.readme import ReadmeError
from bench.tests.sample_records import default_run


@pytest.fixture
def runs(tmp_path):
    """The folders of a measurement and of a rehearsal, of the same cases."""
    for name, rehearsal in (("measured", False), ("rehearsed", True)):
        writer = RecordWriter(tmp_path / name)
        for record in default_run():
            writer.finish({**record, "run_id": name, "machine": machine_key(rehearsal=rehearsal)})
    return tmp_path / "measured", tmp_path / "rehearsed"


def test_the_hardware_key_says_so():
    assert machine_key("NVIDIA H100", rehearsal=True).startswith(REHEARSAL)
    assert not machine_key("NVIDIA H100").startswith(REHEARSAL)


def test_a_rehearsal_alone_can_be_read(runs):
    assert len(load(runs[1])) == len(load(runs[0])) > 0
    assert write_report([runs[1]], runs[1] / "report.html").exists()


@pytest.mark.parametrize(
    "read",
    [
        load,
        load_with_notices,
        lambda runs: load(runs[0].parent),
        lambda runs: read_histories(runs[0].parent),
        lambda runs: write_report(runs, runs[0] / "both.html"),
    ],
    ids=["load", "load_with_notices", "a folder of runs", "history", "report"],
)
def test_a_reader_refuses_to_mix(runs, read):
    with pytest.raises(
        RecordError, match=r"rehearsed.*: is of a rehearsal, whose figures say nothing"
    ) as said:
        read(list(runs))
    assert "measured" in str(said.value)


def test_the_gate_refuses_to_compare(runs):
    sides = [read_side(name, [path]) for name, path in zip(("baseline", "current"), runs, strict=True)]
    with pytest.raises(CannotCompare, match=REHEARSAL):
        check_comparable(*sides)


def test_no_readme_shows_a_rehearsal(runs):
    with pytest.raises(ReadmeError, match="is of a rehearsal"):
        readme._records(runs[1], {})


def test_a_rehearsal_has_rows_of_each_sweep_in_order_small_and_on_the_cpu():
    names = ["char_shape", "smoke"]
    rows = rehearsed([*comparisons(names, device="gpu"), *tasks(["char_model"], device="gpu")])
    assert list(dict.fromkeys(row.sweep for row in rows)) == names and len(rows) == 4
    assert not any(isinstance(row, Task) for row in rows)
    for row in rows:
        for case in (row.case, row.baseline):
            assert (case.device, case.shape) == ("cpu", "b2-t3-f4-u4")
