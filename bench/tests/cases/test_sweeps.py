"""The sweeps: their cases are valid, and `default` holds what it should."""

from collections import Counter
from dataclasses import MISSING, fields, replace
from hashlib import sha256
from typing import Any

import pytest

from bench.cases.case import MODES, TASK_MODES, Case
from bench.cases.comparisons import BASELINES, Comparison, baselines_of, comparisons, tasks
from bench.cases.subjects import SUBJECTS
from bench.cases.sweeps import SWEEPS, Grid, Sweep
from bench.cases.user_cells import UserCells

BASE = (32, 50, 64, 128)
WITH_MINE = UserCells.of(["my_cells.py:mine"], "gru")


def cases_of(name: str) -> list[Case]:
    """The cases of a sweep, each once."""
    cases = [row.case for row in comparisons([name])] + [task.case for task in tasks([name])]
    return list(dict.fromkeys(cases))


def asked_of(case: Case) -> set[str]:
    """The fields of the options that are not the default, but for those that all subjects have."""
    options = {field.name for field in fields(Case) if field.default is not MISSING}
    options -= {"dtype", "jit_compile", "device"}
    return {name for name in options if getattr(case, name) != getattr(Case, name)}


def shape_of(case: Case) -> tuple[int, int, int, int]:
    return case.batch_size, case.timesteps, case.features, case.units


@pytest.mark.parametrize("name", SWEEPS)
def test_every_case_is_of_a_known_subject_that_has_its_options(name):
    cases = cases_of(name)
    assert cases
    assert max(Counter(case.id for case in cases).values()) == 1
    for case in cases:
        subject = SUBJECTS[case.subject]
        assert asked_of(case) <= subject.options, case.id


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_times_layers_or_performs_a_task(name):
    sweep = SWEEPS[name]
    assert sweep.question.endswith(("?", "."))
    modes = MODES if sweep.task is None else TASK_MODES
    assert {case.mode for case in cases_of(name)} <= set(modes)
    assert bool(comparisons([name])) != bool(tasks([name]))


@pytest.mark.parametrize("name", [name for name, sweep in SWEEPS.items() if sweep.task is None])
def test_every_baseline_is_a_known_subject_at_the_same_point(name):
    rows = comparisons([name])
    assert len({(row.case, row.baseline) for row in rows}) == len(rows)
    assert len({row.id for row in rows}) == len(rows)
    for row in rows:
        assert row.baseline.subject in SUBJECTS
        same = ["mode", "batch_size", "timesteps", "features", "units", "device"]
        same += ["dtype"] if "default_option" not in SWEEPS[name].baselines else []
        assert all(getattr(row.baseline, field) == getattr(row.case, field) for field in same)
        of_its_own = {"xla", row.case.dtype, *(["reset_before"] if name == "peers" else [])}
        assert set(row.baseline.options) <= of_its_own


@pytest.mark.parametrize("name", ["default", "smoke"])
def test_the_first_sweeps_compare_with_built_ins(name):
    assert SWEEPS[name].baselines == ("builtin",)
    for row in comparisons([name]):
        if row.first:
            assert row.baseline.layer == "builtin" and row.baseline.jit_compile == row.case.jit_compile


def test_what_the_default_sweep_says_of_options_xla_and_fused_rnn_are_pairs():
    """XLA and each option against the same without, FusedRNN against Keras' loop."""
    rows = {(row.case, row.baseline) for row in comparisons(["default"])}
    for case, _ in rows:
        if case.options and not case.cell.startswith("keras_"):
            assert (case, replace(case, **{field: getattr(Case, field) for field in _SWITCHED})) in rows
        if case.subject == "slstm-fused":
            assert (case, replace(case, layer="rnn")) in rows


_SWITCHED = ("jit_compile", "unroll", "implementation", "stateful")


