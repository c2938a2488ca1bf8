"""Whatever a cell does, each check of the contract ends, and the next one is asked."""

import pytest

from bench.contract.load_cell import TargetError
from bench.contract.report import ENDED, OUT_OF_MEMORY, OUT_OF_TIME
from bench.processes.contract_worker import (
    ContractLimits,
    UserCell,
    check_apart,
    contract_nursery,
    load_apart,
)

CELL = """
import ctypes, os, sys
import keras
import numpy as np
from keras import ops

{top}

class Cell(keras.layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units
        {init}

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        {build}

    def call(self, inputs, states):
        {call}
        h = ops.tanh(ops.matmul(inputs, self.kernel) + 0.5 * states[0])
        return h, [h]
"""
LIMITS = ContractLimits(check_s=8.0)


@pytest.fixture(scope="module")
def nursery():
    """One process that has imported TensorFlow, for all tests."""
    with contract_nursery() as made:
        yield made


def cell_that(tmp_path, **does):
    file = tmp_path / "my_cells.py"
    file.write_text(CELL.format(**{"top": "", "init": "pass", "build": "pass", "call": "pass", **does}))
    return UserCell(f"{file}:Cell")


@pytest.mark.parametrize(
    ("does", "status", "words"),
    [
        ({"call": "sys.exit(0)"}, ENDED, "SystemExit: 0"),
        ({"call": "raise KeyboardInterrupt"}, ENDED, "SIGINT"),
        ({"call": "raise type('Own', (BaseException,), {})('x')"}, ENDED, "exit code 1"),
        ({"call": "os._exit(0)"}, ENDED, "exit code 0"),
        ({"call": "os.kill(os.getpid(), 9)"}, ENDED, "SIGKILL"),
        ({"call": "ctypes.string_at(0)"}, ENDED, "SIGSEGV"),
        ({"call": "os.abort()"}, ENDED, "SIGABRT"),
        ({"call": "while True: pass"}, OUT_OF_TIME, "more than 8 s"),
        ({"call": "raise MemoryError('all of it')"}, OUT_OF_MEMORY, "all of it"),
    ],
    ids=lambda value: value["call"][:24] if isinstance(value, dict) else None,
)
def test_a_check_that_does_not_come_to_its_end_says_how_it_ended(tmp_path, nursery, does, status, words):
    report = check_apart(cell_that(tmp_path, **does), nursery, LIMITS)
    (result,) = report.failed
    assert not report.ok
    assert (result.name, result.status) == ("call", status)
    assert words in result.message
    assert result.question.endswith("?") and result.text.startswith(f"{status}: ")
    after = {found.message for found in report.checks[8:]}
    assert after == {f"not asked, since `call` {status}"}
    assert [found.status for found in report.checks[:7]] == ["ok"] * 7


def test_a_cell_that_allocates_without_end_runs_out_of_memory(tmp_path, nursery):
    cell = cell_that(tmp_path, call="kept = [np.ones(1 << 22) for _ in range(1 << 20)]")
    (result,) = check_apart(cell, nursery, ContractLimits(check_s=60.0, memory_bytes=1 << 30)).failed
    assert (result.name, result.status) == ("call", OUT_OF_MEMORY)
    assert result.message == "more than 1,024 MiB"


@pytest.mark.parametrize("call", ["ctypes.string_at(0)", "while True: pass"])
def test_the_users_line_is_named(tmp_path, nursery, call):
    cell = cell_that(tmp_path, call=call)
    (result,) = check_apart(cell, nursery, LIMITS).failed
    line = next(n for n, text in enumerate(CELL.splitlines(), 1) if "{call}" in text)
    assert f"my_cells.py:{line})" in result.hint


def test_the_next_check_is_asked_in_a_fresh_process(tmp_path, nursery):
    init = "if getattr(Cell, 'made', 0) > 3: os._exit(3)\n        Cell.made = getattr(Cell, 'made', 0) + 1"
    report = check_apart(cell_that(tmp_path, init=init), nursery, LIMITS)
    statuses = {result.name: result.status for result in report.checks}
    assert statuses["layer"] == "ok" and ENDED in statuses.values()
    assert sum(status == ENDED for status in statuses.values()) < 4  # what needs it is not asked


def test_a_constructor_that_ends_the_process_fails_the_first_check(tmp_path, nursery):
    report = check_apart(cell_that(tmp_path, init="os._exit(0)"), nursery, LIMITS)
    assert [result.name for result in report.failed] == ["layer"]
    assert report.failed[0].status == ENDED


def test_a_constructor_that_raises_is_a_target_error_with_the_users_traceback(tmp_path, nursery):
    with pytest.raises(TargetError, match="division by zero") as caught:
        check_apart(cell_that(tmp_path, init="1 / 0"), nursery, LIMITS)
    assert caught.value.details.startswith("Traceback") and "my_cells.py" in caught.value.details


@pytest.mark.parametrize(
    ("top", "message"),
    [
        ("os._exit(0)", f"{ENDED} while it was loaded: exit code 0"),
        ("ctypes.string_at(0)", f"{ENDED} while it was loaded: SIGSEGV"),
        ("while True: pass", f"{OUT_OF_TIME} while it was loaded: more than 8 s"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("1 / 0", "division by zero"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_a_target_error(tmp_path, nursery, top, message):
    with pytest.raises(TargetError) as caught:
        load_apart(cell_that(tmp_path, top=top), nursery, LIMITS)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_cell_that_closes_its_files_and_goes_on_is_ended(tmp_path, nursery):
    call = "os.closerange(3, 200)\n        while True: pass"
    (result,) = check_apart(cell_that(tmp_path, call=call), nursery, LIMITS).failed
    assert result.status == ENDED
