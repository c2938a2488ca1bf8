"""A cell's equation in C++: the "cell.h" of `cells/engines/native/recurrence.cc`."""

from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from cells.engines.recurrence import pull_back
from cells.engines.scratch import freed


class Unavailable(Exception):
    """An equation that has no C++ of it here; says why."""


# What a cell may compute with.
NUMBERS = (tf.float32, tf.float64)

# The C++ of TensorFlow's elementwise operations, by the operands {0}, {1}, ...
# Gradients multiply in the order of its kernels (cwise_ops_gradients.h, relu_op_functor.h, softplus_op.h), so
# that the same numbers give NaN.
_OPERATIONS = {
    "Abs": "absolute({0})",
    "Acos": "arc_cosine({0})",
    "Acosh": "area_cosine({0})",
    "Add": "{0} + {1}",
    "AddV2": "{0} + {1}",
    "Asin": "arc_sine({0})",
    "Asinh": "area_sine({0})",
    "Atan": "arc_tangent({0})",
    "Atanh": "area_tangent({0})",
    "Ceil": "round_up({0})",
    "Cos": "cosine({0})",
    "Cosh": "hyperbolic_cosine({0})",
    "DivNoNan": "select({1} == 0.0_n, all(0.0_n), {0} / {1})",
    "Elu": "select({0} < 0.0_n, exp({0}) - 1.0_n, {0})",
    "EluGrad": "select({1} < 0.0_n, {0} * ({1} + 1.0_n), {0})",
    "Equal": "{0} == {1}",
    "Erf": "erf({0})",
    "Erfc": "erfc({0})",
    "Exp": "exp({0})",
    "Expm1": "expm1({0})",
    "Floor": "round_down({0})",
    "FloorDiv": "round_down({0} / {1})",
    "FloorMod": "rest_of_division({0}, {1})",
    "Greater": "{0} > {1}",
    "GreaterEqual": "{0} >= {1}",
    "Identity": "{0}",
    "Inv": "1.0_n / {0}",
    "InvGrad": "product_or_zero(-({0} * {0}), {1})",
    "IsFinite": "absolute({0}) < all(__builtin_inff())",
    "IsInf": "absolute({0}) == all(__builtin_inff())",
    "IsNan": "{0} != {0}",
    "Less": "{0} < {1}",
    "LessEqual": "{0} <= {1}",
    "Log": "logarithm({0})",
    "Log1p": "log1p({0})",
    "LogicalAnd": "{0} & {1}",
    "LogicalNot": "~{0}",
    "LogicalOr": "{0} | {1}",
    "Maximum": "maximum({0}, {1})",
    "Minimum": "minimum({0}, {1})",
    "Mul": "{0} * {1}",
    "Neg": "-{0}",
    "NotEqual": "{0} != {1}",
    "OnesLike": "all(1.0_n)",
    "Pow": "power({0}, {1})",
    "RealDiv": "{0} / {1}",
    "Reciprocal": "1.0_n / {0}",
    "ReciprocalGrad": "product_or_zero(-({0} * {0}), {1})",
    "Relu": "maximum({0}, all(0.0_n))",
    "Relu6": "minimum(maximum({0}, all(0.0_n)), all(6.0_n))",
    "Relu6Grad": "{0} * select(({1} > 0.0_n) & ({1} < 6.0_n), all(1.0_n), all(0.0_n))",
    "ReluGrad": "{0} * select({1} > 0.0_n, all(1.0_n), all(0.0_n))",
    "Rint": "round_to_even({0})",
    "Round": "round_to_even({0})",
    "Rsqrt": "1.0_n / square_root({0})",
    "RsqrtGrad": "product_or_zero(-0.5_n * ({0} * {0}), product_or_zero({0}, {1}))",
    "Select": "select({0}, {1}, {2})",
    "SelectV2": "select({0}, {1}, {2})",
    "Selu": "select({0} < 0.0_n, 1.7580993408473768_n * (exp({0}) - 1.0_n), 1.0507009873554805_n * {0})",
    "SeluGrad": "{0} * select({1} < 0.0_n, {1} + 1.7580993408473768_n, all(1.0507009873554805_n))",
    "Sigmoid": "sigmoid({0})",
    "SigmoidGrad": "{1} * ({0} * (1.0_n - {0}))",
    "Sign": "sign({0})",
    "Sin": "sine({0})",
    "Sinh": "hyperbolic_sine({0})",
    "Softplus": "softplus({0})",
    "SoftplusGrad": "{0} / (exp(-{1}) + 1.0_n)",
    "Softsign": "{0} / (1.0_n + absolute({0}))",
    "SoftsignGrad": "{0} / ((1.0_n + absolute({1})) * (1.0_n + absolute({1})))",
    "Sqrt": "square_root({0})",
    "SqrtGrad": "product_or_zero(0.5_n / {0}, {1})",
    "Square": "{0} * {0}",
    "SquaredDifference": "({0} - {1}) * ({0} - {1})",
    "StopGradient": "{0}",
    "Sub": "{0} - {1}",
    "Tan": "tangent({0})",
    "Tanh": "tanh({0})",
    "TanhGrad": "{1} * (1.0_n - rounded({0} * {0}))",
    "Xdivy": "select({0} == 0.0_n, {0}, {0} / {1})",
    "ZerosLike": "all(0.0_n)",
}
_CASTS = {
    **dict.fromkeys(((tf.bool, dtype) for dtype in NUMBERS), "select({0}, all(1.0_n), all(0.0_n))"),
    **dict.fromkeys(((tf.int32, dtype) for dtype in NUMBERS), "__builtin_convertvector({0}, Vector)"),
    (tf.bool, tf.int32): "{0} & 1",
}


