"""Records: what is written is read, whatever ends the process; what is none is refused by file and row."""

import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.records import csv_file, files, schema
from bench.records.csv_file import RECORDS_FILE, RecordWriter, read_records
from bench.records.run_folder import read_environment, write_environment
from bench.records.schema import BY_NAME, COLUMNS, KEY, TIMINGS, RecordError, make_record
from bench.tests.sample_records import record

ROOT = Path(schema.__file__).parents[2]
OK = record("slstm-rnn", "train", figures={"message": '±2%, said "quoted", it\'s ok'})
OTHER = record("lstm-rnn", "infer")
SKIPPED = record("gru-rnn", status="skipped", reason="unsupported", figures={"message": "no such option"})
FAILED = record("lstm-rnn", "train", status="failed", reason="wrong_answer", figures={"message": "off by 1"})
IN_FLIGHT = record("slstm-rnn", "train", status="failed", reason="killed")

pytestmark = pytest.mark.filterwarnings("error")


def written(folder: Path, *rows) -> Path:
    """The CSV of a run with the rows."""
    writer = RecordWriter(folder)
    for row in rows:
        writer.finish(row)
    return writer.path


@pytest.fixture
def run(tmp_path):
    """The CSV of a run with two rows."""
    return written(tmp_path / "run", OTHER, OK)


def refusal(file: Path) -> str:
    with pytest.raises(RecordError) as refused:
        read_records(file)
    message = str(refused.value)
    assert message.startswith(str(file)) and "\n" not in message
    return message.removeprefix(str(file))


# --- what is written is read ---


def test_round_trip(tmp_path):
    rows = [OK, OTHER, SKIPPED, FAILED]
    file = written(tmp_path / "run", *rows)
    assert read_records(file) == read_records(file.parent) == rows


@pytest.mark.parametrize("text", ["False", "FALSE", "false", "0.0"])
def test_what_others_take_for_a_truth_value_is_a_text_where_the_column_has_texts(tmp_path, text):
    row = make_record(use_cudnn=text, status="ok")
    assert row["use_cudnn"] == "False"
    assert read_records(written(tmp_path / "run", row)) == [row]


VALUES = {
    str: st.text(),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}
FIGURES = st.fixed_dictionaries(
    {}, optional={c.name: VALUES[c.kind] for c in COLUMNS if c.name not in ("status", "reason")}
)


@settings(max_examples=60, deadline=None)
@given(figures=FIGURES)
def test_round_trip_of_every_kind_of_value(tmp_path_factory, figures):
    row = make_record(**figures, status="ok")
    file = written(tmp_path_factory.mktemp("any") / "run", row)
    assert read_records(file) == [row]


@pytest.mark.parametrize("text", ["", "NaN", "<NA>"])
def test_a_text_that_stands_for_an_empty_value_is_one(text, tmp_path):
    row = make_record(status="ok", baseline=text, dtype=text)
    assert row["baseline"] is None and row["dtype"] == "float32"
    assert read_records(written(tmp_path / "run", row)) == [row]


def test_a_text_of_several_lines_becomes_one(tmp_path):
    row = make_record(**{**FAILED, "message": "boom:\n  in line 1\r\nand 2\rand\u2028more\n"})
    assert row["message"] == "boom:   in line 1 and 2 and more"
    file = written(tmp_path / "run", row)
    assert file.read_bytes().count(b"\n") == 2
    assert read_records(file) == [row]


def test_a_text_that_no_file_can_hold_is_escaped(tmp_path):
    row = make_record(**{**FAILED, "message": "no such file: \udcff.py"})
    assert read_records(written(tmp_path / "run", row))[0]["message"] == "no such file: \\udcff.py"


def test_every_column_says_what_it_means_and_stands_once():
    assert len(BY_NAME) == len(COLUMNS)
    assert all(column.meaning for column in COLUMNS)
    assert set(TIMINGS) | set(KEY) <= set(BY_NAME)


def test_environment_round_trip(run):
    write_environment(run.parent, {"machine": {"cores": 2}, "commit": None})
    assert read_environment(run) == {"machine": {"cores": 2}, "commit": None}
    (run.parent / "environment.json").write_text("{")
    with pytest.raises(RecordError, match=r"environment\.json: cannot be read"):
        read_environment(run)


# --- what ends the process ---


def test_the_case_in_flight_reads_killed_until_it_is_finished(tmp_path):
    writer = RecordWriter(tmp_path / "run")
    writer.finish(OTHER)
    writer.begin(IN_FLIGHT)
    first, in_flight = read_records(writer.path)
    assert first == OTHER
    assert (in_flight["status"], in_flight["reason"]) == ("failed", "killed")
    assert in_flight["case"] == OK["case"] and in_flight["message"]
    writer.finish(OK)
    assert read_records(writer.path) == [OTHER, OK]


