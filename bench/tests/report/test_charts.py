"""The charts: what is in their axes, that nothing covers the data, and that the files are reproducible."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer

from bench.report import formatting, labels, quantities
from bench.report.charts import drawing, run_charts
from bench.report.studies import CHARTS
from bench.tests.sample_records import SUBJECTS, WITH_LINES, default_run, record


def figure_of(name: str, records):
    """The chart `name`, laid out as `charts.draw` does it."""
    with matplotlib.rc_context(run_charts.SETTINGS):
        figure = CHARTS[name].draw(records)
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def figures():
    """Every chart of a whole run, of which one case failed."""
    records = default_run()
    records[0] = record("simple_rnn-builtin", "infer", status="failed", reason="wrong_answer")
    return {
        name: figure_of(name, records) for name in ("time", "throughput", "ratio", "options", *labels.AXES)
    }


def rows_of(axes) -> list[str]:
    return [label.get_text() for label in axes.get_yticklabels()]


def error_bars(axes) -> list[ErrorbarContainer]:
    return [container for container in axes.containers if isinstance(container, ErrorbarContainer)]


def bars(axes) -> dict[str, Any]:
    return {patch.get_gid(): patch for patch in axes.patches}


def span(axes) -> tuple[float, float]:
    """The ends of the one interval drawn."""
    (container,) = error_bars(axes)
    ((start, end),) = container.lines[2][0].get_segments()
    return start[0], end[0]


def xs(container: ErrorbarContainer) -> list[Any]:
    """The places of the points of a line."""
    line: Any = container.lines[0]
    return list(line.get_xdata())


def notes(figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


def test_a_panel_a_mode_and_a_row_a_subject(figures):
    for name in ("time", "throughput", "ratio"):
        infer, train = figures[name].axes
        assert (infer.get_title(loc="left"), train.get_title(loc="left")) == tuple(
            drawing.MODE_NAMES.values()
        )
        names = [row.partition("\n")[0] for row in rows_of(infer)]
        assert sorted(names) == sorted(labels.label(record(subject)) for subject in SUBJECTS)


def test_bars_have_the_median_its_interval_and_its_value():
    figure = figure_of("time", [record(figures={"median_s": 0.004, "iqr_s": 0.001, "min_s": 0.0038})])
    (axes,) = figure.axes
    (bar,) = axes.patches
    assert bar.get_width() == 0.004
    assert span(axes) == pytest.approx((0.0038, 0.0045)), "not below the shortest"
    assert [text.get_text() for text in axes.texts] == ["4.00 ms"]
    assert axes.get_xlim()[0] == 0
    assert "interquartile range" in notes(figure)


def test_throughput_has_the_interval_of_the_times():
    figure = figure_of("throughput", [record(figures={"median_s": 0.004, "iqr_s": 0.002, "min_s": 0.001})])
    (axes,) = figure.axes
    assert axes.patches[0].get_width() == 8000
    assert span(axes) == pytest.approx((32 / 0.005, 32 / 0.003))
    assert axes.get_xlabel().startswith("sequences / s")


def test_plain_is_filled_and_xla_hollow(figures):
    drawn = bars(figures["time"].axes[0])
    plain, xla = drawn["infer-gru-rnn-b32-t50-f64-u128"], drawn["infer-gru-rnn-b32-t50-f64-u128-xla"]
    assert plain.get_facecolor() == plain.get_edgecolor() == xla.get_edgecolor()
    assert xla.get_facecolor() == (1, 1, 1, 1)
    (legend,) = figures["time"].legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain graph", "XLA"]
    assert not figure_of("time", [record()]).legends, "no legend where there is one kind"


def test_ratios_have_intervals_and_a_line_at_1():
    figure = figure_of("ratio", [record(figures={"ratio": 0.7, "ratio_low": 0.6, "ratio_high": 0.75})])
    (axes,) = figure.axes
    assert span(axes) == pytest.approx((0.6, 0.75))
    assert any(list(line.get_xdata()) == [1, 1] for line in axes.lines)
    assert rows_of(axes) == ["slstm in RNN\nvs keras LSTM"]
    assert [text.get_text() for text in axes.texts] == ["0.70×"]
    low, high = axes.get_xlim()
    assert low < 0.6 and high > 1


def test_a_built_in_is_compared_with_itself(figures):
    assert "keras LSTM\nvs itself (noise)" in rows_of(figures["ratio"].axes[0])


def test_options_have_a_row_a_subject_and_option(figures):
    assert [len(error_bars(axes)) for axes in figures["options"].axes] == [20, 20]
    rows = rows_of(figures["options"].axes[0])
    assert len(rows) == 20  # three options of four subjects, and XLA of eight
    assert "slstm in RNN: implementation=1" in rows


def test_an_option_has_a_cost_where_it_was_timed_in_turns_with_the_same_without_it():
    """Two ratios to a third are no pair."""
    plain, unrolled = (
        record(),
        record(unroll=True, figures={"ratio": 0.4, "ratio_low": 0.2, "ratio_high": 0.8}),
    )
    assert unrolled["baseline"] != plain["case"]
    assert CHARTS["options"].draw([plain, unrolled]) is None
    figure = figure_of("options", [plain, unrolled, {**unrolled, "baseline": plain["case"]}])
    assert span(figure.axes[0]) == pytest.approx((0.2, 0.8))


def test_charts_of_time_rank_subjects_as_their_pairs_do():
    """Measured minutes apart, the three take the same time; the pairs say otherwise."""
    baseline = {"median_s": 0.010, "baseline_median_s": 0.010}
    rows = quantities.by_pairs(
        [
            record("lstm-builtin", figures={**baseline, "ratio": 1.01}),
            record("slstm-rnn", figures={**baseline, "baseline_median_s": 0.014, "ratio": 0.73}),
            record("lstm-rnn", figures={**baseline, "baseline_median_s": 0.012, "ratio": 0.9}),
        ]
    )
    times = [row["median_s"] for row in rows]
    assert times == pytest.approx([0.012, 0.73 * 0.012, 0.9 * 0.012])
    alone = record("lstm-builtin", figures={"baseline": None})
    assert quantities.by_pairs([alone]) == [alone]


def test_a_dot_is_faint_where_its_interval_is_wider_than_what_it_finds():
    vague, sharp = (2.5, 1.4, 4.7), (2.5, 2.3, 2.7)
    for (value, low, high), alpha in ((vague, 0.35), (sharp, None)):
        figures = {"ratio": value, "ratio_low": low, "ratio_high": high}
        figure = figure_of("ratio", [record(figures=figures)])
        (bars,) = error_bars(figure.axes[0])
        assert bars.lines[0].get_alpha() == alpha


@pytest.mark.parametrize(
    ("name", "points"),
    [("timesteps", [10, 50, 100, 200]), ("batch_size", [1, 8, 32, 128]), ("units", [32, 64, 128, 256])],
)
def test_lines_join_the_points_of_a_subject(figures, name, points):
    figure = figures[name]
    assert len(figure.axes) == 2
    for axes in figure.axes:
        lines = error_bars(axes)
        assert {line.get_label() for line in lines} == {
            labels.label(record(subject)) for subject in WITH_LINES
        }
        assert all(xs(line) == points for line in lines)
        assert all(len(line.lines[2][0].get_segments()) == len(points) for line in lines), (
            "an interval a point"
        )
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert [label.get_text() for label in axes.get_xticklabels()] == [str(point) for point in points]
    assert any(label.get_text().endswith(" ms") for label in figure.axes[0].get_yticklabels())


def test_the_legend_and_the_notes_cover_no_axes(figures):
    crowd = [record(f"cell_{n}-rnn", timesteps=t) for n in range(30) for t in (10, 50)]
    for figure in (*figures.values(), figure_of("timesteps", crowd)):
        renderer = figure.canvas.get_renderer()
        panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
        around = [artist.get_window_extent(renderer) for artist in (*figure.legends, *figure.texts)]
        for box in around:
            assert not any(box.overlaps(panel) for panel in panels)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0, "cut off"


def test_no_texts_overlap(figures):
    for figure in figures.values():
        renderer = figure.canvas.get_renderer()
        for axes in figure.axes:
            for texts in (axes.texts, axes.get_xticklabels(), axes.get_yticklabels()):
                boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
                assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
            inside = axes.get_window_extent(renderer)
            values = [text.get_window_extent(renderer) for text in axes.texts]
            assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in values), "a value is cut off"


def test_a_subject_has_the_same_colour_everywhere(figures):
    colour = run_charts.style(record("slstm-rnn")).colour
    bar = bars(figures["time"].axes[0])["infer-slstm-rnn-b32-t50-f64-u128"]
    (line,) = [line for line in error_bars(figures["units"].axes[0]) if line.get_label() == "slstm in RNN"]
    dots = {dot.get_gid(): dot for dot in figures["ratio"].axes[1].lines if dot.get_marker() == "s"}
    dot = dots["train-slstm-rnn-b32-t50-f64-u128"]
    assert line.lines[0].get_color() == dot.get_color() == colour
    assert matplotlib.colors.to_hex(bar.get_facecolor()) == colour
    alone = figure_of("time", [record("slstm-rnn")]).axes[0].patches[0]
    assert alone.get_facecolor() == bar.get_facecolor()


def test_cells_differ_in_colour_and_layers_in_line_and_marker():
    subjects = [run_charts.style(record(subject)) for subject in SUBJECTS]
    assert len(set(subjects)) == len(SUBJECTS)
    assert len({look.colour for look in subjects}) == 5
    built_in, ours = run_charts.style(record("lstm-builtin")), run_charts.style(record("lstm-rnn"))
    assert built_in.colour == ours.colour and built_in.line != ours.line and built_in.marker != ours.marker


def test_a_cell_from_a_paper_differs_by_layer_too():
    in_loop, fused = run_charts.style(record("mgu-rnn")), run_charts.style(record("mgu-fused"))
    assert in_loop.colour == fused.colour and in_loop.marker != fused.marker
    assert len(set(drawing.COLOURS.values())) == len(drawing.COLOURS)


def test_an_unknown_cell_has_a_colour_of_its_own_from_its_name():
    """The values are written down: they must not change from version to version, nor with the hash seed."""
    look = run_charts.style(record("my_cell-rnn"))
    assert look == run_charts.Style("#6699cc", "--", "h")
    assert look.colour not in drawing.COLOURS.values()
    assert look != run_charts.style(record("your_cell-rnn"))


def test_what_failed_is_counted_and_not_drawn(figures):
    assert "Not drawn: 1 failed (wrong_answer), of 44 cases." in notes(figures["time"])
    assert "infer-simple_rnn-builtin-b32-t50-f64-u128" not in bars(figures["time"].axes[0])
    assert "Not drawn" not in notes(figures["units"])
    for name in CHARTS:
        failed = [
            record(status="failed", reason="error"),
            record("lstm-rnn", status="skipped", reason="unsupported"),
        ]
        assert CHARTS[name].draw(failed) is None


def test_names_are_no_formulas_and_a_leading_underscore_is_no_secret():
    odd = [
        record("x-rnn", timesteps=steps, figures={"cell": cell, "subject": f"{cell}-rnn", "case": case})
        for cell in ("$x_1$", "_hidden", "a%b\\c{")
        for steps in (10, 50)
        for case in [f"infer-{cell}-rnn-b32-t{steps}-f64-u128"]
    ]
    figure = figure_of("timesteps", odd)
    labels = figure.legends[0].get_texts()
    assert sorted(label.get_text() for label in labels) == [
        "$x_1$ in RNN",
        "_hidden in RNN",
        "a%b\\c{ in RNN",
    ]
    assert not any(label.get_parse_math() for label in labels)
    assert "$x_1$ in RNN" in rows_of(figure_of("time", [odd[0]]).axes[0])


def test_one_subject_at_one_shape_has_no_lines(tmp_path):
    files = run_charts.draw(tmp_path, [record()])
    assert {file.name for file in files} == {"time.png", "throughput.png", "ratio.png"}
    assert all(file.parent == tmp_path / "charts" and file.stat().st_size for file in files)


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert run_charts.draw(tmp_path, []) == []
    assert list(tmp_path.iterdir()) == []


def test_thirty_subjects_have_a_row_each():
    figure = figure_of("time", [record(f"cell_{number}-rnn") for number in range(30)])
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert len(boxes) == 30
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


def test_the_files_are_reproducible_and_global_state_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(run_charts, "CHARTS", {"time": CHARTS["time"]})
    before = dict(matplotlib.rcParams)
    pairs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        pairs.append([file.read_bytes() for file in run_charts.draw(tmp_path / name, [record()])])
    assert pairs[0] == pairs[1]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0.6, 1.15, [0.6, 0.7, 0.8, 0.9, 1, 1.1]),
        (0.45, 2.5, [0.5, 0.7, 1, 1.5, 2]),
        (2.9e-3, 0.11, [5e-3, 0.01, 0.02, 0.05, 0.1]),
        (0.005, 200, [0.01, 0.1, 1, 10, 100]),
    ],
)
def test_ticks_are_round_and_few(low, high, values):
    assert run_charts.round_values(low, high, most=6) == pytest.approx(values)


def test_sweeps_that_share_a_case_draw_it_once():
    figure = figure_of("time", [record(), record(figures={"sweep": "other"})])
    assert len(figure.axes[0].patches) == 1


def test_importing_is_light():
    heavy = "{'matplotlib', 'keras', 'tensorflow', 'cells'}"
    code = (
        f"import sys, bench.report.charts.run_charts, bench.report.readme; print({heavy} & set(sys.modules))"
    )
    root = Path(run_charts.__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (formatting.seconds(0.00123), "1.23 ms"),
        (formatting.seconds(0.0009996), "1.00 ms"),
        (formatting.seconds(45.6e-6), "45.6 µs"),
        (formatting.seconds(124), "124 s"),
        (formatting.seconds(0), "0"),
        (formatting.count(12345), "12.3k"),
        (formatting.count(999.9), "1.00k"),
        (formatting.ratio(0.708), "0.71×"),
        (formatting.ratio(25.04), "25.0×"),
        (formatting.ratio(0.0123), "0.012×"),
        (formatting.interval(0.694, 0.742), "[0.69, 0.74]"),
        (formatting.tick("5.00 ms"), "5 ms"),
        (formatting.tick("2.50 ms"), "2.5 ms"),
        (formatting.tick("10.0k"), "10k"),
        (formatting.tick("100 s"), "100 s"),
    ],
)
def test_numbers_are_written_for_people(written, text):
    assert written == text
