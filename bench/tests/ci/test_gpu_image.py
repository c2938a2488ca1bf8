"""`ci/gpu.Dockerfile`: what it installs is declared, and can be had."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "ci" / "gpu.Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
(INSTALLED,) = re.findall(r"pip install --no-cache-dir (.+)$", TEXT, re.MULTILINE)


def test_it_installs_the_projects_own_extras_and_nothing_else():
    extras = re.fullmatch(r"-e '\.\[([a-z,]+)\]'", INSTALLED)[1].split(",")
    assert set(extras) == {"gpu", "test"} <= PROJECT["optional-dependencies"].keys()


def test_its_python_is_one_that_the_project_takes():
    minor = int(re.search(r"^FROM python:3\.(\d+)-slim$", TEXT, re.MULTILINE)[1])
    least, below = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["requires-python"]).groups())
    assert least <= minor < below


def test_what_it_starts_is_there_and_is_given_an_environment():
    script, *options = re.findall(r'"([^"]+)"', re.search(r"^ENTRYPOINT (.+)$", TEXT, re.MULTILINE)[1])
    assert (ROOT / script).stat().st_mode & 0o111
    assert options == ["--environment", "/environment"] and "venv /environment" in TEXT


@pytest.mark.network
def test_its_packages_resolve():
    """pip finds versions of all of them that go together; nothing is installed."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    done = subprocess.run([*command, ".[gpu,test]"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
