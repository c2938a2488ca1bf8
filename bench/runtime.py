"""All that knows TensorFlow's run time: devices, compiling, synchronising, gradients, kernels.

The rest of `bench` sees `device`, `compile_program`, `Program` and `versions`; a second Keras backend is a
second file like this one.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from bench.case import Case
from bench.chatter import no_chatter

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with no_chatter():
    import keras
    import tensorflow as tf

    tf.config.list_physical_devices()

Arrays = list[np.ndarray]


class NoDevice(RuntimeError):
    """The device asked for is not there."""


class UnsupportedBackend(RuntimeError):
    """Keras runs on a backend that this project has no run time for."""


def check_backend() -> None:
    """Raises UnsupportedBackend unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise UnsupportedBackend(
            f"Keras runs on {keras.backend.backend()!r}; the only run time here is 'tensorflow'"
        )


def device(wanted: str) -> str:
    """Chooses `cpu` or `gpu` for `cpu`, `gpu` or `auto`, for the whole process.

    On `cpu` TensorFlow sees no GPU from here on. On `gpu` float32 is computed as float32: TensorFlow would
    round the operands of products to TF32, whose answers no float32 tolerance lets pass.

    Raises:
        NoDevice: there is no GPU to be had.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise NoDevice("--device gpu: TensorFlow sees no GPU on this machine; there is cpu")
    if gpus and wanted != "cpu":
        tf.config.experimental.enable_tensor_float_32_execution(False)
        return "gpu"
    tf.config.set_visible_devices([], "GPU")
    return "cpu"


def versions() -> dict[str, str]:
    """The versions of what computes."""
    return {"tensorflow": tf.__version__, "keras": keras.__version__, "numpy": np.__version__}


def build_information() -> dict[str, Any]:
    """How TensorFlow was built and set up, and the GPUs it sees."""
    build = dict(tf.sysconfig.get_build_info())
    return {
        "build": {key: str(value) for key, value in build.items()},
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "inter_op_threads": tf.config.threading.get_inter_op_parallelism_threads(),
        "tensor_float_32": tf.config.experimental.tensor_float_32_execution_enabled(),
        "gpus": [
            str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
            for gpu in tf.config.get_visible_devices("GPU")
        ],
    }


def gpu_name() -> str | None:
    """The model of the first GPU, or None."""
    return next(iter(build_information()["gpus"]), None)


@cache
def _wait_for_device() -> Callable[[], None]:
    """Waits until the devices have finished. On a CPU a function returns when it has finished."""
    if tf.config.get_visible_devices("GPU"):
        return tf.test.experimental.sync_devices
    return lambda: None


def sync_seconds() -> float:
    """The price of waiting for devices that have nothing to do: the median of 101 waits, seconds."""
    wait = _wait_for_device()
    times = []
    for _ in range(101):
        start = time.perf_counter()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[50]


@dataclass(frozen=True)
class Data:
    """What a program computes on, as NumPy arrays of the dtypes that the layer takes.

    Attributes:
        weights: the layer's weights, in the order of `layer.get_weights()`.
        inputs: [batch_size, timesteps, features].
        initial_states: every state, [batch_size, ...], flat.
        cotangents: for every output of the layer (the outputs, then the states, flat) what its gradient
            starts from; None for one that has no gradient, an integer state.
    """

    weights: Arrays
    inputs: np.ndarray
    initial_states: Arrays
    cotangents: list[np.ndarray | None]


@dataclass(frozen=True)
class Answer:
    """What a program computed, as NumPy arrays.

    Attributes:
        outputs: the layer's outputs, then its final states, flat.
        gradients: in `train`, by name: those of the trainable weights (by weight name), of `inputs`
            and of the initial states (`initial_state 0` …); empty in `infer`.
    """

    outputs: Arrays
    gradients: dict[str, np.ndarray]


@dataclass(frozen=True)
class Program:
    """A compiled case, ready to be timed.

    Attributes:
        run: computes it once and returns when the device has finished.
        answer: resets the states, computes it once, and returns what it computed.
        trace_count: how often it has been traced so far.
        trace_s, compile_s: seconds of tracing, and of the first call.
        graph_nodes: operations in the graph and its function library.
        kernel: `cudnn`, `block`, `while` or `unrolled`.
        xla: whether XLA compiles it, as a whole or the layer by itself.
    """

    run: Callable[[], Any]
    answer: Callable[[], Answer]
    trace_count: Callable[[], int]
    trace_s: float
    compile_s: float
    graph_nodes: int
    kernel: str
    xla: bool


def build_layer(layer, case: Case, seed: int) -> None:
    """Builds the layer for the case's shape, its weights drawn from `seed`."""
    keras.utils.set_random_seed(seed)
    layer.build((case.batch_size, case.timesteps, case.features))


def float_dtype(layer) -> np.dtype:
    """The dtype the layer computes in."""
    return tf.as_dtype(layer.compute_dtype).as_numpy_dtype


def initial_state_arrays(layer, batch_size: int) -> Arrays:
    """The states the layer starts from by itself, flat."""
    return [np.asarray(state) for state in keras.tree.flatten(layer.get_initial_state(batch_size))]


def differs_in_training(layer, case: Case) -> bool:
    """Whether one eager step of the cell has another answer in training, as dropout makes it."""
    if not layer.cell._call_has_training_arg:
        return False
    step = tf.ones((case.batch_size, case.features), layer.compute_dtype)
    answers = [
        [
            np.asarray(tensor)
            for tensor in keras.tree.flatten(layer.cell(step, _states(layer, case), training=training))
        ]
        for training in (False, True)
    ]
    return not all(np.array_equal(*pair) for pair in zip(*answers, strict=True))


