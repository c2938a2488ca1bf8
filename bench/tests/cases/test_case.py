"""Cases: their ids, and what cannot be a case."""

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from bench.cases.case import DEVICES, MASKS, MERGE_MODES, MODES, TASK_MODES, Case, CaseError, id_parts
from bench.records import options
from bench.records.options import DTYPES, UnknownOption

PLAIN = Case("slstm", "rnn", "train", 32, 50, 64, 128)


def _together(case, masked, bidirectional):
    """The case with both groups of options; one that goes both ways does not go backwards, two outputs are
    not stacked, and zeros stand for masked outputs of every step."""
    ways = {**bidirectional, "go_backwards": False} if bidirectional else {}
    ways |= {"depth": 1} if ways.get("merge_mode") == "none" else {}
    ways |= {"return_sequences": True} if masked.get("zero_output_for_mask") else {}
    return replace(case, **masked, **ways)


NAMES = st.from_regex(r"[A-Za-z0-9_.]+", fullmatch=True)
SIZES = st.integers(1, 5000)
RATES = st.floats(0, 1, exclude_max=True)
MASKED: st.SearchStrategy[dict] = st.just({}) | st.fixed_dictionaries(
    {"masked": st.sampled_from(MASKS)}, optional={"zero_output_for_mask": st.booleans()}
)
BIDIRECTIONAL: st.SearchStrategy[dict] = st.just({}) | st.fixed_dictionaries(
    {"bidirectional": st.just(True), "merge_mode": st.none() | st.sampled_from(MERGE_MODES)},
    optional={"backward_layer": st.booleans()},
)
SINGLE = st.builds(
    Case,
    cell=NAMES,
    layer=NAMES,
    mode=st.sampled_from(MODES + TASK_MODES),
    batch_size=SIZES,
    timesteps=SIZES,
    features=SIZES,
    units=SIZES,
    dtype=st.sampled_from(DTYPES),
    unroll=st.booleans(),
    implementation=st.sampled_from((1, 2)),
    stateful=st.booleans(),
    jit_compile=st.booleans(),
    return_sequences=st.booleans(),
    go_backwards=st.booleans(),
    activation=st.none() | NAMES,
    use_bias=st.none() | st.booleans(),
    reset_after=st.none() | st.booleans(),
    use_cudnn=st.sampled_from((None, "auto", "True", "False")),
    dropout=RATES,
    recurrent_dropout=RATES,
    depth=st.integers(1, 9),
    static_timesteps=st.booleans(),
    static_batch=st.booleans(),
    time_major=st.booleans(),
    input_product=st.booleans(),
)
CASES = st.builds(_together, SINGLE, MASKED, BIDIRECTIONAL)
# a value other than PLAIN's for every field that the id names
CHANGES = {
    "cell": "lstm",
    "layer": "builtin",
    "mode": "infer",
    "batch_size": 33,
    "timesteps": 51,
    "features": 65,
    "units": 129,
    "dtype": "float16",
    "unroll": True,
    "implementation": 1,
    "stateful": True,
    "jit_compile": True,
    "return_sequences": False,
    "go_backwards": True,
    "activation": "relu",
    "use_bias": False,
    "reset_after": True,
    "use_cudnn": "auto",
    "masked": "left",
    "zero_output_for_mask": True,
    "dropout": 0.5,
    "recurrent_dropout": 0.5,
    "bidirectional": True,
    "merge_mode": "sum",
    "backward_layer": True,
    "depth": 2,
    "static_timesteps": False,
    "static_batch": False,
    "time_major": True,
    "input_product": False,
}
# what a field of CHANGES cannot do without
COMPANY = {
    "zero_output_for_mask": {"masked": "right", "return_sequences": True},
    "bidirectional": {"go_backwards": False},
    "go_backwards": {"bidirectional": False, "merge_mode": None, "backward_layer": False},
    "merge_mode": {"bidirectional": True, "go_backwards": False},
    "backward_layer": {"bidirectional": True, "go_backwards": False},
}


