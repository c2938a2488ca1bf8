"""The report: what stands on the page, that nothing of a run gets out of hand there, and that it works."""

import io
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.__main__ import main
from bench.records import run_folder
from bench.records.csv_file import RECORDS_FILE, RecordWriter
from bench.records.run_folder import write_environment, write_tasks
from bench.report import html, table
from bench.report.page import cases, section, sentences
from bench.report.page.machines import beside_each_other
from bench.report.studies import CHARTS, cost, growth, options
from bench.tests.sample_records import default_run, record

NASTY = '<script>alert("x")</script>'


def write_run(folder: Path, records, environment=None, tasks=None) -> Path:
    """A run's folder with these records."""
    writer = RecordWriter(folder)
    for each in records:
        writer.finish(each)
    write_environment(folder, environment or {"machine": {"cpu": "Xeon", "cores": 2}})
    if tasks:
        write_tasks(folder, tasks)
    return folder


@dataclass
class Element:
    """An element of a page: its attributes and all text within it."""

    tag: str
    attributes: dict[str, str | None]
    text: str = ""


@dataclass
class Page(HTMLParser):
    """A parsed page; refuses elements that are not closed in turn."""

    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def __hash__(self):
        return id(self)

    def handle_starttag(self, tag, attrs):
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs), f"an attribute twice: {attrs}"
        self.elements.append(element)
        if tag not in ("meta", "link", "img", "input", "br"):
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop().tag == tag

    def handle_data(self, data):
        for element in self._open:
            element.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [
            element
            for element in self.elements
            if element.tag == tag and all(element.attributes.get(name) == v for name, v in attributes.items())
        ]

    @property
    def text(self) -> str:
        return self.all("body")[0].text


def parsed(file: Path) -> Page:
    found = Page()
    found.feed(file.read_text(encoding="utf-8"))
    found.close()
    assert not found._open
    return found


def drawn(tmp_path: Path, records, **beside) -> Page:
    """The page of a run with these records."""
    folder = write_run(tmp_path / "run", records, **beside)
    return parsed(html.write_report([folder], folder / html.REPORT_FILE))


@pytest.fixture
def no_charts(monkeypatch):
    """Drawing takes seconds, and most tests do not look at charts."""
    monkeypatch.setattr(section, "charts", lambda records, rows: [])


NASTY_RECORD = record(
    figures={
        "subject": f"{NASTY}-rnn",
        "cell": NASTY,
        "case": f"infer-{NASTY}-rnn-b32-t50-f64-u128",
        "machine": "<img src=x onerror=alert(1)>",
        "kernel": "\"><b onclick='x'>",
        "message": NASTY,
    }
)
FAILED = record(
    "lstm-rnn", timesteps=200, status="failed", reason="killed", figures={"message": "out of <air>"}
)
SKIPPED = record("gru-rnn", "train", activation="relu", status="skipped", reason="unsupported")