def header_of(recurrence):
    """The "cell.h" of a recurrence, for `recurrence.cc`.

    Raises:
        Unavailable: the cell's equation has an operation that is not known here.
    """
    states = recurrence.states
    names = {"z": recurrence.blocks, "s": states, "v": recurrence.vectors, "u": states, "w": 1}
    with _trace(recurrence, names) as (tensors, results):
        return _header_of(recurrence, names, tensors, results)


def _header_of(recurrence, names, tensors, results):
    states, vectors, carried = recurrence.states, recurrence.vectors, recurrence.carried
    known = {tensor.name: f"{name}[{n}]" for name, each in tensors.items() for n, tensor in enumerate(each)}
    new, of_update, late_input, of_late_input = results
    inputs = "const Vector* z, const Vector* s, const Vector* v"
    results_of = "Vector* of_z, Vector* of_s, Vector* of_v"
    all_of = [f"of_{name}[{n}]" for name in "zsv" for n in range(names[name])]
    constants = {
        "GATES": recurrence.gates,
        "SEPARATE": recurrence.separate,
        "LATE": recurrence.late if recurrence.recurrent else 0,
        "STATES": states,
        "VECTORS": vectors,
        "OUTPUT": recurrence.output,
        "OWN_OUTPUT": int(recurrence.own_output),
        "RECURRENT": int(recurrence.recurrent),
    }
    both = [
        *("recurrent", "mask: bool", "drops"),
        *(f"vector{n}" for n in range(vectors)),
        *(f"initial{n}" for n in range(carried)),
    ]
    lists = {
        "FORWARD": [
            *("inputs", "kernel", "bias", "separate_bias", *both),
            *("->", "outputs", "products", "apart"),
            *(f"kept{n}" for n in range(states)),
            *(f"final{n}" for n in range(states)),
        ],
        "BACKWARD": [
            *("products", "apart", *both, "inputs", "kernel"),
            *(f"kept{n}" for n in range(carried)),
            "of_outputs",
            *(f"of_final{n}" for n in range(states)),
            *("->", "of_products", "of_inputs", "multiplied", "waited"),
            *("of_kernel", "of_recurrent", "of_bias", "of_separate_bias"),
            *(f"of_vector{n}" for n in range(vectors)),
            *(f"of_initial{n}" for n in range(carried)),
        ],
    }
    return "\n".join(
        [
            *(f"constexpr int {name} = {value};" for name, value in constants.items()),
            *(signature(name, each, recurrence.dtype) for name, each in lists.items()),
            f"inline void update({inputs}, Vector* new_) {{",
            *_statements(new, [f"new_[{n}]" for n in range(states)], known),
            "}",
            f"inline void late_input({inputs}, Vector* result) {{",
            *_statements(late_input, ["result[0]"], known),
            "}",
            f"inline void pull_back_update({inputs}, const Vector* u, {results_of}) {{",
            *_statements(tf.nest.flatten(of_update), all_of, known),
            "}",
            f"inline void pull_back_late_input({inputs}, const Vector* w, {results_of}) {{",
            *_statements(tf.nest.flatten(of_late_input), all_of, known),
            "}",
            "",
        ]
    )


