"""One frame of all runs: what the row by row reader reads, with real dtypes; what cannot be used is named."""

import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import bench
from bench.records import frame as frames
from bench.records.csv_file import RECORDS_FILE, RecordWriter, line, read_records
from bench.records.frame import load, load_with_notices, rows
from bench.records.plausible import impossible
from bench.records.run_folder import write_environment
from bench.records.schema import BY_NAME, COLUMNS, RecordError
from bench.tests.sample_records import record

ROOT = Path(bench.__file__).parent.parent
RUNS = sorted((ROOT / "results").glob(f"*/{RECORDS_FILE}"))
OK = record("slstm-rnn", "train", figures={"message": '±2%, said "quoted", it\'s ok'})
OTHER = record("lstm-rnn", "infer")
SKIPPED = record("gru-rnn", status="skipped", reason="unsupported", figures={"message": "no such option"})
IMPOSSIBLE = {**record("gru-rnn", "train"), "ratio": 2.0}


def write_run(folder: Path, *records: Any) -> Path:
    writer = RecordWriter(folder)
    for each in records:
        writer.finish(each)
    return folder


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder of two runs, and what else may lie there."""
    write_run(tmp_path / "results" / "a", OTHER, OK)
    write_run(tmp_path / "results" / "b", {**SKIPPED, "run_id": "b"})
    (tmp_path / "results" / "README.md").write_text("# Results")
    (tmp_path / "results" / "charts").mkdir()
    return tmp_path / "results"


# --- what is there ---


def test_all_committed_runs_load_as_the_row_by_row_reader_reads_them():
    frame = load(ROOT / "results")
    assert rows(frame) == [row for file in RUNS for row in read_records(file)]
    assert [*frame.columns] == [column.name for column in COLUMNS] + ["run"]
    assert [*dict.fromkeys(frame["run"])] == [str(file.parent) for file in RUNS]


def test_columns_have_real_types(results):
    types = load(results).dtypes.astype(str).to_dict()
    for column in COLUMNS:
        always = column.required or column.default is not None
        allowed = {
            str: {"category", "string"},
            float: {"float64"},
            int: {"int64"} if always else {"Int64"},
            bool: {"bool"} if always else {"boolean"},
        }[column.kind]
        assert types[column.name] in allowed, column.name


def test_an_option_that_is_not_used_has_its_default_in_old_runs_too(tmp_path):
    write_run(tmp_path / "new", OK, record("lstm-builtin", bidirectional=True))
    old = write_run(tmp_path / "old", OK) / RECORDS_FILE
    options = [name for name, column in BY_NAME.items() if column.default is not None]
    content = pd.read_csv(old, dtype=str).drop(columns=options[::2])
    content[options[1::2]] = None
    content.to_csv(old, index=False)
    frame = load(tmp_path)
    assert [*frame[~frame.bidirectional].case] == [OK["case"], OK["case"]]
    assert [*frame[frame.bidirectional].subject] == ["lstm-builtin"]
    assert (frame[frame.run == str(old.parent)][options].iloc[0] == pd.Series(OK)[options]).all()
    assert rows(frame)[2] == OK == read_records(old)[0]


def test_a_path_is_a_folder_of_runs_a_run_a_csv_or_several(results):
    a, b = results / "a", results / "b" / RECORDS_FILE
    assert [len(load(path)) for path in (results, str(results), a, str(b), [b, a])] == [3, 3, 2, 1, 3]
    assert [*load([b, a]).run] == [str(results / "b"), str(a), str(a)]
    assert rows(load(results)) == [OTHER, OK, {**SKIPPED, "run_id": "b"}]


def test_the_default_is_the_folder_results(results, monkeypatch):
    monkeypatch.chdir(results.parent)
    assert len(bench.load()) == 3


def test_sweeps_and_statuses_are_chosen(results):
    write_run(results / "c", {**OK, "run_id": "c", "sweep": "options"})
    assert len(load(results, sweep="options")) == 1
    assert len(load(results, sweep=["options", "default"], status="ok")) == 3
    assert [*load(results, status=("skipped", "failed")).reason] == ["unsupported"]
    assert load(results, status="failed").empty
    with pytest.raises(RecordError, match="sweep 'fused': not there; there are default, options"):
        load(results, sweep="fused")
    with pytest.raises(RecordError, match="status 'okay': not there; there are failed, ok, skipped"):
        load_with_notices(results, status="okay")


def test_the_environment_is_joined_on_demand(results):
    write_environment(
        results / "a", {"machine": {"cores": 2, "load": [0.1, 2]}, "commit": "c", "x": {"y": []}}
    )
    write_environment(results / "b", {"machine": {"cores": None}, "commit": "lone \ud800", "gpu": True})
    frame = load(results, environment=True)
    added = frame[[name for name in frame if name.startswith("environment.")]]
    assert [*added] == [f"environment.{name}" for name in ("commit", "machine.cores", "machine.load", "gpu")]
    assert [*added["environment.machine.cores"].fillna(-1)] == [2, 2, -1]
    assert [*added["environment.machine.load"].fillna("")] == ["0.1, 2", "0.1, 2", ""]
    assert [*added["environment.commit"]] == ["c", "c", "lone \\ud800"]
    (results / "a" / "environment.json").write_text("{")
    frame, notices = load_with_notices(results, environment=True)
    assert len(frame) == 3 and len(notices) == 1 and "environment.json: cannot be read" in notices[0]


def test_a_run_without_rows_has_none(tmp_path):
    frame = load(write_run(tmp_path / "run"))
    assert frame.empty and [*frame.columns] == [*BY_NAME, "run"]
    assert rows(frame) == []


def test_pandas_is_imported_when_something_is_loaded():
    program = "import bench, sys; assert 'pandas' not in sys.modules; print(bench.load.__name__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "load\n")
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = bench.lode


# --- what pandas or a spreadsheet has written anew ---


def _typed(content: pd.DataFrame) -> pd.DataFrame:
    """As pandas guesses, but truth values with gaps as the numbers that some operations make of them."""
    switches = [name for name in content if BY_NAME[name].kind is bool and content[name].isna().any()]
    return content.assign(
        **{name: content[name].map({True: 1.0, False: 0.0, "True": 1.0, "False": 0.0}) for name in switches}
    )


REWRITTEN: dict[str, Callable[[Path], object]] = {
    "with its index": lambda file: pd.read_csv(file).to_csv(file),
    "twice with its index": lambda file: (
        pd.read_csv(file).to_csv(file),
        pd.read_csv(file, index_col=None).to_csv(file, index=False),
    ),
    "without an index": lambda file: pd.read_csv(file).to_csv(file, index=False),
    "with a word for missing": lambda file: pd.read_csv(file).to_csv(file, index=False, na_rep="NaN"),
    "with nullable types": lambda file: pd.read_csv(file).convert_dtypes().to_csv(file, na_rep="<NA>"),
    "truth values as numbers": lambda file: _typed(pd.read_csv(file)).to_csv(file, index=False),
    "all quoted": lambda file: pd.read_csv(file).to_csv(file, index=False, quoting=1),
    "other line ends": lambda file: pd.read_csv(file).to_csv(file, index=False, lineterminator="\r\n"),
    "a byte order mark": lambda file: pd.read_csv(file).to_csv(file, index=False, encoding="utf-8-sig"),
    "17 digits": lambda file: pd.read_csv(file).to_csv(file, index=False, float_format="%.17e"),
    "a spreadsheet's truth values": lambda file: file.write_text(
        file.read_text().replace(",True", ",TRUE").replace(",False", ",FALSE")
    ),
    "columns in another order": lambda file: pd.read_csv(file).sort_index(axis=1).to_csv(file, index=False),
}


@pytest.mark.parametrize("rewrite", REWRITTEN.values(), ids=REWRITTEN)
@pytest.mark.parametrize("run", [RUNS[0], RUNS[6], RUNS[-1]], ids=lambda file: file.parent.name)
def test_what_pandas_has_written_anew_is_read_the_same(tmp_path, run, rewrite):
    file = shutil.copy(run, tmp_path / RECORDS_FILE)
    rewrite(file)
    assert read_records(file) == read_records(run)
    assert rows(load(file)) == read_records(run)


# --- what cannot be used ---


def change(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text().replace(old, new, 1))


def spoilt(folder: Path, how: str) -> Path:
    """A run of three rows that cannot be used, wholly or in part."""
    file = write_run(folder, OTHER, OK, SKIPPED) / RECORDS_FILE
    spoil: dict[str, Callable[[], object]] = {
        "an impossible row": lambda: file.write_bytes(
            b"".join(map(line, ([*BY_NAME], *(row.values() for row in (OTHER, OK, IMPOSSIBLE)))))
        ),
        "no number": lambda: change(file, repr(OK["median_s"]), "fast"),
        "not finite": lambda: change(file, repr(OK["median_s"]), "1e999"),
        "a truth value for a number": lambda: change(file, repr(OK["median_s"]), "True"),
        "a status of its own": lambda: change(file, "skipped,", "fine,"),
        "a case twice": lambda: file.write_bytes(file.read_bytes() + line(SKIPPED.values())),
        "a short row": lambda: file.write_text(file.read_text() + "r,s\n"),
        "a blank line": lambda: file.write_text(file.read_text() + "\n"),
        "a long row": lambda: change(file, "skipped,", "skipped,,,"),
        "a stray quote": lambda: change(file, "gru-rnn,rnn", 'gru-r"nn,rnn'),
        "not text": lambda: file.write_bytes(file.read_bytes().replace(b"gru-rnn,rnn", b"\xff\xfe,rnn")),
        "a zero byte": lambda: file.write_bytes(file.read_bytes().replace(b"32,50", b"3\x002,50", 1)),
        "an unknown column": lambda: change(file, "iqr_s", "iqr_ms"),
        "nothing": lambda: file.write_bytes(b""),
        "a folder for a file": lambda: [change() for change in (file.unlink, file.mkdir)],
        "cut": lambda: file.write_bytes(file.read_bytes()[:-9]),
    }
    spoil[how]()
    return file


SPOILT = {
    "an impossible row": (", row 4: ratio 2.0, ratio_low", 2),
    "no number": (", row 3: median_s: 'fast' is not a float", 0),
    "not finite": (", row 3: median_s: inf is not finite", 0),
    "a truth value for a number": (", row 3: median_s: 'True' is not a float", 0),
    "a status of its own": (", row 4: status: 'fine' is not one of", 0),
    "a case twice": (", row 5: the same case twice", 0),
    "a short row": (f", row 5: 2 values for {len(BY_NAME)} columns", 0),
    "a blank line": (f", row 5: 0 values for {len(BY_NAME)} columns", 0),
    "a long row": (f", row 4: {len(BY_NAME) + 2} values for {len(BY_NAME)} columns", 0),
    "a stray quote": (", row 4: subject gru-r", 2),
    "not text": (", row 4: not text", 0),
    "a zero byte": (", row 2: batch_size: '3\\x002' is not a int", 0),
    "an unknown column": (", row 1: column 'iqr_ms': unknown", 0),
    "nothing": (", row 1: no columns", 0),
    "a folder for a file": (": is a folder, not a file", 0),
    "cut": (": the last line was cut", 2),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_cannot_be_used_is_named_and_stops_no_other_run(tmp_path, how):
    said, left = SPOILT[how]
    write_run(tmp_path / "a", {**OTHER, "run_id": "a"})
    write_run(tmp_path / "c", {**OTHER, "run_id": "c"})
    file = spoilt(tmp_path / "b", how)
    with pytest.raises(RecordError) as refused:
        load(tmp_path)
    message = str(refused.value)
    assert message.startswith(str(file)) and said in message and "\n" not in message
    frame, notices = load_with_notices(tmp_path)
    assert len(notices) == 1 and str(file) in notices[0]
    assert [frame[frame.run == str(tmp_path / run)].shape[0] for run in "abc"] == [1, left, 1]


def test_notices_come_in_the_order_of_the_runs(tmp_path):
    for number, how in enumerate(SPOILT):
        spoilt(tmp_path / f"{number:02}", how)
    _, notices = load_with_notices(tmp_path)
    for number, notice in zip(range(len(SPOILT)), notices, strict=True):
        assert str(tmp_path / f"{number:02}") in notice


@pytest.mark.parametrize("path", ["no", "no/records.csv", "x" * 5000, "zero\0byte", "file/records.csv"])
def test_a_path_without_runs_is_an_error(tmp_path, path):
    (tmp_path / "file").write_text("")
    for read in (load, load_with_notices):
        with pytest.raises(RecordError) as refused:
            read(tmp_path / path)
        assert len(str(refused.value)) < 350 and "\n" not in str(refused.value)


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(RecordError, match="no runs in it"):
        load(tmp_path)


# --- the same as row by row ---


def by_rows(file: Path) -> tuple[list[Any], str | None]:
    """What the row by row reader finds that can be, and its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return [row for row in read_records(file) if impossible(row) is None], None
        except RecordError as error:
            return [], str(error)


