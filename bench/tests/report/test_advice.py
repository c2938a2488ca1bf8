"""The advice: which ways it takes from where, what it says of them, and when it refuses."""

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.cases.subjects import IN_PLAIN_KERAS, PEER_LAYERS, SUBJECTS
from bench.cases.sweeps import SWEEPS
from bench.records.csv_file import RECORDS_FILE
from bench.records.environment import machine_key
from bench.report import advice, labels
from bench.tests.report.test_report import write_run
from bench.tests.sample_records import record

SHAPE = {"batch_size": 32, "timesteps": 50, "features": 64, "units": 128}


def case(subject="lstm-builtin", mode="infer", *, median_s=0.010, ratio=1.0, figures=None, **fields):
    """A record of this machine, whose interval is within a hundredth."""
    own = {
        "machine": machine_key(),
        "median_s": median_s,
        "ratio": ratio,
        "ratio_low": ratio * 0.99,
        "ratio_high": ratio * 1.01,
        "trace_s": 0.1,
        "compile_s": 0.2,
        "proof": "exact",
    }
    return record(subject, mode, figures={**own, **(figures or {})}, **fields)


def shape_arguments(**sizes) -> list[str]:
    return [f"--{name.replace('_', '-')}={size}" for name, size in {**SHAPE, **sizes}.items()]


def run_command(*arguments: object, mode="infer", **sizes) -> int:
    """The exit code of `python -m bench advise ARGUMENTS` at a shape."""
    return main(["advise", f"--mode={mode}", *shape_arguments(**sizes), *map(str, arguments)])


@pytest.fixture
def results(tmp_path) -> Path:
    """A run of the built-in and of slstm, plain, unrolled, under XLA and with what changes the answer."""
    fast = {"figures": {"compile_s": 1.9}}
    records = [
        case(),
        case("slstm-rnn", median_s=0.007, ratio=0.7),
        case("slstm-rnn", median_s=0.006, ratio=0.6, unroll=True, **fast),
        case("slstm-rnn", median_s=0.004, ratio=0.9, jit_compile=True, **fast),
        case("slstm-rnn", median_s=0.001, ratio=0.1, activation="relu"),
        case("slstm-rnn", median_s=0.001, ratio=0.1, stateful=True),
        case("slstm-rnn", median_s=0.001, ratio=0.1, dtype="float16"),
        record("slstm-rnn", implementation=1, status="failed", reason="wrong_answer"),
        case(median_s=0.040, timesteps=200),
        case("slstm-rnn", median_s=0.080, ratio=2.0, timesteps=200),
    ]
    write_run(tmp_path / "results" / "20250101-000000-1", records)
    return tmp_path / "results"


def advised(capsys, results, *arguments, **sizes) -> str:
    assert run_command("--results", results, *arguments, **sizes) == 0
    return capsys.readouterr().out


def lines_with(text: str, part: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if part in line]


def test_the_fastest_ways_first_and_none_that_changes_the_answer(results, capsys):
    told = advised(capsys, results, "--cell", "slstm")
    assert lines_with(told, "the time of") == [
        "slstm in RNN, unroll: 0.60× [0.59, 0.61] the time of keras LSTM as it comes",
        "slstm in RNN: 0.70× [0.69, 0.71] the time of keras LSTM as it comes",
        "slstm in RNN, XLA: 0.90× [0.89, 0.91] the time of keras LSTM, XLA",
    ]
    assert lines_with(told, "against") == [
        "slstm, against keras LSTM as it comes:",
        "slstm, against keras LSTM, XLA:",
    ]
    assert len(lines_with(told, "measured at this very shape")) == 3


def test_without_a_cell_every_cell_is_told(results, capsys):
    told = advised(capsys, results)
    assert [line.partition(",")[0] for line in told.splitlines() if line.endswith("comes:")] == [
        "lstm",
        "slstm",
    ]


def test_the_nearest_case_is_taken_and_how_near_is_said(results, capsys):
    told = advised(capsys, results, "--cell", "slstm", timesteps=150, batch_size=64)
    plain = told[told.index("slstm in RNN: ") :]
    assert plain.startswith("slstm in RNN: 2.00×")
    assert "measured at batch size 32 instead of 64, timesteps 200 instead of 150\n" in plain
    (unrolled,) = lines_with(
        told[told.index("slstm in RNN, unroll") : told.index("slstm in RNN: ")], "a call"
    )
    assert "timesteps 50 instead of 150" in unrolled


