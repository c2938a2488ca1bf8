"""The studies' tables: prices, break-even, fits, rates, and their text in a README."""

import math

import pytest

from bench.cases.case import Case
from bench.report import labels
from bench.report.blocks import BLOCKS
from bench.report.charts import drawing
from bench.report.studies import (
    CHARTS,
    character_layer,
    deepbench,
    fused,
    growth,
    loop_or_unroll,
    machine,
    options,
    peers,
    scaling,
)
from bench.report.table import Cell, Table, in_markdown
from bench.tests import sample_records
from bench.tests.report.test_sweep_charts import option
from bench.tests.sample_records import default_run, of, record
from bench.timing.intervals import Interval, line


def row_of(table: Table, *names: str) -> list[str]:
    """The texts of the row of these names."""
    (row,) = [row for row in table.rows if tuple(cell.text for cell in row[: len(names)]) == names]
    return [cell.text for cell in row[len(names) :]]


# --- the price list ---


def test_prices_have_a_table_a_mode_and_say_what_was_skipped():
    infer, train = options.prices(sample_records.options_run())
    assert infer.header[:3] == ("option", "typical", "keras LSTM")
    assert len(infer.header) == 2 + 8
    assert row_of(infer, "use_cudnn=True")[1] == "skipped: no_device"
    assert row_of(train, "unroll + XLA")[1] == "skipped: compile_timeout"
    assert len(infer.rows) == len(train.rows) + 1 > 30, "no GPU: asked of inference alone"
    text = BLOCKS["price_list"].make(sample_records.options_run())
    assert text.count("\n\n") == 3
    assert "skipped: `compile_timeout`" in text


def test_a_price_is_the_pairs_ratio_with_its_interval():
    (infer,) = options.prices(
        [option(price=1.1), option(price=2.0, unroll=True), option("gru-builtin", price=0.5, unroll=True)]
    )
    assert row_of(infer, "unroll") == ["1.00×", "2.00× [1.98, 2.02]", "0.50× [0.49, 0.51]"]
    assert row_of(infer, "nothing (noise)") == ["–", "1.10× [1.09, 1.11]", "–"]


def test_a_case_with_another_baseline_has_no_price():
    other = {**option(price=2.0, unroll=True), "baseline": "infer-gru-builtin-b32-t40-f64-u64"}
    assert options.price_list([option(), other]) is None
    assert CHARTS["price_list"].tables(default_run()) == []


# --- static_dynamic ---


def way(timesteps=50, *, layer="rnn", start=0.3, seconds=0.010, ratio=1.0, **options):
    """A case of the sweep `static_dynamic`, compared with the built-in, which takes `seconds`."""
    shape = (32, timesteps, 64, 64)
    figures = {"median_s": seconds * ratio, "trace_s": 0.1, "compile_s": start - 0.1}
    ratios = {"ratio": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01}
    return of(
        "static_dynamic",
        Case("lstm", layer, "infer", *shape, **options),
        Case("lstm", "builtin", "infer", *shape),
        figures=figures | ratios,
    )


def test_break_even_counts_the_calls_that_earn_a_longer_start():
    """3 s more to start; a call takes 10 ms in the loop, and 5 ms: 600 calls."""
    rows = [
        way(),
        way(unroll=True, start=3.3, ratio=0.5),
        way(jit_compile=True, start=0.2, ratio=0.5),
        way(layer="static_unroll", start=3.3, ratio=1.5),
        way(layer="dynamic_unroll", start=0.2, ratio=1.5),
    ]
    (table,) = loop_or_unroll.pays(rows)
    assert table.header[-1] == "50"
    assert row_of(table, "lstm in RNN", "–", "infer") == ["the loop"]
    assert row_of(table, "lstm in RNN", "unroll", "infer")[0].startswith("600 [")
    assert row_of(table, "lstm in RNN", "XLA", "infer") == ["at once"]
    never, slower = (
        row_of(table, f"lstm in {layer}_unroll", "–", "infer")[0] for layer in ("static", "dynamic")
    )
    assert (never, slower) == ("never", "ready sooner, runs slower")


