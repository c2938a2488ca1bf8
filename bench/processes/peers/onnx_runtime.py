"""ONNX Runtime: the operators LSTM, GRU and RNN, in a graph written here; inference only."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.processes.peers import Arrays, Loaded, PeerData
from bench.processes.peers.layout import to_onnx

# linear_before_reset is Keras' `reset_after`
_OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "simple_rnn": ("RNN", {}),
}
# old enough for every ONNX Runtime of the last years, new enough for the operators
_OPSET, _IR_VERSION = 14, 8
_THREADS = Path("/proc/self/task")


def environment() -> dict[str, Any]:
    """The versions, and the threads that a session starts by default; None where they cannot be counted."""
    return {
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "intra_op_threads": _session_threads(),
    }


def load(cell: str, mode: str, data: PeerData) -> Loaded:
    """A session with the weights given, its inputs and states bound; see `bench.processes.peers`.

    Raises:
        ValueError: another mode than `infer`.
    """
    if mode != "infer":
        raise ValueError(f"mode {mode!r}: ONNX Runtime infers only")
    start = time.perf_counter()
    graph = _graph(cell, data)
    session = _session(graph)
    binding = _bound(session, graph, [data.inputs, *data.initial_states])

    def run():
        session.run_with_iobinding(binding)

    def answer() -> tuple[Arrays, Arrays]:
        run()
        outputs, *states = binding.copy_outputs_to_cpu()
        return [outputs, *(state[0] for state in states)], []

    run()
    called = time.perf_counter()
    facts = {"compile_s": called - start, "graph_nodes": len(graph.node), "kernel": _kernel(graph)}
    return Loaded(run, answer, facts)


def _graph(cell: str, data: PeerData):
    """inputs, states -> outputs, states: the operator, which ONNX Runtime has time-major only, and what
    makes it batch-major."""
    operator, settings = _OPERATORS[cell]
    batch_size, timesteps, features = data.inputs.shape
    units = data.weights[1].shape[0]
    constants = dict(zip(("W", "R", "B"), to_onnx(cell, data.weights), strict=True))
    kept = ["h", "c"][: len(data.initial_states)]
    state_inputs, state_outputs = [f"initial_{name}" for name in kept], [f"final_{name}" for name in kept]

    def tensor(name, *shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    return helper.make_graph(
        [
            helper.make_node("Transpose", ["inputs"], ["by_time"], perm=(1, 0, 2)),
            helper.make_node(
                operator,
                ["by_time", *constants, "", *state_inputs],
                ["directions", *state_outputs],
                hidden_size=units,
                **settings,
            ),
            helper.make_node("Squeeze", ["directions", "axes"], ["steps"]),
            helper.make_node("Transpose", ["steps"], ["outputs"], perm=(1, 0, 2)),
        ],
        cell,
        [tensor("inputs", batch_size, timesteps, features)]
        + [tensor(name, 1, batch_size, units) for name in state_inputs],
        [tensor("outputs", batch_size, timesteps, units)]
        + [tensor(name, 1, batch_size, units) for name in state_outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()]
        + [helper.make_tensor("axes", TensorProto.INT64, (1,), (1,))],
    )


def _kernel(graph) -> str | None:
    """The operator that runs the steps in the graph that ONNX Runtime makes of this one."""
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder, "optimized.onnx"))
        _session(graph, options)
        made = onnx.load(options.optimized_model_filepath).graph
    has_state = [each for each in made.node if len(each.output) > 1]  # the last output, too
    return has_state[0].op_type.lower() if has_state else None


def _session(graph, options=None):
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _bound(session, graph, arrays: Arrays):
    """The arrays as inputs where they are; the outputs wherever the session puts them, without a copy."""
    binding = session.io_binding()
    first, *states = arrays
    for value, array in zip(graph.input, [first, *(state[None] for state in states)], strict=True):
        binding.bind_ortvalue_input(value.name, onnxruntime.OrtValue.ortvalue_from_numpy(array))
    for value in graph.output:
        binding.bind_output(value.name, "cpu")
    return binding


def _session_threads() -> int | None:
    """The number of threads that compute: those that a session starts, and the one that calls it."""
    if not _THREADS.exists():
        return None
    tensor = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1,))
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1,))
    before = len(list(_THREADS.iterdir()))
    session = _session(
        helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "threads", [tensor], [result])
    )
    threads = len(list(_THREADS.iterdir())) - before + 1
    del session
    return threads
