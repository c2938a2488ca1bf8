"""The lighter contract of a whole layer or model."""

import keras
import pytest

import bench
from bench.contract.checks import LAYER_CHECKS
from bench.tests import whole_layers


@pytest.mark.parametrize(
    "layer", [whole_layers.stacked, whole_layers.functional, whole_layers.Layer, keras.layers.GRU]
)
def test_a_right_layer_holds_it(layer):
    report = bench.check(layer, layer=True)
    assert report.ok, report
    assert [result.status for result in report.checks] == ["ok"] * len(LAYER_CHECKS)


@pytest.mark.parametrize(
    ("layer", "failed", "words"),
    [
        (whole_layers.cell, "is_layer", "a cell, which runs one step; change: check it as a cell"),
        (lambda units: 3, "is_layer", "seen int"),
        (whole_layers.one_length, "any_length", "change: take the number of timesteps from the inputs"),
        (whole_layers.Stateful, "answers_the_same", "keep nothing from call to call"),
        (whole_layers.Mixing, "any_batch", "change: leave the first axis alone"),
        (whole_layers.Eager, "in_a_graph", "change: keep Python `if`, float()"),
        (whole_layers.Forgetful, "saves_and_loads", "change: let get_config return every argument"),
        (whole_layers.OtherInAGraph, "in_a_graph", "the same answer in a graph"),
    ],
)
def test_a_wrong_layer_is_told_what_to_change(layer, failed, words):
    report = bench.check(layer, layer=True)
    found = {result.name: result.text for result in report.failed}
    assert failed in found, report
    assert words in found[failed]