def test_what_was_not_timed_in_turns_with_a_loop_has_no_ratio_to_it():
    unrolled = way(unroll=True, ratio=0.4, seconds=1.0)
    found = loop_or_unroll.ratio_to_loop(unrolled)
    assert found is not None and found.value == 0.4
    for other in ("nonsense", unrolled["case"], str(unrolled["baseline"]).replace("-builtin-", "-torch-")):
        assert loop_or_unroll.ratio_to_loop({**unrolled, "baseline": other}) is None


def test_a_gain_that_may_be_none_may_take_forever():
    calls = loop_or_unroll.calls_to_pay(1.0, 0.010, Interval(0.9, 0.8, 1.05))
    assert calls is not None and (calls.value, calls.low) == pytest.approx((1000, 500))
    assert calls.high == math.inf
    assert loop_or_unroll.calls_to_pay(1.0, 0.010, Interval(1.0, 0.9, 1.1)) is None
    assert loop_or_unroll.in_words(Interval(0.2, 0.1, 1)) == "1 call"
    assert loop_or_unroll.in_words(Interval(1234.5, 0, 0)) == "1,235 calls"


def test_static_dynamic_has_a_table_a_quantity_and_says_what_was_stopped():
    made = loop_or_unroll.by_timesteps(sample_records.static_dynamic_run())
    assert [table.caption.partition(",")[0] for table in made] == [
        "Time of a call",
        "Time of a call / that of Keras' loop",
        "Time to trace and compile",
        "Operations in the graph",
        "Peak memory",
        "Calls after which the longer start is paid back",
    ]
    assert made[0].header[3:] == ("10", "50", "100", "200", "500", "1000")
    for table in made:
        assert row_of(table, "lstm in RNN", "unroll, XLA", "train")[-1] == "skipped: compile_timeout"


# --- scaling ---


def test_a_line_through_points_on_one_has_no_error():
    found = line([10, 50, 200], [1.2, 2.0, 5.0])
    assert (found.start.value, found.slope.value) == pytest.approx((1.0, 0.02))
    assert found.worst == pytest.approx(0, abs=1e-9)
    assert found.at(100) == pytest.approx(3.0)


def test_each_point_counts_by_its_relative_error():
    """The last of the times is 5% off; in absolute terms it would push the start below 0."""
    found = line([1, 10, 100, 1000], [1.1, 2.0, 11.0, 101.0 * 1.05])
    assert found.start.value == pytest.approx(1.0, rel=0.05)
    assert 0.02 < found.worst < 0.05
    assert found.start.low < 1.0 < found.start.high
    assert found.slope.low < 0.1 < found.slope.high


def test_the_intervals_of_a_line_hold_its_truth_19_times_in_20():
    import numpy as np

    rng = np.random.default_rng(0)
    xs = [10, 50, 100, 200]
    held = 0
    for _ in range(400):
        ys = [(1.0 + 0.02 * x) * math.exp(rng.normal(0, 0.05)) for x in xs]
        found = line(xs, ys)
        held += found.start.low <= 1.0 <= found.start.high
    assert 0.92 < held / 400 < 0.98


@pytest.mark.parametrize("points", [([1, 1], [1.0, 2.0]), ([1, 2], [1.0, 0.0]), ([1], [1.0])])
def test_a_line_takes_two_places_and_positive_figures(points):
    with pytest.raises(ValueError, match="a line takes two different x"):
        line(*points)


def surface(*seconds: float, **fields):
    """Cases of the sweep `scaling` at 10, 50 and 200 timesteps."""
    return [
        of("scaling", case, case, figures={"median_s": each, "iqr_s": 0.0})
        for timesteps, each in zip((10, 50, 200), seconds, strict=False)
        for case in [Case("lstm", "builtin", "infer", 32, timesteps, 64, 64, **fields)]
    ]


def test_a_fit_splits_a_call_into_overhead_and_steps():
    (fit,) = scaling.fits(surface(0.0012, 0.002, 0.005))
    assert not fit.is_poor
    table, full = scaling.fit_tables(surface(0.0012, 0.002, 0.005))
    assert row_of(table, "keras LSTM", "infer", "64") == ["1.00 ms + 20.0 µs · t"]
    assert row_of(full, "keras LSTM", "infer", "64", "32")[0].startswith("1.00 ms")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ((0.001, 0.003, 0.02), "poor: off by at most"),
        ((0.0008, 0.0048, 0.0198), "starts below 0"),
    ],
)
def test_where_a_fit_is_poor_it_says_so(seconds, said):
    (fit,) = scaling.fits(surface(*seconds))
    assert fit.is_poor
    assert said in fit.remark
    assert scaling.fit_tables(surface(*seconds))[0].rows[0][-1].text.startswith("≠ ")