def changed(case, name):
    """The case with the value of CHANGES, and the same without it."""
    company = replace(case, **COMPANY.get(name, {}))
    return replace(company, **{name: CHANGES[name]}), company


@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({}, "train-slstm-rnn-b32-t50-f64-u128"),
        ({"unroll": True}, "train-slstm-rnn-b32-t50-f64-u128-unroll"),
        ({"implementation": 1}, "train-slstm-rnn-b32-t50-f64-u128-impl1"),
        ({"jit_compile": True}, "train-slstm-rnn-b32-t50-f64-u128-xla"),
        ({"dtype": "float16"}, "train-slstm-rnn-b32-t50-f64-u128-float16"),
        (
            {"jit_compile": True, "stateful": True, "unroll": True, "implementation": 1},
            "train-slstm-rnn-b32-t50-f64-u128-unroll-impl1-stateful-xla",
        ),
        ({"use_bias": False, "reset_after": False}, "train-slstm-rnn-b32-t50-f64-u128-no_bias-reset_before"),
        ({"activation": "relu"}, "train-slstm-rnn-b32-t50-f64-u128-act_relu"),
        ({"mode": "fit"}, "fit-slstm-rnn-b32-t50-f64-u128"),
        ({"use_cudnn": "auto"}, "train-slstm-rnn-b32-t50-f64-u128-cudnn_auto"),
        ({"use_cudnn": "True"}, "train-slstm-rnn-b32-t50-f64-u128-cudnn"),
        ({"use_cudnn": "False"}, "train-slstm-rnn-b32-t50-f64-u128-no_cudnn"),
        (
            {"masked": "full", "zero_output_for_mask": True},
            "train-slstm-rnn-b32-t50-f64-u128-mask_full-zero_masked",
        ),
        ({"dropout": 0.5}, "train-slstm-rnn-b32-t50-f64-u128-dropout0.5"),
        ({"recurrent_dropout": 1e-5}, "train-slstm-rnn-b32-t50-f64-u128-recurrent_dropout0.00001"),
        (
            {"bidirectional": True, "merge_mode": "none", "backward_layer": True},
            "train-slstm-rnn-b32-t50-f64-u128-bidirectional-merge_none-backward_layer",
        ),
        (
            {"depth": 2, "static_timesteps": False, "static_batch": False, "time_major": True},
            "train-slstm-rnn-b32-t50-f64-u128-depth2-any_timesteps-any_batch-time_major",
        ),
    ],
)
def test_id(options, id):
    assert replace(PLAIN, **options).id == id


def test_every_field_but_the_device_changes_the_id():
    assert set(CHANGES) == {field.name for field in fields(Case)} - {"device"}
    ids = {changed(PLAIN, name)[0].id for name in CHANGES}
    assert len(ids | {PLAIN.id}) == len(CHANGES) + 1
    assert replace(PLAIN, device="gpu").id == PLAIN.id


@settings(max_examples=60, deadline=None)
@given(CASES, CASES)
def test_distinct_cases_have_distinct_ids(first, second):
    assert (first.id == second.id) == (first == second)


@settings(max_examples=60, deadline=None)
@given(CASES, st.sampled_from(sorted(CHANGES)))
def test_neighbours_have_distinct_ids(case, name):
    try:
        neighbour, case = changed(replace(case, merge_mode=None), name)
    except CaseError:  # the change needs another option
        reject()
    assert (case.id == neighbour.id) == (case == neighbour)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_ids_are_safe_and_readable(case):
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", case.id)
    mode, cell, layer, *shape = case.id.split("-")[:7]
    assert (mode, cell, layer) == (case.mode, case.cell, case.layer)
    assert shape == [f"b{case.batch_size}", f"t{case.timesteps}", f"f{case.features}", f"u{case.units}"]
    assert case.subject == f"{cell}-{layer}"


