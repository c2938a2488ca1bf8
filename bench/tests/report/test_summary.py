"""The summary of a run, in words."""

import pytest

from bench.records.schema import make_record
from bench.report.summary import row_line, summary_lines
from bench.tests.sample_records import default_run, record

LABELS = {"slstm-rnn": "slstm in RNN", "lstm-builtin": "keras LSTM"}
FIGURES = {"ratio": 0.714, "ratio_low": 0.69, "ratio_high": 0.738, "converged": False}
XLA_FIGURES = {"ratio": 1.5, "ratio_low": 1.25, "ratio_high": 2.0, "converged": True}


def test_one_line_a_subject_and_mode_with_xla_beside_it():
    rows = [
        record("slstm-rnn", "train", figures=FIGURES),
        record("slstm-rnn", "train", jit_compile=True, figures=XLA_FIGURES),
        record("lstm-builtin", "infer", figures=XLA_FIGURES),
    ]
    assert summary_lines(rows, LABELS) == [
        "at b32-t50-f64-u128:",
        "  keras LSTM, infer: between 1.25 and 2.00 times the time of a second keras LSTM",
        "  slstm in RNN, train: 0.71x the time of keras LSTM [0.69, 0.74]; "
        "both under XLA between 1.25 and 2.00 times",
        "3 cases: 3 ok, 0 skipped, 0 failed; half of the ratios are known to ±33.3%, nine in ten to ±33.3%",
    ]


def test_xla_alone_has_a_line_of_its_own():
    lines = summary_lines([record("slstm-rnn", "train", jit_compile=True, figures=FIGURES)], LABELS)
    assert lines[1] == "  under XLA: slstm in RNN, train: 0.71x the time of keras LSTM [0.69, 0.74]"


def test_a_subject_without_a_label_is_called_by_its_name():
    lines = summary_lines([record("mine-rnn", "train", figures=FIGURES)], {})
    assert lines[1] == "  mine-rnn, train: 0.71x the time of lstm-builtin [0.69, 0.74]"


def test_every_row_stands_at_its_shape_and_options_with_its_baseline():
    deep = "train-lstm-builtin-b32-t50-f64-u128-bidirectional-depth2"
    options = {"bidirectional": True, "depth": 2}
    plain = "train-slstm-rnn-b32-t50-f64-u128"
    rows = [
        record("slstm-rnn", "train", timesteps=100, figures=FIGURES),
        record("slstm-rnn", "train", **options, figures={**FIGURES, "baseline": deep}),
        record("slstm-rnn", "train", figures=FIGURES),
        record("slstm-rnn", "train", unroll=True, figures={**FIGURES, "baseline": plain}),
        record("slstm-rnn", "train", jit_compile=True, figures={**FIGURES, "baseline": plain}),
        record("lstm-builtin", "train", figures=FIGURES),
    ]
    assert summary_lines(rows, LABELS)[:-1] == [
        "at b32-t50-f64-u128:",
        "  keras LSTM, train: 0.71x the time of a second keras LSTM [0.69, 0.74]",
        "  slstm in RNN, train: 0.71x the time of keras LSTM [0.69, 0.74]",
        "  under XLA: slstm in RNN, train: 0.71x the time of plain slstm in RNN [0.69, 0.74]",
        "at b32-t100-f64-u128:",
        "  slstm in RNN, train: 0.71x the time of keras LSTM [0.69, 0.74]",
        "at b32-t50-f64-u128, Bidirectional, 2 layers stacked:",
        "  slstm in RNN, train: 0.71x the time of keras LSTM, Bidirectional, 2 layers stacked [0.69, 0.74]",
        "at b32-t50-f64-u128, unroll:",
        "  slstm in RNN, train: 0.71x the time of plain slstm in RNN [0.69, 0.74]",
    ]


def test_throttled_cases_are_named():
    rows = [
        record("slstm-rnn", mode, figures={**FIGURES, "throttled": held})
        for mode, held in (("infer", True), ("train", None))
    ]
    line = "throttled: infer-slstm-rnn-b32-t50-f64-u128: the GPU's clocks were held down"
    assert line in summary_lines(rows, LABELS)
    assert not any("throttled" in line for line in summary_lines(rows[1:], LABELS))


