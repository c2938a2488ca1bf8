"""What a run writes of a case: a row that can be, and that no other value of an option agrees with."""

from dataclasses import fields
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.cases.case import _CHOICES, Case, CaseError
from bench.cases.subjects import SUBJECTS
from bench.records.plausible import impossible
from bench.records.schema import SHAPE, Value
from bench.runner.row import names_of
from bench.tests.sample_records import record

OK = record("slstm-rnn", "train")
_OPTIONS = {name: choices for name, choices in _CHOICES.items() if name not in ("mode", "device")} | {
    **dict.fromkeys(("dropout", "recurrent_dropout"), (0.0, 0.5, 0.1, 1e-05, 0.25)),
    "depth": (1, 2, 3, 20),
    "activation": (None, "softsign", "linear"),
}
_DEFAULTS = {field.name: field.default for field in fields(Case)}
_NEEDED: dict[str, dict[str, Any]] = {
    "zero_output_for_mask": {"masked": "right"},
    "merge_mode": {"bidirectional": True},
}
_NEEDED["backward_layer"] = _NEEDED["merge_mode"]


@st.composite
def cases(draw) -> Case:
    """A case with any options that may stand together."""
    options: dict[str, Any] = {}
    for name in draw(st.sets(st.sampled_from(sorted(_OPTIONS)), max_size=5)):
        options |= {**_NEEDED.get(name, {}), name: draw(st.sampled_from(_OPTIONS[name]))}
    cell, layer = draw(st.sampled_from(["lstm-builtin", "my_cell.2-rnn", "slstm-fused"])).split("-")
    sizes = draw(st.tuples(*[st.integers(1, 5000)] * 4))
    try:
        return Case(cell, layer, draw(st.sampled_from(_CHOICES["mode"])), *sizes, **options)
    except CaseError:
        return Case(cell, layer, "train", *sizes)


def written(case: Case) -> dict[str, Value]:
    """The record of a case, as a run names it."""
    return {**OK, **names_of("default", case, case, {case.subject: SUBJECTS["lstm-builtin"]}), "status": "ok"}


@settings(max_examples=150, deadline=None)
@given(cases())
def test_every_case_that_is_written_can_be(case):
    assert impossible(written(case)) is None


@settings(max_examples=150, deadline=None)
@given(cases(), st.data())
def test_a_column_that_its_cases_id_contradicts_is_refused(case, data):
    """But for those that another option may bring (a generating layer has no static timesteps, ...)."""
    row = written(case)
    brought = ("implementation", "merge_mode", "static_timesteps")
    name = data.draw(st.sampled_from([name for name in (*SHAPE, *_OPTIONS) if name not in brought]))
    choices = _OPTIONS.get(name, (1, 7, 9999))
    value = data.draw(st.sampled_from([choice for choice in choices if choice != row[name]]))
    assert impossible({**row, name: value}) is not None
