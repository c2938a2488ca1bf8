"""A repository of one's own, as `by-example.md` shows it, with the project installed from its wheel."""

import os
import subprocess
import sys

import pytest

from bench.tests.test_by_example import TINY, write_repository
from bench.tests.test_lean_install import HOUSE, copy_of_the_packages

pytestmark = pytest.mark.network


def test_a_repository_of_ones_own_uses_the_installed_wheel(tmp_path):
    installed, repository = tmp_path / "installed", tmp_path / "repository"
    repository.mkdir()
    write_repository(repository)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", f"--target={installed}"]
    subprocess.run([*pip, copy_of_the_packages(tmp_path / "source")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments], cwd=repository, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    where = "import bench, cells; print(bench.__file__, cells.__file__)"
    assert run("-c", where).count(str(installed)) == 2 and str(HOUSE) not in run("-c", where)
    assert " passed" in run("-m", "pytest", "tests")
    quick = ("--benchmark-max-time=0.1", "--mode=infer", TINY)
    said = run("-m", "pytest", "-p", "bench.plugin", "--benchmark-only", "--cell=my_cells.py:MyCell", *quick)
    assert "MyCell in RNN, infer: " in said and list(repository.glob("results/*/records.csv"))
