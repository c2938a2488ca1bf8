"""`ci/gpu.sh`: what it calls, its exit codes and its errors; a script plays pytest. Then a rehearsal."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cases.comparisons import comparisons
from bench.cases.cost_estimate import expected_seconds
from bench.records.csv_file import read_records
from bench.records.environment import REHEARSAL

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "ci" / "gpu.sh"
SWEEPS_IN_ORDER = ["smoke", "char_shape", "options", "default"]

# plays Python: the environment's report is a line; pytest writes down its arguments, and ends as told
PLAYER = r"""#!/usr/bin/env bash
[[ $1 == -c ]] && { echo '{"machine": {}}'; exit "${REPORT_CODE:-0}"; }
echo "$*" >>"$CALLS"
case $* in
*"-m gpu"*) echo "tests ran"; exit "${TESTS_CODE:-0}" ;;
*--sweep=slow*) sleep 30 ;;
*--sweep=failing*) exit 1 ;;
*--sweep=wrong*) exit 4 ;;
esac
"""


@pytest.fixture
def gpu(tmp_path):
    """gpu(*arguments, **variables): runs the script with the environment that plays."""
    python = tmp_path / "environment" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PLAYER)
    python.chmod(0o755)

    def run(*arguments, **variables):
        return subprocess.run(
            [
                SCRIPT,
                "--environment",
                tmp_path / "environment",
                "--results",
                tmp_path / "results",
                *arguments,
            ],
            env={**os.environ, "CALLS": str(tmp_path / "calls"), **variables},
            capture_output=True,
            text=True,
        )

    return run


def calls(tmp_path) -> list[str]:
    return (tmp_path / "calls").read_text().splitlines()


def test_it_reports_tests_and_measures_on_a_gpu_it_insists_on(gpu, tmp_path):
    done = gpu()
    assert done.returncode == 0, done.stderr
    tests, *sweeps = calls(tmp_path)
    assert "--require-gpu --benchmark-skip -m gpu" in tests
    assert [call.split("--sweep=")[1].split()[0] for call in sweeps] == SWEEPS_IN_ORDER
    assert all("--require-gpu --benchmark-only" in call for call in sweeps)
    assert all(f"--results={tmp_path}/results/runs" in call for call in sweeps)
    written = {file.name for file in (tmp_path / "results").iterdir()}
    assert written == {"environment.txt", "tests.txt", *(f"{name}.txt" for name in SWEEPS_IN_ORDER)}
    assert "tests ran" in (tmp_path / "results" / "tests.txt").read_text()
    assert "nothing of this says anything about a GPU" not in done.stdout


def test_on_a_cpu_it_insists_on_nothing_and_says_so(gpu, tmp_path):
    done = gpu("--device", "cpu", "--sweep", "smoke", "--", "-k", "slstm")
    assert done.returncode == 0, done.stderr
    tests, sweep = calls(tmp_path)
    assert "--device=cpu" in tests and "--require-gpu" not in tests + sweep
    assert sweep.endswith("-k slstm") and "-k" not in tests
    assert "nothing of this says anything about a GPU" in done.stdout


@pytest.mark.parametrize(
    ("sweeps", "variables", "code", "said"),
    [
        (["failing", "fine"], {}, 1, "failing: ended with 1"),
        (["wrong", "failing"], {}, 2, "wrong: ended with 4"),
        (["fine"], {"TESTS_CODE": "1"}, 1, "tests: ended with 1"),
        (["fine"], {"TESTS_CODE": "5"}, 2, "tests: ended with 5"),
        (["failing"], {"REPORT_CODE": "1"}, 1, "the machine: ended with 1"),
    ],
)
def test_it_goes_on_after_a_failure_and_ends_with_it(gpu, tmp_path, sweeps, variables, code, said):
    done = gpu(*(word for sweep in sweeps for word in ("--sweep", sweep)), **variables)
    assert done.returncode == code
    assert said in done.stderr
    assert len(calls(tmp_path)) == 1 + len(sweeps)


def test_the_time_of_all_sweeps_is_limited(gpu, tmp_path):
    """A minute is the least that can be asked for: the script's is shortened here."""
    script = tmp_path / "ci" / "gpu.sh"
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    script.write_text(script.read_text().replace("60 * minutes", "2 * minutes"))
    arguments = ["--environment", "environment", "--results", "results", "--minutes", "1"]
    done = subprocess.run(
        [script, *arguments, "--sweep", "slow", "--sweep", "fine"],
        cwd=tmp_path,
        env={**os.environ, "CALLS": str(tmp_path / "calls")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert "slow: ended with 124" in done.stderr and "fine: ended with 124" in done.stderr
    assert len(calls(tmp_path)) == 2  # the tests and the slow one


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "--device tpu: must be gpu or cpu"),
        (["--minutes", "0"], "--minutes 0: must be a whole number from 1"),
        (["--minutes", "x"], "--minutes x: must be a whole number from 1"),
        (["--swep", "smoke"], "no option --swep"),
        (["--sweep"], "--sweep takes a value"),
        (["--environment", "/nowhere"], "--environment /nowhere: has no bin/python"),
        (["--results", "/"], "--results /: is there already"),
    ],
)
def test_a_mistake_is_named(gpu, tmp_path, arguments, message):
    done = gpu(*arguments)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "calls").exists()


