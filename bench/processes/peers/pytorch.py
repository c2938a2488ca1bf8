"""PyTorch: `nn.LSTM`, `nn.GRU`, `nn.RNN`, as its users run them: eagerly, batch first."""

import time
from typing import Any

import torch

from bench.processes.peers import Arrays, Loaded, PeerData
from bench.processes.peers.layout import from_torch, to_torch

_MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "simple_rnn": torch.nn.RNN}


def environment() -> dict[str, Any]:
    """PyTorch's version and threads."""
    return {
        "torch": torch.__version__,
        "intra_op_threads": torch.get_num_threads(),
        "inter_op_threads": torch.get_num_interop_threads(),
    }


def load(cell: str, mode: str, data: PeerData) -> Loaded:
    """The module with the weights given, its inputs and states on the CPU; see `bench.processes.peers`."""
    module = _module(cell, data)
    inputs = torch.tensor(data.inputs)
    states = [torch.tensor(state)[None] for state in data.initial_states]
    forward = _forward(module, inputs, states)
    run = _infer(forward) if mode == "infer" else _train(forward, module, inputs, states, data.cotangents)

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
    return [tensor.detach().numpy() for tensor in tensors]


def _kernel(run) -> str:
    """`mkldnn` where oneDNN runs all the steps at once, else `aten`, PyTorch's own loop."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return "mkldnn" if any("mkldnn_rnn" in event.key for event in profile.key_averages()) else "aten"