def _states(layer, case: Case):
    return layer.get_initial_state(case.batch_size)


def output_shapes(layer, case: Case) -> list[tuple[tuple[int, ...], bool]]:
    """Of every output of the layer, flat: its shape, and whether it is of a floating dtype.

    Found by one eager step of the cell, which is much quicker than tracing the layer.
    """
    step = tf.zeros((case.batch_size, case.features), layer.compute_dtype)
    output, states = layer.cell(step, _states(layer, case))
    shape = tuple(output.shape)
    if case.return_sequences:
        shape = (shape[0], case.timesteps, *shape[1:])
    states = keras.tree.flatten(states)
    return [(shape, True)] + [(tuple(state.shape), state.dtype.is_floating) for state in states]


def compile_program(layer, case: Case, data: Data) -> Program:
    """Compiles the layer's `infer` or `train` function for the case and calls it once.

    `layer` is built. Its weights are set to `data.weights`, its states, where it keeps them, to
    `data.initial_states`.
    """
    layer.set_weights(data.weights)
    with tf.device(f"/{case.device}:0"):
        inputs = tf.constant(data.inputs)
        states = [tf.constant(state) for state in data.initial_states]
        cotangents = [None if c is None else tf.constant(c) for c in data.cotangents]
    reset = _state_reset(layer, states)
    function, arguments = _function(layer, case, inputs, states, cotangents)
    compiled = tf.function(function, jit_compile=case.jit_compile, autograph=False)
    wait = _wait_for_device()

    start = time.perf_counter()
    concrete = compiled.get_concrete_function(*arguments)
    traced = time.perf_counter()
    reset()
    compiled(*arguments)
    wait()
    called = time.perf_counter()

    def run():
        result = compiled(*arguments)
        wait()
        return result

    def answer():
        reset()
        outputs, gradients = run()
        return Answer(
            [np.asarray(output) for output in outputs],
            {name: np.asarray(gradient) for name, gradient in gradients.items()},
        )

    graph = concrete.graph.as_graph_def()
    nodes = list(_graph_nodes(graph))
    return Program(
        run,
        answer,
        compiled.experimental_get_tracing_count,
        traced - start,
        called - traced,
        len(nodes),
        _kernel(nodes),
        _uses_xla(concrete.function_def, *graph.library.function),
    )


def _state_reset(layer, states: Sequence[tf.Tensor]) -> Callable[[], None]:
    if not layer.stateful:
        return lambda: None
    variables = keras.tree.flatten(layer.states)

    def reset():
        for variable, state in zip(variables, states, strict=True):
            variable.assign(state)

    return reset


def _function(layer, case: Case, inputs, states, cotangents):
    """The function to compile, and its arguments: (outputs, gradients by name)."""

    def forward(inputs, states, training):
        given = {} if case.stateful else {"initial_state": keras.tree.pack_sequence_as(structure, states)}
        return keras.tree.flatten(layer(inputs, training=training, **given))

    structure = layer.get_initial_state(case.batch_size)

    def infer(inputs, states):
        return forward(inputs, states, training=False), {}

    def train(inputs, states, cotangents):
        names = zip(weight_names(layer), layer.weights, strict=True)
        weights = {name: weight.value for name, weight in names if weight.trainable}
        kept = [state.value for state in keras.tree.flatten(layer.states)] if case.stateful else states
        sources = {**weights, "inputs": inputs}
        sources |= {f"initial_state {i}": state for i, state in enumerate(kept) if state.dtype.is_floating}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = forward(inputs, states, training=True)
        pairs = [(output, c) for output, c in zip(outputs, cotangents, strict=True) if c is not None]
        gradients = tape.gradient(
            [output for output, _ in pairs],
            sources,
            output_gradients=[c for _, c in pairs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return outputs, gradients

    if case.mode == "infer":
        return infer, (inputs, states)
    return train, (inputs, states, cotangents)


def weight_names(layer) -> list[str]:
    """The names of the layer's weights in the order of `get_weights()`, as gradients are called.

    Weights of the same name are told apart by a number.
    """
    names: list[str] = []
    for weight in layer.weights:
        others = sum(name.split()[0] == weight.name for name in names)
        names.append(f"{weight.name} {others}" if others else weight.name)
    return names


def _graph_nodes(graph) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _kernel(nodes) -> str:
    """What runs the steps, by the operations in the graph."""
    operations = {node.op for node in nodes}
    if any(op.startswith("CudnnRNN") for op in operations):
        return "cudnn"
    if operations & {"BlockLSTM", "BlockLSTMV2", "GRUBlockCell", "LSTMBlockCell"}:
        return "block"
    return "while" if operations & {"While", "StatelessWhile"} else "unrolled"


def _uses_xla(*functions) -> bool:
    """Whether any of the functions must be compiled by XLA."""
    return any(function.attr["_XlaMustCompile"].b for function in functions)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def eager_recurrence(layer, case: Case) -> Callable[..., Any]:
    """A recurrence, f(weights, inputs, initial_states) -> (outputs, states), that calls the cell of the
    built float64 `layer` step by step, with no loop of Keras' or TensorFlow's and nothing compiled."""
    structure = layer.get_initial_state(case.batch_size)

    def recurrence(weights, inputs, initial_states):
        layer.set_weights(weights)
        states = keras.tree.pack_sequence_as(structure, [tf.constant(state) for state in initial_states])
        outputs = []
        for step in np.moveaxis(inputs, 1, 0):
            output, states = layer.cell(tf.constant(step), states)
            states = states if keras.tree.is_nested(states) else [states]
            outputs.append(output.numpy())
        return np.stack(outputs, axis=1), [np.asarray(state) for state in keras.tree.flatten(states)]

    return recurrence
