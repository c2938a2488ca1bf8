"""Whether XLA can compile a step and its gradient."""

import functools

import tensorflow as tf
from tensorflow.python.framework import kernels  # no public name

from cells.engines.scratch import scratch_graph
from cells.engines.tracing.nodes import TRACED_BATCH, dimensions, is_differentiable, replay
from cells.engines.tracing.rewrite import ELEMENTWISE, PRODUCTS

# What need not be looked up: it takes 20 ms each.
_KNOWN = frozenset(
    [
        *(ELEMENTWISE - {"Lgamma", "Erfinv", "Rint", "Xlogy"}),
        *PRODUCTS,
        *("AddN", "BroadcastGradientArgs", "BroadcastTo", "ConcatOffset", "ConcatV2", "Const", "EluGrad"),
        *(
            "ExpandDims",
            "Fill",
            "Identity",
            "LogSoftmax",
            "Max",
            "Mean",
            "Min",
            "Pack",
            "Placeholder",
            "Prod",
        ),
        *("Range", "ReluGrad", "Reshape", "RsqrtGrad", "Shape", "ShapeN", "SigmoidGrad", "Slice", "Softmax"),
        *(
            "SoftplusGrad",
            "Split",
            "SplitV",
            "SqrtGrad",
            "Squeeze",
            "StridedSlice",
            "StridedSliceGrad",
            "Sum",
        ),
        *("TanhGrad", "Tile", "Transpose", "Unpack", "Cumsum", "Size", "InvertPermutation"),
    ]
)


def unsupported(step):
    """The sentence that says why XLA cannot compile a step; None where it can."""
    with scratch_graph("step") as graph:
        leaves = [step.inputs, *step.states, *(leaf for leaf, _ in step.weights)]
        leaves += [draw.ref for draw in step.draws]
        batch = step.batch or TRACED_BATCH
        known = {
            ref: tf.raw_ops.Placeholder(dtype=ref.dtype, shape=dimensions(ref.shape, batch)) for ref in leaves
        }
        sources = [tensor for ref, tensor in known.items() if ref.is_differentiable]
        results = replay([step.output, *step.new_states], known, batch)
        try:
            tf.gradients([each for each in results if is_differentiable(each.dtype)], sources)
        except LookupError as error:
            return f"its gradient is not known: {error}"
        for operation in graph.get_operations():
            if operation.type not in _KNOWN and not any(
                _takes(operation, each) for each in _kernels(operation.type)
            ):
                return f"XLA has no {operation.type} of {operation.outputs[0].dtype.name}"
    return None


def _takes(operation, kernel):
    """Whether a kernel is for an operation of those types."""
    return all(
        operation.get_attr(each.name).as_datatype_enum in each.allowed_values.list.type
        for each in kernel.constraint
        if isinstance(operation.get_attr(each.name), tf.DType)
    )


@functools.cache
def _kernels(kind):
    """XLA's kernels of a kind of operation."""
    _register()
    registered = kernels.get_registered_kernels_for_op(kind).kernel
    return [each for each in registered if each.device_type == "XLA_CPU_JIT"]


@functools.cache
def _register():
    """Makes XLA tell its kernels, as it does once it has compiled."""
    with tf.init_scope():
        tf.function(tf.abs, jit_compile=True, autograph=False)(tf.constant(1.0))
