import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.commands import check
from bench.contract.check_cell import CHECKS
from bench.contract.report import CheckResult, ContractReport
from bench.processes.contract_worker import contract_nursery

RIGHT = f"{Path(__file__).parents[1] / 'odd_cells.py'}:NoWeights"
WRONG = f"{Path(__file__).parents[1] / 'broken_cells.py'}:BuildIsTrue"


@pytest.fixture(scope="module")
def nursery():
    """One process that has imported TensorFlow, for all tests but one that reads what a worker prints."""
    with contract_nursery() as made:
        yield made


@pytest.fixture(autouse=True)
def one_nursery(nursery, monkeypatch):
    monkeypatch.setattr(check, "contract_nursery", lambda: nullcontext(nursery))


def run(*arguments):
    """The exit code of the command in this process."""
    parser = argparse.ArgumentParser()
    check.add_arguments(parser)
    return check.main(parser.parse_args([*arguments]))


def test_a_right_cell(capfd):
    assert run(RIGHT) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].startswith("ok       layer, state_size, build,")
    assert out[-1].startswith(f"{RIGHT}: the contract holds: 0 failed, ")


def test_a_wrong_cell_is_told_what_to_change(capfd):
    assert run(WRONG) == 1
    out = capfd.readouterr().out
    words = " ".join(out.split())
    assert "failed build: Can Keras build it? expected `build` to be a method" in words
    assert "seen self.build = True change: build(self, input_shape) makes the weights" in words
    assert "checks: not asked, since `build` failed" in words
    assert words.rpartition("broken_cells.py:BuildIsTrue")[2].startswith(
        ": the contract is broken: 1 failed,"
    )


def test_junit_has_a_test_a_check(tmp_path, capfd):
    file = tmp_path / "check.xml"
    assert run(WRONG, f"--junit={file}") == 1
    (suite,) = ElementTree.parse(file).getroot()
    (failed,) = suite.findall("testcase[failure]")
    assert failed.get("name") == "build" and failed.get("classname") == WRONG
    assert "expected `build` to be a method" in failed.find("failure").get("message")
    assert int(suite.get("tests")) == len(suite) > 40 and suite.get("failures") == "1"
    assert int(suite.get("skipped")) == len(suite.findall("testcase[skipped]")) > 0


def test_junit_says_that_the_target_cannot_be_loaded_or_it_cannot_be_written(tmp_path, capfd):
    file = tmp_path / "check.xml"
    assert run("no_such_file.py:Cell", f"--junit={file}") == 2
    assert "no_such_file.py" in ElementTree.parse(file).find(".//error").get("message")
    assert run("no_such_file.py:Cell", f"--junit={tmp_path}") == 2
    assert f"--junit: cannot be written: [Errno 21] Is a directory: '{tmp_path}'" in capfd.readouterr().err


def test_json_says_the_same_in_the_form_of_a_program(capfd):
    assert run(WRONG, "--json") == 1
    report = json.loads(capfd.readouterr().out)
    assert list(report) == ["target", "ok", "checks"]
    assert (report["target"], report["ok"]) == (WRONG, False)
    assert [entry["name"] for entry in report["checks"]] == [entry.name for entry in CHECKS]
    assert all(list(entry) == ["name", "status", "message"] for entry in report["checks"])
    (failed,) = [entry for entry in report["checks"] if entry["status"] == "failed"]
    assert "change: build(self, input_shape)" in failed["message"] and "broken_cells.py:" in failed["message"]


def cell_file(tmp_path, body):
    file = tmp_path / "my_cells.py"
    file.write_text(f"import os\nimport keras\n{body}")
    return f"{file}:Cell"


