"""A report of two runs: what moved, by the ratio of ratios, and what they ran on."""

from pathlib import Path

import pytest

from bench.records.run_folder import StoredRun
from bench.report import html
from bench.report.page import section
from bench.report.page.two_runs import two_runs
from bench.tests.report.test_report import parsed, write_run
from bench.tests.sample_records import record

SLSTM, LSTM = record("slstm-rnn"), record("lstm-rnn")


def run(name: str, *records, **environment) -> StoredRun:
    return StoredRun(Path(name), list(records), environment, [], [])


def times(row, factor: float, width: float = 1.01):
    """The record at another ratio, with an interval of that width; its times may be anything."""
    ratio = row["ratio"] * factor
    return {**row, "ratio": ratio, "ratio_low": ratio / width, "ratio_high": ratio * width}


def cases(tables) -> list[str]:
    return [row[0].text for made in tables for row in made.rows]


def test_what_moved_is_the_ratio_of_ratios_the_most_first():
    before = [times(row, 1) for row in (SLSTM, LSTM, record("gru-rnn"))]
    after = [times(before[0], 1.1), times(before[1], 0.8), times(before[2], 1.005)]
    found = two_runs(run("one", *before), run("two", *after))
    assert cases(found.moved) == [LSTM["case"], SLSTM["case"]]
    assert cases(found.others) == [before[2]["case"]]
    first, second = (row[1] for row in found.moved[0].rows)
    assert first.text.startswith("0.80× [0.7") and second.text.startswith("1.10× [1.0")
    assert "3 cases have a ratio to the same baseline in both runs; of 2 the" in " ".join(found.sentences)


def test_times_of_two_runs_are_never_compared():
    """A slower machine slows a case and its baseline: the ratio is what it was."""
    slower = {**SLSTM, "median_s": SLSTM["median_s"] * 3, "baseline_median_s": SLSTM["baseline_median_s"] * 3}
    found = two_runs(run("one", times(SLSTM, 1)), run("two", times(slower, 1)))
    assert not found.moved and cases(found.others) == [SLSTM["case"]]


@pytest.mark.parametrize(
    "other",
    [
        record("slstm-rnn", timesteps=10),
        record("slstm-rnn", baseline="gru-builtin"),
        record("slstm-rnn", status="failed", reason="killed"),
    ],
)
def test_only_the_same_case_against_the_same_baseline_is_compared(other):
    found = two_runs(run("one", SLSTM, LSTM), run("two", other))
    assert not found.moved and not found.others
    alone = 0 if other["status"] == "failed" else 1
    assert f"Not compared: 2 that the first run alone has, {alone} that" in " ".join(found.sentences)


def test_noise_is_not_compared():
    noise = record("lstm-builtin")
    assert noise["case"] == noise["baseline"]
    found = two_runs(run("one", times(noise, 1)), run("two", times(noise, 1.5)))
    assert not found.moved and not found.others


def test_what_differs_of_what_they_ran_on_comes_first():
    one = run("one", SLSTM, python="3.11", packages={"numpy": "2.0"})
    two = run("two", {**SLSTM, "machine": "EPYC", "keras": "3.14"}, python="3.12", packages={"numpy": "2.0"})
    found = two_runs(one, two)
    names = [row[0].text for row in found.environment.rows]
    assert set(names[:3]) == {"machine", "keras", "python"} and "packages.numpy" in names[3:]
    assert [cell.text for cell in found.environment.rows[0]] == ["machine", str(SLSTM["machine"]), "EPYC"]
    assert "3 facts that differ" in found.environment.caption and found.differing == 3
    assert found.sentences[0].startswith("The runs differ in machine: what moved may be the hardware's")


def test_the_page_of_two_runs_compares_them_and_of_one_or_three_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(section, "charts", lambda records, rows: [])
    folders = [
        write_run(tmp_path / f"run-{number}", [times(SLSTM, factor), times(LSTM, 1)])
        for number, factor in enumerate((1, 1.2, 1))
    ]
    pages = [parsed(html.write_report(folders[:count], tmp_path / "page.html")) for count in (1, 2, 3)]
    assert [bool(page.all("section", id="two-runs")) for page in pages] == [False, True, False]
    assert f"{SLSTM['case']}1.20× [1.1" in pages[1].text
    assert "Run run-1 compared with run run-0" in pages[1].text
    (folded,) = pages[1].all("table", **{"aria-label": "The same in both runs"})
    assert "backendtensorflow" in folded.text and "machine" in folded.text


def test_runs_without_records_have_a_page(tmp_path):
    found = two_runs(run("one"), run("two"))
    assert not found.moved and found.sentences[0].startswith("0 cases have")
