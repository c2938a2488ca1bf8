"""A whole layer is proven against itself, run eagerly in float64, before it is timed."""

import pytest

import bench
from bench.cases.subjects import UnsupportedOption
from bench.proof.problem import WrongAnswer
from bench.tests import whole_layers


def compare(layer, mode="train", **given):
    return bench.compare(
        layer, "lstm", shape=(3, 4, 4, 5), mode=mode, seconds=0.02, contract=False, layer=True, **given
    )


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (whole_layers.stacked, {}),
        (whole_layers.functional, {}),
        (whole_layers.Layer, {"dtype": "mixed_bfloat16"}),
        (whole_layers.Layer, {"jit_compile": True}),
    ],
)
def test_outputs_and_gradients_are_proven(layer, options):
    report = compare(layer, options=options)
    assert (report.name, report.proof) == (layer.__name__, "consistent")
    assert report.ratio > 0 and report.error <= report.tolerance


@pytest.mark.parametrize(
    ("layer", "mode", "words"),
    [
        (whole_layers.OtherInAGraph, "infer", "the outputs: differ from the reference"),
        (whole_layers.WrongGradient, "train", "the gradient of "),
    ],
)
def test_a_wrong_answer_has_no_ratio(layer, mode, words):
    with pytest.raises(WrongAnswer, match=words):
        compare(layer, mode)


def test_what_draws_in_training_cannot_be_proven_there():
    assert compare(whole_layers.dropping, "infer").ratio > 0
    with pytest.raises(UnsupportedOption, match="draws random numbers in training"):
        compare(whole_layers.dropping)


def test_an_option_that_a_whole_layer_does_not_have_is_said():
    with pytest.raises(UnsupportedOption, match="stacked has no option bidirectional"):
        compare(whole_layers.stacked, options={"bidirectional": True})
