"""The READMEs' blocks: what they say, and when the command refuses."""

from pathlib import Path

import pytest

from bench.__main__ import main
from bench.cases.sweeps import SWEEPS
from bench.records.csv_file import RecordWriter
from bench.records.schema import COLUMNS, REASONS
from bench.report.blocks import BLOCKS
from bench.report.markdown import plain
from bench.tests.sample_records import default_run, record


def run_command(*arguments: object) -> int:
    """The exit code of `python -m bench readme ARGUMENTS`."""
    return main(["readme", *map(str, arguments)])


def write_run(folder: Path, records) -> Path:
    """A run's folder with the records."""
    writer = RecordWriter(folder)
    for each in records:
        writer.finish(each)
    return folder


def row_of(text: str, *first: str) -> list[str]:
    """The cells of the table row that starts with `first`."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if tuple(cells[: len(first)]) == first:
            return cells
    raise AssertionError(f"no row {first} in:\n{text}")


def made(name: str, records) -> str:
    """The text of a block."""
    return BLOCKS[name].make(records)


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A checkout with a README that has one block, and a run."""
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text(
        "before\n\n<!-- bench:cases -->\nold\n<!-- /bench:cases -->\n\nafter\n"
    )
    (tmp_path / "results" / "README.md").write_text("<!-- bench:reasons -->\n<!-- /bench:reasons -->\n")
    write_run(tmp_path / "results" / "run", [record(), record(mode="train")])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_writes_between_the_markers_and_records_the_run(house):
    assert run_command("results/run") == 0
    lines = (house / "README.md").read_text().splitlines()
    assert lines[:3] == ["before", "", "<!-- bench:cases results/run -->"]
    assert lines[3].startswith("2 cases · 2 ok")
    assert lines[4:] == ["<!-- /bench:cases -->", "", "after"]
    assert "`wrong_answer`" in (house / "results" / "README.md").read_text()


def test_check_passes_after_writing_with_and_without_the_run(house, capsys):
    run_command("results/run")
    assert run_command("--check") == 0
    assert run_command("results/run", "--check") == 0
    assert run_command() == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [("2 ok", "3 ok"), ("2 cases", "2  cases"), ("<!-- /bench:cases", "more\n<!-- /bench:cases")],
)
def test_check_names_the_block_that_differs_and_writes_nothing(house, capsys, old, new):
    run_command("results/run")
    file = house / "README.md"
    changed = file.read_text().replace(old, new)
    assert changed != file.read_text()
    file.write_text(changed)
    assert run_command("--check") == 1
    assert "README.md:3: block cases differs" in capsys.readouterr().err
    assert file.read_text() == changed


def test_check_against_another_run_differs(house, capsys):
    run_command("results/run")
    write_run(house / "results" / "other", [record()])
    assert run_command("results/other", "--check") == 1


def test_a_chart_follows_the_run_and_must_be_there(house, capsys):
    file = house / "results" / "options.md"
    file.write_text("<!-- bench:chart:ratio run -->\n<!-- /bench:chart:ratio -->\n")
    assert run_command("results/run") == 2
    assert "options.md:1: block chart:ratio: no file run/charts/ratio.png" in capsys.readouterr().err
    write_run(house / "results" / "again", [record()])
    for run in ("run", "again"):
        (house / "results" / run / "charts").mkdir()
        (house / "results" / run / "charts" / "ratio.png").touch()
        assert run_command(f"results/{run}") == 0
        assert f"]({run}/charts/ratio.png)\n" in file.read_text()


def test_text_outside_the_blocks_is_free(house):
    run_command("results/run")
    file = house / "README.md"
    file.write_text(file.read_text().replace("after", "whatever `<!-- bench:nonsense -->` says"))
    assert run_command("--check") == 0


def test_a_run_is_found_from_any_folder(house, monkeypatch):
    """The recorded path is the README's, not the caller's."""
    run_command("results/run")
    monkeypatch.chdir(house / "results")
    assert run_command("--check", "--file", house / "README.md") == 0


BLOCK = "<!-- bench:cases -->\n<!-- /bench:cases -->\n"


