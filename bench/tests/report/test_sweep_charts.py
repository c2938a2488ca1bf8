"""The charts that the sweeps end in: that they show what the records say, and nothing covers the data."""

import math

import pytest

from bench.cases.case import Case
from bench.cases.subjects import IN_PLAIN_KERAS
from bench.cases.sweeps import FUSED_SHAPES, LARGEST, SWEEPS
from bench.report import labels, select
from bench.report.charts import dot_chart, drawing
from bench.report.studies import CHARTS, STUDIES, deepbench, growth
from bench.tests import sample_records
from bench.tests.report.test_charts import error_bars, figure_of, notes
from bench.tests.sample_records import default_run, of, record
from bench.timing.intervals import Interval

RUNS = {
    "options": ("price_list", "roofline"),
    "static_dynamic": ("static_dynamic",),
    "scaling": ("scaling", "scaling_fit", "scaling_memory"),
    "deepbench": ("deepbench",),
    "char_shape": ("char_shape",),
    "peers": ("peers",),
    "backends": ("backends",),
    "fused": ("fused", "fused_overview", "plain_keras", "memory"),
}


@pytest.fixture(scope="module")
def runs():
    return {name: getattr(sample_records, f"{name}_run")() for name in RUNS}


@pytest.fixture(scope="module")
def figures(runs):
    """Every chart, from all cases of the declared sweeps."""
    return {chart: figure_of(chart, runs[name]) for name, names in RUNS.items() for chart in names}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def named(figure, text: str) -> list[str]:
    return [line for line in notes(figure).splitlines() if text in line]


def markers(axes) -> dict[str, object]:
    """The dots of a panel by the case that they stand for."""
    return {str(line.get_gid()): line for line in axes.lines if line.get_gid()}


def test_a_study_of_a_sweep_has_its_charts_and_their_figures_as_tables(runs):
    assert set(SWEEPS) > {sweep for study in STUDIES for sweep in study.sweeps}
    assert len(CHARTS) == sum(len(study.charts) for study in STUDIES), "each name once"
    for name, of_run in RUNS.items():
        assert all(CHARTS[chart].tables(runs[name]) for chart in of_run)


def test_a_run_has_the_charts_of_its_sweeps_alone(runs):
    for name in ("char_shape", "peers"):
        drawn = {chart.name for chart in CHARTS.values() if chart.draw(runs[name])}
        assert drawn - {chart.name for chart in growth.RATIOS.charts} == {name, "roofline"}
    own = [chart for study in STUDIES if study.sweeps for chart in study.charts]
    assert not any(CHARTS[chart.name].draw(default_run()) for chart in own)


def test_nothing_covers_the_panels_and_nothing_is_cut_off(figures):
    for name, figure in figures.items():
        renderer = figure.canvas.get_renderer()
        panels = [axes.get_tightbbox(renderer) for axes in figure.axes]
        for artist in (*figure.legends, *figure.texts):
            box = artist.get_window_extent(renderer)
            assert not any(box.overlaps(panel) for panel in panels), (name, artist)
            assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0, f"{name}: cut off"
        for panel in panels:
            assert panel.x0 >= 0 and panel.x1 <= figure.bbox.width + 1, f"{name}: cut off"


def test_names_of_rows_and_ticks_do_not_overlap(figures):
    for name, figure in figures.items():
        for axes in figure.axes:
            for texts in (axes.get_yticklabels(), axes.get_xticklabels()):
                boxes = [text.get_window_extent() for text in texts if text.get_text()]
                inside = [box for box in boxes if box.width]
                assert not any(a.overlaps(b) for n, a in enumerate(inside) for b in inside[:n]), name


# --- the price list ---


def option(subject="lstm-builtin", mode="infer", price=2.0, **fields):
    """A case of the sweep `options` and its price, ±1%."""
    shape = (32, 40, 64, 64)
    cell, layer = subject.split("-")
    case, default = Case(cell, layer, mode, *shape, **fields), Case(cell, layer, mode, *shape)
    figures = {"ratio": price, "ratio_low": price * 0.99, "ratio_high": price * 1.01}
    return of("options", case, default, figures=figures)


def test_a_price_is_the_ratio_itself_and_never_a_quotient():
    """The default's own ratio to itself is the noise, and nothing is divided by it."""
    figure = figure_of("price_list", [option(price=1.1), option(price=2.0, unroll=True)])
    (axes,) = figure.axes
    (dot,) = [line for gid, line in markers(axes).items() if gid.endswith("-unroll")]
    assert list(dot.get_xdata()) == [2.0]
    assert texts(axes) == ["2.00×"]
    (band,) = [patch for patch in axes.patches if patch.get_x() != 0]
    assert (band.get_x(), band.get_width()) == pytest.approx((1.0, 0.1))


