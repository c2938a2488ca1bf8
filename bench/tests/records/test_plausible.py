"""Rows that cannot be: each rule refuses what breaks it, alone and in a column; what a run writes can be."""

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bench.cases.case import Case
from bench.cases.comparisons import comparisons, tasks
from bench.cases.sweeps import SWEEPS
from bench.records.csv_file import read_records
from bench.records.plausible import NUMBERS, REQUIRED, RULES, impossible
from bench.records.schema import COLUMNS, SHAPE, make_record
from bench.tests.sample_records import of, record

RESULTS = Path(__file__).parents[3] / "results"
OK = {
    **record("slstm-rnn", "train"),
    **{"max_abs_error": 1e-7, "tolerance": 1e-6, "gradient_error": 1e-7, "gradient_tolerance": 1e-6},
}


def test_what_runs_have_written_can_be():
    files = sorted(RESULTS.rglob("records.csv"))
    assert files
    for file in files:
        for number, row in enumerate(read_records(file), 2):
            assert impossible(row) is None, f"{file}, row {number}"


def test_every_case_of_every_sweep_can_be():
    for device in ("cpu", "gpu"):
        for row in comparisons(list(SWEEPS), device=device):
            assert impossible(of(row.sweep, row.case, row.baseline)) is None, row.case.id
        for row in tasks(list(SWEEPS), device=device):
            assert impossible({**of(row.sweep, row.case, row.case), "baseline": None}) is None, row.case.id


BROKEN: dict[str, list[Any]] = {
    **{name: [0, -5] for name in (*SHAPE, "depth")},
    "rounds": [0, -1, None],
    "instances": [0, -1],
    "processes": [0, -1],
    "instance_spread": [-0.01],
    "drift": [-1.1, 1.1],
    "load": [-1.0],
    "stolen": [-0.1, 1.1],
    "context_switches": [-1],
    "page_faults": [-1],
    "median_s": [0.0, -1.0, 1e300, None],
    "min_s": [-1.0, 1.0, None],
    "iqr_s": [-0.1],
    "baseline_median_s": [0.0, None, 10.0, 1e-6],
    "ratio": [0.0, -0.7, None, OK["ratio"] * 1.5, OK["ratio"] / 1.5],
    "ratio_low": [None, -1.0, OK["ratio"] * 1.01],
    "ratio_high": [None, -1.0, OK["ratio"] * 0.99],
    "queued_s": [-1.0],
    "sequences_per_s": [0.0, -1.0],
    "timesteps_per_s": [-1.0],
    "flops": [-1.0],
    "gflops_per_s": [-1.0],
    "roofline_fraction": [0.0],
    "trace_s": [-1.0],
    "compile_s": [-1.0],
    "sync_s": [-1.0],
    "graph_nodes": [-1],
    "peak_bytes": [-1, 2**62],
    "retraces": [-1],
    "dropout": [-0.5, 1.0],
    "recurrent_dropout": [1.5],
    "max_abs_error": [2e-6, -1.0],
    "gradient_error": [1.0, -1.0],
    "tolerance": [1e-8, -1.0],
    "gradient_tolerance": [-1.0],
    "epoch_s": [-1.0],
    "characters_per_s": [0.0],
    "case": [
        None,
        "",
        "x",
        "train-slstm-rnn-b32-t50-f64",
        f"{OK['case']}-xla",
        "infer-" + str(OK["case"])[6:],
    ],
    "subject": [None, "lstm-rnn", "slstm-rnn-"],
    "cell": [None, "lstm"],
    "layer": [None, "builtin"],
    "mode": [None, "infer", "fit"],
    "unroll": [True],
    "jit_compile": [True],
    "bidirectional": [True],
    "dtype": ["float64"],
    "masked": ["right"],
    "baseline": [
        *("x", "train-x", "infer-lstm-builtin-b32-t50-f64-u128", "train-lstm-builtin-b32-t50-f64-u12"),
        *("train-lstm-builtin-b32-t51-f64-u128-xla", "train-lstm-builtin-b32-t50-f64"),
    ],
    **{name: [None] for name in ("run_id", "machine", "device", "backend", "tensorflow", "keras", "sweep")},
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BROKEN.items() for value in values]
)
def test_what_cannot_be_is_named_by_its_column(name, value):
    assert impossible(OK) is None
    said = impossible({**OK, name: value})
    assert said is not None and name in said


def test_every_rule_is_tried():
    tried = {
        rule
        for rule in RULES
        for name, values in BROKEN.items()
        for value in values
        if _breaks(rule, {**OK, name: value})
    }
    untried = [rule.columns for rule in RULES if rule not in tried]
    assert not untried


def _breaks(rule, row) -> bool:
    numbers = {name: math.nan if row[name] is None else float(row[name]) for name in NUMBERS}
    return bool(rule.is_broken({**numbers, "ok": row["status"] == "ok"}))


def test_ratios_are_medians_over_blocks_and_may_differ_from_the_quotient():
    quotient = float(OK["median_s"]) / float(OK["baseline_median_s"])
    for factor in (0.3, 1.26, 2.4, 4.9):
        ratio = quotient * factor
        moved = {**OK, "ratio": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01}
        assert impossible(moved) is None
    far = {**OK, "ratio": 5.1 * quotient, "ratio_low": quotient, "ratio_high": 6 * quotient}
    assert "more than 5 times" in str(impossible(far))


def test_what_was_not_timed_may_be_without_figures():
    for row in (
        record("gru-rnn", status="skipped", reason="unsupported"),
        {**record("lstm-rnn", "train", status="failed", reason="wrong_answer"), "max_abs_error": 1.0},
    ):
        assert impossible(row) is None
    without = {
        name: None
        for name in OK
        if name
        in ("median_s", "min_s", "iqr_s", "rounds", "baseline_median_s", "ratio", "ratio_low", "ratio_high")
    }
    assert impossible({**OK, **without}) is None


def test_each_column_is_a_field_of_the_case_or_has_a_meaning_of_its_own():
    names = {column.name for column in COLUMNS}
    assert {field.name for field in fields(Case)} <= names
    assert {"case", "run_id", "sweep", *SHAPE} <= set(REQUIRED)
    assert make_record(status="ok")["depth"] == 1
