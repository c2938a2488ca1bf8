"""The programs: a layer compiled for a case, ready to be proven and timed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from typing import Any

import numpy as np

from bench.backend import kernels
from bench.backend.data import Answer, Data
from bench.backend.devices import wait_for_device
from bench.backend.dropout_masks import reset_seeds
from bench.backend.layers import sizes, weight_names
from bench.backend.libraries import keras, tf
from bench.cases.case import Case
from bench.cases.layers.stack import initial_state_of
from bench.timing.blocks import time_call

_NAMING = Lock()


class TracedAgain(RuntimeError):
    """A program was traced again where it should not be."""


@dataclass(frozen=True)
class Program:
    """A compiled case, ready to be timed.

    Attributes:
        run: computes it once and returns when the device has finished.
        answer: resets the states and the seeds, computes it once, and returns what it computed.
        time: runs it once, through `time_call`; the seconds.
        queue: runs it that many times and waits for the device once, at the end; the seconds of all.
        trace_count: how often it has been traced so far.
        trace_s, compile_s: seconds of tracing, and of the first call.
        graph_nodes: operations in the graph and its function library.
        kernel: `cudnn`, `block`, `while` or `unrolled`; a peer's has a name of its own.
        xla: whether XLA compiles it, as a whole or the layer by itself.
        fallback: why a faster kernel does not run, of `kernels.fallback_of`.
        peak_bytes: how far its making and first call raised the memory of a process of its own; else None.
        again: another instance, which may run at another speed: a copy of the same graph, compiled anew, its
            weights and inputs elsewhere in memory. What compiles to the same program each time is not
            compiled again. None where that cannot be done.
        again_s: about the seconds that it takes.
    """

    run: Callable[[], Any]
    answer: Callable[[], Answer]
    time: Callable[[], float]
    queue: Callable[[int], float]
    trace_count: Callable[[], int]
    trace_s: float
    compile_s: float
    graph_nodes: int
    kernel: str
    xla: bool
    fallback: str | None = None
    peak_bytes: int | None = None
    again: Callable[[], "Program"] | None = None
    again_s: float = 0.0


def compile_program(layer, case: Case, data: Data) -> Program:
    """Compiles the layer's `infer` or `train` function for the case and calls it once.

    `layer` is built. Its weights are set to `data.weights`, its states, where it keeps them, to
    `data.initial_states`. Where the case leaves a size open, it is called at another size too.

    Raises:
        NoDevice: the case demands the cuDNN kernel, and there is no GPU.
        KernelMissed: the case demands the cuDNN kernel, and another runs.
        TracedAgain: another size than the first was traced anew, though it was left open.
    """
    kernels.check_kernel_possible(layer, case)
    layer.set_weights(data.weights)
    with tf.device(f"/{case.device}:0"):
        inputs = tf.constant(given_inputs(case, data))
        states = [tf.constant(state) for state in data.initial_states]
        cotangents = [None if c is None else tf.constant(c) for c in _given_cotangents(case, data)]
        mask = None if data.mask is None else tf.constant(data.mask)
    reset = _reset(layer, states)
    function, arguments = _function(layer, case, inputs, states, mask, cotangents)
    traced = _Traced.of(function, arguments, case)
    facts: dict[str, Any] = {}  # filled in when the first program is there, for the others
    program = partial(_program, case=case, data=data, reset=reset, wait=wait_for_device(), facts=facts)

    def again() -> Program:
        """Another instance; its size and its kernel are those of the first time."""
        weights = {id(weight.value.handle): _copy_of(weight.value) for weight in layer.trainable_variables}
        elsewhere = tf.nest.map_structure(_moved, arguments)
        if case.compiles_alike:
            return program(traced.reading(weights), elsewhere)
        return program(_Traced.of(_copied(traced.concrete, weights), elsewhere, case), elsewhere)

    first = program(traced, arguments)
    graph = traced.concrete.graph.as_graph_def()
    nodes = list(kernels.graph_nodes(graph))
    kernel = kernels.kernel_of(nodes)
    facts |= {
        "graph_nodes": len(nodes),
        "kernel": kernel,
        "xla": kernels.uses_xla(traced.concrete.function_def, *graph.library.function),
        "fallback": kernels.fallback_of(layer, case, kernel),
        "again": again,
        # to copy weights, inputs and the graph takes little beside compiling it; what is not compiled is
        # called twice, the second time for its answer
        "again_s": 2 * first.time() if case.compiles_alike else first.compile_s,
    }
    return replace(first, **facts)


@dataclass(frozen=True)
class _Traced:
    """A traced function.

    Attributes:
        compiled: calls the concrete function of a call's arguments, which is always the same here.
        captured: what the concrete function reads beside its arguments.
        seconds: of tracing.
        keeps: the variables among it that nothing else keeps.
    """

    compiled: Any
    concrete: Any
    captured: Sequence[tf.Tensor]
    seconds: float
    keeps: Any = None

    @staticmethod
    def of(function, arguments, case: Case) -> "_Traced":
        compiled = tf.function(function, jit_compile=case.jit_compile, autograph=False)
        start = time.perf_counter()
        concrete = compiled.get_concrete_function(*_signature(case, arguments))
        return _Traced(compiled, concrete, concrete.captured_inputs, time.perf_counter() - start)

    def reading(self, variables: Mapping[int, tf.Variable]) -> "_Traced":
        """The same, which reads these variables instead, by the `id` of the handles that it captured."""
        captured = _read_instead(self.captured, variables)
        return replace(self, captured=captured, keeps=variables)

    def __call__(self, *arguments):
        # instances may share the concrete function, in one thread; this takes 50 ns
        self.concrete.set_external_captures(self.captured)
        return self.compiled(*arguments)


def _program(traced: _Traced, arguments, case: Case, data: Data, reset, wait, facts: Mapping[str, Any]):
    """The program of a traced function, compiled and called once.

    Args:
        reset: sets the layer's states and seeds to what they were.
        wait: waits for the device.
        facts: the other fields of the program, where they are known.
    """
    reset()
    start = time.perf_counter()
    traced(*arguments)
    wait()
    compile_s = time.perf_counter() - start
    _call_at_another_size(traced, case, arguments)

    def run():
        result = traced(*arguments)
        wait()
        return result

    def run_queue(count):
        for _ in range(count):
            traced(*arguments)
        wait()

    def answer():
        reset()
        outputs, gradients = run()
        return _as_usual(
            case,
            data,
            Answer(
                [np.asarray(output) for output in outputs],
                {name: np.asarray(gradient) for name, gradient in gradients.items()},
            ),
        )

    return Program(
        run,
        answer,
        partial(time_call, run),
        lambda count: time_call(partial(run_queue, count)),
        traced.compiled.experimental_get_tracing_count,
        traced.seconds,
        compile_s,
        **{"graph_nodes": 0, "kernel": "", "xla": False, **facts},
    )


def _copy_of(variable) -> tf.Variable:
    """Another variable of the same value, in memory of its own."""
    with tf.device(variable.device):
        return tf.Variable(variable.numpy(), dtype=variable.dtype)


def _moved(tensor: tf.Tensor | None) -> tf.Tensor | None:
    """The tensor in memory of its own; `tf.identity` would share it."""
    if tensor is None:
        return None
    with tf.device(tensor.device):
        return tf.constant(tensor.numpy(), tensor.dtype)


def _copied(concrete, variables: Mapping[int, tf.Variable]) -> Callable[..., Any]:
    """A function that computes what the concrete one does, by a copy of its graph under other names.

    TensorFlow optimises, compiles and schedules a function of its own: what a trace draws, a copy draws anew.
    Python's part of a trace gives the same graph each time, and is half of the seconds that one takes.

    Args:
        variables: those that it reads instead, by the `id` of the handle that the concrete one captured.
            Where weights lie decides how well a cache holds them: on a Xeon with 2 MiB of it a core an LSTM
            of 256 units inferred up to 5% slower or faster, for as long as its weights stayed there.
    """
    graph = concrete.graph
    with _NAMING:  # of copies that are compiled at once
        prefix = graph.unique_name("copy")
    nodes = graph.as_graph_def()
    results = [tensor.name for tensor in graph.outputs]
    placeholders = {tensor.op.name for tensor in graph.inputs}  # XLA refuses those that nothing feeds
    kept = [node for node in nodes.node if node.name not in placeholders]
    del nodes.node[:]
    nodes.node.extend(kept)

    def copy(*arguments):
        given = [each for each in tf.nest.flatten(arguments) if each is not None]
        read = _read_instead(concrete.captured_inputs, variables)
        captured = map(tf.compat.v1.get_default_graph().capture, read)
        fed = zip(graph.inputs, [*given, *captured], strict=True)
        found = tf.graph_util.import_graph_def(
            nodes,
            input_map={parameter.name: tensor for parameter, tensor in fed if parameter.consumers()},
            return_elements=results,
            name=prefix,
        )
        return tf.nest.pack_sequence_as(concrete.structured_outputs, found)

    return copy


def _read_instead(captured: Sequence[tf.Tensor], variables: Mapping[int, tf.Variable]) -> list[tf.Tensor]:
    """What a function captured, with the handles of these variables where their `id` is a handle's."""
    return [variables[id(each)].handle if id(each) in variables else each for each in captured]


