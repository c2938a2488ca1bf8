"""What a run ran on: the commit of the code, the hardware key, and nothing missing."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.records import environment
from bench.records.environment import describe, git_commit, machine_key, memory_bytes, new_run_id, timestamp

CODE = Path(environment.__file__).name


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit that holds the code's file."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / CODE).write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", CODE)
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_the_commit_of_a_clean_checkout(checkout):
    assert git_commit(checkout) == git(checkout, "rev-parse", "HEAD")[:12]


def test_a_changed_file_makes_it_dirty_and_an_untracked_one_does_not(checkout):
    clean = git_commit(checkout)
    (checkout / "results.csv").write_text("")
    assert git_commit(checkout) == clean
    (checkout / CODE).write_text("changed")
    assert git_commit(checkout) == f"{clean}-dirty"
    git(checkout, "add", CODE)
    assert git_commit(checkout) == f"{clean}-dirty"


def test_no_commit_outside_a_checkout(tmp_path):
    (tmp_path / CODE).write_text("")
    assert git_commit(tmp_path) is None


def test_no_commit_of_somebody_elses_checkout(checkout):
    """Installed into a virtual environment that lies in a repository, the code is not of that repository."""
    installed = checkout / "venv" / "bench"
    installed.mkdir(parents=True)
    shutil.copy(checkout / CODE, installed)
    assert git_commit(installed) is None


def test_no_commit_where_there_is_no_git(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit(checkout) is None


def test_no_commit_of_an_empty_repository(tmp_path):
    git(tmp_path, "init", "--quiet")
    assert git_commit(tmp_path) is None


def test_the_machine_key_names_processor_cores_and_system(monkeypatch):
    monkeypatch.setattr(environment, "cpu_model", lambda: "Xeon")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(environment.platform, "system", lambda: "Linux")
    monkeypatch.setattr(environment.platform, "machine", lambda: "x86_64")
    assert machine_key() == "Xeon, 2 cores, Linux x86_64"
    assert machine_key("NVIDIA H100") == "NVIDIA H100 with Xeon, 2 cores, Linux x86_64"


def test_processor_and_memory_without_proc(monkeypatch):
    monkeypatch.setattr(environment, "_field", lambda file, name: None)
    assert environment.cpu_model()
    assert memory_bytes() is None


def test_memory_is_in_bytes(monkeypatch):
    monkeypatch.setattr(environment, "_field", lambda file, name: "2048 kB")
    assert memory_bytes() == 2 * 1024**2


def test_a_field_of_a_file(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: Xeon @ 2.20GHz: 8\nmodel name\t: other\n")
    assert environment._field(str(file), "model name") == "Xeon @ 2.20GHz: 8"
    assert environment._field(str(file), "nothing") is None
    assert environment._field(str(tmp_path / "none"), "model name") is None


def test_the_description_can_be_written_and_leaves_secrets_out(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "2")
    monkeypatch.setenv("MY_TOKEN", "hidden")
    found = json.loads(json.dumps(describe(runtime={"gpus": []})))
    assert found["environment_variables"]["TF_NUM_INTRAOP_THREADS"] == "2"
    assert "hidden" not in json.dumps(found)
    assert found["runtime"] == {"gpus": []}
    assert found["machine"]["cores"] == os.cpu_count()
    assert {"tensorflow", "keras", "numpy", "pytest-benchmark"} <= set(found["packages"])
    assert found["commit"] == git_commit()


def test_names_of_time():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", timestamp())
    assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{os.getpid()}", new_run_id())


def test_two_runs_of_one_second_have_names_of_their_own():
    assert new_run_id() != new_run_id()