def test_why_the_native_engine_did_not_run_is_said():
    reason = "the native engine cannot: there is no C++ compiler"
    rows = [
        record("slstm-fused", mode, figures={**FIGURES, "kernel": "while", "fallback": reason})
        for mode in ("infer", "train")
    ]
    line = f"not the native engine: infer-slstm-fused-b32-t50-f64-u128 and 1 more: {reason}"
    assert line in summary_lines(rows, LABELS)
    builtin = record("lstm-builtin", figures={**FIGURES, "fallback": "no_gpu"})
    assert not any("native" in line for line in summary_lines([builtin], LABELS))


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"load": 7.9, "stolen": 0.0}, "busy machine: load 7.9 on 2 cores: 1 of 2 rows were measured beside"),
        (
            {"load": 0.5, "stolen": 0.03},
            "busy machine: load 0.5 on 2 cores, 3% of the cores' time stolen: 1 of",
        ),
        ({"load": 2.1, "stolen": 0.001}, None),
        ({"load": None, "stolen": None}, None),
        ({"load": 7.9, "machine": "a board"}, None),  # of how many cores is unknown
    ],
)
def test_a_busy_machine_is_a_line_and_marks_its_rows(figures, said):
    rows = [record(figures={**FIGURES, **figures}), record("lstm-rnn", figures=FIGURES)]
    told = [line for line in summary_lines(rows, LABELS) if line.startswith("busy")]
    assert len(told) == bool(said) and all(line.startswith(said) for line in told)
    assert row_line(rows[0], LABELS).endswith("(busy machine)") == bool(said)
    assert not row_line(rows[1], LABELS).endswith("(busy machine)")


def test_a_busy_machine_widens_intervals_by_what_the_other_rows_tell():
    """Training scatters more than inference, whatever else runs: each mode is compared with itself."""

    def rows(count, mode, half, load):
        figures = {**FIGURES, "ratio": 1.0, "ratio_low": 1 - half, "ratio_high": 1 / (1 - half), "load": load}
        return [record("slstm-rnn", mode, figures=figures)] * count

    quiet = [*rows(5, "infer", 0.01, 1.0), *rows(5, "train", 0.10, 1.0)]
    (told,) = [
        line for line in summary_lines([*quiet, *rows(9, "infer", 0.03, 7.9)], LABELS) if "busy" in line
    ]
    assert told.endswith(
        "9 of 19 rows were measured beside other work, and their intervals are 3.0x as wide as "
        "those of the others"
    )
    (told,) = [
        line for line in summary_lines([*quiet, *rows(9, "infer", 0.009, 7.9)], LABELS) if "busy" in line
    ]
    assert told.endswith("other work; their intervals are no wider than those of the others")
    too_few = [*quiet[:4], *quiet[5:], *rows(9, "infer", 0.03, 7.9)]
    (told,) = [line for line in summary_lines(too_few, LABELS) if "busy" in line]
    assert told.endswith("their intervals are wider for it")


def test_what_layers_show_against_themselves_is_told():
    def rows(count, **ratio):
        itself = {"baseline": "infer-lstm-builtin-b32-t50-f64-u128", **ratio}
        return [record("lstm-builtin", figures={**FIGURES, **itself})] * count

    held = rows(9, ratio=1.01, ratio_low=0.99, ratio_high=1.02)
    off = rows(1, ratio=1.06, ratio_low=1.05, ratio_high=1.07)
    said = "layers against themselves: 9 of 10 intervals (90.0%) hold 1, 1 of the ratios are off by more than"
    (told,) = [line for line in summary_lines([*held, *off], LABELS) if "themselves" in line]
    assert told.startswith(said)
    assert "100% of all ratios are known to ±2% (60% after 0.0 minutes), in 0.0 minutes" in told
    assert not any("themselves" in line for line in summary_lines(held, LABELS))


