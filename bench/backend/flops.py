"""Floating point operations, counted in a graph of TensorFlow's: of what computes some tensors, each once.

A multiply-add of a product is two, an element of any other arithmetic is one, whatever the function: a tanh
like a sum. Moving data is none. TensorFlow itself is not needed to count.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_ELEMENTWISE = {
    *("Abs", "Acos", "Acosh", "Add", "AddV2", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "BiasAdd"),
    *("Cos", "Cosh", "Digamma", "Div", "DivNoNan", "Elu", "EluGrad", "Erf", "Erfc", "Exp", "Expm1"),
    *("FloorDiv", "FloorMod", "Inv", "LeakyRelu", "LeakyReluGrad", "Lgamma", "Log", "Log1p", "Maximum"),
    *("Minimum", "Mod", "Mul", "MulNoNan", "Neg", "Pow", "RealDiv", "Reciprocal", "ReciprocalGrad"),
    *("Relu", "Relu6", "Relu6Grad", "ReluGrad", "Rsqrt", "RsqrtGrad", "Selu", "SeluGrad", "Sigmoid"),
    *("SigmoidGrad", "Sin", "Sinh", "Softmax", "Softplus", "SoftplusGrad", "Softsign", "SoftsignGrad"),
    *("Sqrt", "SqrtGrad", "Square", "SquaredDifference", "Sub", "Tan", "Tanh", "TanhGrad", "TruncateDiv"),
    *("Xdivy", "Xlogy"),
}
_REDUCTIONS = {"BiasAddGrad", "EuclideanNorm", "L2Loss", "Max", "Mean", "Min", "Prod", "Sum"}
_PRODUCTS = {
    "MatMul": "transpose_a",
    "BatchMatMul": "adj_x",
    "BatchMatMulV2": "adj_x",
    "BatchMatMulV3": "adj_x",
}
# what holds other operations, which are not looked into
_CLOSED = (
    "Call",
    "While",
    "If",
    "Case",
    "Scan",
    "Conv",
    "FusedBatchNorm",
    "CudnnRNN",
    "BlockLSTM",
    "GRUBlock",
)


class Uncountable(ValueError):
    """The graph holds an operation whose cost is not known, or a size that is not."""


@dataclass(frozen=True)
class Flops:
    """Floating point operations: those of the products, and the rest."""

    products: int = 0
    elementwise: int = 0

    @property
    def total(self) -> int:
        return self.products + self.elementwise

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.products + other.products, self.elementwise + other.elementwise)


def count(tensors: Iterable) -> Flops:
    """The operations that the tensors of a graph depend on.

    Raises:
        Uncountable: naming the operation.
    """
    return sum((_of(operation) for operation in _reached(tensors)), Flops())


def _reached(tensors: Iterable) -> Iterator:
    waiting, seen = [tensor.op for tensor in tensors], set()
    while waiting:
        operation = waiting.pop()
        if operation.name in seen:
            continue
        seen.add(operation.name)
        yield operation
        waiting += [tensor.op for tensor in operation.inputs]


def _of(operation) -> Flops:
    kind = operation.type
    if kind in _PRODUCTS:
        depth = _shape(operation.inputs[0])[-2 if operation.get_attr(_PRODUCTS[kind]) else -1]
        return Flops(products=2 * depth * _size(operation.outputs[0]))
    if kind == "Einsum":
        return Flops(products=_einsum(operation))
    if any(word in kind for word in _CLOSED):
        raise Uncountable(f"what {operation.name} ({kind}) computes is not known")
    if not operation.outputs or not operation.outputs[0].dtype.is_floating:
        return Flops()
    if kind in _ELEMENTWISE:
        return Flops(elementwise=_size(operation.outputs[0]))
    if kind == "AddN":
        return Flops(elementwise=(len(operation.inputs) - 1) * _size(operation.outputs[0]))
    return Flops(elementwise=_size(operation.inputs[0])) if kind in _REDUCTIONS else Flops()


def _einsum(operation) -> int:
    """Two for each combination of all letters, where two tensors are multiplied."""
    if len(operation.inputs) != 2:
        raise Uncountable(f"{operation.name} is an Einsum of {len(operation.inputs)} tensors")
    operands = operation.get_attr("equation").decode().partition("->")[0].split(",")
    if any("." in letters for letters in operands):
        raise Uncountable(f"{operation.name} is an Einsum with an ellipsis")
    sizes: dict[str, int] = {}
    for letters, tensor in zip(operands, operation.inputs, strict=True):
        sizes.update(zip(letters, _shape(tensor), strict=True))
    return 2 * math.prod(sizes.values())


def _size(tensor) -> int:
    return math.prod(_shape(tensor))


def _shape(tensor) -> list[int]:
    if not tensor.shape.is_fully_defined():
        raise Uncountable(f"the shape of {tensor.name} is {tensor.shape}")
    return tensor.shape.as_list()