def test_two_points_have_a_line_without_an_interval():
    (fit,) = scaling.fits(surface(0.0012, 0.002))
    assert fit.line.start.low == fit.line.start.high
    assert "no interval" in fit.remark
    assert scaling.fits(surface(0.0012)) == []


# --- the others ---


def test_deepbench_has_rates_and_the_estimate_of_what_was_skipped():
    (table,) = deepbench.rates(sample_records.deepbench_run())
    assert table.header[-5:] == ("time", "GFLOP/s", "of the peak", "kernel", "remark")
    assert len(table.rows) == 212
    skipped = [row for row in table.rows if row[table.names].reason]
    assert {row[-1].text for row in skipped} == {"takes 9.1 GB of 4.2 GB"}


def test_the_back_ends_have_a_column_each():
    (times,) = peers.backend_times(sample_records.backends_run())
    (ratios,) = peers.backend_ratios(sample_records.backends_run())
    ways = ("TensorFlow", "TensorFlow, XLA", "TensorFlow, FusedRNN", "JAX", "PyTorch")
    assert times.header[-5:] == ratios.header[-5:] == ways
    assert len(times.rows) == len(ratios.rows) == 2 * 2 * 3, "modes, shapes, cells"
    assert all(row[-1].text == "skipped: not_installed" for row in ratios.rows)


def test_the_character_model_and_peers_have_a_row_a_case():
    (char,) = character_layer.ratios(sample_records.char_shape_run())
    assert row_of(char, "keras SimpleRNN", "infer")[1] == "itself (noise)"
    assert row_of(char, "keras LSTM", "train")[1] == "keras SimpleRNN"
    (table,) = peers.ratios(sample_records.peers_run())
    assert table.header[0] == "subject"
    assert "skipped: not_installed" in {cell.text for row in table.rows for cell in row}


def test_speed_ups_against_each_baseline():
    text = BLOCKS["speed_ups"].make(sample_records.fused_run())
    header, _, first, *_ = text.splitlines()
    assert header.endswith(
        "| time | faster than Keras' loop | faster than Keras' loop under XLA | faster than PyTorch "
        "| faster than ONNX Runtime | faster than Keras on JAX | of the peak |"
    )
    assert first.startswith("| lstm in FusedRNN | infer | 1 · 100 · 64 · 128 |")
    slstm = next(row for row in text.splitlines() if row.startswith("| slstm"))
    gains = dict(zip(header.split(" | "), slstm.split(" | "), strict=True))
    assert gains["faster than PyTorch"] == "–", "PyTorch has none"
    assert gains["faster than Keras on JAX"] != "–"
    assert all(" in FusedRNN |" in row for row in text.splitlines()[2:]), "the loops are in another table"


def test_the_fused_layer_under_xla_has_a_table_of_its_own():
    swept = sample_records.fused_run()
    compiled = [row for row in swept if row["layer"] == "fused" and row["jit_compile"]]
    assert compiled and all(row["baseline"].endswith("-xla") for row in compiled)
    (table,) = fused.under_xla(swept)
    assert table.header[:3] == ("subject", "mode", "1 · 100 · 64 · 128")
    assert len(table.rows) == 2 * 3, "modes, cells"
    assert not any(cell.text == "–" for row in table.rows for cell in row)
    plainly = [row for row in swept if row not in compiled]
    assert fused.speed_ups(swept) == fused.speed_ups(plainly) and fused.costs(swept) == fused.costs(plainly)
    assert fused.under_xla(plainly) == []
    on_gpu = [{**row, "device": "gpu"} for row in compiled]
    assert fused.under_xla(on_gpu) == [], "there all are"
    assert len(fused.speed_ups(on_gpu)[0].rows) == len(on_gpu)


