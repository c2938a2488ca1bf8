"""What a cluster costs, in words, and how far two runs agree."""

import json
from pathlib import Path

import pytest

from bench.records.schema import RecordError
from bench.report.blocks import BLOCKS
from bench.report.page.cluster import FILE, scheduling
from bench.report.page.two_runs import agreement
from bench.report.readme import ReadmeError, remade
from bench.tests.report.test_report import write_run
from bench.tests.report.test_two_runs import times
from bench.tests.sample_records import record

FOUND = {
    "machine": "Xeon, 2 cores",
    "commit": "c0ffee",
    "timestamp": "2026-01-02T03:04:05Z",
    "distributed": "2026.1",
    "stand_in_s": 2.0,
    "costs": [
        {"workers": 100, "comparisons": 10_000, "wall_s": 202.0, "busy_s": 50.0, "memory_bytes": 3e7},
        {"workers": 300, "comparisons": 3_000, "wall_s": 22.0, "busy_s": 24.0, "memory_bytes": 2e7},
    ],
    "losses_s": [0.5, 1.0, 2.5],
}
ROWS = [record("slstm-rnn"), record("lstm-rnn"), record("gru-rnn"), record("slstm-rnn", mode="train")]


def test_what_scheduling_and_a_loss_cost_is_said_in_numbers(tmp_path):
    (tmp_path / FILE).write_text(json.dumps(FOUND))
    said = scheduling(tmp_path)
    assert said.startswith("Xeon, 2 cores · distributed 2026.1 · commit `c0ffee` · 2026-01-02")
    assert "| 100 | 10,000 | 202 s | 5.00 ms | 0.25% |" in said
    assert "125 comparisons a second for 300 workers" in said and "1,000" in said and "takes 8 s or" in said
    assert "1.00 s later, at most 2.50 s (of 3;" in said


@pytest.mark.parametrize("text", ["", "{}", "[]", json.dumps({**FOUND, "costs": []})])
def test_a_file_that_says_something_else_is_named(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RecordError, match=FILE):
        scheduling(tmp_path)


def test_rows_agree_where_the_interval_of_the_change_holds_1():
    before = [times(row, 1) for row in ROWS]
    after = [
        {**times(row, factor), "worker": str(number % 2)}
        for number, (row, factor) in enumerate(zip(before, (1.004, 1.03, 1.3, 1.0), strict=True))
    ]
    (made,) = agreement(before, after)
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in made.rows}
    assert rows["infer"] == ["3", "1 (33%)", "2 do not, 0 expected", "1", "±1.4%"]
    assert rows["train"][:2] == ["1", "1 (100%)"] and rows["all"][:2] == ["4", "2 (50%)"]
    assert "one process." in made.caption and "a worker, 2 workers." in made.caption
    assert agreement(before, []) == []


def test_a_block_names_two_runs(tmp_path):
    names = [write_run(tmp_path / name, ROWS).name for name in ("one", "two")]
    file = tmp_path / "page.md"
    for given in ("", " one", " one two three"):
        text = f"<!-- bench:agreement{given} -->\n<!-- /bench:agreement -->\n"
        with pytest.raises(ReadmeError, match=rf"page.md:1: .* names {len(given.split())} runs?, not 2"):
            remade(file, text, None, BLOCKS)
    text = f"<!-- bench:agreement {' '.join(names)} -->\n<!-- /bench:agreement -->\n"
    made = remade(file, text, Path("another"), BLOCKS)
    assert made.splitlines()[0] == text.splitlines()[0], "it keeps its runs"
    assert "| all | 4 | 4 (100%)" in made and remade(file, made, None, BLOCKS) == made