def given_inputs(case: Case, data: Data) -> np.ndarray:
    """The inputs as the program takes them: time-major or multiplied by the kernel where the case says so."""
    inputs = data.inputs
    if not case.input_product:
        inputs = (inputs.astype(float) @ data.weights[0].astype(float)).astype(inputs.dtype)
    return inputs.swapaxes(0, 1) if case.time_major else inputs


def _given_cotangents(case: Case, data: Data) -> list[np.ndarray | None]:
    """The cotangents as the program takes them: that of the outputs time-major where the case says so."""
    outputs, *states = data.cotangents
    if case.time_major and outputs is not None:
        outputs = outputs.swapaxes(0, 1)
    return [outputs, *states]


def _as_usual(case: Case, data: Data, answer: Answer) -> Answer:
    """The answer of a program that took such inputs, as one has it that takes `data.inputs`."""
    (outputs, *states), gradients = answer.outputs, dict(answer.gradients)
    if case.time_major:
        outputs = outputs.swapaxes(0, 1)
        gradients |= {"inputs": gradients["inputs"].swapaxes(0, 1)} if gradients else {}
    if not case.input_product and gradients:
        of_products, kernel = gradients["inputs"].astype(float), data.weights[0].astype(float)
        gradients["inputs"] = of_products @ kernel.T
        gradients["kernel"] = np.tensordot(data.inputs.astype(float), of_products, ([0, 1], [0, 1]))
    return Answer([outputs, *states], gradients)