def test_a_cell_in_plain_keras_has_its_engine_its_gains_and_a_place_in_their_median():
    swept = [
        record("cfc-fused", mode, figures=figures)
        for mode in ("infer", "train")
        for figures in _against("cfc-rnn", mode, 0.5, 0.25)
    ]
    swept += [record("rhn-fused", figures=each) for each in _against("rhn-rnn", "infer", 0.125, 0.125)]
    swept[-1] = {**swept[-1], "kernel": "while", "xla": True}
    swept[-2] = {**swept[-2], "kernel": "while", "xla": True}
    (table,) = fused.plain_keras([*swept, record("lstm-fused"), record("cfc-rnn")])
    loop, under_xla = "faster than Keras' loop", "faster than Keras' loop under XLA"
    assert table.header == (
        *("cell", "engine", f"infer, {loop}", f"infer, {under_xla}", f"train, {loop}", f"train, {under_xla}"),
    )
    first, second, last = ([cell.text.partition(" ")[0] for cell in row] for row in table.rows)
    assert first == ["cfc", "native", "2.00×", "4.00×", "2.00×", "4.00×"]
    assert second == ["rhn", "XLA", "8.00×", "8.00×", "–", "–"]
    assert last == ["median", "–", "5.00×", "6.00×", "2.00×", "4.00×"]
    assert fused.speed_ups(swept) == fused.costs(swept) == [], "they are in no other table"


def _against(subject: str, mode: str, plain: float, under_xla: float) -> list[dict]:
    """The figures of a pair with Keras' loop, and of one with it under XLA."""
    baseline = f"{mode}-{subject}-b32-t50-f64-u128"
    return [
        {"kernel": "native", "ratio": ratio, "ratio_low": 0.98 * ratio, "ratio_high": 1.02 * ratio}
        | {"baseline": f"{baseline}{xla}"}
        for xla, ratio in (("", plain), ("-xla", under_xla))
    ]


def test_what_the_fused_layer_takes_is_beside_the_loops_of_its_shape():
    swept = sample_records.fused_run()
    for row in swept:
        loop = (row["layer"] != "fused") + row["jit_compile"]
        row |= {"trace_s": 1.0, "compile_s": 1.0 + loop, "peak_bytes": 1e6 * (1 + loop) * row["units"]}
    table = fused.costs(swept)[0]
    assert table.header[2:5] == ("start, FusedRNN", "start, Keras' loop", "start, Keras' loop under XLA")
    assert len(table.rows) == 24
    texts = [cell.text for cell in table.rows[0]]
    assert texts == [
        *("lstm", "1 · 100 · 64 · 128"),
        *("2.00 s", "3.00 s", "4.00 s", "128 MB", "256 MB", "384 MB"),
    ]
    lacking = [row for row in swept if not row["jit_compile"]]
    assert [cell.text for cell in fused.costs(lacking)[0].rows[0]][4] == "–"


def test_what_cells_in_plain_keras_take_is_a_median_and_the_cell_that_gains_least():
    taken = {"cfc": (1.0, 2.0, 8.0), "rhn": (3.0, 2.0, 4.0), "lmu": (2.0, 4.0, None)}
    swept = []
    for cell, starts in taken.items():
        for subject, xla, start in zip(("fused", "rnn", "rnn"), (False, False, True), starts, strict=True):
            figures = {"jit_compile": xla, "trace_s": start and 0.5, "compile_s": start and start - 0.5}
            figures["peak_bytes"] = start and int(1e6 * start)
            swept.append(record(f"{cell}-{subject}", "train", figures=figures))
    (table,) = fused.plain_keras_costs([*swept, record("lstm-fused", "train"), record("cfc-fused", "infer")])
    assert "medians of 3 cells" in table.caption
    assert table.header[1:4] == ("FusedRNN", "Keras' loop", "Keras' loop under XLA")
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["start", "2.00 s", "2.00 s", "6.00 s", "0.50×", "1.50× (rhn)"],
        ["memory", "2.00 MB", "2.00 MB", "6.00 MB", "0.50×", "1.50× (rhn)"],
    ]
    (alone,) = fused.plain_keras_costs(swept[:1])
    assert [cell.text for cell in alone.rows[0]] == ["start", "1.00 s", *"––––"]
    assert fused.plain_keras_costs([record("lstm-fused", "train")]) == []


def test_a_queue_is_beside_the_call_that_is_awaited():
    row = record(figures={"median_s": 0.010, "queued_s": 0.004})
    (table,) = machine.latency([row])
    assert row_of(table, "slstm in RNN") == ["10.0 ms", "4.00 ms", "0.40×"]


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_run_without_records_has_no_tables_and_no_chart(name):
    assert CHARTS[name].tables([]) == []
    assert CHARTS[name].draw([]) is None


