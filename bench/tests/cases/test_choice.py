"""What the command line asks for: its texts, and the rows that this comes to."""

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings

from bench.cases.case import Case
from bench.cases.choice import CHOSEN, Choice
from bench.cases.comparisons import Comparison, Task, comparisons
from bench.cases.read_options import ChoiceError, read_modes, read_option, read_shape, read_sweep
from bench.cases.sweeps import BASE, SWEEPS, Grid, Sweep
from bench.cases.user_cells import UserCells
from bench.records import options
from bench.tests.cases.test_case import CASES

SHAPE = (16, 120, 40, 96)
MINE = UserCells.of(["my_cells.py:Mine"])


def subjects_of(rows) -> set[str]:
    return {row.case.subject for row in rows}


def refusal(call, *arguments) -> str:
    with pytest.raises(ChoiceError) as refused:
        call(*arguments)
    return str(refused.value)


# --- texts ---


def test_a_shape_is_four_sizes():
    assert read_shape("16,120,40,96") == SHAPE


@pytest.mark.parametrize(
    "text", ["", "16,120,40", "16,120,40,96,1", "16,120,40,x", "16, 120,40,96", "1,2,3,4²"]
)
def test_a_shape_that_is_none_says_what_one_is(text):
    said = f"--shape {text!r}: must be batch_size,timesteps,features,units, such as 16,120,40,96"
    assert refusal(read_shape, text) == said


def test_a_size_that_no_id_can_hold_is_refused():
    said = refusal(read_shape, f"{10**18},1,1,1")
    assert said.endswith("batch_size 1000000000000000000: must have at most 18 digits")
    assert read_shape(f"{10**18 - 1},1,1,1")


@pytest.mark.parametrize(("text", "name"), [("0,1,1,1", "batch_size"), ("1,1,1,0", "units")])
def test_a_size_of_zero_is_refused_by_its_name(text, name):
    assert refusal(read_shape, text) == f"--shape {text!r}: {name} 0: must be a positive integer"


