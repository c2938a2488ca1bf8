"""The gate: what it finds and what it does not, by which figure, and what it refuses to compare."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.__main__ import main as bench_main
from bench.gate.revisions import CAUSES, SESSION_FILE, CannotCompare, alternated, read_side
from bench.gate.verdicts import FASTER, INCONCLUSIVE, RATIO, SAME, SLOWER, TIME, compare
from bench.records.csv_file import RECORDS_FILE, RecordWriter
from bench.records.schema import make_record
from bench.tests.sample_records import record

ROOT = Path(__file__).parents[3]
SUBJECTS = ("lstm-builtin", "lstm-rnn", "slstm-rnn", "gru-rnn")
ROWS = [
    record(subject, mode, figures={"sweep": "gate"}) for subject in SUBJECTS for mode in ("infer", "train")
]
SLSTM = [str(row["case"]) for row in ROWS if row["subject"] == "slstm-rnn"]
LSTM_BUILTIN = [str(row["case"]) for row in ROWS if row["subject"] == "lstm-builtin"]
UPGRADED = {"tensorflow": "2.22.0"}


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """A thousand small files are written here, and none has to outlive a power cut."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


def write_run(folder: Path, rows) -> Path:
    writer = RecordWriter(folder)
    for row in rows:
        writer.finish(make_record(**row))
    return folder


def process(name: str, generator, noise: float = 0.01, subjects=None, baselines=None, facts=None, rows=ROWS):
    """What one process measures: `subjects` and `baselines` are factors of the times of each."""
    common = np.exp(noise * generator.standard_normal())
    for row in rows:
        own = common * (subjects or {}).get(row["subject"], 1.0) * np.exp(noise * generator.standard_normal())
        baseline = common * (baselines or {}).get(row["baseline"], 1.0)
        if row["case"] == row["baseline"]:
            own *= baseline / common
        figures = {
            "median_s": float(row["median_s"] * own),
            "baseline_median_s": float(row["baseline_median_s"] * baseline),
            "min_s": float(row["median_s"] * own * 0.95),
            "ratio": (ratio := float(row["ratio"] * own / baseline)),
            "ratio_low": ratio * 0.99,
            "ratio_high": ratio * 1.01,
            "sequences_per_s": None,
            "timesteps_per_s": None,
        }
        yield {**row, **figures, "run_id": name, **(facts or {})}


def session(folder: Path, processes: int = 5, *, noise=0.01, seed=0, turns=True, before=None, **after):
    """Two sides as `gate --measure` leaves them; `before` and `after` are keywords of `process`."""
    generator = np.random.default_rng(seed)
    lines = []
    for turn in range(2 * processes):
        side = "base" if turn % 4 in (0, 3) else "head"
        name = f"run-{turn:02d}"
        facts = {"commit": side, **((before or {}) if side == "base" else after).get("facts", {})}
        keywords = {**((before or {}) if side == "base" else after), "facts": facts}
        write_run(folder / side / name, process(name, generator, noise, **keywords))
        lines.append(f"{side}\t{name}\n")
    if turns:
        (folder / SESSION_FILE).write_text("".join(lines))
    return folder


def gate(folder: Path, *options: str) -> int:
    sides = ["--baseline", str(folder / "base"), "--current", str(folder / "head")]
    return bench_main(["gate", *sides, *options])


def outcome(folder: Path, **options):
    return compare(
        read_side("baseline", [folder / "base"]), read_side("current", [folder / "head"]), **options
    )


def words(found) -> dict[str, str]:
    return {verdict.key[1]: verdict.word for verdict in found.verdicts}


# --- verdicts and exit codes ---


def test_equal_sides_are_the_same(tmp_path, capsys):
    assert gate(session(tmp_path)) == 0
    printed = capsys.readouterr().out
    assert "8 SAME" in printed and "0 SLOWER" in printed and "No case is slower" in printed