@pytest.mark.parametrize(
    ("rule", "subject", "baseline", "xla"),
    [
        ("builtin", "slstm-rnn", "lstm-builtin", True),
        ("builtin", "minimal-rnn", "simple_rnn-builtin", True),
        ("builtin", "keras_gru-rnn", "gru-builtin", True),
        ("builtin", "lstm-builtin", "lstm-builtin", True),
        ("loop", "slstm-fused", "slstm-rnn", False),
        ("loop", "lstm-fused", "lstm-builtin", False),
        ("loop_xla", "slstm-fused", "slstm-rnn", True),
    ],
)
def test_the_baseline_rules(rule, subject, baseline, xla):
    case = Case(*subject.split("-"), "train", *BASE, dtype="float64", jit_compile=True, device="gpu")
    expected = Case(*baseline.split("-"), "train", *BASE, dtype="float64", jit_compile=xla, device="gpu")
    assert baselines_of(case, [rule], SUBJECTS) == [expected]
    with_options = replace(case, unroll=True, stateful=True, implementation=1)
    assert baselines_of(with_options, [rule], SUBJECTS) == [expected]


LIKE: list[dict[str, Any]] = [
    {"depth": 2},
    {"bidirectional": True, "merge_mode": "sum", "backward_layer": True},
    {"masked": "right", "zero_output_for_mask": True},
    {"dropout": 0.5, "recurrent_dropout": 0.25},
    {"dtype": "mixed_bfloat16"},
    {"return_sequences": False, "go_backwards": True},
    {"activation": "relu", "use_bias": False},
]


@pytest.mark.parametrize("rule", ["builtin", "loop", "simple_rnn"])
@pytest.mark.parametrize("options", LIKE)
@pytest.mark.parametrize("subject", ["slstm-fused", "mine-rnn", "mine-fused", "simple_rnn-builtin"])
def test_like_is_compared_with_like(rule, options, subject):
    case = Case(*subject.split("-"), "train", *BASE, **options)
    (baseline,) = baselines_of(case, [rule], {**SUBJECTS, **WITH_MINE.subjects})
    assert baseline.options == case.options
    assert baseline.subject in ("lstm-builtin", "gru-builtin", "simple_rnn-builtin", "slstm-rnn", "mine-rnn")
    run_otherwise = replace(case, unroll=True, stateful=True, implementation=1, static_batch=False)
    assert baselines_of(run_otherwise, [rule], {**SUBJECTS, **WITH_MINE.subjects}) == [baseline]


def test_an_equation_that_the_baseline_does_not_have_is_its_own():
    case = Case("gru", "rnn", "infer", *BASE, reset_after=False)
    builtin, simple = baselines_of(case, ["builtin", "simple_rnn"], SUBJECTS)
    assert builtin.reset_after is False and simple.options == ()


# --- what a measurement of a sweep was before stays the same ---


def test_the_main_jobs_rows_stay_the_same():
    """A row that changes breaks the history of everybody's runs: change this on purpose only."""
    rows = comparisons(["default"])
    text = "\n".join(f"{row.id} {row.baseline.id}" for row in rows)
    assert (len(rows), sha256(text.encode()).hexdigest()[:16]) == (158, "5d6bbcc73d779399")


def test_the_default_option_is_the_same_subject_without_any_option():
    plain = Case("gru", "builtin", "train", *BASE, device="gpu")
    case = replace(plain, dtype="float64", jit_compile=True, masked="left", depth=2, use_cudnn="False")
    rules = ["default_option"]
    assert baselines_of(case, rules, SUBJECTS) == baselines_of(plain, rules, SUBJECTS) == [plain]


def test_a_sweep_has_a_row_for_each_of_its_rules(monkeypatch):
    grid = Grid(("slstm-rnn",), (BASE,), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "all", Sweep("?", (grid,), baselines=tuple(BASELINES)))
    assert [row.baseline for row in comparisons(["all"])] == baselines_of(
        Case("slstm", "rnn", "infer", *BASE), tuple(BASELINES), SUBJECTS
    )


def test_a_grid_may_be_compared_with_something_else_than_the_rest_of_its_sweep(monkeypatch):
    rest, own = (Grid((name,), (BASE,), modes=("infer",)) for name in ("slstm-rnn", "gru-fused"))
    sweep = Sweep("?", (rest, replace(own, baselines=("loop_xla",))), baselines=("loop",))
    monkeypatch.setitem(SWEEPS, "two", sweep)
    found = [(row.case.subject, row.baseline) for row in comparisons(["two"])]
    plain = {subject: Case(*subject.split("-"), "infer", *BASE) for subject in ("slstm-rnn", "gru-builtin")}
    assert found == [
        ("slstm-rnn", plain["slstm-rnn"]),
        ("gru-fused", replace(plain["gru-builtin"], jit_compile=True)),
    ]