def test_the_dearest_option_and_its_group_come_first():
    rows = [
        option(price=0.5, unroll=True),
        option(price=3.0, jit_compile=True),
        option(price=4.0, mode="train", jit_compile=True),
        option(price=2.0, depth=2),
        option(price=2.5, depth=3),
    ]
    axes = figure_of("price_list", rows).axes[0]
    names = {
        label.get_text(): place
        for place, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    order = sorted(names, key=lambda name: names[name])
    assert order == [
        "How the loop runs",
        "XLA",
        "unroll",
        "Stacked layers",
        "3 layers stacked",
        "2 layers stacked",
    ]


def test_what_lies_beyond_the_axis_is_an_arrow_with_its_value():
    rows = [option(price=1.5, unroll=True), option(price=134.0, dtype="mixed_float16")]
    (axes,) = figure_of("price_list", rows).axes
    assert axes.get_xlim()[1] < 10
    assert "134× ▸" in texts(axes)
    assert not [gid for gid in markers(axes) if "float16" in gid]


def test_a_rows_end_has_the_least_and_the_most():
    rows = [option(price=1.5, unroll=True), option("gru-builtin", price=0.75, unroll=True)]
    assert texts(figure_of("price_list", rows).axes[0]) == ["0.75–1.50×"]


def test_what_was_not_timed_has_a_cross_in_its_lane_and_its_reason_where_nothing_was(figures):
    infer, train = figures["price_list"].axes
    assert "skipped: no_device" in texts(infer)
    assert "skipped: compile_timeout" in texts(train)
    crosses = [gid for gid in markers(infer) if gid.startswith("missing ")]
    assert len(crosses) == 4, "two of use_cudnn=True, two masks of the fused layer"
    assert named(figures["price_list"], "4 skipped (unsupported)")
    assert "skipped or failed" in [text.get_text() for text in figures["price_list"].legends[0].get_texts()]


def test_an_option_of_the_default_run_is_no_price():
    assert figure_of("options", default_run())
    assert CHARTS["options"].draw([option(), option(unroll=True)]) is None


def test_every_word_of_the_declared_sweep_has_a_group_and_a_name(runs):
    options = {word for each in runs["options"] for word in labels.options(each)}
    assert not [word for word in options if labels.option_group(word) == "Other"]
    assert labels.option_group("somebodys_own") == "Other"
    assert labels.option_name("bidirectional-merge_ave") == "Bidirectional + merge_mode=ave"
    assert labels.option_name("recurrent_dropout0.5") == "recurrent_dropout=0.5"
    assert labels.option_group("mask_right-unroll") == "Masks"


# --- static_dynamic ---


def test_a_panel_a_quantity_and_mode_and_a_line_a_way(figures):
    figure = figures["static_dynamic"]
    assert len(figure.axes) == 8
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == [
        "time of a call",
        "to trace and compile",
        "operations in the graph",
        "peak memory",
    ]
    assert len(error_bars(figure.axes[0])) == 10
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")


def test_where_a_limit_stopped_a_way_it_is_marked_with_the_reason(figures):
    figure = figures["static_dynamic"]
    for axes, steps in ((figure.axes[0], 200), (figure.axes[1], 100)):
        (cross,) = [line for gid, line in markers(axes).items() if gid.startswith("stopped")]
        assert list(cross.get_xdata()) == [steps]
    (line,) = named(figure, "× ")
    where = "compile_timeout at 100 timesteps (train), 200 timesteps (infer)"
    assert line == f"× lstm in RNN, unroll, XLA: {where}: 60 s and not compiled"


def test_the_ways_differ_in_colour_line_or_face(runs):
    looks = {
        select.series(each)[:1] + labels.options(each): (
            drawing.way_style(each),
            each["jit_compile"],
        )
        for each in runs["static_dynamic"]
    }
    assert len(set(looks.values())) == len(looks) == 10


# --- scaling ---


def test_points_are_the_times_and_lines_the_fits(figures):
    figure = figures["scaling"]
    assert len(figure.axes) == 8
    assert all(len(error_bars(axes)) == 4 for axes in figure.axes)
    fits = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 31]
    assert len(fits) == 4
    assert named(figure, "of 32 fits are poor")