def test_nearness_is_by_factors(results, capsys):
    """90 is nearer to 50 than to 200, and 110 nearer to 200, though it lies nearer to 50 on a ruler."""
    assert "slstm in RNN: 0.70×" in advised(capsys, results, "--cell", "slstm", timesteps=90)
    assert "slstm in RNN: 2.00×" in advised(capsys, results, "--cell", "slstm", timesteps=110)


def test_what_is_far_says_so(results, capsys):
    assert "far, --measure" in advised(capsys, results, units=513)
    assert "far, --measure" not in advised(capsys, results, units=512)


def test_what_is_too_far_is_refused_with_the_nearest(results, capsys):
    """A batch of 8 times is advised on, with a warning; beyond, nothing is."""
    assert "far, --measure" in advised(capsys, results, batch_size=256)
    assert run_command("--results", results, batch_size=257) == 2
    said = capsys.readouterr()
    assert not said.out
    assert "too far from all that was measured; the nearest case has batch size 32 instead of 257" in said.err
    assert "--measure" in said.err
    assert run_command("--results", results, features=7) == 2


def test_of_what_is_near_the_rest_is_left_out_and_counted(results, capsys):
    """At 1000 timesteps only what was measured at 200 can be advised on."""
    told = advised(capsys, results, "--cell", "slstm", timesteps=1000)
    assert lines_with(told, "the time of") == [
        "slstm in RNN: 2.00× [1.98, 2.02] the time of keras LSTM as it comes"
    ]
    assert "Left out: ways measured at shapes more than 8 times away alone: 2." in told


def test_break_even_counts_the_calls_that_earn_the_compilation(results, capsys):
    """Unrolled it takes 2.0 s to start and the built-in 0.3 s; a call saves 4 ms: 425 calls."""
    told = advised(capsys, results, "--cell", "slstm")
    assert "traces and compiles in 2.00 s, the built-in in 300 ms: pays after 425 calls; proof: exact" in told
    assert "traces and compiles in 300 ms, the built-in in 300 ms; proof: exact" in told


def test_one_call_is_a_call():
    quick = case("slstm-rnn", median_s=0.005, ratio=0.5, figures={"compile_s": 0.201})
    (way,) = advice.ways([case(), quick], SHAPE, "infer", "slstm")
    assert advice.break_even(way).endswith("pays after 1 call")


def test_a_built_in_that_is_a_baseline_alone_is_enough(capsys):
    """Its compilation is not known then, and taken for nothing: at most 2.0 s / 5 ms = 400 calls."""
    alone = case(
        "lstm-fused", median_s=0.005, ratio=0.5, figures={"baseline_median_s": 0.010, "compile_s": 1.9}
    )
    under_xla = {"baseline": f"{alone['baseline']}-xla", "ratio": 0.9, "ratio_low": 0.9, "ratio_high": 0.9}
    way, _ = advice.ways([{**alone, **under_xla}, alone], SHAPE, "infer", "lstm")
    assert way.ratio.value == 0.5
    assert way.baseline == "keras LSTM as it comes"
    assert advice.break_even(way) == "traces and compiles in 2.00 s: pays after at most 400 calls"


def test_what_was_not_timed_in_turns_with_another_way_is_no_way():
    """A peer is no way, and of two rows of one run nothing follows."""
    row = case("lstm-fused", ratio=0.5)
    for baseline in (str(row["baseline"]).replace("builtin", "torch"), None):
        assert advice.ways([{**row, "baseline": baseline}], SHAPE, "infer", "lstm") == []


def test_ways_rank_within_one_baseline_and_the_plain_built_in_comes_first():
    """Against another baseline, what is not surely faster is left out."""
    plain = case("lstm-rnn")
    rows = [
        case(),
        case("lstm-fused", ratio=0.5),
        {**case("lstm-rnn", ratio=0.2, jit_compile=True), "baseline": plain["case"]},
        {**case("lstm-rnn", ratio=1.0, unroll=True), "baseline": plain["case"]},
    ]
    told = [(way.record["layer"], way.baseline) for way in advice.ways(rows, SHAPE, "infer", "lstm")]
    assert told == [
        ("fused", "keras LSTM as it comes"),
        ("builtin", "keras LSTM as it comes"),
        ("rnn", "lstm in RNN as it comes"),
    ]


@pytest.mark.parametrize("layer", ["torch", "onnx", "keras2", "block"])
def test_a_peer_is_no_way_to_run_a_cell_of_keras(layer):
    rows = [case("lstm-fused", ratio=0.5), case(f"lstm-{layer}", ratio=0.1)]
    assert [way.record["layer"] for way in advice.ways(rows, SHAPE, "infer", "lstm")] == ["fused"]