def test_a_row_is_written_anew_in_its_place(tmp_path):
    """Rows that came before and after it, and one in flight, stay."""
    writer = RecordWriter(tmp_path / "run")
    writer.finish(OTHER)
    writer.finish(OK)
    writer.revise(0, {**OTHER, "message": "again"})
    writer.begin(IN_FLIGHT | {"sweep": "another"})
    *finished, in_flight = read_records(writer.path)
    assert finished == [{**OTHER, "message": "again"}, OK]
    assert in_flight["reason"] == "killed"


def test_a_row_that_is_shorter_than_the_one_in_flight_leaves_nothing_of_it(tmp_path):
    writer = RecordWriter(tmp_path / "run")
    short = make_record(run_id="r", sweep="s", case="c", status="ok")
    writer.begin(make_record(**{**short, "machine": "m" * 3000, "status": "failed", "reason": "killed"}))
    writer.finish(short)
    assert read_records(writer.path) == [short]
    assert writer.path.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_halfway_leaves_the_file_as_it_was(tmp_path, monkeypatch, broken):
    writer = RecordWriter(tmp_path / "run")
    writer.finish(OTHER)
    writer.begin(IN_FLIGHT)
    before = read_records(writer.path)
    assert len(before) == 2

    def fail(*arguments):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        writer.finish(OK)
    assert read_records(writer.path) == before