def test_a_poor_fit_is_crossed_out_and_has_no_start(figures):
    overhead, work = figures["scaling_fit"].axes[1], figures["scaling_fit"].axes[3]
    assert (overhead.get_ylabel(), work.get_xlabel()) == ("", "")
    crosses = [line for line in work.lines if line.get_marker() == "x"]
    assert [line.get_xdata()[0] for line in crosses] == [32] * 4
    assert not any(32 in line.get_xdata() for bars in error_bars(overhead) for line in [bars.lines[0]])


# --- deepbench, char_shape, peers, fused ---


def test_a_shape_has_its_rate_with_and_without_the_input_product(figures):
    infer = figures["deepbench"].axes[0]
    with_it = [gid for gid in markers(infer) if not gid.endswith("no_input_product")]
    assert len(markers(infer)) == 2 * len(with_it)
    assert "4096 units" not in " ".join(label.get_text() for label in infer.get_yticklabels())
    assert named(figures["deepbench"], "skipped (too_large)")
    share = record("lstm-fused", figures={"roofline_fraction": 0.345})
    assert deepbench.shares([share, {**share, "roofline_fraction": 0.5}]) == "34% · 50%"


def test_ratios_of_the_character_model_are_to_simple_rnn(figures):
    names = [label.get_text() for label in figures["char_shape"].axes[0].get_yticklabels()]
    assert names[0] == "keras SimpleRNN\nvs itself (noise)"
    assert "keras LSTM\nvs keras SimpleRNN" in names
    assert len(names) == 9


def test_a_peer_has_a_row_a_shape_and_one_that_is_absent_says_so(figures, runs):
    infer = figures["peers"].axes[0]
    shapes = {labels.shape(each) for each in runs["peers"]}
    bold = [label.get_text() for label in infer.get_yticklabels() if label.get_fontweight() == "bold"]
    assert len(bold) == len(shapes)
    assert "skipped: not_installed" in texts(infer)


def test_a_back_end_has_a_row_under_each_cell_and_shape(figures, runs):
    infer = figures["backends"].axes[0]
    names = [label.get_text() for label in infer.get_yticklabels()]
    assert {"JAX", "PyTorch", "TensorFlow, XLA", "TensorFlow, FusedRNN"} < set(names)
    assert "TensorFlow" not in names, "what all are compared with"
    assert names.count("JAX") == len({(r["cell"], labels.shape(r)) for r in runs["backends"]})
    assert "skipped: not_installed" in texts(infer)


def test_the_fused_layers_rows_stand_by_shape(figures):
    axes = figures["fused"].axes[0]
    labels = dict(zip((label.get_text() for label in axes.get_yticklabels()), axes.get_yticks(), strict=True))
    downwards = sorted(labels, key=labels.get, reverse=not axes.yaxis_inverted())
    shapes = [" · ".join(map(str, shape)) for shape in (*FUSED_SHAPES, LARGEST)]
    assert [label for label in downwards if " in " not in label] == shapes
    at = downwards.index(shapes[3])
    assert downwards[at + 1].endswith(" in FusedRNN")


def test_the_fused_layer_has_a_dot_a_baseline_and_right_is_faster():
    case = Case("lstm", "fused", "infer", 1, 100, 64, 128)
    half = {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.8}
    baselines = [
        Case("lstm", "builtin", "infer", 1, 100, 64, 128),
        Case("lstm", "builtin", "infer", 1, 100, 64, 128, jit_compile=True),
        Case("lstm", "torch", "infer", 1, 100, 64, 128),
    ]
    figure = figure_of("fused", [of("fused", case, baseline, figures=half) for baseline in baselines])
    (axes,) = figure.axes
    assert texts(axes) == ["2.00×"] * 3
    drawn = [bars.lines[0] for bars in error_bars(axes)]
    faces = [line.get_markerfacecolor() for line in drawn]
    assert faces[1] == "white" and faces[0] != "white" and faces[2] != "white"
    assert [line.get_marker() for line in drawn] == ["D", "D", "P"]
    assert len({line.get_ydata()[0] for line in drawn}) == 3, "each in a lane of its own"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "faster than Keras' loop",
        "faster than Keras' loop under XLA",
        "faster than PyTorch",
    ]


