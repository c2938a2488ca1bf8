"""The dtype policies: the cell computes in the dtype that it is told to."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from bench.contract.advice import DTYPES
from bench.contract.cell_under_test import Cells, agree, dtype_policy, run, walk
from bench.contract.check import Refused, check


@check(DTYPES, needs=("set_weights",))
def float64(cells: Cells) -> str:
    """Does it compute in float64?"""
    return _computes_in(cells, policy="float64", dtype="float64", variables="float64")


def _computes_in(cells: Cells, policy: str, dtype: str, variables: str) -> str:
    float32 = cells.built()
    weights, expected = float32.get_weights(), run(float32, cells.inputs())
    with dtype_policy(policy):
        cell, inputs = cells.under(dtype), cells.inputs()
        _expect_dtype("the weights", cell.trainable_variables, variables)
        output, states = walk(cell, inputs)
        _expect_dtype("the output", [output], dtype)
        _expect_dtype("the states", tree.flatten(states), dtype)
        cell.set_weights(weights)
        seen = run(cell, inputs)
    tolerance = max(cells.tolerance(dtype), cells.tolerance("float32"))
    return agree(seen, expected, tolerance, f"under the policy {policy} the answer of float32, rounded")


def _expect_dtype(what: str, values: Sequence[Any], dtype: str) -> None:
    for value in values:
        seen = keras.backend.standardize_dtype(value.dtype)
        if keras.backend.is_float_dtype(seen) and seen != dtype:
            raise Refused(f"{what} to be {dtype}", seen)


@check(DTYPES, needs=("set_weights",))
def mixed_float16(cells: Cells) -> str:
    """Does it compute in float16, with float32 weights?"""
    return _computes_in(cells, policy="mixed_float16", dtype="float16", variables="float32")


@check(DTYPES, needs=("set_weights",))
def mixed_bfloat16(cells: Cells) -> str:
    """Does it compute in bfloat16, with float32 weights?"""
    return _computes_in(cells, policy="mixed_bfloat16", dtype="bfloat16", variables="float32")