def test_the_tests_that_need_a_gpu_are_where_the_script_looks_for_them():
    marked = [file for file in ROOT.glob("*/tests/**/test_*.py") if "@pytest.mark.gpu\n@" in file.read_text()]
    assert marked and {file.parent for file in marked} == {ROOT / "bench/tests/backend"}


def test_the_sweeps_fit_into_the_time_that_they_get():
    rows = comparisons(SWEEPS_IN_ORDER, device="gpu")
    assert len(rows) > 300
    assert expected_seconds(rows, max_time_s=0.5) < 60 * 60


# plays the Python that makes the environment: `-m venv --clear DIR` copies it there; it writes down the rest
MAKER = r"""#!/usr/bin/env bash
case $* in
--version) echo "Python 3.12.1" ;;
"-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
*) echo "$*" >>"$CALLS" ;;
esac
"""


def test_the_environment_outlives_the_checkout_and_is_made_anew_for_other_packages(tmp_path):
    python, checkout = tmp_path / "python", tmp_path / "checkout"
    python.write_text(MAKER)
    python.chmod(0o755)

    def installed(number):
        """The packages that a run of the script in a fresh checkout installs."""
        shutil.rmtree(checkout, ignore_errors=True)
        (checkout / "ci").mkdir(parents=True)
        shutil.copy(SCRIPT, checkout / "ci" / "gpu.sh")
        (checkout / "pyproject.toml").write_text(f"# {number}")
        calls_file = tmp_path / "calls"
        calls_file.unlink(missing_ok=True)
        variables = {
            "PYTHON": str(python),
            "CALLS": str(calls_file),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
        }
        command = [checkout / "ci" / "gpu.sh", "--sweep", "fine"]
        subprocess.run(command, env={**os.environ, **variables}, capture_output=True, check=True)
        return [call for call in calls(tmp_path) if "pip install" in call]

    assert installed(1) == ["-m pip install --quiet -e .[gpu,test]"]
    assert installed(1) == []
    assert len(installed(2)) == 1


def test_a_rehearsal_goes_the_whole_way(tmp_path):
    """The same steps in the same order as on a GPU, here of two sweeps; its rows are marked."""
    sweeps = SWEEPS_IN_ORDER[:2]
    environment = tmp_path / "environment" / "bin"
    environment.mkdir(parents=True)
    python = environment / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    results = tmp_path / "results"
    done = subprocess.run(
        [
            *(SCRIPT, "--rehearse", "--environment", environment.parent, "--results", results),
            *(word for sweep in sweeps for word in ("--sweep", sweep)),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"machine"' in (results / "environment.txt").read_text()
    tests = (results / "tests.txt").read_text()
    assert "needs a GPU: this is a rehearsal" in tests and " passed" not in tests
    runs = sorted((results / "runs").iterdir())
    records = [record for run in runs for record in read_records(run)]
    assert list(dict.fromkeys(record["sweep"] for record in records)) == sweeps
    assert all(record["machine"].startswith(REHEARSAL) and record["device"] == "cpu" for record in records)
    assert {record["status"] for record in records} <= {"ok", "skipped"}


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
