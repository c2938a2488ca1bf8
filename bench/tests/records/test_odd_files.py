"""No odd file stops a command, keeps it waiting, or reaches the terminal as it is; other runs are used."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.__main__ import main
from bench.records import files
from bench.records.csv_file import RECORDS_FILE, RecordWriter, line
from bench.records.files import read_json, read_text
from bench.records.run_folder import (
    ENVIRONMENT_FILE,
    TASKS_FILE,
    StoredRun,
    read_run,
    run_folders,
    write_environment,
    write_tasks,
)
from bench.records.schema import BY_NAME, RecordError
from bench.records.text import LONGEST, one_line
from bench.tests.sample_records import record

ROWS = [record(subject, mode) for subject in ("lstm-builtin", "slstm-rnn") for mode in ("infer", "train")]
SURROGATE, ESCAPE = "\\ud800", "\x1b[31m"


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """A reader that waits for a pipe fails."""

    def give_up(*_: object) -> None:
        raise AssertionError("waits")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def write_run(folder: Path, name: str, rows=ROWS) -> Path:
    writer = RecordWriter(folder / name)
    for row in rows:
        writer.finish({**row, "run_id": name})
    write_environment(writer.path.parent, {"machine": {"cores": 2}})
    write_tasks(writer.path.parent, [{"sweep": "generate", "case": "c", "texts": ["To be"]}])
    return writer.path.parent


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """A results folder with a README of blocks and three runs; `odd` is the second."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # none of this has to outlive a power cut
    for name in ("a", "odd", "z"):
        write_run(tmp_path / "results", name)
    return tmp_path / "results"


def replaced(file: Path, make: Callable[[Path], object]) -> None:
    file.unlink(missing_ok=True)
    make(file)


ODD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda file: file.write_text(""),
    "a huge integer": lambda file: file.write_text('{"machine": {"cores": ' + "9" * 400 + "}}"),
    "a far too huge integer": lambda file: file.write_text("[" + "9" * 5000 + "]"),
    "no number": lambda file: file.write_text('{"a": NaN, "b": 1e999}'),
    "deep": lambda file: file.write_text("[" * 100_000 + "]" * 100_000),
    "not so deep": lambda file: file.write_text('{"a":' * 900 + "1" + "}" * 900),
    "a lone surrogate": lambda file: file.write_text(f'{{"cpu": "{SURROGATE}", "{SURROGATE}": 1}}'),
    "control characters": lambda file: file.write_text('{"cpu": "\\u001b[31m\\u0000"}\x1b[31m'),
    "no text": lambda file: file.write_bytes(b"\xff\xfe\x00" * 50),
    "other things": lambda file: file.write_text('[[1], {"texts": 7}, {"texts": [[], {}, null]}, "x"]'),
    "a pipe": os.mkfifo,
    "a folder": lambda file: file.mkdir(),
    "an endless device": lambda file: file.symlink_to("/dev/zero"),
    "a link to nothing": lambda file: file.symlink_to("nowhere"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a long line": lambda file: file.write_text("x" * 10**6),
}
COMMANDS: dict[str, list[str]] = {
    "report": ["report", "results/odd"],
    "history": ["history"],
    "advise": [
        *("advise", "--batch-size=32", "--timesteps=50", "--features=64", "--units=128", "--mode=infer"),
    ],
    "gate": ["gate", "--baseline", "results/a", "--current", "results/odd"],
    "readme": ["readme", "results/odd", "--file=README.md"],
}


