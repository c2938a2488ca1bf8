"""`ci/gate.sh`: whose turn it is, going on after a stop, and its errors. A script plays what it calls."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "ci" / "gate.sh"
TURNS = ["base", "head", "head", "base"] * 2 + ["base", "head"]
PROJECT = '[project]\nname = "x"\ndependencies = ["one>=1"]\n'

# plays Python: `-c` asks whose code it imports; a run is a folder with a CSV; the gate prints its arguments
PLAYER = r"""#!/usr/bin/env bash
[[ $1 == -c ]] && exit 0
[[ $2 == bench ]] && { echo "gate: $*"; exit "${GATE_CODE:-0}"; }
echo "$PWD $*" >>"$CALLS"
(($(wc -l <"$CALLS") == ${STOP_AT:-0})) && { echo "no such sweep"; exit 4; }
while [[ $1 != --results ]]; do shift; done
mkdir -p "$2/run-$(wc -l <"$CALLS")"
touch "$2/run-$(wc -l <"$CALLS")/records.csv"
exit 1 # a case failed
"""


@pytest.fixture
def repository(tmp_path):
    """A repository of two commits, the script, and an environment that plays."""
    folder = tmp_path / "repository"
    (folder / "ci").mkdir(parents=True)
    shutil.copy(SCRIPT, folder / "ci")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / ".gitignore").write_text("/build/\n")
    git(folder, "init", "--quiet")
    commit(folder, "one")
    (folder / "cell.py").write_text("slow = True\n")
    commit(folder, "two")
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PLAYER)
    python.chmod(0o755)
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@x")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", message)


def gate(repository: Path, *arguments: str, own: bool = False, **variables: str):
    """Runs the script with the environment that plays, unless `own`."""
    there = {"CALLS": str(repository.parent / "calls"), "PYTHON": sys.executable, **variables}
    shared = () if own else ("--environment", str(repository.parent / "environment"))
    return subprocess.run(
        ["ci/gate.sh", *shared, *arguments],
        cwd=repository,
        env={**os.environ, **there},
        capture_output=True,
        text=True,
    )


def session(repository: Path) -> Path:
    (folder,) = (repository / "build" / "gate").iterdir()
    return folder


def test_processes_take_turns_and_the_gate_gets_their_runs(repository):
    done = gate(repository, "HEAD~1", "HEAD", "--threshold", "7%", "--", "-k", "slstm", GATE_CODE="3")
    assert done.returncode == 3, done.stderr
    lines = [line.split("\t") for line in (session(repository) / "session.tsv").read_text().splitlines()]
    assert [side for side, _ in lines] == TURNS
    assert len({run for _, run in lines}) == 10
    assert all((session(repository) / side / run / "records.csv").is_file() for side, run in lines)
    calls = (repository.parent / "calls").read_text().splitlines()
    assert [Path(call.split()[0]).name for call in calls] == [f"tree-{side}" for side in TURNS]
    assert all("--benchmark-only --sweep gate" in call and call.endswith("-k slstm") for call in calls)
    base, head = session(repository) / "base", session(repository) / "head"
    assert f"gate: -m bench gate --baseline {base} --current {head} --threshold 7%" in done.stdout
    assert (session(repository) / "tree-head" / "cell.py").exists()
    assert not (session(repository) / "tree-base" / "cell.py").exists()


def test_it_goes_on_where_it_was_stopped(repository):
    stopped = gate(repository, "HEAD~1", "HEAD", STOP_AT="4")
    assert stopped.returncode == 2
    assert "base: pytest ended with 4" in stopped.stderr and "no such sweep" in stopped.stderr
    assert len((session(repository) / "session.tsv").read_text().splitlines()) == 3
    listed = (
        session(repository) / "session.tsv"
    )  # and once more, between putting a run away and writing it down
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:2]))
    assert gate(repository, "HEAD~1", "HEAD").returncode == 0
    assert [line.split("\t")[0] for line in listed.read_text().splitlines()] == TURNS
    calls = len((repository.parent / "calls").read_text().splitlines())
    assert calls == 11
    assert gate(repository, "HEAD~1", "HEAD", "--processes", "6").returncode == 0  # two more
    assert len(listed.read_text().splitlines()) == 12


def test_the_plan_touches_nothing(repository):
    done = gate(repository, "--plan", "HEAD~1", "HEAD")
    assert done.returncode == 0
    assert f"base {git(repository, 'rev-parse', 'HEAD~1')}" in done.stdout
    assert f"turns {' '.join(TURNS)}" in done.stdout
    assert not (repository / "build").exists()


def test_a_requirement_compares_the_revision_with_itself(repository):
    done = gate(repository, "--plan", "--with", "tensorflow==2.20", "--with", "keras", own=True)
    head = git(repository, "rev-parse", "HEAD")
    assert done.returncode == 0, done.stderr
    assert f"base {head} \nhead {head} tensorflow==2.20 keras\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HEAD"], "takes BASE and HEAD, got 1"),
        (["HEAD", "nowhere"], "nowhere: no such revision"),
        (["--processes", "4", "HEAD", "HEAD"], "--processes 4: must be 5 or more"),
        (["--processes", "x", "HEAD", "HEAD"], "--processes x: must be 5 or more"),
        (["--swep", "gate", "HEAD", "HEAD"], "no option --swep"),
        (["HEAD", "HEAD", "--sweep"], "--sweep takes a value"),
        (["--with", "keras==3.14"], "one environment holds one set of requirements"),
        (["--environment", "/nowhere", "HEAD", "HEAD"], "/nowhere: has no bin/python"),
    ],
)
def test_a_mistake_is_named(repository, arguments, message):
    done = gate(repository, *arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_one_environment_is_for_the_same_requirements(repository):
    (repository / "pyproject.toml").write_text(PROJECT.replace("one", "two"))
    commit(repository, "three")
    done = gate(repository, "HEAD~1", "HEAD")
    assert done.returncode == 2 and "require different packages" in done.stderr


def test_a_work_folder_holds_one_session(repository):
    work = ("--work", str(repository.parent / "work"))
    assert gate(repository, *work, "HEAD~1", "HEAD").returncode == 0
    done = gate(repository, *work, "HEAD", "HEAD")
    assert done.returncode == 2 and "holds a session with other settings" in done.stderr


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