@pytest.mark.parametrize("name", ["price_list", "break_even", "scaling_fit", "deepbench", "peers", "memory"])
def test_a_block_without_its_sweep_says_so(name):
    assert BLOCKS[name].make([record()]).endswith(".")


def test_markdown_keeps_names_plain_and_reasons_as_code():
    table = Table("", ("a", "b"), [[Cell("x_1"), Cell("failed: killed", reason="killed")]])
    assert in_markdown(table).splitlines()[-1] == r"| x\_1 | failed: `killed` |"


# --- ratios along a dimension, and at several shapes ---


def chosen(timesteps: int, subject: str = "slstm-rnn", **changes):
    return record(
        subject, timesteps=timesteps, figures={"sweep": "chosen", **changes.pop("figures", {})}, **changes
    )


def test_three_sizes_of_one_subject_and_baseline_are_a_line_in_any_sweep():
    three = [chosen(timesteps) for timesteps in (10, 50, 200)]
    line = growth.ratio_lines("timesteps", [*three[::-1], chosen(50)])
    assert line["timesteps"].tolist() == [10, 50, 200] and line["line"].nunique() == 1
    assert growth.ratio_lines("units", three).empty
    assert growth.ratio_lines("timesteps", three[:2]).empty
    figure = CHARTS["ratio_timesteps"].draw(three)
    (axes,) = figure.axes
    assert axes.get_ylabel() == "b32 f64 u128"
    (made,) = CHARTS["ratio_timesteps"].tables(three)
    assert made.header[-3:] == ("10", "50", "200") and len(made.rows) == 1


def test_variants_of_a_subject_are_lines_that_are_told_apart():
    """The first keeps the subject's line and marker; all have its colour, and XLA is hollow."""
    variants: list[dict] = [{}, {"jit_compile": True}, {"depth": 2}, {"bidirectional": True}]
    drawn = [chosen(timesteps, **variant) for variant in variants for timesteps in (10, 50, 200)]
    look = drawing.variant_style(drawn)
    plain, xla, stacked, both_ways = (look(record) for record in drawn[::3])
    assert plain == xla == drawing.style(drawn[0])
    assert len({(each.line, each.marker) for each in (plain, stacked, both_ways)}) == 3
    assert {each.colour for each in (plain, stacked, both_ways)} == {plain.colour}
    (axes,) = CHARTS["ratio_timesteps"].draw(drawn).axes
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3 and line.get_marker() != "_"]
    assert len({(line.get_marker(), line.get_markerfacecolor()) for line in lines}) == len(variants)


def test_all_that_fused_is_compared_with_look_different():
    rows = [row for row in sample_records.fused_run() if row["subject"] == "lstm-fused"]
    looks = {labels.faster_than(row): fused._style(row) for row in rows}
    assert len(looks) == 5 and len({(look.marker, look.hollow) for look in looks.values()}) == 5


def test_a_line_never_mixes_what_is_not_alike():
    """Neither modes, options, baselines nor shapes; what is compared with itself is noise, and no line."""
    rows = [chosen(10), chosen(50), chosen(200, mode="train")]
    assert growth.ratio_lines("timesteps", rows).empty
    assert growth.ratio_lines("timesteps", [chosen(10), chosen(50), chosen(200, jit_compile=True)]).empty
    assert growth.ratio_lines("timesteps", [chosen(10), chosen(50), chosen(200, units=64)]).empty
    other = {"baseline": "infer-gru-builtin-b32-t200-f64-u128"}
    assert growth.ratio_lines("timesteps", [chosen(10), chosen(50), chosen(200, figures=other)]).empty
    alone = [chosen(timesteps, "lstm-builtin") for timesteps in (10, 50, 200)]
    assert all(each["case"] == each["baseline"] for each in alone)
    assert growth.ratio_lines("timesteps", alone).empty


def test_shapes_that_are_no_line_have_a_chart_of_their_own():
    apart = [chosen(10, units=32), chosen(50, units=64)]
    assert len(CHARTS["ratio_shapes"].tables(apart)[0].rows) == 2
    assert CHARTS["ratio_shapes"].draw(apart) is not None
    assert CHARTS["ratio_shapes"].tables(apart[:1]) == []
    assert CHARTS["ratio_shapes"].tables([chosen(timesteps) for timesteps in (10, 50, 200)]) == []