SUBJECTS = ("lstm-builtin", "gru-builtin", "gru-rnn", "slstm-rnn", "minimal-rnn")
RECORDS = [
    *(each for each in default_run() if each["subject"] in SUBJECTS),
    NASTY_RECORD,
    FAILED,
    SKIPPED,
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Iterator[Path]:
    """The report of a run with two of the charts, which take time, a nasty name and what did not run."""
    folder = write_run(
        tmp_path_factory.mktemp("results") / "run",
        RECORDS,
        tasks=[{"sweep": "generate", "case": "some-case", "start": "O", "texts": [f"O {NASTY}", "O no"]}],
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            section,
            "CHARTS",
            {name: CHARTS[name] for name in ("ratio", "timesteps", "price_list", "options")},
        )
        patch.setitem(section.CHARTS, "options", replace(CHARTS["options"], draw=lambda records: None))
        yield html.write_report([folder], folder / html.REPORT_FILE)


@pytest.fixture(scope="module")
def whole_page(whole) -> Page:
    return parsed(whole)


def test_nothing_is_loaded(whole_page):
    """Every address is a place on the page or stands in it."""
    addresses = [
        address
        for element in whole_page.elements
        for name in ("src", "href", "srcset", "action", "data", "poster")
        if (address := element.attributes.get(name)) is not None
    ]
    assert addresses
    assert {address.partition(":")[0] for address in addresses if not address.startswith("#")} == {"data"}
    style = whole_page.all("style")[0].text
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_allows_our_style_and_script_alone(whole_page):
    (policy,) = [e.attributes["content"] for e in whole_page.all("meta") if "http-equiv" in e.attributes]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("style", "script"):
        (element,) = whole_page.all(kind)
        assert f"{kind}-src {html._hash(element.text)}" in policy


def test_what_a_run_says_is_text_and_never_markup(whole_page):
    assert len(whole_page.all("script")) == 1
    assert not whole_page.all("b")
    assert all(e.attributes["src"].startswith("data:") for e in whole_page.all("img"))
    assert not [name for e in whole_page.elements for name in e.attributes if name.startswith("on")]
    assert whole_page.text.count(NASTY) > 3


def test_links_lead_somewhere_and_ids_are_there_once(whole_page):
    ids = [e.attributes["id"] for e in whole_page.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))
    links = [e.attributes["href"] for e in whole_page.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_every_part_is_there(whole_page):
    parts = [e.text for e in whole_page.all("h3")]
    wanted = ["Summary", "Price list", "Charts", "All cases", "Skipped and failed"]
    assert parts == [*wanted, "What the character models wrote", "Environment"]
    navigation = [e.text for e in whole_page.all("nav")[0:1]]
    assert all(name in navigation[0] for name in wanted)


def test_every_case_is_there_with_its_numbers_and_the_command_to_run_it_alone(whole_page):
    details = whole_page.all("article")
    rows = [e for e in whole_page.all("th", scope="row") if "data-value" in e.attributes]
    assert [e.attributes["data-value"] for e in rows] == [r["case"] for r in RECORDS]
    assert len(details) == len(RECORDS)
    for each, detail in zip(RECORDS, details, strict=True):
        assert str(each["case"]) in detail.text
        if each is not NASTY_RECORD:
            assert f"pytest --benchmark-only --sweep=default --case={each['case']}\n" in f"{detail.text}\n"


def test_the_command_is_one_that_a_shell_takes_as_meant(whole_page):
    commands = [e.text for e in whole_page.all("pre", **{"class": "command"})]
    assert f"pytest --benchmark-only --sweep=default '--case={NASTY_RECORD['case']}'" in commands


def test_the_command_of_a_task_at_the_full_size_says_so():
    fit = record("lstm-builtin", "fit", units=1024, figures={"sweep": "char_model"})
    assert "--benchmark-only --full --sweep=char_model" in cases.command(fit)
    assert "--full" not in cases.command({**fit, "units": 128})


def test_the_command_selects_the_case():
    """The plugin takes what the page prints."""
    from bench.cases.comparisons import comparisons

    wanted = record("slstm-rnn", "train", jit_compile=True)
    sweep, case = (word.partition("=")[2] for word in cases.command(wanted).split()[-2:])
    assert [c.case.id for c in comparisons([sweep]) if c.first].count(case) == 1


def test_the_command_of_a_case_that_is_no_sweeps_names_the_case_alone():
    chosen = record("slstm-rnn", timesteps=7, figures={"sweep": "chosen"})
    assert cases.command(chosen) == "pytest --benchmark-only --case=infer-slstm-rnn-b32-t7-f64-u128"


def test_the_command_is_one_for_where_the_run_was_made():
    """Outside of a checkout there is no commit, and pytest finds no benchmarks."""
    assert cases.command(record()).startswith("pytest --benchmark-only --sweep=")
    installed = record(figures={"commit": None})
    assert cases.command(installed).startswith("python -m bench run --sweep=default --case=infer-slstm-rnn-")


def test_a_case_in_words(no_charts, tmp_path):
    figures = {
        "kernel": "while",
        "xla": True,
        "proof": "exact",
        "max_abs_error": 1.25e-7,
        "tolerance": 3e-6,
        "median_s": 0.005,
        "ratio": 0.5,
        "ratio_low": 0.4,
        "ratio_high": 0.6,
    }
    (detail,) = drawn(tmp_path, [record(figures=figures)]).all("article")
    assert "slstm in RNN: 5.00 ms a call, 0.50× [0.40, 0.60] the time of keras LSTM." in detail.text
    assert "Kernel: while, compiled by XLA." in detail.text
    assert "Proof (exact): the largest error seen is 1.2e-07, allowed is 3e-06." in detail.text


@pytest.mark.parametrize(
    ("instances", "ratios", "said"),
    [
        (1, "0.5000", "Of one instance: the ratio is that of the two programs that were timed."),
        (4, "0.4900 0.5000 0.5100 0.5200", "Of 4 instances."),
        (4, "0.4500 0.5000 0.5000 0.5000", "Of 4 instances."),  # one alone may be a burst
        (
            5,
            "0.5000 0.5010 0.5700 0.5710 0.5720",
            "Of 5 instances, which run at two speeds: 0.50× (2) and 0.57× (3).",
        ),
        (None, None, None),
    ],
)
def test_a_case_whose_instances_run_at_two_speeds_shows_both(instances, ratios, said):
    made = record(figures={"instances": instances, "instance_ratios": ratios})
    told = [sentence for sentence in sentences.of_record(made) if " instance" in sentence]
    assert told == ([said] if said else [])


def test_what_was_not_measured_is_listed_with_its_reason(whole_page):
    listed = [e.text for e in whole_page.all("li")]
    assert f"{FAILED['case']}: failed, killed: out of <air>" in listed
    assert f"{SKIPPED['case']}: skipped, unsupported" in listed


def test_charts_have_alternatives(whole_page):
    images = whole_page.all("img")
    questions = [e.text for e in whole_page.all("h4") if e.text.endswith("?")]
    assert questions == [CHARTS["ratio"].question, CHARTS["timesteps"].question]
    assert len(images) == 2
    assert all(e.attributes["src"].startswith("data:image/svg+xml;base64,") for e in images)
    assert all(len(e.attributes["alt"]) > 40 for e in images)
    assert sum(e.text == "The figures" for e in whole_page.all("summary")) == 2


def test_points_of_charts_say_their_case_and_lead_to_it(whole_page):
    names = {e.attributes["id"]: e.text for e in whole_page.all("h4") if "id" in e.attributes}
    links = [e for e in whole_page.all("a", tabindex="-1")]
    titles = [e.text for e in whole_page.all("title")[1:]]
    assert len(links) == len(titles) == len(whole_page.all("circle", r="7")) > 40
    for link, title in zip(links, titles, strict=True):
        case = names[f"{link.attributes['href'][1:]}-title"]
        assert title.startswith(f"{case}: ") and " a call, " in title
    assert f"infer-{NASTY}-rnn-b32-t50-f64-u128" in " ".join(titles)


def test_points_stand_where_the_chart_has_them():
    """The dot of a case lies in its image where its link lies."""
    from bench.report.charts import points

    one = record("slstm-rnn")
    figure = CHARTS["ratio"].draw([one])
    figure.savefig(io.BytesIO(), format="svg")
    (point,) = points.points_of(figure)
    (line,) = [line for line in figure.axes[0].lines if line.get_marker() == "s"]
    x, y = figure.transFigure.inverted().transform(line.get_transform().transform(line.get_xydata())[0])
    assert (point.x, point.y) == pytest.approx((x, 1 - y)) and point.record == one


def test_what_a_chart_shows_is_also_a_table():
    charts = (*cost.STUDY.charts, *options.COSTS.charts, *growth.STUDY.charts)
    tables = {chart.name: chart.tables(RECORDS) for chart in charts}
    assert all(len(table.rows) > 1 for of_chart in tables.values() for table in of_chart)
    assert all(made for name, made in tables.items() if name != "ratio_shapes")  # which are on lines
    assert [cell.text for cell in tables["timesteps"][0].rows[0]][:3] == ["keras LSTM", "infer", "2.05 ms"]


def test_texts_are_shown_with_what_they_began_with(whole_page):
    assert [e.text for e in whole_page.all("pre") if not e.attributes] == [f"O {NASTY}", "O no"]
    assert {e.text for e in whole_page.all("strong")} >= {"O"}


def at(subject, ratio, width=0.01, **fields):
    """A row of a ratio whose interval is so wide, relatively, on each side."""
    ends = {"ratio": ratio, "ratio_low": ratio / (1 + width), "ratio_high": ratio * (1 + width)}
    return record(subject, figures={**ends, **fields})


def test_summary_names_what_is_surely_faster_and_surely_slower_and_the_noise():
    noise = at("lstm-builtin", 1.02)
    rows = [at("slstm-rnn", 0.5), at("lstm-rnn", 2.0), at("gru-rnn", 1.005)]
    said = list(sentences.of_run([noise, *rows]))
    assert said[0].startswith("4 rows: 4 ok, none skipped or failed.")
    assert rows[0]["machine"] in said[1] and "32" in said[1]
    assert said[2] == (
        "Infer (forward): faster: slstm in RNN at 0.50× [0.50, 0.51] of keras LSTM; "
        "slower: lstm in RNN at 2.00× [1.98, 2.02] of keras LSTM; not told apart: 1."
    )
    assert "1.02×" in said[3]


def test_what_differs_by_noise_alone_is_nobodys_rank():
    rows = [at("lstm-builtin", 1.0), at("lstm-rnn", 1.0), at("slstm-rnn", 0.99, width=0.02)]
    said = " ".join(sentences.of_run(rows))
    assert "Infer (forward): not told apart: 2." in said
    assert "fastest" not in said and "slowest" not in said


def test_a_ratio_that_is_vague_is_read_as_its_ends():
    ends = {"ratio": 2.5, "ratio_low": 1.4, "ratio_high": 4.7}
    said = " ".join(sentences.of_run([record(figures=ends)]))
    assert "slstm in RNN at 1.40 to 4.70× of keras LSTM" in said
    assert "2.50" not in said


def test_what_xla_takes_is_said_of_pairs_alone():
    """The times of two rows lie minutes apart: nothing follows from their quotient."""
    itself = {"median_s": 0.010, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    plain = record("lstm-builtin", figures=itself)
    compiled = {"median_s": 0.004, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
    said = sentences.of_run([plain, record("lstm-builtin", jit_compile=True, figures=compiled)])
    assert not any("XLA" in sentence for sentence in said)
    in_turns = record("lstm-builtin", jit_compile=True, figures={**compiled, "baseline": plain["case"]})
    said = list(sentences.of_run([plain, in_turns]))
    assert "XLA, against the same without: faster: keras LSTM, infer 0.50× [0.40, 0.60]." in said


def test_the_costs_of_options_have_a_column_each_and_say_what_failed():
    times = {"median_s": 0.010, "ratio": 1.0, "ratio_low": 1.0, "ratio_high": 1.0}
    unrolled = {"median_s": 0.005, "ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6}
    (table,) = section.price_list(
        [
            record("lstm-builtin", figures=times),
            record("lstm-builtin", unroll=True, figures=unrolled),
            record("lstm-builtin", jit_compile=True, figures={**times, "median_s": 0.004}),
            record("lstm-builtin", implementation=1, status="failed", reason="out_of_memory"),
        ]
    )
    assert table.header == ("subject", "mode", "unroll", "implementation=1")
    texts = [cell.text for cell in table.rows[0]]
    assert texts == ["keras LSTM", "infer", "0.50× [0.40, 0.60]", "failed: out_of_memory"]


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [((0.5, 0.4, 0.6), "faster"), ((1.0, 0.9, 1.1), "same"), ((900.0, 800.0, 1e3), "slower")],
)
def test_a_strip_stays_within_its_drawing(ratio, verdict):
    from bench.timing.intervals import Interval

    strip = table.strip(Interval(*ratio), (0.25, 4))
    assert strip.verdict == verdict
    assert 0 < strip.low <= strip.value <= strip.high < 240
    assert (strip.value > strip.one) == (ratio[0] > 1) and strip.one == 120


@pytest.mark.parametrize(
    ("ratios", "below", "above"),
    [
        ((0.95, 1.02), 1.1, 1.1),
        ((0.7, 1.02), 1.5, 1.1),
        ((0.1,), 10, 1.1),
        ((900.0,), 1.1, 10),
        ((), 1.1, 1.1),
    ],
)
def test_the_strips_of_a_table_are_as_wide_as_its_ratios_allow(ratios, below, above):
    from bench.timing.intervals import Interval

    rows = [[table.Cell("name"), table.interval(Interval(ratio, ratio, ratio))] for ratio in ratios]
    made = table.Table("", ("name", "ratio"), rows)
    assert made.strip_ends == (1 / below, above) and made.is_drawn == bool(ratios)


def test_several_runs_have_a_section_each(no_charts, tmp_path):
    folders = [write_run(tmp_path / name, [record(), SKIPPED]) for name in ("first", "second")]
    made = parsed(html.write_report(folders, tmp_path / "both.html"))
    assert [e.text for e in made.all("h2")][1:] == ["Run first", "Run second"]
    ids = [e.attributes["id"] for e in made.elements if "id" in e.attributes]
    assert len(ids) == len(set(ids))


def test_a_run_without_cases_has_a_page(no_charts, tmp_path):
    assert "The run has no cases." in drawn(tmp_path, []).text


# --- the command ---


def run_command(*arguments: object) -> int:
    """The exit code of `python -m bench report ARGUMENTS`."""
    return main(["report", *map(str, arguments)])


@pytest.fixture
def results(tmp_path, monkeypatch, no_charts):
    """A folder with results/ of two runs."""
    for name in ("20250101-000000-1", "20250102-000000-1"):
        write_run(tmp_path / "results" / name, [record()])
    monkeypatch.chdir(tmp_path)
    return tmp_path / "results"


def test_the_newest_run_is_the_default_and_its_path_is_printed(results, capsys):
    assert run_command() == 0
    assert capsys.readouterr().out == "results/20250102-000000-1/report.html\n"
    assert (results / "20250102-000000-1" / "report.html").exists()
    assert not (results / "20250101-000000-1" / "report.html").exists()


def test_a_page_that_cannot_be_written_is_one_line_with_the_way_out(results, capsys):
    assert run_command("--output", results) == 2
    said = capsys.readouterr().err
    assert said.startswith("cannot be written: [Errno") and str(results) in said
    assert said.endswith("; --output=FILE names another file\n")


def test_a_run_without_charts_has_no_empty_line(results, capsys, monkeypatch):
    monkeypatch.setattr("bench.commands.report.draw", lambda *_: [])
    assert run_command("--charts") == 0
    assert capsys.readouterr().out == "results/20250102-000000-1/report.html\n"


def test_a_csv_stands_for_its_run_and_several_runs_go_beside_their_folders(results, capsys):
    first, second = sorted(results.iterdir())
    assert run_command(first / RECORDS_FILE) == 0
    assert run_command(first, second) == 0
    assert run_command(second, "--output", "here.html") == 0
    assert capsys.readouterr().out.split() == [
        str(first / "report.html"),
        str(results / "report.html"),
        "here.html",
    ]


def test_charts_are_drawn_anew_where_they_are_asked_for(results, capsys):
    run = results / "20250102-000000-1"
    assert run_command(run) == 0
    assert not (run / "charts").exists()
    assert run_command(run, "--charts") == 0
    drawn = sorted((run / "charts").iterdir())
    assert str(run / "charts" / "ratio.png") in map(str, drawn)
    assert capsys.readouterr().out.split()[2:] and {file.suffix for file in drawn} == {".png"}
    drawn[0].write_bytes(b"torn")
    assert run_command(run, "--charts") == 0
    assert drawn[0].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["--results", "nowhere"], "nowhere: no such folder"),
        (["--results", "results/20250101-000000-1"], "no runs in it"),
        (["results/20250101-000000-1", "--output", "no/such/folder.html"], "no/such/folder.html"),
    ],
)
def test_what_is_wrong_is_one_line_and_code_2(results, capsys, arguments, message):
    assert run_command(*arguments) == 2
    said = capsys.readouterr()
    assert not said.out
    assert len(said.err.splitlines()) == 1
    assert message in said.err


