"""What is said of one thing against another comes from a pair that was timed in turns, wherever it is said.

The times of two rows lie minutes apart. So they are changed here, each row's by a factor of its own, as a
machine would that is slower at some times than at others: no ratio that is told may change.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from bench.report import advice
from bench.report.blocks import BLOCKS
from bench.report.page import sentences
from bench.report.studies import CHARTS
from bench.report.summary import summary_lines
from bench.tests.sample_records import (
    default_run,
    fused_run,
    options_run,
    peers_run,
    scaling_run,
    static_dynamic_run,
)

RUNS: Mapping[str, Callable[[], list]] = {
    "default": default_run,
    "fused": fused_run,
    "options": options_run,
    "peers": peers_run,
    "scaling": scaling_run,
    "static_dynamic": static_dynamic_run,
}
_TIMES = ("median_s", "min_s", "iqr_s", "baseline_median_s", "queued_s")
_RATES = ("sequences_per_s", "timesteps_per_s", "gflops_per_s", "roofline_fraction")
_RATIO = re.compile(r"[0-9.]+ ?(?:×|x\b)[^|;,]*")


def at_other_times(rows: list) -> list:
    """The same pairs, each measured while the machine was up to twice as slow as it was."""
    return [
        _slower(row, 1 + zlib.crc32(f"{row['case']} {row['baseline']}".encode()) % 100 / 100) for row in rows
    ]


def _slower(row: Mapping[str, Any], factor: float) -> dict[str, Any]:
    factors = dict.fromkeys(_TIMES, factor) | dict.fromkeys(_RATES, 1 / factor)
    changed = {name: row[name] * by for name, by in factors.items() if row[name] is not None}
    return {**row, **changed}


def ratios_in(text: str) -> list[str]:
    return _RATIO.findall(text)


@pytest.mark.parametrize("run", RUNS)
def test_no_sentence_compares_what_was_not_timed_in_turns(run):
    rows = RUNS[run]()
    for told in (sentences.of_run, lambda records: summary_lines(records, {})):
        assert list(told(rows)) == list(told(at_other_times(rows)))


@pytest.mark.parametrize("run", RUNS)
def test_no_block_of_a_page_does(run):
    rows, later = RUNS[run](), at_other_times(RUNS[run]())
    names = [name for name, block in BLOCKS.items() if block.takes == "run"]
    told = {name: ratios_in(BLOCKS[name].make(rows)) for name in names}
    assert told == {name: ratios_in(BLOCKS[name].make(later)) for name in names}
    assert any(told.values())


def test_no_advice_does():
    import pandas as pd

    shape = {"batch_size": 32, "timesteps": 50, "features": 64, "units": 128}
    first, later = (
        advice.advice(pd.DataFrame(rows), shape, "train")
        for rows in (default_run(), at_other_times(default_run()))
    )
    told = [line for line in first if "the time of" in line]
    assert told == [line for line in later if "the time of" in line]
    assert all("about" not in line for line in first) and any(
        "against keras LSTM as it comes" in line for line in first
    )


@pytest.mark.parametrize("name", ["time", "throughput"])
@pytest.mark.parametrize("mode", ["infer", "train"])
def test_charts_of_time_rank_as_the_pairs_do(name, mode):
    """Their tables hold what they draw: within one baseline, the order of times is that of the ratios."""
    rows = at_other_times(default_run())
    (ratios,), (drawn,) = CHARTS["ratio"].tables(rows), CHARTS[name].tables(rows)
    column = ratios.header.index(mode)
    assert ratios.header == drawn.header
    lstm = {"keras LSTM", "keras LSTMCell in RNN", "lstm in RNN", "slstm in RNN"}
    ratio, figure = (
        {row[0].text: row[column].value for row in table.rows if row[0].text in lstm - {"keras LSTM"}}
        for table in (ratios, drawn)
    )
    ranked = sorted(figure, key=lambda subject: figure[subject], reverse=name == "throughput")
    assert len(ranked) == 3 and ranked == sorted(ratio, key=lambda subject: ratio[subject])
