"""Files are written whole or not at all, whoever writes them and whatever goes wrong."""

import errno
import json
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.gate.pinned_baseline import pin
from bench.gate.revisions import read_side
from bench.records import files
from bench.records.csv_file import RecordWriter, read_records
from bench.records.files import write_whole
from bench.records.run_folder import write_environment, write_tasks
from bench.records.schema import Value
from bench.report.charts.run_charts import draw
from bench.report.html import write_report
from bench.report.readme import write_block
from bench.selftest.gate import write_between
from bench.tests.sample_records import record

ROWS = [record(subject, mode) for subject in ("lstm-builtin", "slstm-rnn") for mode in ("infer", "train")]


@contextmanager
def full_disk(room: int = 10) -> Iterator[None]:
    """No file can grow beyond `room` bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


# --- the function ---


@pytest.mark.parametrize("content", ["a text: ±2%\r\n", b"\x00\xff", "", "lone \udc80"])
def test_a_file_is_written_and_replaced(tmp_path, content):
    file = tmp_path / "file"
    for _ in range(2):
        write_whole(file, content)
        expected = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
        assert content_of(tmp_path) == {"file": expected}
        file.write_bytes(b"something much longer than what comes next")


def test_permissions_are_those_of_any_new_file_and_stay(tmp_path):
    (tmp_path / "usual").write_text("")
    file = tmp_path / "file"
    write_whole(file, "new")
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode
    file.chmod(0o640)
    write_whole(file, "changed")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_keeps_pointing_to_its_file(tmp_path):
    (tmp_path / "there").mkdir()
    target, link = tmp_path / "there" / "file", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink() and target.read_text() == "new"


def test_a_pipe_and_a_device_are_written_to_and_stay(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write_whole(pipe, "through")
    reader.join(10)
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_whole(Path(os.devnull), "nothing")
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.parametrize("broken", ["open", "fsync", "fchmod", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_an_error_at_any_step_leaves_the_old_file_alone(tmp_path, monkeypatch, broken, error):
    file = tmp_path / "file"
    file.write_text("old")

    def fail(*arguments):
        raise error

    monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises(type(error)) as raised:
        write_whole(file, "new")
    monkeypatch.undo()
    assert content_of(tmp_path) == {"file": b"old"}
    if isinstance(error, OSError):
        assert str(raised.value) == f"[Errno {errno.ENOSPC}] No space left on device: '{file}'"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("none/file", FileNotFoundError), (".", IsADirectoryError), ("x" * 5000, OSError), ("f/f", OSError)],
)
def test_an_error_names_the_file_and_keeps_its_kind(tmp_path, path, kind):
    (tmp_path / "f").write_text("")
    with pytest.raises(kind) as raised:
        write_whole(tmp_path / path, "new")
    assert raised.value.filename == str(tmp_path / path)
    assert content_of(tmp_path) == {"f": b""}


def test_a_name_as_long_as_the_system_allows_is_written(tmp_path):
    file = tmp_path / ("x" * 255)
    write_whole(file, "new")
    assert content_of(tmp_path) == {file.name: b"new"}


# --- all that write ---


def _written_run(folder: Path, rows: Sequence[Mapping[str, Value]] = ROWS) -> Path:
    writer = RecordWriter(folder)
    for row in rows:
        writer.finish(row)
    write_environment(folder, {"machine": {}})
    return folder


def _side(folder: Path):
    return read_side("current", [_written_run(folder)])


def _write_row(folder: Path) -> Callable[[], object]:
    writer = RecordWriter(folder / "run")
    writer.finish(ROWS[0])
    return lambda: writer.finish(ROWS[1])


def _write_pinned(folder: Path) -> Callable[[], object]:
    side = _side(folder / "run")
    pin(folder / "pinned", side)
    return lambda: pin(folder / "pinned", side)


def _write_between(folder: Path) -> Callable[[], object]:
    file = folder / "README.md"
    file.write_text("# Title\n<!-- selftest:gate -->\n<!-- /selftest:gate -->\nand more\n")
    return lambda: write_between(file, "text", "gate")


def _write_block(folder: Path) -> Callable[[], object]:
    file = folder / "README.md"
    file.write_text("# Title\n" + "of a user\n" * 100)
    return lambda: write_block(file, "history", "text", "History")


WRITERS: dict[str, Callable[[Path], Callable[[], object]]] = {
    "a row": _write_row,
    "environment.json": lambda folder: lambda: write_environment(folder, {"machine": {"cores": 2}}),
    "tasks.json": lambda folder: lambda: write_tasks(folder, [{"sweep": "s", "case": "c"}]),
    "charts": lambda folder: lambda: draw(folder, ROWS),
    "report.html": lambda folder: (lambda run: lambda: write_report([run], folder / "report.html"))(
        _written_run(folder / "run")
    ),
    "a block": _write_block,
    "the self-test's figures": _write_between,
    "a pinned baseline": _write_pinned,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_full_disk_leaves_everything_as_it_was(tmp_path, write):
    again = write(tmp_path)
    before = content_of(tmp_path)
    with full_disk(), pytest.raises(OSError) as raised:
        again()
    assert content_of(tmp_path) == before
    assert raised.value.errno == errno.EFBIG and raised.value.filename
    again()  # and works again once there is room
    assert content_of(tmp_path) != before or write is _write_pinned


def test_a_run_on_a_full_disk_keeps_its_rows(tmp_path):
    writer = RecordWriter(tmp_path / "run")
    writer.finish(ROWS[0])
    room = writer.path.stat().st_size + 100
    with full_disk(room), pytest.raises(OSError, match=r"records\.csv"):
        writer.begin(ROWS[1])
    assert read_records(writer.path) == ROWS[:1]


COMMANDS = {
    "report": ["report", "run", "--output=report.html"],
    "readme": ["readme", "--file=README.md"],
    "history": ["history", "--results=."],
    "selftest": ["selftest", "--load=rows.json", "--save=saved.json"],
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_command_on_a_full_disk_says_so_in_one_line(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    _written_run(tmp_path / "run")
    Path("README.md").write_text("# Title\n<!-- bench:columns -->\n<!-- /bench:columns -->\nlast line\n")
    row = {"case": "train-lstm-rnn-b1-t1-f1-u1", "planted": 0.0, "instances": [[[1.0] * 4, [1.0] * 4]]}
    Path("rows.json").write_text(json.dumps({"facts": {}, "clock_s": [1e-6], "rows": [row]}))
    before = content_of(tmp_path)
    with full_disk():
        assert main(arguments) == 2
    assert content_of(tmp_path) == before
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "File too large: '" in error


def test_the_gate_on_a_full_disk_says_so_and_leaves_no_file(tmp_path, capsys):
    def side(name: str) -> str:
        for number in range(5):
            rows = [{**row, "run_id": f"{name}-{number}"} for row in ROWS]
            _written_run(tmp_path / name / str(number), rows)
        return str(tmp_path / name)

    outputs = [f"--{name}={tmp_path / name}" for name in ("junit", "markdown")]
    before = [f"--baseline={side('base')}", f"--current={side('head')}"]
    with full_disk():
        assert main(["gate", *before, *outputs]) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base", "head"]
    assert "cannot write: [Errno 27] File too large: '" in capsys.readouterr().err