def test_a_built_in_is_compared_with_a_second_instance_of_itself():
    rows = [row for row in comparisons(["default"]) if row.case.layer == "builtin" and not row.case.options]
    assert rows and all(row.baseline == row.case for row in rows)


# --- default ---


def test_default_has_about_120_cases():
    assert 110 <= len(cases_of("default")) <= 130


def test_default_has_all_subjects_at_the_base_shape_in_both_modes_plain_and_xla():
    subjects = {
        *("simple_rnn-builtin", "lstm-builtin", "gru-builtin"),
        *("keras_simple_rnn-rnn", "keras_lstm-rnn", "keras_gru-rnn"),
        *("minimal-rnn", "simple_rnn-rnn", "lstm-rnn", "gru-rnn", "slstm-rnn"),
    }
    wanted = {
        Case(*subject.split("-"), mode, *BASE, jit_compile=xla)
        for subject in subjects
        for mode in ("infer", "train")
        for xla in (False, True)
    }
    at_base = [case for case in cases_of("default") if shape_of(case) == BASE]
    found = {case for case in at_base if case.layer != "fused" and set(case.options) <= {"xla"}}
    assert found == wanted


def test_default_has_the_options_plain_at_the_base_shape():
    wanted = {
        Case(*subject.split("-"), mode, *BASE, **option)
        for subject in ("lstm-builtin", "gru-builtin", "lstm-rnn", "slstm-rnn")
        for mode in ("infer", "train")
        for option in ({"unroll": True}, {"implementation": 1}, {"stateful": True})
    }
    assert {case for case in cases_of("default") if set(case.options) - {"xla"}} == wanted


@pytest.mark.parametrize("axis", ["batch_size", "timesteps", "units"])
def test_default_has_a_line_of_three_further_points(axis):
    base = Case("lstm", "builtin", "infer", *BASE)
    lines: dict[tuple[str, str], set[int]] = {}
    for case in cases_of("default"):
        value = getattr(case, axis)
        if shape_of(replace(case, **{axis: getattr(base, axis)})) == BASE != shape_of(case):
            assert not case.options
            lines.setdefault((case.subject, case.mode), set()).add(value)
    assert set(lines) == {(s, m) for s in ("lstm-builtin", "gru-builtin", "slstm-rnn") for m in MODES}
    assert all(len(values) == 3 for values in lines.values())


def test_default_has_nothing_off_the_lines():
    for case in cases_of("default"):
        assert sum(here != base for here, base in zip(shape_of(case), BASE, strict=True)) <= 1


def test_smoke_is_a_handful_of_small_cases():
    cases = cases_of("smoke")
    assert 4 <= len(cases) <= 16
    assert all(case.batch_size * case.timesteps * case.units <= 1000 for case in cases)


# --- how a sweep becomes rows ---


def test_a_case_stands_once_in_a_sweep_and_a_sweep_once_in_a_run(monkeypatch):
    grid = Grid(("lstm-builtin",), ((1, 2, 3, 4),), ({}, {"unroll": False}), modes=("infer",))
    monkeypatch.setitem(SWEEPS, "twice", Sweep("?", (grid, grid)))
    case = Case("lstm", "builtin", "infer", 1, 2, 3, 4)
    assert comparisons(["twice", "twice"]) == [Comparison("twice", case, case)]


def test_sweeps_come_in_the_order_asked_for_and_keep_shared_cases():
    rows = comparisons(["smoke", "default"])
    assert list(dict.fromkeys(row.sweep for row in rows)) == ["smoke", "default"]
    assert [row for row in rows if row.sweep == "default"] == comparisons(["default"])
    assert [row for row in rows if row.sweep == "smoke"] == comparisons(["smoke"])


def test_the_device_is_that_of_case_and_baseline():
    assert all(
        row.case.device == row.baseline.device == "gpu" for row in comparisons(["smoke"], device="gpu")
    )