def told(capsys) -> list[str]:
    """What a command wrote on stderr, line by line; nothing that a terminal obeys, and no long line."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = error.splitlines()
    assert lines == error.split("\n")[:-1]  # no other line breaks
    for each in lines:
        assert each.isprintable() and len(each) <= LONGEST + len("cannot compare: unreadable: ")
    return lines


def all_read(results: Path) -> tuple[list[StoredRun], list[str]]:
    """The runs that can be read, and a line for each notice and for each run that cannot."""
    runs: list[StoredRun] = []
    refused = []
    for folder in run_folders(results):
        try:
            runs.append(read_run(folder))
        except RecordError as error:
            refused.append(str(error))
    return runs, [*refused, *(notice for run in runs for notice in run.notices)]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", [RECORDS_FILE, ENVIRONMENT_FILE, TASKS_FILE])
def test_no_reader_stops_or_waits(results, name, odd):
    replaced(results / "odd" / name, ODD[odd])
    runs, notices = all_read(results)
    assert [run.folder.name for run in runs if run.records] == [
        run for run in ("a", "odd", "z") if run != "odd" or name != RECORDS_FILE
    ]
    assert all("odd" in notice and notice.isprintable() for notice in notices)
    assert len(notices) == 1 or (name != RECORDS_FILE and odd in ("a lone surrogate", "other things"))


@pytest.mark.parametrize("odd", ["deep", "a pipe", "a folder", "control characters"])
@pytest.mark.parametrize("name", [RECORDS_FILE, ENVIRONMENT_FILE, TASKS_FILE])
@pytest.mark.parametrize("command", ["history", "advise", "gate", "readme"])
def test_no_command_stops_or_waits(results, capsys, command, name, odd, monkeypatch):
    monkeypatch.setattr("bench.commands.history.draw", lambda *_: [], raising=False)
    Path("README.md").write_text("<!-- bench:cases -->\n<!-- /bench:cases -->\n")
    replaced(results / "odd" / name, ODD[odd])
    code = main(COMMANDS[command])
    lines = told(capsys)
    if name == RECORDS_FILE and command in ("gate", "readme"):
        assert code == 2 and len(lines) == 1 and "results/odd/records.csv" in lines[0]
    elif command in ("history", "advise"):
        assert code == 0
        assert name != RECORDS_FILE or "results/odd/records.csv" in lines[0]


@pytest.mark.parametrize("odd", ["a lone surrogate", "other things"])
def test_the_report_is_made_of_what_is_there(results, capsys, odd):
    for name in (ENVIRONMENT_FILE, TASKS_FILE):
        replaced(results / "odd" / name, ODD[odd])
    assert main([*COMMANDS["report"], "--output=page.html"]) == 0
    told(capsys)
    assert Path("page.html").read_text().count("slstm") > 5


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("README.md", ["readme", "--file=README.md"]),
        ("results/README.md", ["history"]),
        ("blocks.json", ["selftest", "--load=blocks.json"]),
        ("README.md", ["selftest", "--gate", "--pairs=1", "--write=README.md"]),
    ],
    ids=["readme", "history", "selftest", "selftest --gate"],
)
def test_other_files_that_commands_read(results, capsys, monkeypatch, file, command, odd):
    monkeypatch.setattr("bench.commands.history.draw", lambda *_: [], raising=False)
    monkeypatch.setattr("bench.commands.selftest.simulated_rates", lambda pairs: [])
    replaced(Path(file), ODD[odd])
    assert main(command) in (0, 2)
    told(capsys)


@pytest.mark.parametrize(
    "path", ["x" * 5000, "no/such", "zero\0byte", f"\x1b[31m\n{'y' * 200}", "a-file/run"]
)
@pytest.mark.parametrize("command", ["report", "history", "advise", "gate", "readme"])
def test_odd_paths_are_named_in_one_line(results, capsys, command, path):
    Path("a-file").write_text("")
    arguments = {
        "report": ["report", path],
        "history": ["history", "--results", path],
        "advise": [*COMMANDS["advise"], "--results", path],
        "gate": ["gate", "--baseline", path, "--current", path],
        "readme": ["readme", path, "--file", path],
    }[command]
    assert main(arguments) == 2
    assert len(told(capsys)) == 1


def test_a_folder_without_permission_is_told_and_left_out(results, capsys, monkeypatch):
    opened = os.open

    def refuse(path, *arguments, **keywords):
        if "odd" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **keywords)

    monkeypatch.setattr(files.os, "open", refuse)
    assert main(COMMANDS["advise"]) == 0
    assert [("Permission denied" in each, "odd/records.csv" in each) for each in told(capsys)] == [
        (True, True)
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_may_not_be_looked_into_is_told(results, capsys):
    (results / "odd").chmod(0)
    assert main(COMMANDS["advise"]) == 0
    assert "Permission denied" in told(capsys)[0]


def test_the_gates_session_may_be_anything(results, capsys):
    for side in ("base", "head"):
        for number in range(2):
            write_run(Path(side), f"{side}-{number}")
    for odd in ("a pipe", "no text", "a long line", "an endless device"):
        replaced(Path("session.tsv"), ODD[odd])
        assert main(["gate", "--baseline", "base", "--current", "head"]) in (0, 2, 3), odd
        told(capsys)


# --- the functions ---


@pytest.mark.parametrize("odd", ODD)
def test_a_json_file_is_read_or_refused_in_one_line(tmp_path, odd):
    file = tmp_path / "file.json"
    ODD[odd](file)
    if odd in ("a lone surrogate", "other things"):
        assert read_json(file)
        return
    with pytest.raises(RecordError) as refused:
        read_json(file)
    message = str(refused.value)
    assert message.startswith(str(file)) and message.isprintable() and len(message) <= LONGEST


def test_too_large_a_file_is_not_read(tmp_path, monkeypatch):
    file = tmp_path / "file"
    with open(file, "wb") as opened:
        opened.truncate(2**40)
    with pytest.raises(RecordError, match="is too large: 1,099,511,627,776 bytes"):
        read_text(file)


def test_what_a_run_writes_is_read(tmp_path):
    run = read_run(write_run(tmp_path, "run"))
    assert not run.notices and run.environment == {"machine": {"cores": 2}} and run.tasks
    write_environment(run.folder, {"variables": {"TF_XLA_FLAGS": "\udcff"}, "text": "±"})
    assert read_run(run.folder).environment == {"variables": {"TF_XLA_FLAGS": "\udcff"}, "text": "±"}


@given(st.text(max_size=2000), st.integers(20, 400))
def test_one_line_is_one_short_printable_line(text, longest):
    shown = one_line(text, longest)
    assert len(shown) <= longest and shown.isprintable() and one_line(shown, longest) == shown
    shown.encode()
    assert not text.isprintable() or len(text) > longest or shown == text


def test_one_line_shows_control_characters_and_keeps_both_ends():
    assert one_line("a\x1b[31mb\r\nc\td\u2028e\x00\ud800") == "a\\x1b[31mb c\\td e\\x00\\ud800"
    shown = one_line("start" + "x" * 5000 + "end")
    assert shown.startswith("startxxx") and shown.endswith("xxxend") and " … " in shown
    assert len(shown) == LONGEST
    assert one_line("x" * 5000, None) == "x" * 5000


def test_names_from_a_csv_are_shown_not_sent(results, capsys):
    rows = [{**row, "run_id": "odd", "machine": f"{ESCAPE}\x07 ‮machine"} for row in ROWS]
    content = b"".join(line(each) for each in ([*BY_NAME], *(row.values() for row in rows)))
    (results / "odd" / RECORDS_FILE).write_bytes(content)
    for command in ("history", "advise"):
        assert main(COMMANDS[command]) == 0
        printed = capsys.readouterr()
        assert (printed.out + printed.err).replace("\n", "").isprintable()
