"""`ci/gpu.sh`: what it calls, its exit codes and its errors; a script plays pytest. Then a real run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.records.csv_file import read_records

SCRIPT = Path(__file__).parents[3] / "ci" / "gpu.sh"

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
    assert [call.split("--sweep=")[1].split()[0] for call in sweeps] == ["default", "options", "char_shape"]
    assert all("--require-gpu --benchmark-only" in call for call in sweeps)
    assert all(f"--results={tmp_path}/results/runs" in call for call in sweeps)
    written = {file.name for file in (tmp_path / "results").iterdir()}
    assert written == {"environment.txt", "tests.txt", "default.txt", "options.txt", "char_shape.txt"}
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


def test_a_real_run_on_a_cpu(tmp_path):
    """One case, and the tests marked `gpu`, which are skipped and say why."""
    environment = tmp_path / "environment" / "bin"
    environment.mkdir(parents=True)
    python = environment / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    results = tmp_path / "results"
    folders = ["--environment", environment.parent, "--results", results]
    done = subprocess.run(
        [
            *(SCRIPT, "--device", "cpu", "--sweep", "smoke", *folders),
            *("--", "--case=infer-lstm-rnn-b4-t10-f8-u16", "--benchmark-max-time=0.02"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"machine"' in (results / "environment.txt").read_text()
    tests = (results / "tests.txt").read_text()
    assert "needs a GPU: --device=cpu was asked for" in tests and " passed" not in tests
    (run,) = (results / "runs").iterdir()
    (record,) = read_records(run)
    assert (record["status"], record["device"], record["throttled"]) == ("ok", "cpu", None)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="no shellcheck here")
def test_shellcheck():
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