CHILD = """
import sys
from pathlib import Path
from bench.records.csv_file import RecordWriter
from bench.records.schema import make_record

names = dict(run_id="r", sweep="s", baseline="b", machine="x" * 500)
writer = RecordWriter(Path(sys.argv[1]))
number = 0
while True:
    writer.begin(make_record(**names, case=f"c{number}", status="failed", reason="killed"))
    print("begun", number, flush=True)
    if number % 3:
        writer.finish(make_record(**names, case=f"c{number}", status="ok", median_s=1.0, ratio=2.0))
    else:
        writer.finish(make_record(run_id="r", sweep="s", case=f"c{number}", status="ok"))
    print("finished", number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("lines", [1, 2, 3, 8, 41, 90])
def test_kill_minus_9_keeps_every_finished_row(tmp_path, lines):
    """The child runs on while its lines are read, so that it dies wherever it happens to be."""
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
    assert child.returncode == -signal.SIGKILL
    begun = sum(line.startswith("begun") for line in said)
    finished = sum(line.startswith("finished") for line in said)
    assert begun >= 1

    rows = read_records(folder)
    assert begun <= len(rows) <= begun + 1
    assert [row["case"] for row in rows] == [f"c{number}" for number in range(len(rows))]
    assert all(row["status"] == "ok" for row in rows[:finished])
    for row in rows[finished:]:
        assert row["status"] == "ok" or (row["reason"] == "killed" and row["ratio"] is None)
    assert sum(row["status"] == "ok" for row in rows) >= len(rows) - 1


# --- a last line that was cut ---


def test_a_last_line_cut_anywhere_is_left_out_with_a_warning(run):
    whole = run.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    assert "±".encode() in whole[start:]
    for end in range(start + 1, len(whole)):
        run.write_bytes(whole[:end])
        with pytest.warns(UserWarning, match="the last line was cut") as caught:
            assert read_records(run) == [OTHER]
        assert str(run) in str(caught[0].message) and caught[0].filename == __file__
    run.write_bytes(whole[:start])
    assert read_records(run) == [OTHER]


def test_a_header_cut_anywhere_is_refused(tmp_path):
    file = written(tmp_path / "run")
    whole = file.read_bytes()
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        assert ", row 1: no columns" in refusal(file)
    file.write_bytes(whole)
    assert read_records(file) == []


# --- what is no record ---


def put(file: Path, row: int, column: str, text: str) -> None:
    """Writes a value into a CSV whose values hold no commas, past all checks; the header is row 1."""
    lines = [line.split(",") for line in file.read_text().splitlines()]
    lines[row - 1][lines[0].index(column)] = text
    file.write_text("".join(",".join(line) + "\n" for line in lines))


@pytest.fixture
def plain(tmp_path):
    """The CSV of a run whose values hold no commas."""
    return written(
        tmp_path / "run",
        *(
            make_record(run_id="r", sweep="s", case=case, status="ok", median_s=1.0, rounds=9, unroll=True)
            for case in ("c1", "c2")
        ),
    )


@pytest.mark.parametrize(
    ("column", "text", "problem"),
    [
        ("median_s", "fast", "median_s: 'fast' is not a float"),
        ("median_s", "nan", "median_s: nan is not finite"),
        ("median_s", "-inf", "median_s: -inf is not finite"),
        ("median_s", "1e999", "median_s: inf is not finite"),
        ("median_s", "1_0.0", "median_s: '1_0.0' is not a float"),
        ("rounds", "9.5", "rounds: '9.5' is not a int"),
        ("rounds", "1_0", "rounds: '1_0' is not a int"),
        ("rounds", "9" * 5000, "is not a int"),
        ("unroll", "1", "unroll: '1' is not a bool"),
        ("unroll", "yes", "unroll: 'yes' is not a bool"),
        ("status", "", "status: None is not one of ok, skipped, failed"),
        ("status", "fine", "status: 'fine' is not one of ok, skipped, failed"),
        ("status", "failed", "reason: None is not one of"),
        ("reason", "killed", "reason: 'killed' in a row that is ok"),
        ("case", "c1", "the same case twice: r, s, c1, None"),
        ("case", "c2,c3", "values for"),
        ("case", '"c2', "not a CSV"),
        ("case", '"c2"x', "not a CSV"),
        ("case", "c" * 200_000, "not a CSV"),
    ],
)
def test_a_bad_value_is_refused_by_file_and_row(plain, column, text, problem):
    put(plain, 3, column, text)
    message = refusal(plain)
    assert message.startswith(", row 3: ") and problem in message


def test_bytes_that_are_no_text_are_refused_by_file_and_row(plain):
    plain.write_bytes(plain.read_bytes().replace(b"c2", b"\xff\xfe"))
    assert refusal(plain).startswith(", row 3: not text: ")


@pytest.mark.parametrize("name", TIMINGS)
def test_no_timing_in_a_row_that_is_not_ok(name):
    kind = BY_NAME[name].kind
    with pytest.raises(RecordError, match=f"{name}: a timing in a row that is failed"):
        make_record(status="failed", reason="killed", **{name: kind(1)})


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"speed": 1.0}, "no such columns: speed"),
        ({"units": True}, "units: True is not a int"),
        ({"units": 1.0}, "units: 1.0 is not a int"),
        ({"ratio": "1.0"}, "ratio: '1.0' is not a float"),
        ({"ratio": True}, "ratio: True is not a float"),
        ({"unroll": 1}, "unroll: 1 is not a bool"),
        ({"case": 5}, "case: 5 is not a str"),
        ({"ratio": float("nan")}, "ratio: nan is not finite"),
    ],
)
def test_make_record_refuses(values, problem):
    with pytest.raises(RecordError, match=problem):
        make_record(status="ok", **values)


def test_a_header_is_refused_by_its_column(plain):
    text = plain.read_text()
    for old, new, problem in (
        ("run_id", "runid", "column 'runid': unknown: made by a newer version?"),
        ("timestamp", "run_id", "column 'run_id': there twice"),
    ):
        plain.write_text(text.replace(old, new, 1))
        assert refusal(plain) == f", row 1: {problem}"
    plain.write_text("run_id,sweep,case,baseline\nr,s,c,b\n")
    assert refusal(plain) == ", row 1: column 'status': missing"


def test_columns_of_an_older_version_may_be_missing(plain):
    plain.write_text("run_id,sweep,case,baseline,status\nr,s,c,b,ok\n")
    assert read_records(plain) == [make_record(run_id="r", sweep="s", case="c", baseline="b", status="ok")]


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n\x00\x00\xff", bytes(range(256)), b"\n", b"a,b"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    file = tmp_path / RECORDS_FILE
    file.write_bytes(content)
    assert refusal(file).startswith(", row 1: ")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert refusal(tmp_path / "none.csv") == ": no such file"
    with pytest.raises(RecordError, match=rf"{RECORDS_FILE}: no such file"):
        read_records(tmp_path)


CONTENT = st.builds(
    lambda content, changes: _changed(content, changes),
    st.just((OK, SKIPPED, FAILED)),
    st.lists(
        st.tuples(st.sampled_from(("put", "insert", "cut")), st.floats(0, 1), st.binary(max_size=8)),
        min_size=1,
        max_size=4,
    ),
)


def _changed(rows, changes) -> bytes:
    """The CSV of the rows with bytes put over, put in or cut out."""
    content = b"".join(
        csv_file.line(values) for values in ([c.name for c in COLUMNS], *(r.values() for r in rows))
    )
    for change, place, some in changes:
        at = int(place * len(content))
        end = at if change == "insert" else at + len(some)
        content = content[:at] + (b"" if change == "cut" else some) + content[end:]
    return content


@settings(max_examples=200, deadline=None)
@given(CONTENT)
def test_a_damaged_file_gives_records_or_a_record_error(tmp_path_factory, content):
    file = tmp_path_factory.mktemp("damaged") / RECORDS_FILE
    file.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            rows = read_records(file)
        except RecordError as error:
            assert str(file) in str(error)
            return
    for row in rows:
        assert row["status"] == "ok" or all(row[name] is None for name in TIMINGS)
        assert make_record(**row) == row


# --- folders ---


def test_two_runs_in_one_results_folder_do_not_touch_each_other(tmp_path):
    first, second = RecordWriter(tmp_path / "one"), RecordWriter(tmp_path / "two")
    first.begin(IN_FLIGHT)
    second.begin(OTHER)
    second.finish(OTHER)
    first.finish(OK)
    assert read_records(tmp_path / "one") == [OK]
    assert read_records(tmp_path / "two") == [OTHER]


def test_a_folder_that_is_there_is_not_written_into(run):
    before = run.read_bytes()
    with pytest.raises(FileExistsError):
        RecordWriter(run.parent)
    assert run.read_bytes() == before


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        RecordWriter(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_error_at_once(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        RecordWriter(tmp_path / "run")
