import argparse

import pytest

from bench.commands import compare
from bench.tests.api.test_api import report_of

CELL = "bench.tests.odd_cells:OneIntegerState"


def run(*arguments):
    """The exit code of the command in this process."""
    parser = argparse.ArgumentParser()
    compare.add_arguments(parser)
    return compare.main(parser.parse_args([*arguments]))


@pytest.mark.parametrize(
    ("intervals", "at_most", "code"),
    [
        ([(0.8, 0.9)], [], 0),
        ([(0.8, 0.9), (1.1, 1.2)], ["--at-most=1.2"], 0),
        ([(0.8, 0.9), (1.1, 1.3)], ["--at-most=1.2"], 3),
        ([(1.1, 1.3), (1.3, 1.4), (0.8, 0.9)], ["--at-most=1.2"], 1),
        ([(1.3, 1.4)], [], 0),
    ],
)
def test_the_exit_code_is_the_worst_verdict(monkeypatch, capsys, intervals, at_most, code):
    monkeypatch.setattr(compare, "compare_each", lambda *_, **__: iter(report_of(*i) for i in intervals))
    assert run("a.py:A", "lstm", "--shape=2,3,4,5", *at_most) == code
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(intervals)
    assert lines[0].startswith("Mine / keras LSTM, infer b2 t3 f4 u5: ")
    assert ("SLOWER than 1.2x" in "".join(lines)) == (code == 1)


def test_seconds_and_shape_reach_the_comparison(monkeypatch):
    asked = []

    def compared(*_, **given):
        asked.append((given["seconds"], given["shape"]))
        yield report_of(0.8, 0.9)

    monkeypatch.setattr(compare, "compare_each", compared)
    for options in ([], ["--seconds=0.5"]):
        assert run("lstm", "gru", "--shape=2,3,4,5", *options) == 0
    assert asked == [(4, "2,3,4,5"), (0.5, "2,3,4,5")]


def test_the_first_is_compared_with_each_other_one(monkeypatch, capsys):
    monkeypatch.setattr("bench.runner.proving.Prover.check_contract", lambda *_: None)
    assert run(CELL, "gru", "slstm-rnn", "--shape=2,3,4,5", "--mode=infer,train", "--seconds=0.02") == 0
    pairs = [line.partition(" b2")[0] for line in capsys.readouterr().out.splitlines()]
    assert pairs == [
        f"OneIntegerState in RNN / {other}, {mode}"
        for mode in ("infer", "train")
        for other in ("keras GRU", "slstm in RNN")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lstm", "--shape=1,2"], "--shape '1,2': must be batch_size,timesteps,features,units"),
        (["lstm", "--shape=1,2,3,4", "--mode=fit"], "mode 'fit': must be one of infer, train"),
        (["lstm", "--shape=1,2,3,4", "--option=colour"], "no option 'colour'"),
        (["lstm", "--shape=1,2,3,4", "--option="], "--option : no option ''"),
        (["lstm", "--shape=1,2,3,4", "--kwargs=[1]"], "--kwargs: expected a JSON object"),
        (["lstm", "--shape=1,2,3,4", "--step-shape="], "--step-shape: expected positive integers"),
        (
            ["lstm", "--shape=1,2,3,4", "--step-shape=2,2"],
            "step_shape (2, 2): has 4 features, and the shape 3",
        ),
        (
            ["--layer=lstm", "--shape=1,2,3,4"],
            "expected package.module:Name or path/to/file.py:Name, got 'lstm'",
        ),
        (["lstm", "--shape=99999999999,1,1,1"], "by the estimate it takes"),
        (["no_such.py:A", "--shape=1,2,3,4"], "no such file"),
        (["rnn", "--shape=1,2,3,4"], "'rnn': must be one of lstm, gru, simple_rnn"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_no_verdict(capsys, arguments, message):
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape=1,2,3,4", "--shape=2,2,3,4"], "--shape: may stand there once"),
        (["--shape=1,2,3,4", "--option=depth=2", "--option=unroll"], "--option: may stand there once"),
        (["--shape=1,2,3,4", "--seconds=x"], "argument --seconds: 'x': must be a number"),
        (["--shape=1,2,3,4", "--at-most=0"], "argument --at-most: 0: must be above zero"),
    ],
)
def test_an_option_that_would_not_be_heeded_is_refused(capsys, arguments, message):
    with pytest.raises(SystemExit):
        run("lstm", *arguments)
    assert message in capsys.readouterr().err
