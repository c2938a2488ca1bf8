"""What reads records alone, in an environment that has nothing but `ci/report-requirements.txt`.

On the oldest Python the environment has the oldest versions that the file allows; all other tests have the
newest.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.records.csv_file import RecordWriter
from bench.tests.sample_records import default_run

pytestmark = pytest.mark.network
HOUSE = Path(__file__).parents[2]
PROJECT = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
OLDEST_PYTHON = tuple(map(int, re.findall(r">=(\d+)\.(\d+)", PROJECT["requires-python"])[0]))


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of an environment made as `ci/report-requirements.txt` says."""
    folder = tmp_path_factory.mktemp("lean")
    source = copy_of_the_packages(folder / "source")
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    python = folder / "environment" / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    requirements = source / "ci" / "report-requirements.txt"
    if sys.version_info[:2] == OLDEST_PYTHON:
        requirements.write_text(requirements.read_text().replace(">=", "=="))
    subprocess.run([*pip, "-r", requirements], check=True)
    subprocess.run([*pip, "--no-deps", "-e", source], check=True)
    return python


def copy_of_the_packages(folder: Path) -> Path:
    """The packages alone, to install from: an install of the checkout itself would write into it."""
    return Path(shutil.copytree(HOUSE, folder, ignore=_all_but_the_packages))


def _all_but_the_packages(folder: str, names: list[str]) -> set[str]:
    wanted = {"bench", "cells", "ci", "pyproject.toml", "README.md"}
    return set(names) - wanted if Path(folder) == HOUSE else {"__pycache__"} & set(names)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with one run."""
    results = tmp_path_factory.mktemp("results")
    (results / "README.md").write_text("# Results\n")
    records = default_run()
    with_writer = RecordWriter(results / str(records[0]["run_id"]))
    for record in records:
        with_writer.begin(record)
        with_writer.finish(record)
    return results


def run(python: Path, *arguments: object) -> str:
    """What the command prints; it must succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_environment_has_no_tensorflow(python):
    missing = "import importlib.util as u; print([n for n in ('tensorflow', 'keras') if u.find_spec(n)])"
    assert run(python, "-c", missing).strip() == "[]"


def test_the_report_is_drawn(python, results, tmp_path):
    page = tmp_path / "report.html"
    (folder,) = (path for path in results.iterdir() if path.is_dir())
    run(python, "-m", "bench", "report", folder, "--output", page)
    assert "</html>" in page.read_text()


def test_the_history_is_drawn(python, results):
    run(python, "-m", "bench", "history", "--results", results)
    assert list((results / "charts").rglob("overview.png"))


def test_advice_is_given(python, results):
    sizes = {"--batch-size": 32, "--timesteps": 50, "--features": 64, "--units": 128}
    shape = [text for option in sizes.items() for text in option]
    advice = run(python, "-m", "bench", "advise", *shape, "--mode", "train", "--results", results)
    assert "lstm" in advice