TEXTS = st.binary(max_size=6) | st.sampled_from(
    [
        *(
            b"",
            b",",
            b'"',
            b"\n",
            b"\r",
            b"\r\n",
            b"\xff",
            b"\0",
            b"\xef\xbb\xbf",
            b"~",
            b" ",
            b"ok",
            b"failed",
        ),
        *(b"nan", b"NaN", b"True", b"0", b"1.0", b"-1", b"1e999", b"inf", b"1_0", b"2.5", b"9" * 400),
    ]
)
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 30), TEXTS), min_size=1, max_size=3)


def changed(content: bytes, changes: Iterable[tuple[float, int, bytes]]) -> bytes:
    for place, length, text in changes:
        at = int(place * len(content))
        content = content[:at] + text + content[at + length :]
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of several rows."""
    return write_run(tmp_path_factory.mktemp("whole") / "run", OTHER, OK, SKIPPED, record("lstm-builtin"))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
@example(changes=[(0.75, 0, b"\0")])  # in a text that contradicts the case's id
def test_a_damaged_file_is_read_as_row_by_row(whole, changes):
    file = whole.parent / "damaged.csv"
    file.write_bytes(changed((whole / RECORDS_FILE).read_bytes(), changes))
    expected, error = by_rows(file)
    frame, notices = load_with_notices([file, whole])
    assert rows(frame[: len(expected)]) == expected
    assert rows(frame[len(expected) :]) == read_records(whole)
    assert error is None or notices[-1] == f"left out: {error}"
    assert all(notice.isprintable() and len(notice) < 700 for notice in notices)


VALUES = st.text(max_size=4) | st.sampled_from(
    [
        *(
            "",
            "nan",
            "NaN",
            "inf",
            "-1",
            "0",
            "0.0",
            "1",
            "1.0",
            "2.0",
            "2.5",
            "1e3",
            "1e30",
            "1_0",
            " 1",
            "١",
        ),
        *("9" * 19, "9" * 400, "True", "TRUE", "false", "x", "~", "a,b", 'q"q', "a\nb"),
        *("train", "ok", "failed", "error", "float64"),
    ]
)
PLACES = st.tuples(st.integers(0, 2), st.sampled_from([*BY_NAME]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from([*BY_NAME])), VALUES, min_size=1, max_size=3)
)
def test_changed_values_are_read_as_row_by_row(whole, changes):
    made = [dict(each) for each in (OTHER, OK, SKIPPED)]
    for (row, name), value in changes.items():
        made[row][name] = value
    file = whole.parent / "changed.csv"
    file.write_bytes(b"".join(line(each) for each in ([*BY_NAME], *(row.values() for row in made))))
    expected, error = by_rows(file)
    frame, notices = load_with_notices(file)
    assert rows(frame) == expected
    assert error is None or notices == [f"left out: {error}"]


@pytest.mark.parametrize("size", [5000, 50_000])
def test_large_files_are_read_part_by_part(monkeypatch, size):
    monkeypatch.setattr(frames, "_BLOCK_BYTES", size)
    monkeypatch.setattr(frames, "_BLOCK_ROWS", size // 1000)
    files = [RUNS[1], RUNS[7], RUNS[2]]
    assert rows(load(files)) == [row for file in files for row in read_records(file)]


def test_a_hundred_runs_load_at_once(tmp_path):
    """12,800 rows take a quarter of a second."""
    content = RUNS[0].read_text()
    for number in range(100):
        (tmp_path / f"run-{number:03}").mkdir()
        (tmp_path / f"run-{number:03}" / RECORDS_FILE).write_text(content)
    before = time.process_time()
    assert len(load(tmp_path)) == 100 * len(read_records(RUNS[0]))
    assert time.process_time() - before < 2
