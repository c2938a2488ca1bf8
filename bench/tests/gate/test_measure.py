"""`gate --measure`: whose turn it is, going on after a stop, whose code runs, and mistakes. A function plays
the process that measures."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bench.gate.session
from bench.__main__ import main as bench_main
from bench.gate.repository import CannotMeasure, Repository
from bench.gate.revisions import SESSION_FILE
from bench.gate.session import run_process
from bench.gate.side_environment import check_origin, search_path
from bench.records.csv_file import RECORDS_FILE
from bench.tests.gate.test_gate import SLSTM, process, write_run

TURNS = ["base", "head", "head", "base"] * 2 + ["base", "head"]
CELL = "speed = {}\n"


class Player:
    """Stands for `run_process`: measures by reading `speed` in the cell's file of the tree it is started in.

    Attributes:
        calls: command, folder and environment of each process.
        ends: a process's number, from 1, and what it does instead.
    """

    def __init__(self):
        self.calls = []
        self.ends = {}
        self._generator = np.random.default_rng(0)

    def __call__(self, command, folder, environment, log):
        number = len(self.calls) + 1
        self.calls.append((command, folder, environment))
        if number in self.ends:
            return self.ends[number](log)
        (results,) = (Path(text.partition("=")[2]) for text in command if text.startswith("--results="))
        slower = float(next(folder.rglob("my_cells.py")).read_text().partition("=")[2])
        name = f"run-{number:02d}-{len(list(results.parent.glob('*/run-*')))}"
        rows = process(name, self._generator, subjects={"slstm-rnn": slower})
        write_run(results / name, rows)
        return 1  # a case failed, which is in the records

    @property
    def sides(self):
        return [re.search(r"tree-(\w+)", str(folder)).group(1) for _, folder, _ in self.calls]


@pytest.fixture
def player(monkeypatch):
    player = Player()
    monkeypatch.setattr(bench.gate.session, "run_process", player)
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    return player


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Somebody's repository of two commits, in which one stands; the second is slower by 15%."""
    folder = tmp_path / "their repository"
    folder.mkdir()
    monkeypatch.chdir(folder)
    git("init", "--quiet", "--initial-branch=main")
    commit("one", {"my_cells.py": CELL.format(1.0), "below/more.py": "", "notes.md": "one"})
    commit("two", {"my_cells.py": CELL.format(1.15)})
    return folder


def git(*arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(message: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    git("add", "-A")
    git("commit", "--quiet", "-m", message)


def measure(*arguments: str) -> int:
    return bench_main(["gate", "--measure", *(arguments or ("HEAD~1", "HEAD"))])


def work() -> Path:
    (folder,) = Path("build/gate").iterdir()
    return folder


def listed() -> list[str]:
    return [line.split("\t")[0] for line in (work() / SESSION_FILE).read_text().splitlines()]


def test_processes_take_turns_and_the_slower_cell_is_found(repository, player, capsys):
    assert (
        measure("HEAD~1", "HEAD", "--cell=my_cells.py:MyCell", "--junit=gate.xml", "--", "-k", "slstm") == 1
    )
    printed = capsys.readouterr().out
    assert player.sides == listed() == TURNS
    assert {line.split()[1] for line in printed.splitlines() if line.startswith("SLOWER")} == set(SLSTM)
    assert f"current:  5 processes of {git('rev-parse', 'HEAD')[:12]} (HEAD)" in printed
    command = player.calls[0][0]
    assert command[:4] == [sys.executable, "-m", "bench", "run"]
    assert command[5:] == [
        "--benchmark-max-time=2.5",
        "--sweep=gate",
        "--cell=my_cells.py:MyCell",
        *("-k", "slstm"),
    ]
    assert Path("gate.xml").is_file()


def test_nothing_is_left_behind_but_the_runs(repository, player):
    measure()
    assert git("worktree", "list").count("\n") == 0
    assert not list(work().glob("tree-*")) and not (work() / "running").exists()
    assert git("status", "--porcelain") == ""


@pytest.mark.parametrize("stop", [KeyboardInterrupt, CannotMeasure("stopped")])
def test_it_goes_on_where_it_was_stopped(repository, player, stop):
    def raise_it(log):
        raise stop

    player.ends = {4: raise_it}
    assert measure() == (130 if stop is KeyboardInterrupt else 2)
    assert listed() == TURNS[:3]
    assert git("worktree", "list").count("\n") == 0
    kept = {file: file.stat().st_mtime_ns for file in work().rglob(RECORDS_FILE)}
    assert measure() == 1
    assert listed() == TURNS and player.sides == [*TURNS[:4], *TURNS[3:]]
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    assert measure("HEAD~1", "HEAD", "--processes=6") == 1  # two more
    assert listed() == [*TURNS, "head", "base"]


def test_it_goes_on_where_it_was_killed(repository, player, monkeypatch):
    """A killed session tidies nothing up: its tree is there, and perhaps a run that is not written down."""
    player.ends = {4: lambda log: 2}
    assert measure() == 2
    file = work() / SESSION_FILE
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:2]) + "hea")
    git("worktree", "add", "--detach", str(work() / "tree-head"), "HEAD~1")
    (work() / "running" / "half").mkdir(parents=True)
    assert measure() == 1
    assert listed() == TURNS and len(player.calls) == 11
    assert git("worktree", "list").count("\n") == 0


