"""The native engine of `cells.FusedRNN`: a cell's equation as a C++ program, compiled on the spot.

    forward, backward = native.programs(recurrence)  # `Unavailable` says why where they cannot be had

Two programs hold the loops: `recurrence.cc` that of a cell of gates, where one product and an elementwise
equation are a step; `stages.cc` that of any step of products, elementwise loops and reductions of rows.
`support.cc` has the matrix products and the threads of both, `operation.h` the call of an operation. What
differs from cell to cell is written in C++, operation by operation, from a TensorFlow graph and its gradient:
by `translation.py` for gates, by `cells/engines/tracing/stages.py` for stages. `library.py` has the machine's
compiler make a library of two TensorFlow operations, and keeps it in the user's cache folder for the next
time. What a new library computes, its gradients too, is compared with TensorFlow once (`check.py` for gates).

It takes float32 and float64 on a machine without a GPU. Where a cell's equation has an operation that is not
known here, where there is no compiler, under XLA and in a SavedModel, `cells/engines/xla.py` does the work.
"""

import os
from functools import partial

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util  # no public name
from tensorflow.python.saved_model import save_context  # no public name

from cells.engines.direct import Program
from cells.engines.native import check
from cells.engines.native.cores import usable_cores
from cells.engines.native.library import checked, operations
from cells.engines.native.translation import Unavailable, header_of

__all__ = ["NONE", "NO_MASK", "Unavailable", "compiled", "in_place", "programs", "threads"]

# What stands for an operand that there is not; not a tensor, which would cost as much as all else here.
NONE = {dtype: np.zeros(0, dtype) for dtype in ("float32", "float64")}
NO_MASK = np.zeros(0, bool)
# The loop back sums the gradients of so few weights, for so many sequences. On a busy machine that took 0.85
# to 1.03 times as long as products after it (LSTM, 16 units and 1 feature, batch 256 and 64); with 8192
# weights 1.2 times, with 8 sequences 1.05 to 1.3 times.
FEW_WEIGHTS, MANY_SEQUENCES = 2048, 64
LANES = 16  # numbers of a vector, at most


def programs(recurrence):
    """(forward, backward) of a recurrence, to be called as those of `cells.engines.xla`.

    Raises:
        Unavailable: they cannot be had; says why.
    """

    def programs_of(operations, recurrence):
        forward, backward = operations
        return partial(_forward, recurrence, forward), Program(
            partial(_backward, recurrence, backward), inline=True
        )

    trial = check.Trial(recurrence, programs_of)
    made = compiled("recurrence", lambda: header_of(recurrence), trial, recurrence.dtype)
    return programs_of(made, recurrence)


def compiled(source, write_header, trial, dtype="float32"):
    """(forward, backward): the TensorFlow operations that a source file makes of a "cell.h".

    Args:
        source: "recurrence" or "stages".
        write_header: () -> the text of "cell.h".
        trial: compares them with TensorFlow, once for a library, as `check.Trial` does.
        dtype: what they compute with, "float32" or "float64".

    Raises:
        Unavailable: they cannot be had; says why.
    """
    if tf.config.list_logical_devices("GPU"):  # those in use: one that is hidden is none
        raise Unavailable("it is for the CPU, and TensorFlow uses a GPU")
    header, bits = write_header(), tf.as_dtype(dtype).size * 8
    made = operations(header, source, bits, meanwhile=lambda: trial.expected)
    fault = checked(header, lambda: trial.fault(made))
    if fault:
        raise Unavailable(f"what was compiled computes {fault} otherwise than TensorFlow")
    return made


def in_place():
    """Whether the operations can be used where TensorFlow is tracing: not under XLA, nor for a SavedModel."""
    if save_context.in_save_context():
        return False
    return tf.executing_eagerly() or not control_flow_util.GraphOrParentsInXlaContext(
        tf.compat.v1.get_default_graph()
    )


def threads():
    """How many threads an operation takes: as many as TensorFlow is told, or one for each usable core."""
    by_environment = os.environ.get("TF_NUM_INTRAOP_THREADS", "")  # passed over where it is no number
    told = tf.config.threading.get_intra_op_parallelism_threads()
    told = told or (int(by_environment) if by_environment.isdecimal() else 0)
    return told or usable_cores()