def test_a_broken_csv_is_named_with_its_row(results, capsys):
    file = results / "20250102-000000-1" / RECORDS_FILE
    file.write_text(file.read_text().replace(",ok,", ",fine,"))
    assert run_command() == 2
    assert f"{file.relative_to(results.parent)}, row 2: status" in capsys.readouterr().err


def test_impossible_rows_are_left_out_and_counted(no_charts, tmp_path, capsys):
    bad = [
        record(timesteps=10, figures={"median_s": -1.0}),
        record(timesteps=20, figures={"ratio": 3.0, "ratio_low": 4.0, "ratio_high": 5.0}),
    ]
    made = drawn(tmp_path, [record(), *bad])
    assert len(made.all("article")) == 1
    (notice,) = [e.text for e in made.all("p", role="note")]
    assert "2 of 3 rows are left out, whose figures cannot be; the first is row 3: median_s -1.0" in notice
    assert notice in capsys.readouterr().err


def test_a_cut_line_is_a_notice(no_charts, tmp_path):
    folder = write_run(tmp_path / "run", [record(), record(mode="train")])
    file = folder / RECORDS_FILE
    file.write_bytes(file.read_bytes()[:-9])
    (notice,) = run_folder.read_run(folder).notices
    assert "the last line was cut" in notice