def test_what_is_slower_and_compiles_longer_never_pays():
    slow = case("slstm-rnn", median_s=0.02, ratio=2.0, figures={"compile_s": 3.0})
    (way,) = advice.ways([case(), slow], SHAPE, "infer", "slstm")
    assert advice.break_even(way).endswith("never pays")


@pytest.mark.parametrize(
    ("subject", "options", "line"),
    [
        ("lstm-builtin", {}, "keras.layers.LSTM(256, return_sequences=True)"),
        (
            "gru-builtin",
            {"unroll": True, "implementation": 1},
            "keras.layers.GRU(256, implementation=1, return_sequences=True, unroll=True)",
        ),
        (
            "keras_lstm-rnn",
            {"implementation": 1},
            "keras.layers.RNN(keras.layers.LSTMCell(256, implementation=1), return_sequences=True)",
        ),
        (
            "slstm-rnn",
            {"jit_compile": True},
            'keras.layers.RNN(cells.CELLS["slstm"](256), return_sequences=True)'
            "  # and model.compile(…, jit_compile=True)",
        ),
        (
            "slstm-keras_jax",
            {},
            'keras.layers.RNN(cells.CELLS["slstm"](256), return_sequences=True)  # with KERAS_BACKEND=jax',
        ),
        ("lstm-keras_torch", {}, "keras.layers.LSTM(256, return_sequences=True)  # with KERAS_BACKEND=torch"),
        ("MyCell-rnn", {}, "keras.layers.RNN(MyCell(256), return_sequences=True)"),
        ("MyCell-fused", {}, "cells.FusedRNN(MyCell(256), return_sequences=True)"),
    ],
)
def test_the_line_of_code(subject, options, line):
    assert advice.code(case(subject, **options), units=256) == line


WAYS: tuple[dict, ...] = ({}, {"unroll": True}, {"implementation": 1}, {"jit_compile": True})


def advisable() -> list:
    """Every declared subject with every option that advice may name and that it has; of the cells in plain
    Keras, whose lines are the same but for the name, the first."""
    return [
        pytest.param(name, options, id="-".join((name, *options)))
        for name, subject in SUBJECTS.items()
        for options in (*WAYS, {"unroll": True, "jit_compile": True})
        if subject.layer not in PEER_LAYERS and subject.cell not in IN_PLAIN_KERAS[1:]
        if set(options) <= {*subject.options, "jit_compile"}
    ]


@pytest.mark.parametrize(("subject", "options"), advisable())
def test_every_line_of_code_that_advice_can_print_runs(subject, options):
    import keras

    import cells

    known = case(subject, ratio=0.5, **options)
    ways = advice.ways(
        [case(SUBJECTS[subject].baseline, ratio=0.5), known], SHAPE, "infer", labels.family(known)
    )
    assert known in [way.record for way in ways], "it is a way"
    names = {"keras": keras, "cells": cells, "inputs": keras.ops.zeros((2, 4, 5))}
    line = advice.code(known, units=3)
    if line.startswith("outputs, states = "):
        exec(line, names)
    else:
        layer = eval(line, names)
        names["outputs"] = layer(names["inputs"])
        assert getattr(layer, "unroll", False) == ("unroll" in options)
    assert names["outputs"].shape == (2, 4, 3)


@pytest.mark.parametrize("layer", ["my_layer", "torch"])
def test_what_no_line_of_code_says_is_no_way(layer):
    rows = [case(), case(f"slstm-{layer}", ratio=0.1)]
    assert advice.ways(rows, SHAPE, "infer", "slstm") == []


def test_the_newest_run_of_a_case_counts(results, capsys):
    later = {"timestamp": "2025-06-01T00:00:00Z", "run_id": "later"}
    newer = [case(figures=later), case("slstm-rnn", median_s=0.003, ratio=0.3, figures=later)]
    write_run(results / "20250601-000000-1", newer)
    assert "slstm in RNN: 0.30×" in advised(capsys, results, "--cell", "slstm")


def test_library_versions_are_not_mixed(results, capsys):
    later = {"timestamp": "2025-06-01T00:00:00Z", "run_id": "later", "keras": "4.0"}
    newer = [case(figures=later), case("slstm-rnn", median_s=0.008, ratio=0.8, figures=later)]
    write_run(results / "20250601-000000-1", newer)
    told = advised(capsys, results, "--cell", "slstm")
    assert lines_with(told, "the time of") == [
        "slstm in RNN: 0.80× [0.79, 0.81] the time of keras LSTM as it comes"
    ]
    assert "Keras 4.0, in 1 run\n" in told