@contextmanager
def _trace(recurrence, counts):
    """The graph of a step: its inputs by name; new states, their gradients, the late input, its gradients.

    The graph lasts as long as the context.

    Gradients are those of blocks, states and vectors. Without late gates the first state is the late input.
    """

    @tf.function(autograph=False)
    def step(arrays):
        of_step, (of_input,) = [arrays[name] for name in "zsv"], arrays["w"]
        update = lambda variables: recurrence.step(*variables)  # noqa: E731
        late_input = lambda variables: [  # noqa: E731
            recurrence.wait(*variables) if recurrence.late else variables[1][0]
        ]
        both = (update, arrays["u"]), (late_input, [of_input])
        return [
            result
            for function, of in both
            for result in (function(of_step), pull_back(function, of_step, of))
        ]

    any_size = tf.TensorSpec([5], recurrence.dtype)  # known: no operation is needed to make shapes meet
    arrays = {name: [any_size] * count for name, count in counts.items()}
    try:
        graph = step.get_concrete_function(arrays).graph
    except Exception as error:
        raise Unavailable(f"its equation cannot be traced: {error}") from error
    with freed(graph):
        given = graph.inputs[: sum(counts.values())]  # and what it captures
        yield tf.nest.pack_sequence_as(arrays, given), graph.structured_outputs


def signature(name, operands, dtype):
    """The C++ of what an operation takes and, after "->", gives: of the dtype where no type is told."""
    number = {"float32": "float", "float64": "double"}[dtype]
    typed = (each if ":" in each or each == "->" else f"{each}: {number}" for each in operands)
    quoted = ", ".join(f'"{each}"' for each in typed)
    return f"const char* const {name}[] = {{{quoted}, nullptr}};"


def _statements(tensors, names, known):
    """The lines of C++ that assign tensors of a graph to names; `known` maps what is given to its C++."""
    known = dict(known)  # and what is computed on the way
    lines = []

    def expression(tensor):
        if tensor.name not in known:
            code = _code(tensor, expression)
            known[tensor.name] = f"t{len(known)}"
            lines.append(f"  auto {known[tensor.name]} = rounded({code});")
        return known[tensor.name]

    results = [expression(tensor) for tensor in tensors]
    return [*lines, *(f"  {name} = {result};" for name, result in zip(names, results, strict=True))]


def _code(tensor, expression):
    """A tensor's C++, with `expression` for the tensors it is made of."""
    operation = tensor.op
    inputs = list(operation.inputs)
    if operation.type == "Const":
        value = np.unique(tf.make_ndarray(operation.get_attr("value")))
        if len(value) != 1:
            raise Unavailable("it has a constant of several values")
        return constant(float(value[0]))
    if operation.type == "IdentityN":
        return expression(inputs[tensor.value_index])
    if operation.type == "Fill":
        return expression(inputs[1])
    if operation.type in ("Reshape", "BroadcastTo") and inputs[0].shape == tensor.shape:
        return expression(inputs[0])
    return template_of(operation).format(*map(expression, inputs))


def template_of(operation):
    """The C++ of an elementwise operation of TensorFlow, by the operands {0}, {1}, ...

    Raises:
        Unavailable: it is not known here.
    """
    kind = operation.type
    if kind == "AddN":
        return " + ".join(f"{{{n}}}" for n in range(len(operation.inputs)))
    if kind == "LeakyRelu":
        return f"select({{0}} > 0.0_n, {{0}}, {{0}} * {constant(operation.get_attr('alpha'))})"
    if kind == "LeakyReluGrad":
        return f"select({{1}} > 0.0_n, {{0}}, {{0}} * {constant(operation.get_attr('alpha'))})"
    if kind == "Cast":
        source, target = operation.inputs[0].dtype, operation.outputs[0].dtype
        if source == target:
            return "{0}"
        if (source, target) in _CASTS:
            return _CASTS[source, target]
        raise Unavailable(f"its equation casts {source.name} to {target.name}")
    if kind not in _OPERATIONS:
        raise Unavailable(f"its equation has the operation {kind}")
    return _OPERATIONS[kind]


def constant(value):
    """The C++ of a number in every lane."""
    return f"all({number(value)})"


def number(value):
    """The C++ of a number of the cell's dtype."""
    if np.isfinite(value):
        return f"{value!r}_n"
    return '__builtin_nanf("")' if np.isnan(value) else f"{'-' if value < 0 else ''}__builtin_inff()"