@pytest.mark.parametrize("content", ["{", '"text"', "[[1], 2]", '{"texts": 1}', '[{"texts": {"a": 1}}]'])
@pytest.mark.parametrize("name", ["environment.json", "tasks.json"])
def test_what_stands_beside_the_records_may_be_broken(no_charts, tmp_path, name, content):
    folder = write_run(tmp_path / "run", [record()])
    (folder / name).write_text(content)
    assert parsed(html.write_report([folder], folder / "report.html")).all("article")


def test_a_run_alone_in_its_folder_has_a_page(no_charts, tmp_path):
    folder = write_run(tmp_path / "run", [record()])
    (folder / "environment.json").unlink()
    (notice,) = run_folder.read_run(folder).notices
    assert "environment.json: cannot be read" in notice
    assert "Nothing is known of it." in parsed(html.write_report([folder], folder / "report.html")).text


CELLS = st.sampled_from(
    [
        "",
        "-1",
        "0",
        "nan",
        "inf",
        "1e308",
        "-0.0",
        "1e-300",
        "True",
        "ok",
        "failed",
        "\x1b[2J",
        "</td>",
        "fit",
        "é",
    ]
)


@given(
    edits=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 75), CELLS), max_size=4),
    cut=st.integers(0, 40),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_give_a_page_or_one_line(edits, cut, tmp_path_factory, no_charts):
    folder = write_run(
        tmp_path_factory.mktemp("mutated") / "run", [record(), record(unroll=True), record(jit_compile=True)]
    )
    file = folder / RECORDS_FILE
    rows = [line.split(",") for line in file.read_text().replace('"', "").replace(", ", " ").splitlines()]
    for row, column, text in edits:
        rows[row][column % len(rows[row])] = text
    content = "".join(",".join(row) + "\n" for row in rows)
    file.write_text(content[: len(content) - cut] if cut else content)
    code = run_command(folder)
    assert code in (0, 2)
    if code == 0:
        assert len(parsed(folder / "report.html").all("script")) == 1