def test_user_cells_join_with_their_own_baseline():
    plain, joined = comparisons(["default"]), comparisons(["default"], WITH_MINE)
    assert [row for row in joined if row.case.cell != "mine"] == plain
    mine = [row for row in joined if row.case.cell == "mine"]
    # plain and XLA; unroll and stateful; three lines; FusedRNN: in both modes
    assert len({row.case for row in mine}) == (2 + 2 + 9 + 1) * 2
    assert {row.baseline.subject for row in mine if row.first} == {"gru-builtin"}
    # XLA, unroll and stateful against themselves without, FusedRNN against the loop
    assert len([row for row in mine if not row.first and row.baseline.subject == "mine-rnn"]) == 4 * 2
    assert not any("impl1" in row.case.options for row in mine)


def test_a_full_task_has_the_tutorials_size():
    (short, *_), (full, *_) = tasks(["char_model"]), tasks(["char_model"], full=True)
    assert full.case == replace(short.case, units=1024) != short.case
    assert full.name == short.name == "char_model"


# --- the sweeps of what grows, and of what others publish ---


def test_static_dynamic_has_every_way_at_every_length():
    ways: dict[tuple[str, ...], set[int]] = {}
    for case in cases_of("static_dynamic"):
        ways.setdefault((case.mode, case.subject, *case.options), set()).add(case.timesteps)
    all_lengths = {10, 50, 100, 200, 500, 1000}
    loops = [("lstm-rnn", *options) for options in ((), ("unroll",), ("xla",), ("unroll", "xla"))]
    dynamic = ("dynamic_unroll", "dynamic_rnn")
    functions = [(f"lstm-{name}",) for name in ("static_unroll", "static_rnn", *dynamic)]
    turned = [(f"lstm-{name}", "time_major") for name in dynamic]
    wanted = {(mode, *way): all_lengths for mode in MODES for way in (*loops, *functions)}
    assert ways == wanted | {(mode, *way): {10, 100, 500} for mode in MODES for way in turned}
    assert {row.baseline.id for row in comparisons(["static_dynamic"])} == {
        f"{mode}-lstm-builtin-b32-t{timesteps}-f64-u64" for mode in MODES for timesteps in all_lengths
    }


def test_a_way_comes_with_growing_timesteps_so_that_the_first_to_stop_stops_the_rest():
    """A case that hits the compile limit spares those with more timesteps."""
    seen: dict[Case, int] = {}
    for case in cases_of("static_dynamic"):
        alike = replace(case, timesteps=1)
        assert seen.get(alike, 0) < case.timesteps
        seen[alike] = case.timesteps


def test_scaling_is_a_surface_with_enough_timesteps_for_a_line():
    lengths: dict[tuple, set[int]] = {}
    for case in cases_of("scaling"):
        assert not case.options
        lengths.setdefault((case.subject, case.mode, case.batch_size, case.units), set()).add(case.timesteps)
    assert {key[0] for key in lengths} == {"lstm-builtin", "gru-builtin", "slstm-rnn", "slstm-fused"}
    assert len(lengths) == 4 * 2 * 2 * 2 and all(len(steps) >= 3 for steps in lengths.values())


def test_deepbench_has_its_shapes_with_and_without_the_input_product():
    shapes: dict[str, set] = {}
    for case in cases_of("deepbench"):
        assert case.features == case.units
        shapes.setdefault(case.cell, set()).add((case.units, case.batch_size, case.timesteps))
    assert {cell: len(found) for cell, found in shapes.items()} == {"simple_rnn": 12, "gru": 19, "lstm": 22}
    assert (1760, 16, 50) in shapes["simple_rnn"] and (2816, 32, 1500) in shapes["gru"]
    assert {(1024, 64, 1500), (512, 32, 1)} < shapes["gru"]
    assert {(4096, 128, 25), (1536, 8, 50), (256, 64, 150)} < shapes["lstm"]
    both = [case.input_product for case in cases_of("deepbench")]
    assert both.count(True) == both.count(False) == 53 * 2


def test_char_shape_compares_all_with_the_simple_rnn():
    rows = comparisons(["char_shape"])
    assert {shape_of(row.case) for row in rows} == {(32, 79, 256, 1024)}
    assert {row.baseline.subject for row in rows} == {"simple_rnn-builtin"}
    cells = {"simple_rnn", "lstm", "gru"}
    assert {row.case.subject for row in rows} == {
        f"{cell}-{layer}" for cell in cells for layer in ("builtin", "rnn", "fused")
    }