def test_a_slower_cell_is_found_and_no_other_blamed(tmp_path, capsys):
    assert gate(session(tmp_path, subjects={"slstm-rnn": 1.15})) == 1
    found = outcome(tmp_path)
    assert {case for case, word in words(found).items() if word == SLOWER} == set(SLSTM)
    assert {verdict.figure for verdict in found.of_word(SLOWER)} == {RATIO}
    for verdict in found.of_word(SLOWER):
        assert verdict.change.low < 1.15 < verdict.change.high
        assert verdict.after / verdict.before == pytest.approx(verdict.change.value)
    first = capsys.readouterr().out.splitlines()[4]
    assert re.match(
        r"SLOWER +(infer|train)-slstm\S+ +\+1\d\.\d% \[\+1\d\.\d%, \+1\d\.\d%\] +ratio \S+× → \S+×", first
    )


def test_a_faster_cell_is_told_and_passes(tmp_path):
    assert gate(session(tmp_path, subjects={"slstm-rnn": 0.8})) == 0
    assert {case for case, word in words(outcome(tmp_path)).items() if word == FASTER} == set(SLSTM)


def test_the_threshold_is_what_may_change(tmp_path):
    folder = session(tmp_path, subjects={"slstm-rnn": 1.15})
    assert gate(folder, "--threshold", "30%") == gate(folder, "--threshold", "0.3") == 0
    assert gate(folder, "--threshold", "5%") == 1


def test_a_change_within_its_noise_is_inconclusive_and_no_pass(tmp_path, capsys):
    folder = session(tmp_path, noise=0.06)
    assert gate(folder) == 3
    assert "INCONCLUSIVE" in capsys.readouterr().out
    assert gate(folder, "--allow-inconclusive", "100%") == 0


def test_slower_goes_before_inconclusive(tmp_path):
    folder = session(tmp_path, noise=0.04, subjects={"slstm-rnn": 2.0})
    assert INCONCLUSIVE in words(outcome(folder)).values()
    assert gate(folder, "--allow-inconclusive", "0") == 1


@pytest.mark.parametrize("value", ["-1%", "x", "5 %%", "101%", "nan", ""])
def test_a_share_is_a_share(tmp_path, value, capsys):
    with pytest.raises(SystemExit) as stopped:
        gate(tmp_path, f"--threshold={value}")
    assert stopped.value.code == 2
    assert "must be a share" in capsys.readouterr().err


# --- by which figure ---


def test_a_slower_builtin_does_not_read_as_faster_cells(tmp_path):
    """The built-in's own rows tell it; the others' ratios fell, and their times say that they stood still."""
    slower = dict.fromkeys(LSTM_BUILTIN, 1.2)
    folder = session(tmp_path, subjects={}, baselines=slower)
    found = outcome(folder)
    assert {case for case, word in words(found).items() if word == SLOWER} == set(LSTM_BUILTIN)
    assert not found.of_word(FASTER)
    by_time = {verdict.key[1] for verdict in found.verdicts if verdict.figure == TIME}
    assert {case for case in words(found) if "-gru-" not in case} == by_time
    assert all("baseline case may have got slower" in v.why for v in found.verdicts if v.key[1] in SLSTM)


def test_nor_where_times_cannot_be_compared(tmp_path):
    folder = session(tmp_path, turns=False, baselines=dict.fromkeys(LSTM_BUILTIN, 1.2))
    found = outcome(folder)
    assert not found.of_word(FASTER) and not found.of_word(SLOWER)
    assert {words(found)[case] for case in SLSTM} == {INCONCLUSIVE}
    assert [remark.key[1] for remark in found.of_kind("apart")] == LSTM_BUILTIN
    assert gate(folder) == 3


def test_a_faster_builtin_does_not_read_as_slower_cells(tmp_path):
    found = outcome(session(tmp_path, baselines=dict.fromkeys(LSTM_BUILTIN, 0.8)))
    assert not found.of_word(SLOWER)
    assert {case for case, word in words(found).items() if word == FASTER} == set(LSTM_BUILTIN)


def test_a_cell_that_got_faster_than_its_slower_builtin_accounts_for_is_faster(tmp_path):
    folder = session(tmp_path, baselines=dict.fromkeys(LSTM_BUILTIN, 1.2), subjects={"slstm-rnn": 0.7})
    assert {words(outcome(folder))[case] for case in SLSTM} == {FASTER}