def test_this_machine_comes_first_and_another_is_told(results, capsys, monkeypatch):
    other = {"machine": "Cray-1, 1 core", "timestamp": "2026-01-01T00:00:00Z", "run_id": "other"}
    write_run(results / "20260101-000000-1", [case(median_s=1.0, figures=other)])
    told = advised(capsys, results)
    assert machine_key() in told
    assert "Cray-1" not in told
    monkeypatch.setattr(advice, "machine_key", lambda: "a laptop")
    told = advised(capsys, results)
    assert "measured on Cray-1, 1 core" in told
    assert "NOT this machine, which is a laptop" in told


def test_a_run_that_cannot_be_read_is_told_and_left_out(results, capsys):
    (results / "20250202-000000-1").mkdir()
    (results / "20250202-000000-1" / RECORDS_FILE).write_text("nonsense\n1\n")
    assert run_command("--results", results) == 0
    said = capsys.readouterr()
    assert "20250202-000000-1/records.csv, row 1: column 'nonsense'" in said.err
    assert len(said.err.splitlines()) == 1
    assert "slstm in RNN" in said.out


def test_names_do_not_reach_the_terminal_raw(tmp_path, capsys):
    odd = case("slstm-rnn", figures={"subject": "\x1b[31mred-rnn", "cell": "\x1b[31mred"})
    odd["case"] = str(odd["case"]).replace("slstm", "\x1b[31mred")
    write_run(tmp_path / "run", [case(), odd])
    told = advised(capsys, tmp_path)
    assert "red" in told
    assert "\x1b" not in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cell", "nonsense"], "--cell nonsense: not measured; there are lstm, slstm"),
        (["--cell", "a.py:A"], "a.py:A: a cell of a file goes by its name alone, once `python -m bench"),
        (["--cell", "a.py:A", "--measure"], "a.py:A: a cell of a file goes by its name alone"),
        (["--device", "gpu"], "no records of device gpu"),
        (["--mode", "train"], "train: nothing measured of any cell together with the built-in"),
        (["--results", "nowhere"], "nowhere: no such folder"),
        (
            ["--measure", "--cell", "nonsense"],
            "--cell nonsense: there is no such cell; there are simple_rnn,",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(results, capsys, arguments, message):
    assert run_command("--results", results, *arguments) == 2
    said = capsys.readouterr()
    assert not said.out
    assert len(said.err.splitlines()) == 1
    assert message in said.err


@pytest.mark.parametrize("size", ["0", "-1", "1.5", "many", "1_0", "٣"])
def test_a_size_must_be_a_positive_integer(size, capsys):
    with pytest.raises(SystemExit) as error:
        run_command(f"--units={size}")
    assert error.value.code == 2
    assert "is not a positive integer" in capsys.readouterr().err


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Arguments of `--measure` to the session; the session writes one run and measures nothing."""
    asked = []

    def run(arguments):
        (grid,) = SWEEPS["advise"].grids
        asked.append((arguments, grid))
        write_run(tmp_path / "results" / "now", [case(), case("slstm-rnn", median_s=0.002, ratio=0.2)])

    monkeypatch.setattr("bench.commands.advise.run", run)
    return asked


def test_measure_takes_the_ways_at_the_shape_and_that_run_alone(measured, results, capsys):
    told = advised(capsys, results, "--measure", "--cell", "slstm", timesteps=51)
    ((arguments, grid),) = measured
    assert arguments == ["--sweep", "advise", "--results", str(results), "--device", "cpu"]
    assert grid.shapes == ((32, 51, 64, 128),)
    assert grid.subjects == ("lstm-builtin", "slstm-rnn", "slstm-fused")
    assert grid.modes == ("infer",)
    assert list(grid.options) == [{}, {"implementation": 1}, {"jit_compile": True}]
    assert "slstm in RNN: 0.20×" in told
    assert "unroll" not in told
    assert "advise" not in SWEEPS


def test_measure_unrolls_what_is_short(measured, results, capsys):
    advised(capsys, results, "--measure", "--cell", "slstm", timesteps=50)
    assert {"unroll": True} in measured[0][1].options


def test_measure_that_comes_to_nothing_says_so(monkeypatch, results, capsys):
    monkeypatch.setattr("bench.commands.advise.run", lambda arguments: 4)
    assert run_command("--results", results, "--measure", "--cell", "slstm") == 2
    assert "nothing was measured" in capsys.readouterr().err