def test_modes():
    assert read_modes("infer,train") == ("infer", "train")
    assert "--mode 'both': must be one of infer, train" in refusal(read_modes, "both")
    assert "--mode ''" in refusal(read_modes, "infer,")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unroll", {"unroll": True}),
        ("unroll=False", {"unroll": False}),
        (
            "bidirectional,depth=2,dtype=mixed_bfloat16",
            {"bidirectional": True, "depth": 2, "dtype": "mixed_bfloat16"},
        ),
        ("dropout=0.5,recurrent_dropout=0", {"dropout": 0.5, "recurrent_dropout": 0.0}),
        ("masked=left,activation=relu", {"masked": "left", "activation": "relu"}),
        ("masked=None", {"masked": None}),
        ("use_cudnn=True", {"use_cudnn": "True"}),
        ("use_bias=False,reset_after", {"use_bias": False, "reset_after": True}),
        ("return_sequences=False", {"return_sequences": False}),
        ("xla,impl1,any_batch", {"jit_compile": True, "implementation": 1, "static_batch": False}),
    ],
)
def test_an_option_is_fields_of_a_case_or_words_of_its_id(text, expected):
    assert read_option(text) == expected


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_every_field_is_read_from_its_name_and_value_and_from_its_word(case):
    """The fields of a whole case, so that those that need each other are there."""
    assume(case.activation != "None")
    wanted = {name: getattr(case, name) for name in options.FIELDS}
    assert read_option(",".join(f"{name}={value}" for name, value in wanted.items())) == wanted
    if case.options:
        plain = Case("any", "any", "infer", *BASE, **read_option(",".join(case.options)))
        assert plain.options == case.options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dept=2", "no option 'dept'; there are depth"),
        ("units=3", "no option 'units'; there are "),
        ("mode=train", "no option 'mode'; there are "),
        ("device=gpu", "no option 'device'; there are "),
        ("", "no option ''; there are dtype, unroll"),
        ("depth", "depth needs a value: depth=…"),
        ("depth=two", "depth 'two': must be an integer"),
        ("depth=0", "depth 0: must be a positive integer"),
        ("dropout=half", "dropout 'half': must be a number"),
        ("dropout=nan", "dropout nan: must be a float from 0.0"),
        ("unroll=yes", "unroll 'yes': must be True or False"),
        ("unroll,unroll=False", "unroll stands there twice"),
        ("masked=middle", "masked 'middle': must be one of None, right, left, full"),
        ("dtype=float23", "dtype 'float23': must be one of float32"),
        ("merge_mode=sum", "merge_mode 'sum': needs bidirectional, which is False"),
        ("bidirectional,go_backwards", "go_backwards True: a bidirectional layer goes both ways"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(text, message):
    assert refusal(read_option, text).startswith(f"--option {text}: {message}")


SWEEP_FILE = """
from bench.cases.sweeps import Grid, Sweep

SUBJECTS = ("lstm-builtin", "slstm-rnn")
long = Sweep("How does it grow?", (Grid(SUBJECTS, ((4, 300, 8, 16),), user_cells=("rnn",)),))
options = long
loop = Sweep("?", (Grid(("slstm-fused",), ((4, 3, 8, 16),)),), baselines=("loop", "loop_xla"))
misspelt = Sweep("?", (Grid(("lstm-bultin",), ((4, 3, 8, 16),)),))
no_rule = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),)),), baselines=("itself",))
no_task = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),)),), task="sing")
no_field = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),), ({"dept": 2},)),))
no_value = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),), ({"depth": 0},)),))
number = 3
flat = Sweep("?", Grid(("lstm-builtin",), ((4, 3, 8, 16),)))
one_shape = Sweep("?", (Grid(("lstm-builtin",), (4, 3, 8, 16)),))
one_subject = Sweep("?", (Grid("lstm-builtin", ((4, 3, 8, 16),)),))
one_option = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),), {"depth": 2}),))
one_layer = Sweep("?", (Grid((), ((4, 3, 8, 16),), user_cells="rnn"),))
no_layer = Sweep("?", (Grid((), ((4, 3, 8, 16),), user_cells=("rn",)),))
no_device = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),), devices=("tpu",)),))
one_rule = Sweep("?", (Grid(("lstm-builtin",), ((4, 3, 8, 16),)),), baselines="loop")
"""


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "my_sweeps.py"
    file.write_text(SWEEP_FILE)
    return file


def test_a_sweep_of_ones_own_is_measured_like_any_other(sweep_file):
    name, sweep = read_sweep(f"{sweep_file}:long")
    rows = Choice(sweeps={name: sweep}, user_cells=MINE).rows()
    assert [row.id for row in rows] == [
        f"{mode}-{subject}-b4-t300-f8-u16"
        for subject in ("lstm-builtin", "slstm-rnn", "Mine-rnn")
        for mode in ("infer", "train")
    ]
    assert {row.sweep for row in rows} == {"long"}
    name, sweep = read_sweep(f"{sweep_file}:loop")
    ids = [row.id for row in Choice(sweeps={name: sweep}, modes=("infer",)).rows()]
    assert ids == [f"infer-slstm-fused-b4-t3-f8-u16-vs-slstm-rnn{xla}" for xla in ("", "-xla")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "expected a bench.cases.sweeps.Sweep, got 3"),
        ("options", "there is a sweep 'options' already; give yours another name"),
        ("nothing", "no 'nothing' in it"),
        ("flat", "must be a tuple of Grids"),
        ("one_shape", "must be a tuple of shapes, each (batch_size, timesteps, features, units)"),
        ("one_subject", "subjects 'lstm-builtin': must be a tuple of names, such as 'lstm-builtin'"),
        ("one_option", "options {'depth': 2}: must be a tuple of mappings, each the options of one variant"),
        ("one_layer", "user_cells 'rnn': must be a tuple of some of rnn, fused, keras_jax, keras_torch"),
        ("no_layer", "user_cells ('rn',): must be a tuple of some of rnn, fused, keras_jax, keras_torch"),
        ("no_device", "devices ('tpu',): must be a tuple of some of cpu, gpu"),
        ("one_rule", "baselines 'loop': must be a tuple of names"),
    ],
)
def test_a_text_that_names_no_sweep_is_refused(sweep_file, name, message):
    assert refusal(read_sweep, f"{sweep_file}:{name}").endswith(message)
    assert "invalid choice: 'nonsense' (choose from backends, char_model, " in refusal(read_sweep, "nonsense")
    assert "no such file: " in refusal(read_sweep, "/no/such.py:long")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("misspelt", "subject lstm-bultin: not known; there are lstm-builtin"),
        ("no_rule", "baseline itself: not known; there are builtin, loop"),
        ("no_task", "task sing: not known; there are "),
        ("no_field", "Case.__init__() got an unexpected keyword argument 'dept'"),
        ("no_value", "depth 0: must be a positive integer"),
    ],
)
def test_a_sweep_that_names_what_is_not_there_is_refused(sweep_file, name, message):
    name, sweep = read_sweep(f"{sweep_file}:{name}")
    assert refusal(Choice(sweeps={name: sweep}).rows).startswith(f"--sweep {name}: {message}")