def test_a_finished_session_is_only_compared(repository, player, capsys):
    assert measure() == measure() == 1
    assert len(player.calls) == 10


def test_one_session_at_a_time_works_in_a_folder(repository, player, capsys):
    codes = []
    player.ends = {1: lambda log: codes.append(measure()) or 2}
    measure()
    assert codes == [2] and "another session is at work there" in capsys.readouterr().err


def test_a_work_folder_holds_one_session(repository, player, capsys):
    assert measure("HEAD~1", "HEAD", "--work=../work") == 1
    assert measure("HEAD", "HEAD", "--work=../work") == 2
    assert "holds a session with other settings (base)" in capsys.readouterr().err
    assert not Path("build").exists()


def test_the_plan_touches_nothing(repository, player, capsys):
    assert measure("HEAD~1", "main", "--shape=4,8,2,3", "--with=keras==3.14", "--plan") == 0
    printed = capsys.readouterr().out
    assert f"base: {git('rev-parse', 'HEAD~1')}\n" in printed
    assert f"head: {git('rev-parse', 'HEAD')} keras==3.14\n" in printed
    assert "--benchmark-max-time=2.5 --shape=4,8,2,3\n" in printed  # and no sweep
    assert f"turns: {' '.join(TURNS)}\nfinished: 0 of 10\n" in printed
    assert not Path("build").exists() and not player.calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "HEAD"], "nowhere: no such revision in"),
        (["HEAD", "HEAD:my_cells.py"], "HEAD:my_cells.py: no such revision in"),
        (["HEAD", "--upload-pack=x"], "no option --upload-pack"),
        (["HEAD", "HEAD", "--processes=1"], "--processes 1: must be 2 or more"),
        (["HEAD", "HEAD", "--cell=yours.py:Cell"], "yours.py: is not in BASE HEAD ("),
        (["HEAD", "HEAD", "--cell=lstm", "--baseline=no.py:C"], "no.py: is not in BASE HEAD ("),
        (["HEAD", "HEAD", "--sweep=sweeps/of.py:mine"], "sweeps/of.py: is not in BASE HEAD ("),
        (["HEAD", "HEAD", "--cell=/tmp/my_cells.py:Cell"], "lies outside of"),
        (["HEAD", "HEAD", "--cell=../my_cells.py:Cell"], "lies outside of"),
        (
            ["HEAD", "HEAD", "--cell=no_such_package.cells:Cell"],
            "no_such_package.cells: is not found, not from",
        ),
        (["HEAD", "HEAD", "--current=x"], "--current: is for runs that are stored"),
        (["HEAD", "HEAD", "--accept"], "--accept: is for runs that are stored"),
        (["HEAD", "HEAD", "--work=notes.md/x"], "cannot be made: Not a directory"),
    ],
)
def test_a_mistake_is_named_in_one_line(repository, player, capsys, arguments, message):
    try:
        code = measure(*arguments)
    except SystemExit as error:
        code = error.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and message in lines[-1] and not player.calls
    assert len(lines) == 1 or lines[0].startswith("usage")
    assert git("worktree", "list").count("\n") == 0


