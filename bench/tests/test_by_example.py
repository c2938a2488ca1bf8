"""Every command of `by-example.md` runs, and the notebook: at small sizes, with few of the checks."""

import re
import runpy
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

import bench
from bench.__main__ import main
from bench.contract.checks import CHECKS, LAYER_CHECKS
from bench.tests.gate.test_gate import process, write_run

HOUSE = Path(bench.__file__).parent
PAGE = (HOUSE / "by-example.md").read_text()
FILES = dict(re.findall(r"```(?:python|toml)\n# (\S+\.\w+)\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines() if line
]
TINY = "--shape=2,3,4,5"
_FEW = ("layer", "state_size", "build", "is_layer", "sequences")


def write_repository(folder: Path) -> None:
    """The files that the page shows, at the paths that it shows."""
    for path, text in FILES.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text)


def test_the_page_shows_eleven_examples_and_their_files():
    assert len(re.findall(r"^## \d+\. ", PAGE, re.MULTILINE)) == 11
    assert {*FILES} == {
        *("my_cells.py", "my_layers.py", "my_sweeps.py", "my_model.py", "pyproject.toml"),
        "tests/test_my_cells.py",
    }
    assert len(COMMANDS) == len(set(COMMANDS)) == 16


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder with the files, the current one; of the contract the first checks alone are asked, here."""
    write_repository(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    few = [tuple(check for check in checks if check.name in _FEW) for checks in (CHECKS, LAYER_CHECKS)]
    monkeypatch.setattr("bench.contract.check_cell.CHECKS", few[0])
    monkeypatch.setattr("bench.contract.check_cell.LAYER_CHECKS", few[1])
    monkeypatch.setattr("bench.runner.proving.Prover.check_contract", lambda *_: None)
    monkeypatch.setattr("bench.session.choose.load_user_cells", lambda config: None)
    monkeypatch.setattr("bench.commands.check.contract_nursery", nullcontext)
    monkeypatch.setattr("bench.commands.check.check_apart", _check_here)
    yield tmp_path
    for name in ("my_cells", "my_layers", "my_sweeps", "test_my_cells"):
        sys.modules.pop(name, None)


def _check_here(cell, *_):
    from dataclasses import replace

    from bench.contract.switches import load_held
    from bench.processes.contract_worker import check_here

    return check_here(replace(cell, factory=load_held(cell.target, cell.kwargs, cell.whole)))


def commit_twice(folder: Path, monkeypatch) -> list[list[str]]:
    """Makes a git repository of the folder; the gate's processes are played, and their commands returned."""
    for number in range(2):
        (folder / "notes.md").write_text(str(number))
        for words in (["init", "--quiet"], ["add", "-A"], ["commit", "--quiet", "-m", "x"]):
            identity = ["-c", "user.name=x", "-c", "user.email=x@x"]
            subprocess.run(["git", *identity, *words], cwd=folder, check=True)
    commands: list[list[str]] = []
    generator = np.random.default_rng(0)

    def play(command, place, environment, log):
        commands.append(command)
        name = f"run-{len(commands):02d}"
        (results,) = (text.removeprefix("--results=") for text in command if text.startswith("--results="))
        write_run(Path(results) / name, process(name, generator))
        return 0

    monkeypatch.setattr("bench.gate.session.run_process", play)
    return commands


def run(command: str) -> int:
    """The exit code of a command of the page, in this process, at a small shape and for a moment."""
    words = shlex.split(re.sub(r"--shape=\S+", TINY, command))
    if words[:3] == ["python", "-m", "bench"]:
        quick = {"compare": ["--seconds=0.02"], "run": ["--benchmark-max-time=0.02", "-q"]}
        return main([*words[3:], *quick.get(words[3], [])])
    if words[0] == "python":
        runpy.run_path(words[1])
        return 0
    assert words[0] == "pytest"
    return pytest.main([*words[1:], "-p", "no:cacheprovider", "--benchmark-max-time=0.02", "-q"])


GATES = [command for command in COMMANDS if " gate " in command]


@pytest.mark.parametrize("command", [each for each in COMMANDS if each not in GATES])
def test_every_command_of_the_page_runs(repository, capfd, command):
    code = run(command)
    assert code in ((0, 1, 3) if "--at-most" in command else (0,)), capfd.readouterr()
    if ("run " in command or "benchmark" in command) and "--collect-only" not in command:
        assert list(repository.glob("results/*/records.csv"))


def test_fused_rnn_says_of_the_cell_what_the_page_shows(repository, capsys):
    (shown,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    run("python my_model.py")
    said = capsys.readouterr().out
    assert said == shown or "No faster one: " in said  # there may be no compiler


def test_the_gate_of_the_page_measures_two_commits(repository, monkeypatch, capsys):
    (command,) = GATES
    commands = commit_twice(repository, monkeypatch)
    assert run(command) == 0, capsys.readouterr()
    assert len(commands) == 10
    assert all({"--cell=my_cells.py:MyCell", TINY} <= {*each} for each in commands)


def test_the_notebook_runs():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(HOUSE / "tour.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(HOUSE.parent)}}
    ).execute()
    shown = [
        output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output
    ]
    assert "MyCell: the contract holds" in shown[0]["text/plain"]
    assert "<td>keras LSTM</td>" in shown[1]["text/html"]
    assert "independent_samples" in shown[2]["text/plain"]