def test_without_turns_the_baselines_own_rows_have_no_figure(tmp_path, capsys):
    folder = session(tmp_path, turns=False)
    assert gate(folder) == 0
    assert "2 apart" in capsys.readouterr().out
    assert set(words(outcome(folder))) == {str(row["case"]) for row in ROWS} - set(LSTM_BUILTIN)


def test_an_upgrade_is_compared_by_absolute_times_of_one_session(tmp_path):
    folder = session(tmp_path, facts=UPGRADED, subjects={"slstm-rnn": 1.2}, noise=0.005)
    found = outcome(folder)
    assert {verdict.figure for verdict in found.verdicts} == {TIME}
    assert {case for case, word in words(found).items() if word == SLOWER} == set(SLSTM)


@pytest.mark.parametrize(
    ("turns", "took_turns"),
    [
        ("base head head base base head head base base head", True),
        ("base head base head base head base head base head", True),
        ("base base base base base head head head head head", False),
        ("base head head head base base head base base head", False),
        ("base head head base base head head base base", False),  # one of them is not written down
    ],
)
def test_turns(tmp_path, turns, took_turns):
    folder = session(tmp_path, turns=False)
    runs = {side: sorted(run.name for run in (folder / side).iterdir()) for side in ("base", "head")}
    lines = [f"{side}\t{runs[side].pop(0)}\n" for side in turns.split()]
    (folder / SESSION_FILE).write_text("".join(lines))
    sides = read_side("baseline", [folder / "base"]), read_side("current", [folder / "head"])
    assert alternated(*sides) is took_turns


def test_sides_of_two_sessions_did_not_take_turns(tmp_path):
    one, two = session(tmp_path / "one"), session(tmp_path / "two")
    for number, run in enumerate(sorted((two / "head").iterdir())):
        rewrite(run, lambda text, number=number: text.replace("run-", f"other-{number}-"))
    sides = read_side("baseline", [one / "base"]), read_side("current", [two / "head"])
    assert not alternated(*sides)


# --- cases that come and go ---


def test_new_and_vanished_cases_are_listed_and_not_passed_over(tmp_path, capsys):
    before = [row for row in ROWS if row["subject"] != "gru-rnn"]
    folder = session(tmp_path, before={"rows": before}, rows=ROWS[:-4])
    markdown, junit = tmp_path / "gate.md", tmp_path / "gate.xml"
    assert (
        gate(folder, "--markdown", str(markdown), "--junit", str(junit), "--allow-inconclusive", "100%") == 3
    )
    printed = capsys.readouterr().out
    assert printed.count("vanished ") == 2 and "2 vanished" in printed
    assert "slstm" in markdown.read_text() and junit.read_text().count("<error") == 2
    folder = session(tmp_path / "more", before={"rows": before})
    assert gate(folder) == 0
    assert "2 new" in capsys.readouterr().out


def test_a_case_that_fails_now_has_vanished_and_says_why(tmp_path, capsys):
    folder = session(tmp_path)
    broken = record("slstm-rnn", "train", status="failed", reason="wrong_answer")
    run = min((folder / "head").iterdir())
    rows = [
        {**broken, "run_id": run.name, "commit": "head", "sweep": "gate"}
        if row["case"] == broken["case"]
        else row
        for row in process(run.name, np.random.default_rng(9), facts={"commit": "head"})
    ]
    (run / RECORDS_FILE).unlink()
    run.rmdir()
    write_run(run, rows)
    assert gate(folder) == 3
    printed = capsys.readouterr().out
    assert re.search(rf"vanished +{broken['case']} +current: 1 failed \(wrong_answer\)\n", printed)
    assert printed.endswith("Cases have vanished.\n")


def test_a_case_in_two_sweeps_is_two_cases_with_two_names(tmp_path, capsys):
    twice = [*ROWS, *({**row, "sweep": "default"} for row in ROWS[2:4])]
    assert gate(session(tmp_path, before={"rows": twice}, rows=twice)) == 0
    assert f"{ROWS[2]['case']} (default, against {ROWS[2]['baseline']})" in capsys.readouterr().out


# --- what cannot be compared ---


