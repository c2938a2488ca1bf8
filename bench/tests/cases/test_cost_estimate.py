"""What a comparison is expected to take, before anything is made."""

from dataclasses import replace
from pathlib import Path

import pytest

import bench
from bench.cases import cost_estimate
from bench.cases.case import Case
from bench.cases.comparisons import Comparison, comparisons
from bench.cases.cost_estimate import (
    TooLarge,
    call_seconds,
    check_size,
    comparison_seconds,
    expected_seconds,
    flops,
    memory_bytes,
)
from bench.cases.sweeps import SWEEPS, Sweep
from bench.records.csv_file import read_records
from bench.records.schema import SHAPE
from bench.tests.fake_nvml import FakeNvml
from bench.timing.gpu_clocks import memory_of

LSTM = Case("lstm", "builtin", "infer", 32, 50, 64, 128)
RUNS = Path(bench.__file__).parent.parent / "results"


def beside_itself(case: Case, sweep: Sweep = SWEEPS["scaling"]) -> Comparison:
    return Comparison("any", case, replace(case, layer="builtin"), sweep)


def test_flops_are_those_of_the_closed_formula():
    assert flops(LSTM) == 2 * 4 * (64 + 128) * 128 * 32 * 50
    assert flops(replace(LSTM, mode="train")) == 3 * flops(LSTM)
    assert flops(replace(LSTM, cell="keras_gru")) == flops(LSTM) * 3 / 4
    assert flops(replace(LSTM, input_product=False)) == 2 * 4 * 128 * 128 * 32 * 50
    assert flops(replace(LSTM, cell="of_somebody")) == flops(LSTM)


def test_a_call_is_estimated_within_a_factor_of_three_of_what_was_measured():
    """Of the loops that the estimate was made for, at every shape of the runs that are kept."""
    factors = [
        call_seconds(Case(row["cell"], row["layer"], row["mode"], *(row[name] for name in SHAPE)))
        / row["median_s"]
        for folder in RUNS.iterdir()
        if (folder / "records.csv").exists()
        for row in read_records(folder)
        if row["status"] == "ok" and row["layer"] in ("builtin", "rnn") and row["case"].count("-") == 6
        if row["mode"] in ("infer", "train") and row["device"] == "cpu"
    ]
    assert len(factors) > 50
    near = [factor for factor in factors if 1 / 3 < factor < 3]
    assert len(near) / len(factors) > 0.9


def test_the_default_sweep_is_expected_to_take_what_it_took():
    assert 4.5 * 60 < expected_seconds(comparisons(["default"])) < 10 * 60


@pytest.mark.parametrize("name", ["scaling", "deepbench", "char_shape"])
def test_the_sweeps_fit_in_fourteen_minutes(name):
    assert expected_seconds(comparisons([name])) < 14 * 60


def test_more_time_a_case_takes_longer_and_more_compiling_too():
    row = beside_itself(replace(LSTM, layer="rnn", unroll=True, jit_compile=True, timesteps=200))
    assert comparison_seconds(row, 10.0) > comparison_seconds(row, 1.0) + 8
    assert comparison_seconds(row, compile_limit_s=10) < 13
    assert comparison_seconds(row, compile_limit_s=1000) > 30


def test_a_peer_takes_the_seconds_that_it_is_waited_for():
    row = beside_itself(LSTM, SWEEPS["peers"])
    elsewhere = replace(row, case=replace(LSTM, layer="torch"))
    assert comparison_seconds(elsewhere) == comparison_seconds(row) + cost_estimate._PEER_S
    assert cost_estimate._PEER_S > 1


def test_what_hit_the_limit_is_not_expected_to_be_tried_with_more_timesteps():
    rows = [
        beside_itself(replace(LSTM, layer="rnn", unroll=True, jit_compile=True, timesteps=timesteps))
        for timesteps in (300, 1000)
    ]
    assert expected_seconds(rows, compile_limit_s=20) == expected_seconds(rows[:1], compile_limit_s=20)
    assert expected_seconds(rows[1:], compile_limit_s=20) > 20


def test_too_much_memory_is_refused_with_the_bytes(monkeypatch):
    row = beside_itself(replace(LSTM, timesteps=1, units=4096, features=4096))
    monkeypatch.setattr(cost_estimate, "machine_bytes", lambda: 1 << 40)
    check_size(row)
    monkeypatch.setattr(cost_estimate, "machine_bytes", lambda: 1 << 30)
    with pytest.raises(
        TooLarge, match=f"it takes {2 * memory_bytes(row.case):,} bytes and .* bytes are the most"
    ):
        check_size(row)
    assert comparison_seconds(row) == 0


def test_too_long_for_its_sweep_is_refused_with_the_seconds():
    short = Sweep("?", (), isolated=True, longest_s=2.0)
    check_size(beside_itself(LSTM, short))
    with pytest.raises(TooLarge, match=r"[\d.]+ s for the fewest calls; 2 s are the most in this sweep"):
        check_size(beside_itself(replace(LSTM, timesteps=1500, mode="train"), short))


def test_a_machine_that_does_not_tell_its_memory_refuses_nothing_for_it(monkeypatch):
    monkeypatch.setattr(cost_estimate, "machine_bytes", lambda: None)
    check_size(beside_itself(LSTM))


def test_memory_grows_with_what_takes_it():
    train = replace(LSTM, mode="train")
    assert memory_bytes(LSTM) < memory_bytes(train) < memory_bytes(replace(train, timesteps=500))
    weights = 4 * (2048 + 2048) * 2048
    assert memory_bytes(replace(LSTM, features=2048, units=2048)) > 4 * 4 * weights


# --- on a GPU ---

GPU = replace(LSTM, device="gpu")
DEEPBENCH = comparisons(["deepbench"], device="gpu")


def play_memory(monkeypatch, machine, gpu):
    monkeypatch.setattr(cost_estimate, "machine_bytes", lambda: machine)
    monkeypatch.setattr(cost_estimate, "gpu_bytes", lambda: gpu)


def test_a_current_gpu_can_do_all_of_deepbench(monkeypatch):
    play_memory(monkeypatch, 128 << 30, 80 << 30)
    for row in DEEPBENCH:
        check_size(row)


def test_a_gpus_memory_is_asked_and_the_machines_for_the_proof(monkeypatch):
    large = max(DEEPBENCH, key=lambda row: memory_bytes(row.case))
    play_memory(monkeypatch, 1 << 40, 8 << 30)
    with pytest.raises(TooLarge, match=r"bytes of the GPU and .* 6,442,450,944 bytes are the most"):
        check_size(large)
    play_memory(monkeypatch, 1 << 30, 80 << 30)
    with pytest.raises(TooLarge, match=r"takes [\d,]+ bytes and"):
        check_size(large)
    play_memory(monkeypatch, None, None)  # unknown
    check_size(large)


def test_nvml_tells_the_memory_of_the_first_gpu_that_tensorflow_may_use(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert memory_of(FakeNvml()) == 80 << 30
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert memory_of(FakeNvml()) is None and memory_of(None) is None


def test_a_gpu_takes_longer_to_begin_and_proves_a_program_of_its_own():
    def alone(case):
        return expected_seconds([Comparison("any", case, case)], 0.5)

    assert alone(GPU) > alone(LSTM) + 15
    xla = replace(GPU, jit_compile=True)
    assert call_seconds(xla) < call_seconds(replace(GPU, cell="slstm", layer="rnn"))
    row = Comparison("any", xla, xla, SWEEPS["scaling"])
    assert comparison_seconds(row) > comparison_seconds(replace(row, of=SWEEPS["default"])) + 8  # a worker