def test_the_readers_need_no_tensorflow(tmp_path):
    """A report and advice in a process that cannot import TensorFlow or Keras."""
    folder = write_run(tmp_path / "results" / "run", [record("lstm-builtin"), record()])
    sizes = {"batch-size": 32, "timesteps": 50, "features": 64, "units": 128}
    shape = ["--mode=infer", *(f"--{name}={size}" for name, size in sizes.items())]
    program = f"""
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "keras", "pytest", "hypothesis", "h5py")))
from bench.__main__ import main
assert main(["report", {str(folder)!r}]) == 0
assert main(["advise", "--results", {str(folder.parent)!r}, *{shape!r}]) == 0
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(parsed(folder / "report.html").all("img")) > 0


def test_what_the_readers_need_is_listed_as_the_project_lists_it():
    """`ci/report-requirements.txt` is a part of the base dependencies, without TensorFlow and Keras."""
    house = Path(html.__file__).parents[2]
    lines = (house / "ci" / "report-requirements.txt").read_text().splitlines()
    listed = {line for line in lines if not line.startswith("#")}
    dependencies = set(tomllib.loads((house / "pyproject.toml").read_text())["project"]["dependencies"])
    assert listed <= dependencies
    assert {re.split("[>=]", line)[0] for line in listed} >= {"scipy", "matplotlib", "Jinja2"}
    assert not [line for line in listed if line.startswith(("tensorflow", "keras"))]


# --- in a browser ---


@pytest.fixture(scope="module")
def browser(whole):
    """Chromium for the tests of this file."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium, of the extra [test]")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.add_argument("--headless=new")
    options.add_argument("--no-sandbox")  # which root, as in a container, cannot have
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument("--disable-gpu")
    options.add_argument("--window-size=1280,900")
    # else a click comes before the page has stood still
    options.add_argument("--force-prefers-reduced-motion")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.set_page_load_timeout(60)  # a browser that hangs is a failure, not minutes of waiting
    opened.set_script_timeout(60)
    yield opened
    opened.quit()