def rewrite(run: Path, change) -> None:
    file = run / RECORDS_FILE
    file.write_text(change(file.read_text()))


def _of(side: str, change):
    """Rewrites all of a side's CSVs."""

    def rewrite_all(folder: Path) -> None:
        for run in (folder / side).iterdir():
            rewrite(run, change)

    return rewrite_all


def _keep(side: str, count: int):
    def remove(folder: Path):
        for run in sorted((folder / side).iterdir())[count:]:
            (run / RECORDS_FILE).unlink()

    return remove


def _first(change):
    return lambda folder: rewrite(min((folder / "head").iterdir()), change)


def _other_session_and_versions(folder: Path):
    _of("head", lambda text: text.replace("2.21.0", "2.22.0"))(folder)
    (folder / SESSION_FILE).unlink()


def _twin(folder: Path):
    rewrite(folder / "head" / "run-02", lambda text: text.replace("run-02", "run-00"))


BROKEN = {
    "unreadable": [
        _first(lambda text: text[: len(text) // 2]),
        _first(lambda text: ""),
        _first(lambda text: text.replace("ok", "fine", 1)),
        _first(lambda text: text.replace("0.", "nan", 1)),
        _first(lambda text: text + text.splitlines(keepends=True)[1]),
        _first(lambda text: text.replace(",ratio,", ",", 1)),
        lambda folder: (folder / SESSION_FILE).write_bytes(b"\xff\xff"),
    ],
    "schema too new": [_first(lambda text: text.replace("ratio_low", "ratio_least", 1))],
    "no records": [_first(lambda text: text.splitlines(keepends=True)[0])],
    "bad row": [
        _first(lambda text: re.sub(r",(0\.\d*[1-9]\d*),", r",-\1,", text, count=1)),
        _first(lambda text: text.replace(ROWS[0]["machine"], "", 1)),
        _first(lambda text: text.replace("2.21.0", "2.20.0", 1)),
    ],
    "several runs in a file": [_first(lambda text: text.replace("run-01", "run-99", 1))],
    "a process twice": [_twin],
    "several revisions": [_first(lambda text: text.replace(",head,", ",other,"))],
    "different hardware": [_of("head", lambda text: text.replace("2 cores", "4 cores"))],
    "other library versions": [
        _other_session_and_versions,
    ],
    "no common case": [
        _of("head", lambda text: text.replace("-b32-", "-b33-").replace(",32,50,", ",33,50,"))
    ],
    "too few processes": [_keep("head", 1)],
    "no pinned baseline": [],
    "cannot write": [],
}


@pytest.fixture(scope="module")
def equal(tmp_path_factory):
    """A session of equal sides, to be copied."""
    return session(tmp_path_factory.mktemp("equal"))


def test_every_cause_is_tried():
    assert set(BROKEN) == set(CAUSES)


@pytest.mark.parametrize(
    ("cause", "break_it"), [(cause, change) for cause, changes in BROKEN.items() for change in changes]
)
def test_what_cannot_be_compared_is_named(equal, tmp_path, capsys, cause, break_it):
    folder = shutil.copytree(equal, tmp_path / "session")
    break_it(folder)
    junit, markdown = tmp_path / "gate.xml", tmp_path / "gate.md"
    assert gate(folder, "--junit", str(junit), "--markdown", str(markdown)) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"cannot compare: {cause}: ") and printed.err.count("\n") == 1
    assert not printed.out
    assert ElementTree.parse(junit).find(".//error").get("type") == cause
    assert cause in markdown.read_text()


def test_noise_that_would_hide_a_doubled_time_is_too_few_processes(tmp_path, capsys):
    assert gate(session(tmp_path, processes=2, noise=0.5)) == 2
    assert "too few processes: even " in capsys.readouterr().err


def test_two_processes_a_side_can_reach_significance(tmp_path):
    assert gate(session(tmp_path, processes=2, subjects={"slstm-rnn": 1.15})) == 1


def test_a_run_is_no_baseline_of_itself(tmp_path, capsys):
    folder = session(tmp_path)
    same = str(folder / "base")
    assert bench_main(["gate", "--baseline", same, "--current", same]) == 2
    assert "a process twice" in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert bench_main(["gate", "--baseline", str(tmp_path / "no"), "--current", str(tmp_path / "no")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
def test_a_file_that_cannot_be_written(tmp_path, capsys, option):
    assert gate(session(tmp_path), option, str(tmp_path / "no" / "file")) == 2
    assert "cannot compare: cannot write: " in capsys.readouterr().err


TEXT = (
    st.text(max_size=8) | st.sampled_from(["-1", "0", "1e999", "nan", "inf", ",", '"', "\n", "1e300"])
).map(lambda text: text.encode(errors="replace"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return session(tmp_path_factory.mktemp("whole"), processes=2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.floats(0, 1), length=st.integers(0, 40), text=TEXT)
def test_a_mutated_file_gives_an_exit_code_and_no_traceback(whole, start, length, text):
    file = whole / "head" / "run-01" / RECORDS_FILE
    good = file.read_bytes()
    at = int(start * len(good))
    file.write_bytes(good[:at] + text + good[at + length :])
    try:
        assert gate(whole) in (0, 1, 2, 3)
    finally:
        file.write_bytes(good)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    row=st.integers(1, len(ROWS)),
    column=st.sampled_from(["median_s", "ratio", "baseline_median_s"]),
    value=st.sampled_from(
        ["-0.1", "0", "0.0", "nan", "inf", "-inf", "1e999", "1e-200", "1e200", "x", "True", "1_0"]
    ),
)
def test_no_verdict_comes_from_a_bad_figure(whole, row, column, value):
    file = whole / "head" / "run-01" / RECORDS_FILE
    good = file.read_text()
    lines = [line.split(",") for line in good.replace(ROWS[0]["machine"], "Xeon").splitlines()]
    machine, where = lines[0].index("machine"), lines[0].index(column)
    lines[row][where + (0 if len(lines[row]) == len(lines[0]) else 2)] = value
    assert machine < where
    file.write_text(
        "\n".join(",".join(line) for line in lines).replace('"Xeon"', f'"{ROWS[0]["machine"]}"') + "\n"
    )
    try:
        assert gate(whole) == 2
    finally:
        file.write_text(good)


IMPOSSIBLE = [
    {"ratio": "2.5"},
    {"ratio_low": "9.0"},
    {"ratio_high": "0.01"},
    {"ratio_low": ""},
    {"min_s": "9.0"},
    {"min_s": ""},
    {"units": "-5"},
    {"units": "64"},
    {"timesteps": "51"},
    {"rounds": ""},
    {"rounds": "0"},
    {"max_abs_error": "1.0", "tolerance": "0.001"},
    {"gradient_error": "1.0", "gradient_tolerance": "0.001"},
    {"subject": ""},
    {"cell": "gru"},
    {"mode": "fit"},
    {"jit_compile": "True"},
    {"median_s": "1e19", "baseline_median_s": "1e19"},
]


@pytest.mark.parametrize("values", IMPOSSIBLE, ids=str)
def test_no_verdict_comes_from_a_row_that_cannot_be(whole, values, capsys):
    file = whole / "head" / "run-01" / RECORDS_FILE
    good = file.read_text()
    header, *rows = csv.reader(io.StringIO(good))
    for name, value in values.items():
        rows[4][header.index(name)] = value
    with open(file, "w", newline="") as opened:
        csv.writer(opened, lineterminator="\n").writerows([header, *rows])
    try:
        assert gate(whole) == 2
    finally:
        file.write_text(good)
    printed = capsys.readouterr().err
    assert printed.startswith("cannot compare: bad row: ") and printed.count("\n") == 1
    assert f"{file}, row 6: " in printed or (f"{file}: " in printed and "row 6" in printed)


# --- what is written ---

NASTY = "<b>|`x`\x1b[31m@team ]]>&\"' http://e.x \ufffe $x$ #1"
NASTY_CASE = f"infer-{NASTY}-rnn-b32-t50-f64-u128"


@pytest.fixture
def nasty(tmp_path):
    """A session in which a slower case has somebody's input for a name."""
    odd = {"cell": NASTY, "subject": f"{NASTY}-rnn", "case": NASTY_CASE}
    rows = [{**row, **odd} if row["case"] == SLSTM[0] else row for row in ROWS]
    return session(
        tmp_path, before={"rows": rows}, rows=rows, subjects={"slstm-rnn": 1.2, f"{NASTY}-rnn": 1.2}
    )


def test_junit_says_which_case_failed(nasty):
    file = nasty / "gate.xml"
    assert gate(nasty, "--junit", str(file)) == 1
    suite = ElementTree.parse(file).find("testsuite")
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("8", "2", "0")
    names = {case.get("name") for case in suite.findall("testcase[failure]")}
    assert names == {NASTY_CASE.replace("\x1b", "\\x1b").replace("\ufffe", "\\ufffe"), SLSTM[1]}
    message = suite.find("testcase/failure").get("message")
    assert message.startswith("SLOWER: +") and "ratio" in message


def test_junit_errors_where_too_much_is_inconclusive(tmp_path):
    folder, file = session(tmp_path, noise=0.06), tmp_path / "gate.xml"
    assert gate(folder, "--junit", str(file), "--allow-inconclusive", "0") == 3
    assert ElementTree.parse(file).findall(".//error")
    assert gate(folder, "--junit", str(file), "--allow-inconclusive", "1") == 0
    tree = ElementTree.parse(file)
    assert tree.findall(".//skipped") and not tree.findall(".//error")


def test_names_are_text_in_markdown(nasty, capsys):
    file = nasty / "gate.md"
    assert gate(nasty, "--markdown", str(file)) == 1
    written = file.read_text()
    rows = [line for line in written.splitlines() if line.startswith("| **SLOWER** |")]
    assert len(rows) == 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows)
    assert r"\<b\>\|\`x\`" in written and "@team" not in written and "http://" not in written
    assert "\x1b" not in written and "\x1b" not in capsys.readouterr().out


# --- the pinned baseline ---


@pytest.fixture
def pin(tmp_path, monkeypatch):
    """pin(folder): accepts its base side, in an empty place."""
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    return lambda folder, side="base": bench_main(["gate", "--accept", "--current", str(folder / side)])


def test_accept_pins_and_the_gate_compares_with_it(tmp_path, pin, capsys):
    folder = session(tmp_path / "session", subjects={"slstm-rnn": 1.15})
    current = ["gate", "--current", str(folder / "head")]
    assert bench_main(current) == 2
    assert "no pinned baseline" in capsys.readouterr().err
    assert pin(folder) == 0
    assert "first baseline" in capsys.readouterr().out
    (machine,) = Path("results/baselines").iterdir()
    assert machine.name == "xeon-2-20ghz-2-cores-linux-cpu"
    assert bench_main(current) == 1
    assert "2 apart" in capsys.readouterr().out  # another session
    assert pin(folder, "head") == 0
    printed = capsys.readouterr().out
    assert "SLOWER" in printed and "5 processes pinned" in printed
    assert len(list(machine.iterdir())) == 5 and list(machine.parent.iterdir()) == [machine]
    assert bench_main(["gate", "--current", str(folder / "base")]) == 0  # faster than what is pinned now


def test_a_pinned_baseline_of_other_library_versions_cannot_be_compared(tmp_path, pin, capsys):
    folder = session(tmp_path / "session", facts=UPGRADED)
    assert pin(folder) == 0
    assert bench_main(["gate", "--current", str(folder / "head")]) == 2
    assert "other library versions: baseline TensorFlow 2.21.0" in capsys.readouterr().err
    assert pin(folder, "head") == 0
    assert "replaces a baseline that cannot be compared: other library versions" in capsys.readouterr().out


@pytest.mark.parametrize(
    "damage", [_keep("base", 1), _of("base", lambda text: text.replace(",ok,", ",fine,"))]
)
def test_what_is_no_side_is_not_pinned(tmp_path, pin, damage):
    good, bad = session(tmp_path / "good"), session(tmp_path / "bad")
    assert pin(good) == 0
    kept = {file: file.read_bytes() for file in Path("results").rglob("*.csv")}
    damage(bad)
    assert pin(bad) == 2
    assert {file: file.read_bytes() for file in Path("results").rglob("*.csv")} == kept


def test_a_run_is_not_pinned_twice(tmp_path, pin, capsys):
    run = os.path.relpath(min((session(tmp_path / "session") / "base").iterdir()))
    assert bench_main(["gate", "--accept", "--current", run, run]) == 2
    error = capsys.readouterr().err
    assert f"a process twice: run run-00 is named twice: {run}/records.csv" in error
    copy = os.path.relpath(tmp_path / "copy")
    shutil.copytree(run, copy)
    assert bench_main(["gate", "--accept", "--current", run, copy]) == 2
    error = capsys.readouterr().err
    assert f"run-00 stands in {run}/records.csv and in {copy}/records.csv: a copy is no" in error
    assert not Path("results").exists()


@pytest.mark.parametrize("count", [1, 3, 5])
def test_accept_says_how_many_processes_it_has_and_how_to_get_the_rest(tmp_path, pin, capsys, count):
    folder = session(tmp_path / "session")
    _keep("base", count)(folder)
    assert pin(folder) == (2 if count < 2 else 0)
    printed = "".join(capsys.readouterr())
    assert (f"{count} of 5 processes" in printed) == (count < 5)
    how = f"for each of the other {5 - count} run `python -m bench run --sweep=gate`, and name all"
    assert (how in printed) == (count < 5)


def test_accept_of_cases_of_no_sweep_names_the_options_of_these(tmp_path, pin, capsys):
    folder = session(tmp_path / "session", before={"facts": {"sweep": "chosen"}})
    _keep("base", 1)(folder)
    assert pin(folder) == 2
    assert "run `python -m bench run` with the options of these, and" in capsys.readouterr().err


@pytest.mark.parametrize("machine", ["../../etc", "/", "..", "C:\\x", "a" * 999])
def test_the_machines_name_leads_nowhere_else(tmp_path, pin, machine):
    folder = session(tmp_path / "session", before={"facts": {"machine": machine}})
    assert pin(folder) == 0
    (made,) = Path("results/baselines").iterdir()
    assert re.fullmatch(r"[a-z0-9-]{1,100}", made.name)
    assert len(list(tmp_path.joinpath("place").iterdir())) == 1


def test_the_environment_goes_with_a_pinned_run(tmp_path, pin):
    folder = session(tmp_path / "session")
    for run in (folder / "base").iterdir():
        (run / "environment.json").write_text(json.dumps({"python": "3"}))
        (run / "charts").mkdir()
    assert pin(folder) == 0
    assert len(list(Path("results").rglob("environment.json"))) == 5
    assert not list(Path("results").rglob("charts"))


# --- without TensorFlow ---


def test_the_gate_needs_neither_tensorflow_nor_the_cells(tmp_path):
    folder = session(tmp_path, processes=2)
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'keras', 'cells'): sys.modules[name] = None\n"
        "from bench.__main__ import main\n"
        "sys.exit(main(['gate', *sys.argv[1:]]))\n"
    )
    arguments = ["--baseline", str(folder / "base"), "--current", str(folder / "head")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cause_is_one_of_the_table():
    with pytest.raises(AssertionError):
        CannotCompare("something", "else")


def test_unchanged_is_same_at_the_edge(tmp_path):
    """A change by exactly the threshold is never called slower with confidence."""
    found = outcome(session(tmp_path, subjects={"slstm-rnn": 1.05}))
    assert not found.of_word(SLOWER)
    assert {word for case, word in words(found).items() if case not in SLSTM} == {SAME}


# --- the statistics ---


def test_an_interval_beyond_the_threshold_is_not_enough_among_many_cases(tmp_path):
    """Of eight cases one is alone beyond: significant by itself, and not after the correction."""
    folder = session(tmp_path, subjects={"slstm-rnn": 1.15})
    best = max(outcome(folder).verdicts, key=lambda verdict: verdict.change.low)
    found = outcome(folder, threshold=best.change.low - 1.0005)
    (again,) = (verdict for verdict in found.verdicts if verdict.key == best.key)
    assert again.change.low > best.change.low - 0.0005
    assert again.word == INCONCLUSIVE