# --- rows ---


def test_nothing_asked_for_is_the_main_job():
    assert Choice().rows() == comparisons(["default"])


def test_a_user_cell_at_a_shape_is_measured_against_the_built_in_and_nothing_else():
    """`--cell=my_cells.py:Mine --shape=16,120,40,96`."""
    rows = Choice(user_cells=MINE, shapes=(SHAPE,)).rows()
    assert [(row.sweep, row.id, row.baseline.id) for row in rows] == [
        (CHOSEN, f"{mode}-Mine-rnn-b16-t120-f40-u96", f"{mode}-lstm-builtin-b16-t120-f40-u96")
        for mode in ("infer", "train")
    ]


def test_each_option_is_a_variant_compared_with_the_built_in_in_the_same_arrangement():
    variants = (read_option("depth=2"), read_option("bidirectional,masked=right,dtype=float64"), {})
    rows = Choice(user_cells=UserCells.of(["a.py:Mine"], "gru"), options=variants, modes=("train",)).rows()
    assert [row.case.options for row in rows] == [
        ("depth2",),
        ("float64", "mask_right", "bidirectional"),
        (),
    ]
    assert all(row.baseline == replace(row.case, cell="gru", layer="builtin") for row in rows)


def test_subjects_stand_for_themselves_at_the_base_shape_or_the_given_ones():
    assert {row.id for row in Choice(subjects=("mgu-fused",), modes=("infer",)).rows()} == {
        "infer-mgu-fused-b32-t50-f64-u128"
    }
    rows = Choice(subjects=("lstm-rnn", "Mine-fused"), user_cells=MINE, shapes=(SHAPE, BASE)).rows()
    assert subjects_of(rows) == {"lstm-rnn", "Mine-fused"}
    assert len(rows) == 2 * 2 * 2 and {row.sweep for row in rows} == {CHOSEN}


@pytest.mark.parametrize("sweeps", [{}, {"options": SWEEPS["options"]}])
def test_of_the_users_cells_the_subjects_named_are_measured_and_no_others(sweeps):
    """`--cell=my_cells.py:Mine --subject=Mine-fused`; without a subject of theirs, as they join."""
    brought = UserCells.of(["my_cells.py:Mine", "my_cells.py:Other"], layers=["my_layers.py:make"])
    for named in (("Mine-fused",), ("Mine-rnn", "Other-fused"), ("make-layer",), ("slstm-fused", "Mine-rnn")):
        rows = Choice(sweeps=sweeps, subjects=named, user_cells=brought).rows()
        assert subjects_of(rows) == {*named}
    joined = subjects_of(Choice(sweeps=sweeps, subjects=("slstm-fused",), user_cells=brought).rows())
    assert {"slstm-fused", "Mine-rnn", "Other-rnn", "make-layer"} <= joined


def test_shapes_and_options_take_the_place_of_a_sweeps_and_modes_choose_of_its():
    choice = Choice(sweeps={"fused": SWEEPS["fused"]}, shapes=(SHAPE,), options=({"masked": "right"},))
    rows = choice.rows()
    assert {row.case.shape for row in rows} == {"b16-t120-f40-u96"}
    assert {row.case.options for row in rows} == {("mask_right",)}
    assert all(row.baseline.masked == "right" for row in rows)
    in_train = {row.id for row in rows if row.case.mode == "train"}
    assert in_train == {row.id for row in replace(choice, modes=("train",)).rows()} < {row.id for row in rows}
    # what the sweep measures in `train` alone is not measured in `infer`
    assert {row.case.layer for row in replace(choice, modes=("infer",)).rows()} == {"fused"}