@pytest.mark.parametrize("option", ["--cell=a.py:B", "--processes-with", "--with=keras", "--plan"])
def test_options_of_measuring_are_not_passed_over(repository, capsys, option):
    if option == "--processes-with":
        option = "--base-with=keras"
    assert bench_main(["gate", "--current", "x", option]) == 2
    assert f"{option.partition('=')[0]}: is for --measure BASE HEAD" in capsys.readouterr().err


def test_outside_of_git(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert measure() == 2
    assert "is in no work tree of git" in capsys.readouterr().err
    monkeypatch.setenv("PATH", "")
    assert measure() == 2
    assert "git cannot be run" in capsys.readouterr().err


def test_a_usage_error_of_the_run_is_the_line(repository, player, capsys):
    def refuse(log):
        log.write_text("noise\nERROR: --cell: the sweep takes no cells; those that do are gate\n\n")
        return 4

    player.ends = {1: refuse}
    assert measure() == 2
    assert capsys.readouterr().err == (
        "cannot measure: base: --cell: the sweep takes no cells; those that do are gate\n"
    )


def test_a_process_without_a_run_leads_to_what_it_said(repository, player, capsys):
    player.ends = {1: lambda log: log.write_text("one\nSegmentation fault\n\n") and -11}
    assert measure("HEAD~1", "HEAD", "--junit=gate.xml") == 2
    error = capsys.readouterr().err
    assert "base: no run, exit code -11: Segmentation fault (all that it said: " in error
    assert "Segmentation fault" in Path("gate.xml").read_text()


def test_what_is_not_committed_matters_where_it_would_have_been_measured(repository, player, capsys):
    commit("three", {"my_cells.py": CELL.format(1.15)[:-1] + " "})
    Path("my_cells.py").write_text(CELL.format(2))
    assert measure() == 2
    assert "my_cells.py: changed and not committed" in capsys.readouterr().err
    assert measure("HEAD~2", "HEAD~1") == 1  # two others
    git("checkout", "--quiet", "my_cells.py")
    Path("new.py").write_text("")
    assert measure("HEAD~2", "HEAD") == 1


def test_a_folder_within_the_repository_is_where_it_runs(repository, player, monkeypatch):
    monkeypatch.chdir("below")
    measure("HEAD~1", "HEAD", "--cell=../my_cells.py:MyCell", f"--baseline={repository}/my_cells.py:Old")
    assert {folder.name for _, folder, _ in player.calls} == {"below"}
    assert player.calls[0][0][-2:] == ["--cell=../my_cells.py:MyCell", "--baseline=../my_cells.py:Old"]


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], ["--benchmark-max-time=2.5"]),
        (["--seconds=1"], ["--benchmark-max-time=1"]),
        (["--", "--seconds=1"], ["--seconds=1"]),
        (["--", "--benchmark-max-time=1"], ["--benchmark-max-time=1"]),
    ],
)
def test_each_process_is_told_the_seconds_once(repository, capsys, options, given):
    assert measure("HEAD~1", "HEAD", "--plan", *options) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("each: "))
    assert [word for word in command.split() if "seconds" in word or "max-time" in word] == given


def test_seconds_said_twice_are_refused(repository, capsys):
    assert measure("HEAD~1", "HEAD", "--seconds=1", "--", "--seconds=2") == 2
    assert "cannot measure: --seconds=2: --seconds says the same" in capsys.readouterr().err


# --- whose code, whose packages ---


def test_each_side_imports_its_own_code(repository, tmp_path, monkeypatch):
    """Though this Python imports the repository's folder `src`, installed in place or by PYTHONPATH."""
    commit("a package", {"src/theirs.py": "", "src/other.py": ""})
    monkeypatch.syspath_prepend("__editable__.theirs.finder.__path_hook__")
    monkeypatch.syspath_prepend(str(repository / "src"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository / "src"), str(tmp_path / "apart")]))
    with Repository(repository).work_tree("HEAD", repository / "build/gate/tree") as tree:
        path = search_path(repository, tree, repository / "build/gate")
        assert path.split(os.pathsep)[:3] == [str(tree), str(tree / "src"), str(tmp_path / "apart")]
        environment = {**os.environ, "PYTHONPATH": path}
        check_origin(Path(sys.executable), tree, Path("."), environment, ["theirs:Cell", "my_cells:Cell"])
        monkeypatch.setenv("PYTHONPATH", str(repository / "src"))
        with pytest.raises(
            CannotMeasure, match=r"theirs: comes from .*src/theirs\.py, not from the revision"
        ):
            check_origin(Path(sys.executable), tree, Path("."), os.environ, ["theirs:Cell"])