@pytest.fixture
def opened(browser, whole):
    """The report, loaded anew; it must leave nothing on the console."""
    browser.get("about:blank")
    browser.get(whole.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def element(opened, selector: str):
    return opened.find_element("css selector", selector)


def column_texts(opened, name: str) -> list[str]:
    """The texts of a column of the table of cases, of the rows that are to be seen."""
    return opened.execute_script(
        """
        const table = document.querySelector("[data-cases] table");
        const headings = [...table.querySelectorAll("th[scope=col]")];
        const column = headings.findIndex((each) => each.textContent.trim() === arguments[0]);
        return [...table.tBodies[0].rows].filter((row) => row.offsetParent || row.offsetHeight)
          .map((row) => row.cells[column].dataset.value ?? row.cells[column].textContent);
        """,
        name,
    )


def press(opened, label: str) -> None:
    """Sorts by a column, with the keyboard."""
    from selenium.webdriver.common.keys import Keys

    buttons = opened.find_elements("css selector", "button[data-sort]")
    next(button for button in buttons if button.text == label).send_keys(Keys.ENTER)


def type_into(opened, label: str, text: str) -> None:
    element(opened, f"input[aria-label='Filter by {label}']").send_keys(text)


def test_browser_sorts_numbers_by_size_both_ways_and_empty_ones_last(opened):
    press(opened, "median_s")
    shown = column_texts(opened, "median_s")
    values = [float(value) for value in shown if value]
    assert len(values) > 50
    assert values == sorted(values)
    assert shown[-2:] == ["", ""]
    heading = element(opened, "th[aria-sort]")
    assert heading.get_attribute("aria-sort") == "ascending"
    press(opened, heading.text.rstrip(" ▲"))
    shown = column_texts(opened, "median_s")
    assert [float(value) for value in shown if value] == sorted(values, reverse=True)
    assert shown[-2:] == ["", ""]
    press(opened, "timesteps")
    assert list(dict.fromkeys(column_texts(opened, "timesteps"))) == ["10", "50", "100", "200"]


def test_browser_filters_by_text_and_by_bounds_together(opened):
    everything = len(column_texts(opened, "case"))
    type_into(opened, "case", "GRU-rnn")
    type_into(opened, "median_s", "<=10ms")
    cases, times = column_texts(opened, "case"), column_texts(opened, "median_s")
    assert 0 < len(cases) < everything
    assert all("gru-rnn" in case for case in cases)
    assert all(float(time) <= 0.010 for time in times)
    assert element(opened, "output").text == f"{len(cases)} of {everything} rows"
    element(opened, "button[data-clear]").click()
    assert len(column_texts(opened, "case")) == everything


def test_browser_shows_a_column_that_was_hidden(opened):
    assert not element(opened, "input[aria-label='Filter by subject']").is_displayed()
    element(opened, ".tools details summary").click()
    labels = opened.find_elements("css selector", "fieldset label")
    next(label for label in labels if label.text.strip() == "subject").click()
    type_into(opened, "subject", "minimal")
    assert set(column_texts(opened, "subject")) == {"minimal-rnn"}


def test_browser_a_case_opens_where_it_is_followed(opened):
    link = element(opened, "th[data-value$='-xla'] a")
    case = link.text
    details = element(opened, link.get_attribute("href").partition("#")[2].join(("#", "")))
    assert not details.is_displayed()
    opened.execute_script("arguments[0].click()", link)
    assert details.is_displayed()
    assert f"--case={case}" in details.text


def test_browser_the_ratios_are_on_a_narrow_screen(opened):
    """Of the table of costs and of that of cases, without scrolling."""
    size = {"width": 420, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    ends = opened.execute_script(
        """
        return [".plain", "[data-cases] table"].map((selector) => {
          const table = document.querySelector(selector);
          const headings = [...table.tHead.rows[0].cells];
          const column = headings.findIndex((each) => each.textContent.trim() === "ratio");
          const cells = [...table.tBodies[0].rows].map((row) => row.cells[column]);
          return Math.max(...cells.map((cell) => cell.getBoundingClientRect().right));
        });
        """
    )
    assert all(0 < end <= 420 for end in ends), ends
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_browser_a_point_of_a_chart_opens_its_case(opened):
    """Its middle, where one points, is the link's, on the screen too."""
    point = element(opened, ".points a")
    case = point.find_element("css selector", "title").get_attribute("textContent").partition(":")[0]
    opened.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    point.find_element("css selector", "circle").click()
    assert element(opened, ".detail:target h4").text == case


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_the_page_is_as_wide_as_the_screen_and_its_colours_are_the_readers(opened, width, scheme):
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 400},
    )
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page_width, room = opened.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert page_width == room <= width
    light = (
        opened.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(255, 255, 255)"
    )
    assert light == (scheme == "light")
    assert opened.execute_script("return [...document.images].every((image) => image.naturalWidth > 0)")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_page_of_many_runs_has_their_rows_and_no_more(tmp_path, monkeypatch):
    """Charts and details would make it megabytes; each run's own report has them."""
    monkeypatch.setattr(html, "MOST_WHOLE", 2)
    failed = record("gru-rnn", status="failed", reason="error", figures={"message": "it raised"})
    records = [failed, *(each for each in default_run() if each["case"] != failed["case"])]
    folders = [write_run(tmp_path / f"run-{number}", records) for number in range(3)]
    page = Page()
    page.feed(html.write_report(folders, tmp_path / "report.html").read_text())
    assert not page.all("img") and not page.all("article")
    cases_ = [each for each in page.all("th") if each.attributes.get("class") == "case"]
    assert len(cases_) == 3 * (1 + len(records))
    assert page.text.count("python -m bench report") == 3
    targets = {each.attributes["href"] for each in page.all("a")}
    assert targets <= {f"#{each.attributes.get('id')}" for each in page.elements}
    page = Page()
    page.feed(html.write_report(folders[:2], tmp_path / "report.html").read_text())
    assert page.all("img") and page.all("article")


def test_cases_on_several_machines_stand_beside_each_other_and_are_never_divided():
    first = [record("slstm-rnn", figures={"ratio": 0.5}), record("gru-rnn", figures={"ratio": 2.0})]
    second = [{**record("slstm-rnn", figures={"ratio": 0.8}), "machine": "Epyc"}]
    (table,) = beside_each_other([first, second])
    assert table.header[-2:] == tuple(sorted({first[0]["machine"], "Epyc"}))
    (row,) = table.rows
    assert sorted(cell.text.partition("×")[0] for cell in row[-2:]) == ["0.50", "0.80"]
    assert beside_each_other([first, first]) == [] == beside_each_other([first, [second[0] | {"case": "x"}]])