def _forward(recurrence, operation, operands, constants, zero_masked, sequence, save):
    """As `xla._forward`: (outputs or None, final states, what the backward pass needs or None)."""
    width, none = recurrence.gates * recurrence.units, NONE[recurrence.dtype]
    results = operation(
        operands["inputs"],
        operands.get("kernel", none),
        operands["bias"] if "bias" in operands else np.zeros(width, recurrence.dtype),
        operands.get("separate_bias", none),
        *_of_both(operands, constants, none),
        save=save,
        sequence=sequence,
        zero_masked=zero_masked,
        threads=threads(),
    )
    states = recurrence.states
    outputs, *products = results[:3]
    kept, final = results[3 : 3 + states], results[3 + states :]
    batch, steps = operands["inputs"].shape[:2]
    for state in final:
        state.set_shape([batch, recurrence.units])
    if not sequence:
        outputs = None
    elif "mask" not in constants:
        outputs = kept[recurrence.output]  # none are to be zero
    if outputs is not None:
        outputs.set_shape([batch, steps, recurrence.units])
    return outputs, list(final), (products, kept[: recurrence.carried]) if save else None


def _backward(
    recurrence, operation, operands, constants, zero_masked, saved, outputs, states, sums_weights=None
):
    """As `cells.engines.xla._backward`: the gradients of the operands.

    Args:
        sums_weights: whether the loop sums those of the weights; None: where that is quicker.
    """
    products, kept = saved
    none = NONE[recurrence.dtype]
    if sums_weights is None:
        sums_weights = _sums_weights(recurrence, operands, constants)
    results = operation(
        *products,
        *_of_both(operands, constants, none),
        *([operands["inputs"], operands["kernel"]] if sums_weights else [none, none]),
        *kept,
        none if outputs is None else outputs,
        *states,
        zero_masked=zero_masked,
        sums_weights=sums_weights,
        threads=threads(),
    )
    of_products, of_inputs, multiplied, waited, of_kernel, of_recurrent, of_bias, of_separate_bias = results[
        :8
    ]
    gradients = {"vectors": list(results[8 : 8 + recurrence.vectors])}
    gradients["states"] = list(results[8 + recurrence.vectors :])
    if recurrence.separate:
        gradients["separate_bias"] = of_separate_bias
    if sums_weights:
        gradients |= {"inputs": of_inputs, "kernel": of_kernel, "bias": of_bias}
        return {**gradients, "recurrent": of_recurrent} if recurrence.recurrent else gradients
    if not recurrence.separate:
        of_inputs = of_products
    if recurrence.recurrent:
        drops = constants.get("drops")
        gradients["recurrent"] = _of_recurrent(recurrence, multiplied, waited, of_products, drops)
    width = recurrence.gates * recurrence.units
    if "kernel" not in operands:
        return {**gradients, "inputs": tf.reshape(of_inputs, tf.shape(operands["inputs"]))}
    rows = tf.reshape(of_inputs, [-1, width])
    inputs, kernel = operands["inputs"], operands["kernel"]
    if "mask" in constants:  # the gradient there is 0, and 0 times what is no number would be none
        inputs = tf.where(constants["mask"][:, :, None], inputs, 0)
    gradients["kernel"] = tf.matmul(tf.reshape(inputs, [-1, kernel.shape[0]]), rows, transpose_a=True)
    gradients["bias"] = of_bias
    gradients["inputs"] = tf.reshape(tf.matmul(rows, kernel, transpose_b=True), tf.shape(inputs))
    return gradients


def _sums_weights(recurrence, operands, constants):
    """Says if the loop back sums the gradients of the weights, as for an unknown number of sequences; else
    they are products after it."""
    batch = operands["inputs"].shape[0]
    if "kernel" not in operands or "drops" in constants or (batch is not None and batch < MANY_SEQUENCES):
        return False
    rows = operands["kernel"].shape[0] + recurrence.units * recurrence.recurrent
    columns = -(-recurrence.units // LANES) * LANES  # the loop works in whole vectors
    return rows * recurrence.gates * columns <= FEW_WEIGHTS


def _of_both(operands, constants, none):
    """What both operations take; an empty vector stands for what there is not."""
    return [
        operands.get("recurrent", none),
        constants.get("mask", NO_MASK),
        tf.stack(constants["drops"]) if "drops" in constants else none,
        *operands["vectors"],
        *operands["states"],
    ]


def _of_recurrent(recurrence, multiplied, waited, upstream, drops):
    """The gradient of the recurrent weights (units, gates * units), from what they multiplied."""
    units, together, late = recurrence.units, recurrence.together, recurrence.late
    if drops is None:
        lefts = [(multiplied, together), (waited, late)]
    else:
        lefts = [(left, 1) for left in [multiplied] * together + [waited] * late]
        lefts = [(left * drop[:, None], 1) for (left, _), drop in zip(lefts, drops, strict=True)]
    lefts = [(left, count) for left, count in lefts if count]
    columns = tf.split(
        tf.reshape(upstream, [-1, recurrence.gates * units]), [count * units for _, count in lefts], axis=1
    )
    products = [
        tf.matmul(tf.reshape(left, [-1, units]), right, transpose_a=True)
        for (left, _), right in zip(lefts, columns, strict=True)
    ]
    return tf.concat(products, axis=1)