def test_the_overview_has_a_column_a_pair_and_no_quotient_of_times(figures, runs):
    """PyTorch's time and the fused layer's, of two pairs, stand minutes apart: a column is a pair's ratio."""
    infer = figures["fused_overview"].axes[0]
    assert [label.get_text() for label in infer.get_xticklabels()][:3] == ["lstm", "gru", "slstm"]
    swept = [row for row in runs["fused"] if row["case"] == "infer-lstm-fused-b32-t100-f128-u256"]
    bars = [patch for patch in infer.patches if patch.get_gid() == swept[0]["case"]]
    assert [bar.get_height() for bar in bars] == [pytest.approx(1 / row["ratio"]) for row in swept]
    assert len(bars) == 5
    assert len(infer.patches) == 8 * 2 + 2 + 2 + 2, "rivals have the LSTM and the GRU, JAX LSTM and S-LSTM"
    assert any(list(line.get_ydata()) == [1, 1] for line in infer.lines)


def test_the_cells_in_plain_keras_have_a_chart_of_their_own(figures):
    names = {name: [label.get_text() for label in figures[name].axes[0].get_yticklabels()] for name in _GAINS}
    wanted = {f"{cell} in FusedRNN" for cell in IN_PLAIN_KERAS}
    assert {name for name in names["plain_keras"] if " in " in name} == wanted
    assert not wanted & {*names["fused"]}
    columns = figures["fused_overview"].axes[0].get_xticklabels()
    assert not {label.get_text() for label in columns} & {*IN_PLAIN_KERAS}


_GAINS = ("fused", "plain_keras")


# --- roofline, queue, memory ---


def test_the_roofline_has_a_point_a_case_below_the_peak_of_its_dtype():
    figures = {"flops": 4e6, "gflops_per_s": 20.0, "roofline_fraction": 0.25}
    figure = figure_of(
        "roofline",
        [
            record(figures=figures),
            record("lstm-rnn", dtype="float64", figures=figures | {"roofline_fraction": 0.5}),
        ],
    )
    (axes,) = figure.axes
    point = markers(axes)["infer-slstm-rnn-b32-t50-f64-u128"]
    assert (list(point.get_xdata()), list(point.get_ydata())) == ([4e6 / 50], [20.0])
    assert texts(axes)[0] == "peak: 80.0 GFLOP/s, float32"
    assert "peak: 40.0 GFLOP/s, float64" in texts(axes)
    assert CHARTS["roofline"].draw([record()]) is None


def test_a_queue_is_shown_where_it_differs():
    def queued(subject, queued_s, device="gpu"):
        figures = {"median_s": 0.010, "queued_s": queued_s, "device": device}
        return record(subject, figures=figures)

    alike = queued("lstm-builtin", 0.0101)
    assert CHARTS["latency"].draw([alike]) is None
    assert CHARTS["latency"].draw([queued("slstm-rnn", 0.004, device="cpu")]) is None
    figure = figure_of("latency", [alike, queued("slstm-rnn", 0.004)])
    assert texts(figure.axes[0]) == ["0.40×"]
    assert "1 of 2 cases" in notes(figure)


def test_memory_has_a_row_a_shape_and_a_dot_a_subject(figures):
    infer = figures["memory"].axes[0]
    assert len(infer.get_yticklabels()) == 7
    assert len(markers(infer)) == 24 + 12, "of `FusedRNN` and of the loops, and under XLA"
    assert not any(f"-{cell}-" in case for case in markers(infer) for cell in IN_PLAIN_KERAS)
    assert "32.8 MB" in texts(infer)


def test_memorys_legend_tells_xla_from_the_plain_loop(figures):
    (legend,) = figures["memory"].legends
    fills = {handle.get_label(): handle.get_markerfacecolor() for handle in legend.legend_handles}
    assert fills["keras LSTM, XLA"] == "white" != fills["keras LSTM"]


def test_lanes_of_a_row_stand_apart_and_within_it():
    known = [
        dot_chart.Dot(row, "", record(f"cell_{lane}-rnn"), Interval(1.0, 0.9, 1.1), lane)
        for row, lanes in (("one", 1), ("many", 8))
        for lane in range(lanes)
    ]
    places = dot_chart._places(
        [("", "one"), ("", "many")], known, dot_chart.Look(row_height=0.2, lane_height=0.05)
    )
    heights = [places.of(dot, 0.05) for dot in known]
    assert heights == sorted(heights)
    assert heights[0] == pytest.approx(places.middle(("", "one")))
    top, bottom = places.rows["", "many"]
    assert top < heights[1] and heights[-1] < bottom
    assert math.isclose(heights[2] - heights[1], 0.05)