@settings(max_examples=300, deadline=None)
@given(CASES, st.sampled_from(DEVICES))
def test_a_case_comes_back_from_its_id(case, device):
    case = replace(case, device=device)
    assert Case.from_id(case.id, device) == case


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_an_id_comes_apart_into_what_it_was_made_of(case):
    parts = id_parts(case.id)
    assert (parts.mode, parts.subject, parts.options) == (case.mode, case.subject, case.options)
    assert parts.shape == (case.batch_size, case.timesteps, case.features, case.units)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("abtfu0123456789._- xl")) | st.text())
def test_any_other_text_is_refused_with_a_message(text):
    try:
        assert Case.from_id(text).id == text
    except CaseError as error:
        assert repr(text) in str(error)


PLAIN_ID = "train-slstm-rnn-b32-t50-f64-u128"


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("", "cell is missing; an id is mode-cell-layer-b…-t…-f…-u… and its options"),
        ("train-slstm-rnn-b32-t50", "features is missing"),
        ("train-slstm-rnn-b32-t50-f64-128", "units '128': must be 'u' and a positive integer"),
        ("train-slstm-rnn-t50-b32-f64-u128", "batch_size 't50': must be 'b' and a positive integer"),
        ("train-slstm-rnn-b32-t0-f64-u128", "timesteps 't0': must be 't' and a positive integer"),
        ("train-slstm-rnn-b32-t٣-f64-u128", "timesteps 't٣': must be 't' and a positive integer"),
        ("predict-slstm-rnn-b32-t50-f64-u128", "mode 'predict': must be one of infer, train, fit, generate"),
        (
            "train-s lstm-rnn-b32-t50-f64-u128",
            "cell 's lstm': must be a name of letters, digits",
        ),
        ("train--rnn-b32-t50-f64-u128", "cell '': must be a name"),
        (f"{PLAIN_ID}-unrol", "no option 'unrol'; there are unroll"),
        (f"{PLAIN_ID}-", "no option ''; there are float32"),
        (f"{PLAIN_ID}-impl", "no option 'impl'; there are impl…"),
        (f"{PLAIN_ID}-impl3", "implementation 3: must be one of 1, 2"),
        (f"{PLAIN_ID}-impl2", "option 'impl2': is the default, which an id leaves out"),
        (f"{PLAIN_ID}-float32", "option 'float32': is the default, which an id leaves out"),
        (f"{PLAIN_ID}-unroll-unroll", "option 'unroll': unroll is True already"),
        (f"{PLAIN_ID}-mask_left-mask_right", "option 'mask_right': masked is 'left' already"),
        (f"{PLAIN_ID}-dropout1.5", "dropout 1.5: must be a float from 0.0"),
        (f"{PLAIN_ID}-dropout0.50", f"this case is written {PLAIN_ID}-dropout0.5"),
        (f"{PLAIN_ID}-depth02", f"this case is written {PLAIN_ID}-depth2"),
        (f"{PLAIN_ID}-xla-unroll", f"this case is written {PLAIN_ID}-unroll-xla"),
        (f"{PLAIN_ID}-merge_sum", "merge_mode 'sum': needs bidirectional, which is False"),
        (f"{PLAIN_ID}-bidirectional-merge_some", "merge_mode 'some': must be one of None, concat"),
        (f"train-slstm-rnn-b{'9' * 5000}-t50-f64-u128", "batch_size 'b999"),
    ],
)
def test_an_id_that_is_none_says_which_part_is_wrong(id, message):
    with pytest.raises(CaseError) as refused:
        Case.from_id(id)
    assert str(refused.value).startswith(f"{id!r}: {message}")


def test_every_option_of_a_case_has_a_word_in_the_order_of_its_fields():
    named = [field.name for field in fields(Case) if field.name in options.FIELDS]
    assert list(options.FIELDS) == named
    assert {*named} == {field.name for field in fields(Case)[7:]} - {"device"}