def test_what_the_cell_prints_is_not_on_stdout(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(check, "contract_nursery", contract_nursery)
    body = "print('on import')\ndef Cell(units):\n    print('python')\n    os.write(1, b'native')\n"
    assert run(cell_file(tmp_path, body), "--json") == 1
    captured = capfd.readouterr()
    assert json.loads(captured.out)["ok"] is False
    for words in ("on import", "python", "native"):
        assert words in captured.err


def test_units_and_kwargs_reach_the_constructor(tmp_path, capfd):
    body = "def Cell(units, gain, **kwargs):\n    raise ValueError(f'{units} {gain} {kwargs}')\n"
    target = cell_file(tmp_path, body)
    assert run(target, "--units", "7", "--kwargs", '{"gain": 0.5, "activation": "relu"}') == 2
    assert "7 0.5 {'activation': 'relu'}" in capfd.readouterr().err


def test_features_reach_the_inputs(tmp_path, capfd):
    body = (
        "class Cell(keras.layers.Layer):\n"
        "    state_size = 1\n"
        "    def __init__(self, units): super().__init__()\n"
        "    def build(self, shape): raise ValueError(f'built for {shape}')\n"
    )
    assert run(cell_file(tmp_path, body), "--features", "9") == 1
    assert "built for (None, 9)" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kwargs", "{activation: relu}"], "--kwargs: expected a JSON object"),
        (["--kwargs", "[1, 2]"], "--kwargs: expected a JSON object"),
        (["--units", "0"], "--units: expected a positive integer, got 0"),
        (["--features", "-3"], "--features: expected a positive integer, got -3"),
        (["--step-shape", "8,x"], "--step-shape: expected positive integers, such as 8,8,1, got '8,x'"),
        (["--step-shape", "8,0,1"], "--step-shape: expected positive integers"),
        (["--time-limit", "0"], "--time-limit: expected a positive number, got 0.0"),
        (["--memory-limit", "-1"], "--memory-limit: expected a positive integer, got -1"),
        (["--kwargs", "[" * 100_000], "--kwargs: expected a JSON object"),
    ],
)
def test_an_option_that_makes_no_sense_is_one_line(capfd, arguments, message):
    assert run(RIGHT, *arguments, "--json") == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {message}") and captured.err.count("\n") == 1


def test_a_cell_that_ends_the_process_is_a_failed_check(tmp_path, capfd):
    body = (
        "class Cell(keras.layers.Layer):\n"
        "    state_size = 1\n"
        "    def __init__(self, units): super().__init__()\n"
        "    def build(self, shape): os._exit(0)\n"
    )
    assert run(cell_file(tmp_path, body)) == 1
    words = " ".join(capfd.readouterr().out.split())
    assert "failed build: Can Keras build it? ended the process: exit code 0 change: raise" in words
    assert "the contract is broken: 0 failed, 1 ended the process, 3 ok," in words
    assert run(cell_file(tmp_path, body), "--json") == 1
    checks = json.loads(capfd.readouterr().out)["checks"]
    assert {entry["status"] for entry in checks} == {"ok", "skipped", "ended the process"}


