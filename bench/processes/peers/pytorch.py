"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`, as its users run them: eagerly, batch first, on a GPU by cuDNN."""

import time
from collections.abc import Callable
from typing import Any

import torch

from bench.cases.subjects import UnsupportedOption
from bench.processes.peers import Arrays, Loaded, PeerData
from bench.processes.peers.layout import from_torch, to_torch

Run = Callable[[], Any]  # computes once

_MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple_rnn": torch.nn.RNN}


def environment() -> dict[str, Any]:
    """PyTorch's version and threads."""
    return {
        "torch": torch.__version__,
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
    }


def load(cell: str, mode: str, data: PeerData, device: str = "cpu", tf32: bool = False) -> Loaded:
    """The module with the weights given, its inputs and states on the device; see `bench.processes.peers`.

    Raises:
        UnsupportedOption: a GPU is asked for, and this PyTorch has none.
    """
    if device == "gpu" and not torch.cuda.is_available():
        raise UnsupportedOption(f"PyTorch {torch.__version__} sees no GPU")
    with torch.device("cuda" if device == "gpu" else "cpu"):
        return _load(cell, mode, data, _on_gpu(tf32) if device == "gpu" else _at_once)


def _load(cell: str, mode: str, data: PeerData, awaited: Callable[[Run], Run]) -> Loaded:
    module = _module(cell, data)
    inputs = torch.tensor(data.inputs)
    states = [torch.tensor(state)[None] for state in data.initial_states]
    forward = _forward(module, inputs, states)
    run = awaited(
        _infer(forward) if mode == "infer" else _train(forward, module, inputs, states, data.cotangents)
    )

    def answer() -> tuple[Arrays, Arrays]:
        (outputs, *final), gradients = run()
        answered = [outputs, *(state[0] for state in final)]
        if not gradients:
            return _arrays(answered), []
        *weights, of_inputs = gradients[:5]
        others = [of_inputs, *(of_state[0] for of_state in gradients[5:])]
        return _arrays(answered), [*from_torch(cell, _arrays(weights)), *_arrays(others)]

    start = time.perf_counter()
    run()
    facts = {"compile_s": time.perf_counter() - start, "kernel": _kernel(run)}
    return Loaded(run, answer, facts)


def _at_once(run: Run) -> Run:
    return run


def _on_gpu(tf32: bool) -> Callable[[Run], Run]:
    """run -> the same, to the end of what the GPU does; its products are rounded to TF32 or not."""

    def awaited(run: Run) -> Run:
        def run_to_the_end():
            torch.backends.cudnn.allow_tf32 = tf32
            answered = run()
            torch.cuda.synchronize()
            return answered

        return run_to_the_end

    return awaited


def _module(cell: str, data: PeerData):
    features, units = data.weights[0].shape[0], data.weights[1].shape[0]
    module = _MODULES[cell](features, units, batch_first=True)
    with torch.no_grad():
        for parameter, weight in zip(module.parameters(), to_torch(cell, data.weights), strict=True):
            parameter.copy_(torch.tensor(weight))
    return module


def _forward(module, inputs, states):
    """() -> the outputs and the final states."""
    given = tuple(states) if len(states) > 1 else states[0]

    def forward():
        outputs, final = module(inputs, given)
        return [outputs, *(final if isinstance(final, tuple) else [final])]

    return forward


def _infer(forward):
    def run():
        with torch.inference_mode():
            return forward(), []

    return run


def _train(forward, module, inputs, states, cotangents: Arrays):
    sources = [*module.parameters(), inputs.requires_grad_(), *(state.requires_grad_() for state in states)]
    first, *rest = (torch.tensor(cotangent) for cotangent in cotangents)
    starts = [first, *(cotangent[None] for cotangent in rest)]

    def run():
        outputs = forward()
        return outputs, torch.autograd.grad(outputs, sources, starts)

    return run


def _arrays(tensors) -> Arrays:
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def _kernel(run) -> str:
    """`cudnn`, `mkldnn` where cuDNN or oneDNN runs all the steps at once, else `aten`, PyTorch's loop."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    called = [event.key for event in profile.key_averages()]
    return next((name for name in ("cudnn", "mkldnn") if any(f"{name}_rnn" in key for key in called)), "aten")