def test_packages_installed_within_the_repository_are_no_code(repository, monkeypatch):
    packages = repository / ".venv" / "site-packages"
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(packages))
    assert str(packages.relative_to(repository)) not in search_path(
        repository, repository / "t", repository / "w"
    )


def test_revisions_that_require_different_packages_have_environments(repository, player, monkeypatch):
    made = {}
    monkeypatch.setattr(
        bench.gate.session,
        "make_environment",
        lambda folder, wanted: made.update({folder.name: wanted}) or folder,
    )
    monkeypatch.setattr(bench.gate.session, "check_origin", lambda *arguments: None)
    for keras in ("3.13", "3.14"):
        commit(keras, {"pyproject.toml": f'[project]\nname = "x"\ndependencies = ["keras=={keras}"]\n'})
    measure("HEAD~1", "HEAD", "--with=numpy==2.1")
    assert made == {
        "environment-base": ("keras==3.13",),
        "environment-head": ("keras==3.14", "numpy==2.1"),
    }
    assert {Path(command[0]).name for command, _, _ in player.calls} == set(made)
    commit("broken", {"pyproject.toml": "["})
    assert measure() == 2


# --- real processes ---


def test_a_real_process_measures_their_cell_in_their_tree(repository, player, capsys, monkeypatch):
    """One of four; the others are copies of its run."""
    commit("a cell", {"my_cells.py": "from cells import SLSTMCell\n\nclass MyCell(SLSTMCell): pass\n"})

    def play(command, folder, environment, log):
        number = len(list(work().glob("*/run-*")))
        if number == 0:
            assert run_process(command, folder, environment, log) == 0, log.read_text()
            (records,) = (work() / "running").glob(f"*/{RECORDS_FILE}")
            shutil.move(records.parent, repository.parent / "first")
        rows = (repository.parent / "first" / RECORDS_FILE).read_text()
        copy = work() / "running" / f"run-{number}"
        copy.mkdir(parents=True)
        name = rows.splitlines()[1].partition(",")[0]
        (copy / RECORDS_FILE).write_text(rows.replace(name, copy.name))
        return 0

    monkeypatch.setattr(bench.gate.session, "run_process", play)
    options = ("--cell=my_cells.py:MyCell", "--shape=2,3,2,4", "--mode=infer", "--processes=2")
    assert measure("HEAD", "HEAD", *options, "--", "--benchmark-max-time=0.1") == 0
    printed = capsys.readouterr().out
    assert "SAME         infer-MyCell-rnn-b2-t3-f2-u4 " in printed
    assert "1 SAME" in printed


def test_a_stopped_session_ends_its_process_and_the_children(tmp_path):
    """As a cancelled job does: SIGTERM to us alone."""
    child = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    program = (
        "import os, sys; from pathlib import Path\n"
        "from bench.gate.session import _stoppable, run_process\n"
        f"with _stoppable(): run_process([sys.executable, '-c', {child!r}], '.', os.environ, Path('log'))"
    )
    started = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)

    def sleeping():
        found = subprocess.run(["pgrep", "-f", "^sleep 60$", "-n"], capture_output=True, text=True)
        return [each for each in found.stdout.split() if _started_in(each, tmp_path)]

    deadline = time.monotonic() + 20
    while not sleeping() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sleeping()
    started.send_signal(signal.SIGTERM)
    assert started.wait(20) != 0
    assert not sleeping()


def _started_in(process: str, folder: Path) -> bool:
    try:
        return Path(f"/proc/{process}/cwd").resolve() == folder.resolve()
    except OSError:
        return False


def test_what_a_process_prints_goes_to_its_log(tmp_path):
    code = run_process(
        [sys.executable, "-c", "print('seen'); exit(3)"], tmp_path, os.environ, tmp_path / "log"
    )
    assert code == 3 and (tmp_path / "log").read_text() == "seen\n"
