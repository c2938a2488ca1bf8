"""The kernels: which one runs a graph's steps, and why cuDNN's does not."""

from collections.abc import Iterator
from typing import Any

from bench.backend.devices import NoDevice
from bench.backend.libraries import keras
from bench.cases import cudnn
from bench.cases.case import Case
from bench.cases.layers.stack import loops_of
from bench.records.text import one_line


class KernelMissed(RuntimeError):
    """The cuDNN kernel was demanded, and another one runs or would run; the message says why."""


def graph_nodes(graph) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def kernel_of(nodes) -> str:
    """Names what runs the steps, by the operations in the graph."""
    operations = {node.op for node in nodes}
    if any(op.startswith("CudnnRNN") for op in operations):
        return "cudnn"
    if operations & {"BlockLSTM", "BlockLSTMV2", "GRUBlockCell", "LSTMBlockCell"}:
        return "block"
    if any(op.startswith("FusedRNN") for op in operations):
        return "native"
    return "while" if operations & {"While", "StatelessWhile"} else "unrolled"


def uses_xla(*functions) -> bool:
    """True where any of the functions must be compiled by XLA."""
    return any(function.attr["_XlaMustCompile"].b for function in functions)


def check_kernel_possible(layer, case: Case) -> None:
    """Raises NoDevice or KernelMissed where the cuDNN kernel is demanded and cannot run."""
    if case.use_cudnn != "True":
        return
    if case.device != "gpu":
        raise NoDevice("use_cudnn=True: the cuDNN kernel runs on a GPU only")
    missed = missed_requirements(layer, case)
    if missed:
        raise KernelMissed(f"use_cudnn=True: the cuDNN kernel cannot run, for {', '.join(missed)}")


def missed_requirements(layer, case: Case) -> list[str]:
    """Says why the cuDNN kernel cannot run the layer's loops, those that have it."""
    loops = [loop for loop in loops_of(layer) if hasattr(loop, "use_cudnn")]
    own = [loop for loop in loops if loop.recurrent_activation is not keras.activations.sigmoid]
    return [*cudnn.missed(case), *(["recurrent_activation"] if own else [])] if loops else []


def fallback_of(layer, case: Case, kernel: str) -> str | None:
    """Says why a faster kernel does not run: names the requirements of the cuDNN kernel that a layer missed
    that asked for it, by `use_cudnn`, or, on a GPU, by itself; of `FusedRNN`, why its native engine does not.

    Raises:
        KernelMissed: it was demanded.
    """
    if kernel != "native" and case.device == "cpu" and not case.jit_compile:  # where it might run
        loops = [loop for loop in loops_of(layer) if hasattr(loop, "why_no_faster")]
        reasons = dict.fromkeys(loop.why_no_faster() for loop in loops)
        if any(reasons):
            return one_line("; ".join(filter(None, reasons)))
    able = any(hasattr(loop, "use_cudnn") for loop in loops_of(layer))
    asked = case.use_cudnn == "auto" or (case.use_cudnn is None and case.device == "gpu")
    if kernel == "cudnn" or not able:
        return None
    if case.use_cudnn == "True":
        raise KernelMissed(f"use_cudnn=True: the kernel is {kernel!r}")
    if not asked:
        return None
    missed = missed_requirements(layer, case)
    return ", ".join(missed) or ("unknown" if layer.compute_dtype in ("float16", "float32") else "dtype")


def zeroes_masked_outputs(layer, case: Case) -> bool:
    """True where masked steps give zeros without being asked to: the cuDNN kernel does so."""
    able = any(getattr(loop, "use_cudnn", False) for loop in loops_of(layer))
    return able and not missed_requirements(layer, case)