def test_of_a_sweep_only_the_subjects_asked_for_are_measured_and_user_cells_join():
    sweeps = {"options": SWEEPS["options"]}
    alone = Choice(sweeps=sweeps, subjects=("slstm-fused",)).rows()
    assert subjects_of(alone) == {"slstm-fused"} and len(alone) == 20
    joined = Choice(sweeps=sweeps, subjects=("slstm-fused",), user_cells=MINE).rows()
    assert subjects_of(joined) == {"slstm-fused", "Mine-rnn", "Mine-fused"}
    named = Choice(sweeps=sweeps, subjects=("Mine-rnn",), user_cells=MINE).rows()
    assert subjects_of(named) == {"Mine-rnn"}


JOINED = {
    "default": {"rnn", "fused"},
    "smoke": {"rnn"},
    "gate": {"rnn", "fused"},
    "backends": {"rnn", "fused", "keras_jax", "keras_torch"},
    "fused": {"rnn", "fused"},
    "options": {"rnn", "fused"},
    "static_dynamic": {"rnn"},
    "scaling": {"rnn", "fused"},
    "char_shape": {"rnn", "fused"},
    "char_model": {"rnn"},
    "generate": {"rnn"},
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_user_cell_joins_every_sweep_whose_question_is_about_cells(name):
    choice = Choice(sweeps={name: SWEEPS[name]}, user_cells=MINE)
    if name not in JOINED:
        assert "the sweep takes no cells; those that do are default, smoke" in refusal(choice.rows)
        return
    rows = choice.rows()
    assert {row.case.layer for row in rows if row.case.cell == "Mine"} == JOINED[name]
    assert [row for row in rows if row.case.cell != "Mine"] == replace(choice, user_cells=UserCells()).rows()


@pytest.mark.parametrize("name", SWEEPS)
def test_a_whole_layer_joins_a_sweep_or_is_refused(name):
    brought = UserCells.of([], layers=["my_layers.py:make"])
    choice = Choice(sweeps={name: SWEEPS[name]}, user_cells=brought)
    # in Keras' loop or not, nobody knows of a whole layer
    if name in {"fused", "static_dynamic", "backends", *(SWEEPS.keys() - JOINED.keys())}:
        takers = "default, smoke, gate, options, scaling, char_shape, char_model, generate"
        said = f"--layer: the sweep takes no layers; those that do are {takers}, and "
        assert refusal(choice.rows).startswith(said)
    else:
        assert "make-layer" in subjects_of(choice.rows())


def test_a_case_of_a_sweep_is_its_row_and_any_other_stands_for_itself():
    (row,) = Choice(case="infer-slstm-rnn-b4-t10-f8-u16-xla").rows()
    assert (row.sweep, row.baseline.id) == ("smoke", "infer-lstm-builtin-b4-t10-f8-u16-xla")
    (row,) = Choice(case="train-mgu-fused-b3-t4-f5-u6-depth2", device="gpu").rows()
    assert isinstance(row, Comparison) and (row.sweep, row.id) == (
        CHOSEN,
        "train-mgu-fused-b3-t4-f5-u6-depth2",
    )
    assert row.baseline == Case("gru", "builtin", "train", 3, 4, 5, 6, depth=2, device="gpu")
    (row,) = Choice(case="fit-janet-rnn-b8-t79-f16-u16").rows()
    assert isinstance(row, Task) and row.name == "char_model"


@pytest.mark.parametrize("name", ["MinGRU-fused", "min-gru-rnn", "MinGRU", "-rnn", ""])
@pytest.mark.parametrize("asked", ["subject", "case", "sweep"])
def test_a_subject_that_nobody_knows_may_be_a_cell_of_ones_own(name, asked):
    choices = {
        "subject": Choice(subjects=(name,)),
        "case": Choice(case=f"infer-{name}-b1-t2-f3-u4"),
        "sweep": Choice(sweeps={"mine": Sweep("?", (Grid((name,), (BASE,)),))}),
    }
    if asked == "case" and name != "MinGRU-fused":
        return  # no id has such a subject
    said = refusal(choices[asked].rows)
    cell = {"MinGRU-fused": "MinGRU", "min-gru-rnn": "min-gru", "": "CLASS"}.get(name, name)
    assert f"{name}: not known; there are " in said and said.endswith(f"with --cell=FILE:{cell}")


def test_a_subject_of_a_known_cell_has_no_hint_at_cells_of_ones_own():
    said = refusal(Choice(subjects=("Mine-fuse", "Mine-unrolled"), user_cells=MINE).rows)
    assert said == "--subject Mine-fuse: not known; there are Mine-fused"


@settings(max_examples=50, deadline=None)
@given(CASES)
def test_every_well_formed_id_of_a_known_subject_is_taken(case):
    case = replace(case, cell="slstm", layer="fused")
    rows = Choice(case=case.id).rows()
    assert {row.case for row in rows} == {case}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(case="infer-lstm-builtin-b1"), "--case 'infer-lstm-builtin-b1': timesteps is missing"),
        (
            Choice(case="infer-lsmt-rnn-b1-t1-f1-u1"),
            "--case infer-lsmt-rnn-b1-t1-f1-u1: subject lsmt-rnn: not known; there are lstm-rnn",
        ),
        (
            Choice(case="infer-lstm-rnn-b1-t1-f1-u1", sweeps={"smoke": SWEEPS["smoke"]}),
            "--case infer-lstm-rnn-b1-t1-f1-u1: no such case; the nearest are infer-lstm-rnn-b4-t10-f8-u16",
        ),
        (
            Choice(case="infer-lstm-rnn-b1-t1-f1-u1", shapes=(SHAPE,)),
            "--case infer-lstm-rnn-b1-t1-f1-u1: names a whole case; --shape cannot change it",
        ),
        (Choice(subjects=("mgu",)), "--subject mgu: not known; there are mgu-rnn, mgu-fused"),
        (Choice(subjects=("lstm-bultin",)), "--subject lstm-bultin: not known; there are lstm-builtin"),
        (
            Choice(subjects=("mgu-rnn",), sweeps={"smoke": SWEEPS["smoke"]}),
            "--subject mgu-rnn: is not in --sweep smoke; leave out --sweep to measure it",
        ),
        (Choice(modes=("fit",)), "--mode fit: no case of --sweep default is in it"),
        (Choice(modes=("fit",), subjects=("lstm-rnn",)), "--mode fit: is for the sweeps of training tasks"),
        (
            Choice(sweeps={"generate": SWEEPS["generate"]}, shapes=(SHAPE,)),
            "--shape: --sweep generate is a training task, which has its own",
        ),
        (
            Choice(sweeps={"char_model": SWEEPS["char_model"]}, options=({},)),
            "--option: --sweep char_model is a training task, which has its own",
        ),
    ],
)
def test_what_cannot_be_heeded_is_refused(choice, message):
    assert refusal(choice.rows).startswith(message)