@pytest.mark.parametrize(
    ("known", "told"),
    [
        ([0, 1, 2, 3, 4, 7], "60% of all ratios are known to ±2% (60% after 7.0 minutes), in 9.0 minutes"),
        ([0, 1, 2, 3, 4], "50% of all ratios are known to ±2%, in 9.0 minutes"),
    ],
)
def test_when_enough_was_known_is_told(known, told):
    """Of rows that were measured at these minutes, the last time."""
    rows = [
        record(
            "lstm-builtin",
            figures={
                **FIGURES,
                "baseline": "infer-lstm-builtin-b32-t50-f64-u128",
                "ratio": 1.0,
                "ratio_low": 0.99 if minute in known else 0.9,
                "ratio_high": 1.01,
                "timestamp": f"2026-01-01T10:{minute:02}:00+00:00",
            },
        )
        for minute in range(10)
    ]
    (said,) = [line for line in summary_lines(rows[::-1], LABELS) if "themselves" in line]
    assert told in said


def test_a_drift_is_told():
    rows = [record(figures={**FIGURES, "drift": 0.6}), record("lstm-rnn", figures=FIGURES)]
    (told,) = [line for line in summary_lines(rows, LABELS) if line.startswith("drift: ")]
    assert told.startswith("drift: infer-slstm-rnn-b32-t50-f64-u128: the ratio moved")


def test_traces_of_two_speeds_are_told():
    figures = {**FIGURES, "instances": 4, "instance_ratios": "0.65 0.66 0.75 0.76"}
    line = "two speeds: infer-slstm-rnn-b32-t50-f64-u128: each instance draws one of two and keeps it"
    assert any(said.startswith(line) for said in summary_lines([record(figures=figures)], LABELS))
    assert not any("two speeds" in said for said in summary_lines([record(figures=FIGURES)], LABELS))


def test_what_did_not_run_is_listed_with_its_reason():
    rows = [
        record("gru-rnn", status="failed", reason="wrong_answer", figures={"message": "off by 1"}),
        record("lstm-rnn", status="skipped", reason="unsupported", figures={"message": "no option"}),
    ]
    assert summary_lines(rows, LABELS) == [
        "skipped: infer-lstm-rnn-b32-t50-f64-u128: unsupported: no option",
        "failed: infer-gru-rnn-b32-t50-f64-u128: wrong_answer: off by 1",
        "2 cases: 0 ok, 1 skipped, 1 failed",
    ]


def test_a_broken_contract_is_said_once_for_a_cell():
    rows = [
        record(
            "mine-rnn", mode, status="failed", reason="contract", figures={"message": f"masks: at 0x{mode}"}
        )
        for mode in ("infer", "train")
    ]
    other = record("gru-rnn", status="failed", reason="contract", figures={"message": "dtypes"})
    assert summary_lines([*rows, other], LABELS)[:-1] == [
        "failed: infer-mine-rnn-b32-t50-f64-u128 and 1 more: contract: masks: at 0xinfer",
        "failed: infer-gru-rnn-b32-t50-f64-u128: contract: dtypes",
    ]


def test_training_tasks_have_lines_of_their_own():
    trained = make_record(
        sweep="char_model",
        case="fit-slstm-rnn-b32-t79-f256-u128-stateful",
        subject="slstm-rnn",
        mode="fit",
        status="ok",
        epoch_s=1.234,
        characters_per_s=45600.0,
        loss=1.5,
    )
    assert summary_lines([trained], LABELS) == [
        "char_model: slstm in RNN, fit, stateful: 1.23 s an epoch, 45.6k characters/s, loss 1.50",
        "1 case: 1 ok, 0 skipped, 0 failed",
    ]


def test_a_run_of_the_default_sweep():
    rows = default_run()
    lines = summary_lines(rows, {})
    assert sum("; both under XLA " in line for line in lines) == 22  # eleven subjects, two modes
    assert sum(" the time of " in line for line in lines) == len(rows) - 22
    cases = len({row["case"] for row in rows})
    assert lines[-1].startswith(f"{cases} cases in {len(rows)} rows: {len(rows)} ok, 0 skipped, 0 failed; ")


def test_nothing_ran():
    assert summary_lines([], {}) == ["0 cases: 0 ok, 0 skipped, 0 failed"]
