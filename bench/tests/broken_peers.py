"""Peers' processes in which one thing is translated wrongly; the proof must refuse each. Light to import."""

from bench.processes.peers import PeerData, layout
from bench.processes.peers.server import Programs


class Broken(Programs):
    """As `Programs`, with one of `FAULTS`."""

    def __init__(self, peer: str, fault: str):
        super().__init__(peer)
        FAULTS[fault](self._peer)


def _gates_in_keras_order(module):
    layout.TORCH, layout.ONNX = layout.KERAS, layout.KERAS


def _biases_gradients_exchanged(module):
    right = module.from_torch

    def wrong(cell, arrays):
        kernel, recurrent_kernel, bias = right(cell, arrays)
        return [kernel, recurrent_kernel, bias[::-1]]

    module.from_torch = wrong


def _states_exchanged(module):
    right = module.load

    def wrong(cell, mode, data):
        return right(
            cell, mode, PeerData(data.weights, data.inputs, data.initial_states[::-1], data.cotangents)
        )

    module.load = wrong


def _reset_before(module):
    module._OPERATORS["gru"] = ("GRU", {})


FAULTS = {
    "gates": _gates_in_keras_order,
    "gradients": _biases_gradients_exchanged,
    "states": _states_exchanged,
    "reset": _reset_before,
}