@pytest.mark.parametrize(
    ("text", "run", "message"),
    [
        ("\n<!-- bench:nonsense -->\n<!-- /bench:nonsense -->\n", "results/run", "2: unknown block nonsense"),
        ("<!-- bench:cases -->\ntext\n", "results/run", "1: block cases has no end marker"),
        (f"<!-- bench:summary -->\n{BLOCK}", "results/run", "1: block summary has no end marker"),
        ("<!-- /bench:cases -->\n", "results/run", "1: block cases ends but did not begin"),
        ("<!-- bench:cases -->\n<!-- /bench:options -->\n", "results/run", "block options ends but did not"),
        (BLOCK, None, "1: block cases names no run yet"),
        (BLOCK, "results/nowhere", "results/nowhere: no such file"),
        (BLOCK.replace("cases -->", "cases results/gone -->", 1), None, "results/gone"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2_and_nothing_is_written(house, capsys, text, run, message):
    (house / "README.md").write_text(text)
    other = (house / "results" / "README.md").read_text()
    assert run_command(*([run] if run else [])) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert (house / "README.md").read_text() == text
    assert (house / "results" / "README.md").read_text() == other


def test_a_missing_file_is_code_2(house, capsys):
    assert run_command("--check", "--file", "NOTES.md") == 2
    assert "NOTES.md" in capsys.readouterr().err


def test_summary_has_a_row_a_subject_and_mode():
    text = made("summary", default_run())
    assert text.count("\n| ") == 2 + 11 * 2
    assert "batch 32 · 50 timesteps · 64 features · 128 units" in text


def test_summary_shows_time_and_ratio_plain_and_xla():
    plain = {"median_s": 0.00123, "ratio": 0.714, "ratio_low": 0.694, "ratio_high": 0.742}
    xla = {"median_s": 0.5, "ratio": 12.34, "ratio_low": 11.0, "ratio_high": 13.0}
    text = made("summary", [record(figures=plain), record(jit_compile=True, figures=xla)])
    figures = ["1.23 ms", "0.71× [0.69, 0.74]", "500 ms", "12.3× [11.0, 13.0]"]
    assert row_of(text, "slstm in RNN", "infer") == ["slstm in RNN", "infer", "keras LSTM", *figures]


def test_a_failed_row_shows_its_reason_and_a_missing_one_nothing():
    text = made("summary", [record(status="failed", reason="out_of_memory")])
    assert row_of(text, "slstm in RNN")[3:] == ["failed: `out_of_memory`", "–", "–", "–"]


def test_names_are_escaped():
    odd = record(
        figures={"subject": "a|b*<i>-rnn", "cell": "a|b*<i>", "case": "infer-a|b*<i>-rnn-b32-t50-f64-u128"}
    )
    text = made("summary", [odd])
    assert r"| a\|b\*\<i\> in RNN |" in text
    assert plain("x_y`$") == r"x\_y\`\$"


def test_options_against_the_same_case_without_the_option():
    built_in = {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
    records = [record("lstm-builtin"), record("lstm-builtin", unroll=True, figures=built_in)]
    assert row_of(made("options", records), "keras LSTM", "infer")[2] == "0.50× [0.40, 0.60]"


def test_options_against_another_subject_have_no_cost():
    """Nor have two ratios to one baseline."""
    assert made("options", [record(), record(unroll=True)]) == "The run has no options."


def test_scaling_has_a_table_a_line_with_the_base_in_it():
    text = made("scaling", default_run())
    assert "Time against timesteps, at batch 32 · 64 features · 128 units:" in text
    for points in ("10 50 100 200", "1 8 32 128", "32 64 128 256"):
        assert f"| subject | mode | {points.replace(' ', ' | ')} |" in text
    assert text.count("slstm in RNN | train") == 3
    assert made("scaling", [record()]) == "The run has one shape."


def test_scaling_shows_what_failed():
    records = [record(), record(timesteps=100), record(timesteps=200, status="failed", reason="killed")]
    assert row_of(made("scaling", records), "slstm in RNN")[4] == "failed: `killed`"


def test_environment_is_one_line():
    versions = "TensorFlow 2.21.0 · Keras 3.15.0"
    line = f"Xeon @ 2.20GHz, 2 cores, Linux · {versions} · commit `0123456789ab` · 2025-01-02"
    assert made("environment", [record()]) == line
    assert "commit `0123456789ab-dirty`" in made(
        "environment", [record(figures={"commit": "0123456789abcdef-dirty"})]
    )


def test_cases_counts_and_says_how_well_the_ratios_are_known():
    wide = {"ratio": 1.0, "ratio_low": 0.9, "ratio_high": 1.2}
    records = [
        record(figures={"ratio": 1.0, "ratio_low": 0.99, "ratio_high": 1.01}),
        record("lstm-rnn", figures={"ratio": 2.0, "ratio_low": 1.9, "ratio_high": 2.1}),
        record("keras_lstm-rnn", figures=wide),
        record("gru-rnn", status="skipped", reason="unsupported"),
        record("minimal-rnn", status="failed", reason="killed"),
    ]
    statuses = "3 ok · 1 skipped (`unsupported` 1) · 1 failed (`killed` 1)"
    known = "half of the ratios are known to ±5.3%, nine in ten to ±17.1%"
    assert made("cases", records) == f"5 cases · {statuses} · {known}"
    assert made("cases", records[3:]) == f"2 cases · {statuses.replace('3 ok', '0 ok')}"


def test_what_was_printed_is_quoted_of_the_lstm_alone():
    text = made("printed", default_run())
    assert text.startswith("```text\nat b32-t50-f64-u128:\n  …\n  lstm in RNN, infer: ")
    assert text.count("  …") == 5
    assert "GRU" not in text
    assert text.splitlines()[-2].startswith("122 cases in 150 rows: 150 ok")


def test_every_sweep_has_a_row_that_says_whether_a_users_cell_joins():
    rows = BLOCKS["sweeps"].make().splitlines()[2:]
    assert len(rows) == len(SWEEPS)
    assert row_of("\n".join(rows), "`default`")[2:] == ["yes", "–"]
    assert row_of("\n".join(rows), "`fused`")[3] == "yes"
    assert row_of("\n".join(rows), "`peers`")[2:] == ["–", "–"]


@pytest.mark.parametrize("name", ["summary", "options", "scaling", "environment", "cases"])
def test_a_run_without_records_has_blocks_too(name):
    assert BLOCKS[name].make([])


def test_columns_and_reasons_are_all_there():
    columns, reasons = BLOCKS["columns"].make(), BLOCKS["reasons"].make()
    assert [line.split("`")[1] for line in columns.splitlines()[2:]] == [column.name for column in COLUMNS]
    assert [line.split("`")[1] for line in reasons.splitlines()[2:]] == list(REASONS)


def test_a_run_replaces_the_blocks_of_its_own_sweeps_only(house):
    write_run(house / "results" / "again", [record(mode="train")])
    write_run(house / "results" / "other", [record(figures={"sweep": "other"})])
    (house / "README.md").write_text(
        "<!-- bench:cases results/run -->\n<!-- /bench:cases -->\n"
        "<!-- bench:environment results/other -->\n<!-- /bench:environment -->\n"
        "<!-- bench:cases results/gone -->\n<!-- /bench:cases -->\n"
    )
    assert run_command("results/again") == 0
    markers = [line for line in (house / "README.md").read_text().splitlines() if "<!-- bench:" in line]
    assert markers == [
        "<!-- bench:cases results/again -->",
        "<!-- bench:environment results/other -->",
        "<!-- bench:cases results/again -->",
    ]


def test_speed_ups_have_a_row_a_case_and_a_column_a_baseline():
    baseline = "infer-lstm-builtin-b32-t50-f64-u128"
    half = {"baseline": baseline, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.8}
    twice = {"baseline": f"{baseline}-xla", "ratio": 2.0, "ratio_low": 1.6, "ratio_high": 4.0}
    swept = [record("lstm-fused", figures={"sweep": "fused", **each}) for each in (half, twice)]
    text = made("speed_ups", swept)
    lines = text.splitlines()
    assert lines[0].endswith("| faster than Keras' loop | faster than Keras' loop under XLA |")
    assert len(lines) == 3
    assert lines[2].endswith("| 2.00× [1.25, 2.50] | 0.25 to 0.62× |")


def test_tasks_have_a_row_each():
    figures = {"sweep": "char_model", "epoch_s": 1.5, "loss": 2.25, "ratio": None}
    text = made("tasks", [record(mode="fit", stateful=True, figures=figures), record()])
    assert len(text.splitlines()) == 3
    assert "| stateful | 1.50 s |" in text and text.endswith("| 2.25 |")