@pytest.mark.parametrize("raised", ["KeyboardInterrupt", "type('Own', (BaseException,), {})('x')"])
def test_a_cell_that_raises_what_is_no_exception_gives_no_traceback(tmp_path, raised):
    body = (
        "class Cell(keras.layers.Layer):\n"
        "    state_size = 1\n"
        "    def __init__(self, units): super().__init__()\n"
        f"    def build(self, shape): raise {raised}\n"
    )
    command = [sys.executable, "-m", "bench", "check", cell_file(tmp_path, body)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "ended the process" in done.stdout


def test_a_target_that_cannot_be_loaded_is_one_line(capfd):
    assert run("no_such_file.py:Cell") == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: no such file:") and captured.err.count("\n") == 1


def test_a_constructor_that_raises_shows_the_users_traceback(tmp_path, capfd):
    body = "class Cell(keras.layers.Layer):\n    def __init__(self, units):\n        self.half = units / 0\n"
    assert run(cell_file(tmp_path, body)) == 2
    err = capfd.readouterr().err
    assert err.startswith(f'Traceback (most recent call last):\n  File "{tmp_path}/my_cells.py", line 5')
    assert "bench/" not in err


REPORT = ContractReport(
    "cell.py:Cell",
    (
        CheckResult("layer", "ok", "a Cell"),
        CheckResult("build", "failed", "expected this; seen that", "do so (cell.py:3)", "Is it built?"),
        CheckResult("call", "ok", "returns", "by the way"),
        CheckResult("graph", "skipped", "not asked, since `build` failed"),
    ),
)


ON_TENSORFLOW = """
import keras
import tensorflow as tf
from keras import ops


class Portable(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def activation(self, h):
        return ops.tanh(h)

    def call(self, inputs, states):
        h = self.activation(ops.matmul(inputs, self.kernel) + states[0])
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Tied(Portable):
    def activation(self, h):
        return tf.tanh(h)
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_back_end_skips_what_is_tensorflows_and_refuses_a_call_of_it(tmp_path, capfd, backend):
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    file = tmp_path / "cells.py"
    file.write_text(ON_TENSORFLOW)
    code = run(f"{file}:Portable", f"--backend={backend}", "--json")
    found = {each["name"]: each for each in json.loads(capfd.readouterr().out)["checks"]}
    assert code == 0, [each for each in found.values() if each["status"] not in ("ok", "skipped")]
    assert "TensorFlow back end alone" in found["xla"]["message"]
    assert all(found[name]["status"] == "ok" for name in ("call", "unroll", "stateful", "bidirectional"))
    assert run(f"{file}:Tied", f"--backend={backend}") == 1
    told = " ".join(capfd.readouterr().out.split())
    assert f"no call of TensorFlow on the back end {backend}" in told
    assert "cells.py:28: return tf.tanh(h)" in told and "write it with keras.ops" in told


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed")
def test_a_traced_method_is_named_as_the_user_wrote_it(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")  # that of the command decides
    file = tmp_path / "cells.py"
    file.write_text(ON_TENSORFLOW.replace("    def call", "    @tf.function\n    def call"))
    assert run(f"{file}:Portable", "--backend=torch") == 1
    told = " ".join(capfd.readouterr().out.split())
    assert "no call of TensorFlow on the back end torch; seen tf.function of call change:" in told


def test_a_back_end_that_cannot_be_imported_is_one_line(tmp_path, capfd, monkeypatch):
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert run("cells:GRUCell", "--backend=torch") == 2
    assert "error: --backend=torch: cannot be imported: libtorch.so: no such file" in capfd.readouterr().err


def test_a_back_end_that_is_not_installed_is_one_line(capfd, monkeypatch):
    monkeypatch.setattr(check, "find_spec", lambda name: None)
    assert run("cells:GRUCell", "--backend=jax") == 2
    assert "--backend=jax: needs jax" in capfd.readouterr().err


def test_the_text_of_a_report():
    assert check.as_text(REPORT, seconds=1.23).splitlines() == [
        "ok       layer, call",
        "skipped  graph: not asked, since `build` failed",
        "hint     call: by the way",
        "",
        "failed   build: Is it built?",
        "         expected this; seen that",
        "         change: do so (cell.py:3)",
        "",
        "cell.py:Cell: the contract is broken: 1 failed, 2 ok, 1 skipped (1.2 s)",
    ]


def test_colours_are_for_terminals_that_want_them(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\033[" not in check.as_text(REPORT, 1.0)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\033[31;1mis broken\033[0m" in check.as_text(REPORT, 1.0)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[" not in check.as_text(REPORT, 1.0)


def test_a_fresh_process_prints_json_alone_and_no_chatter():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "check", WRONG, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert json.loads(done.stdout)["ok"] is False
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["check", "compare", "run"])
def test_another_backend_is_said_before_a_cell_is_blamed(command, capsys, monkeypatch):
    from bench.__main__ import main

    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    given = {"check": [], "compare": ["--shape=1,2,3,4"], "run": ["--shape=1,2,3,4", "-p", "no:terminal"]}
    target = f"--cell={RIGHT}" if command == "run" else RIGHT
    assert main([command, target, *given[command]]) != 0
    said = "".join(capsys.readouterr())
    assert "TensorFlow only: Keras runs on 'torch' here; set KERAS_BACKEND=tensorflow" in said


def test_a_whole_layer_is_asked_the_lighter_contract(capfd):
    assert run(f"--layer={Path(__file__).parents[1] / 'whole_layers.py'}:Layer") == 0
    assert "any_length" in capfd.readouterr().out


@pytest.mark.parametrize("arguments", [[], [RIGHT, f"--layer={RIGHT}"]])
def test_a_cell_or_a_layer_is_asked_and_not_both(arguments, capfd):
    assert run(*arguments) == 2
    assert capfd.readouterr().err.startswith("error: expected a cell, package.module:Name or ")