def _reset(layer, states: Sequence[tf.Tensor]) -> Callable[[], None]:
    variables = keras.tree.flatten(layer.states) if layer.stateful else []
    states = states if layer.stateful else []

    def reset():
        reset_seeds(layer)
        for variable, state in zip(variables, states, strict=True):
            variable.assign(state)

    return reset


def _function(layer, case: Case, inputs, states, mask, cotangents):
    """The function to compile, and its arguments: (outputs, gradients by name)."""

    def forward(inputs, states, mask, training):
        given = {} if case.stateful else {"initial_state": keras.tree.pack_sequence_as(structure, states)}
        if mask is not None:
            given["mask"] = mask
        return keras.tree.flatten(layer(inputs, training=training, **given))

    structure = initial_state_of(layer, case.batch_size)

    def infer(inputs, states, mask):
        return forward(inputs, states, mask, training=False), {}

    def train(inputs, states, mask, cotangents):
        names = zip(weight_names(layer), layer.weights, strict=True)
        weights = {name: weight.value for name, weight in names if weight.trainable}
        kept = [state.value for state in keras.tree.flatten(layer.states)] if case.stateful else states
        sources = {**weights, "inputs": inputs}
        sources |= {f"initial_state {i}": state for i, state in enumerate(kept) if state.dtype.is_floating}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = forward(inputs, states, mask, training=True)
        pairs = [(output, c) for output, c in zip(outputs, cotangents, strict=True) if c is not None]
        gradients = tape.gradient(
            [output for output, _ in pairs],
            sources,
            output_gradients=[c for _, c in pairs],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return outputs, gradients

    if case.mode == "infer":
        return infer, (inputs, states, mask)
    return train, (inputs, states, mask, cotangents)


def _signature(case: Case, arguments):
    """The arguments as they are traced: themselves, or with the sizes that are left open."""
    if case.static_batch and case.static_timesteps:
        return arguments
    batch_size, timesteps = sizes(case)

    def spec(tensor, has_steps):
        shape = [batch_size, timesteps, *tensor.shape[2:]] if has_steps else [batch_size, *tensor.shape[1:]]
        return tf.TensorSpec(shape, tensor.dtype)

    return _changed(case, arguments, spec)


def _changed(case: Case, arguments, change: Callable[[tf.Tensor, bool], Any]):
    """The arguments of a program, each tensor through `change(tensor, whether it has an axis of steps)`."""
    inputs, states, mask, *cotangents = arguments
    changed = (
        change(inputs, True),
        [change(state, False) for state in states],
        None if mask is None else change(mask, True),
    )
    if not cotangents:
        return changed
    outputs = len(cotangents[0]) - len(states)
    return *changed, [
        None if cotangent is None else change(cotangent, case.return_sequences and number < outputs)
        for number, cotangent in enumerate(cotangents[0])
    ]


def _call_at_another_size(traced: _Traced, case: Case, arguments) -> None:
    """One step more where the timesteps are left open, one sequence more where the batch size is."""

    def larger(tensor, has_steps):
        if has_steps and not case.static_timesteps:
            tensor = tf.concat([tensor, tensor[:, :1]], axis=1)
        return tensor if case.static_batch else tf.concat([tensor, tensor[:1]], axis=0)

    if case.static_batch and case.static_timesteps:
        return
    trace_count = traced.compiled.experimental_get_tracing_count
    traces = trace_count()
    traced(*_changed(case, arguments, larger))
    if trace_count() != traces:
        raise TracedAgain("another size was traced anew, though it was left open")
