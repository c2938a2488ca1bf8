"""Cases: their ids, and what cannot be a case."""

import re
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cases.case import DEVICES, DTYPES, MASKS, MERGE_MODES, MODES, TASK_MODES, Case, CaseError

PLAIN = Case("slstm", "rnn", "train", 32, 50, 64, 128)


def _together(case, masked, bidirectional):
    """The case with both groups of options; one that goes both ways does not go backwards."""
    ways = {**bidirectional, "go_backwards": False} if bidirectional else {}
    return replace(case, **masked, **ways)


NAMES = st.from_regex(r"[A-Za-z0-9_.]+", fullmatch=True)
SIZES = st.integers(1, 5000)
RATES = st.floats(0, 1, exclude_max=True)
MASKED: st.SearchStrategy[dict] = st.just({}) | st.fixed_dictionaries({"masked": st.sampled_from(MASKS)})
BIDIRECTIONAL: st.SearchStrategy[dict] = st.just({}) | st.fixed_dictionaries(
    {"bidirectional": st.just(True), "merge_mode": st.none() | st.sampled_from(MERGE_MODES[:-1])},
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
    neighbour, case = changed(case, name)
    assert (case.id == neighbour.id) == (case == neighbour)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_ids_are_safe_and_readable(case):
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", case.id)
    mode, cell, layer, *shape = case.id.split("-")[:7]
    assert (mode, cell, layer) == (case.mode, case.cell, case.layer)
    assert shape == [f"b{case.batch_size}", f"t{case.timesteps}", f"f{case.features}", f"u{case.units}"]
    assert case.subject == f"{cell}-{layer}"


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