@pytest.mark.parametrize("given", [{"features": 40}, {"step_shape": "5,8"}])
def test_the_features_that_a_user_cell_takes_are_those_of_all_cases(given):
    brought = UserCells.of(["my_cells.py:Mine"], **given)
    for choice in (
        Choice(user_cells=brought, sweeps={"smoke": SWEEPS["smoke"]}),
        Choice(user_cells=brought, shapes=(SHAPE,)),
        Choice(user_cells=brought, options=({"depth": 2},)),
    ):
        rows = choice.rows()
        assert "Mine-rnn" in subjects_of(rows)
        assert {row.case.features for row in rows} == {row.baseline.features for row in rows} == {40}
        assert len(rows) == len({row.id for row in rows})


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (
            {"shapes": ((16, 120, 41, 96),)},
            "--shape 16,120,41,96: has 41 features, not the 40 of --features 40",
        ),
        (
            {"case": "infer-Mine-rnn-b1-t2-f3-u4"},
            "--case infer-Mine-rnn-b1-t2-f3-u4: has 3 features, not the 40 of --features 40",
        ),
        (
            {"sweeps": {"char_model": SWEEPS["char_model"]}},
            "--features: --sweep char_model is a training task, which has its own",
        ),
    ],
)
def test_other_features_than_a_user_cell_takes_are_refused(choice, message):
    assert refusal(Choice(user_cells=UserCells.of(["a.py:Mine"], features=40), **choice).rows) == message


def test_a_grid_for_another_device_is_left_out_of_ones_own_sweep():
    grid = Grid(("lstm-builtin",), (BASE,), devices=("gpu",))
    choice = Choice(sweeps={"mine": Sweep("?", (grid,))})
    assert not choice.rows() and len(replace(choice, device="gpu").rows()) == 2