@pytest.mark.parametrize("name", sorted(set(CHANGES) & set(options.FIELDS)))
def test_a_word_has_a_group_and_a_text_in_python(name):
    word = options.write(name, CHANGES[name])
    assert options.read(word) == (name, CHANGES[name])
    group, text = options.describe(word)
    assert group in options.GROUPS and text and "{" not in text


@pytest.mark.parametrize("word", ["", "x", "impl", "depth", "act_", "dropout", "dropout-1", "XLA"])
def test_a_word_that_no_id_has_is_refused(word):
    for function in (options.read, options.describe):
        with pytest.raises(UnknownOption):
            function(word)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("mode", "predict", ("infer", "train")),
        ("dtype", "float23", DTYPES),
        ("implementation", 3, ("1", "2")),
        ("implementation", True, ("1", "2")),  # equal to 1, but another id
        ("implementation", 2.0, ("1", "2")),
        ("device", "tpu", DEVICES),
        ("unroll", 1, ("False", "True")),
        ("stateful", None, ("False", "True")),
        ("jit_compile", "auto", ("False", "True")),
        ("return_sequences", 0, ("False", "True")),
        ("go_backwards", "no", ("False", "True")),
        ("use_bias", 1, ("None", "False", "True")),
        ("reset_after", "after", ("None", "False", "True")),
        ("batch_size", 0, ("positive integer",)),
        ("timesteps", -1, ("positive integer",)),
        ("features", True, ("positive integer",)),
        ("units", 128.0, ("positive integer",)),
        ("units", "128", ("positive integer",)),
        ("cell", "my-cell", ("letters, digits, '_' and '.'",)),
        ("cell", "", ("letters, digits, '_' and '.'",)),
        ("cell", None, ("letters, digits, '_' and '.'",)),
        ("layer", "rnn=2", ("letters, digits, '_' and '.'",)),
        ("layer", "rnn\n", ("letters, digits, '_' and '.'",)),
        ("activation", "hard-tanh", ("letters, digits, '_' and '.'",)),
        ("activation", len, ("letters, digits, '_' and '.'",)),
        ("use_cudnn", True, ("None", "auto", "True", "False")),
        ("masked", "middle", MASKS),
        ("dropout", 1.0, ("from 0.0",)),
        ("dropout", -0.1, ("from 0.0",)),
        ("dropout", float("nan"), ("from 0.0",)),
        ("recurrent_dropout", 0, ("from 0.0",)),
        ("recurrent_dropout", "half", ("from 0.0",)),
        ("bidirectional", None, ("False", "True")),
        ("depth", 0, ("positive integer",)),
        ("static_batch", "no", ("False", "True")),
    ],
)
def test_refusal_names_field_value_and_allowed(name, value, allowed):
    with pytest.raises(CaseError) as refused:
        replace(PLAIN, **{name: value})
    message = str(refused.value)
    assert message.startswith(f"{name} {value!r}: ")
    for each in allowed:
        assert each in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"merge_mode": "sum"}, "merge_mode 'sum': needs bidirectional, which is False"),
        ({"backward_layer": True}, "backward_layer True: needs bidirectional, which is False"),
        ({"zero_output_for_mask": True}, "zero_output_for_mask True: needs masked, which is None"),
        (
            {"zero_output_for_mask": True, "masked": "left", "return_sequences": False},
            "zero_output_for_mask True: needs return_sequences, which is False",
        ),
        (
            {"bidirectional": True, "go_backwards": True},
            "go_backwards True: a bidirectional layer goes both ways",
        ),
        (
            {"bidirectional": True, "merge_mode": "none", "depth": 2},
            "merge_mode 'none': its two outputs cannot be stacked; depth must be 1",
        ),
    ],
)
def test_an_option_that_means_nothing_beside_the_others_is_refused(fields, message):
    with pytest.raises(CaseError) as refused:
        replace(PLAIN, **fields)
    assert str(refused.value) == message
