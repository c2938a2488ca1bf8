"""All that knows TensorFlow's run time: devices, compiling, synchronising, gradients, kernels.

The rest of `bench` sees `device`, `compile_program`, `Program` and `versions`; a second Keras backend is a
second file like this one.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from bench.backend.dropout_masks import DropoutMasks
from bench.backend.flops import Flops, Uncountable, count
from bench.backend.quiet import no_chatter
from bench.cases.case import Case
from bench.timing import memory
from bench.timing.blocks import time_call

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
with no_chatter():
    import keras
    import tensorflow as tf

    from bench.cases.layers.stack import cells_of, initial_state_of, loops_of

    tf.config.list_physical_devices()

Arrays = list[np.ndarray]
_TF32_CAPABILITY = (8, 0)  # the first GPUs that have it


class NoDevice(RuntimeError):
    """The device asked for is not there."""


class KernelMissed(RuntimeError):
    """The cuDNN kernel was demanded, and another one runs or would run; the message says why."""


class TracedAgain(RuntimeError):
    """A program was traced again where it should not be."""


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

    On `cpu` TensorFlow sees no GPU from here on.

    Raises:
        NoDevice: there is no GPU to be had.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise NoDevice("--device gpu: TensorFlow sees no GPU on this machine; there is cpu")
    if gpus and wanted != "cpu":
        for gpu in gpus:  # else this process takes all the memory, and a worker finds none
            tf.config.experimental.set_memory_growth(gpu, True)
        return "gpu"
    tf.config.set_visible_devices([], "GPU")
    return "cpu"


def tf32() -> bool:
    """Whether products of float32 are rounded to TF32, as this process is configured and its GPU can."""
    gpus = tf.config.get_visible_devices("GPU")
    able = any(
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= _TF32_CAPABILITY
        for gpu in gpus
    )
    switched_on = tf.config.experimental.tensor_float_32_execution_enabled()
    return able and switched_on and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def rounds_to_tf32(case: Case) -> bool:
    """Whether the case, as configured, is computed in TF32 where its dtype says float32."""
    return case.device == "gpu" and case.dtype == "float32" and tf32()


@contextmanager
def full_precision() -> Iterator[None]:
    """Within it, what is compiled and run computes float32 as float32, never in TF32.

    A program keeps what it was compiled with: cuDNN's descriptors and XLA's choices are made once.
    """
    configured = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(configured)


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


def gpu_facts() -> dict[str, Any]:
    """The GPU, the CUDA and cuDNN that TensorFlow was built with, and whether float32 products are rounded to
    TF32 in the proof and in the timing; empty without a GPU."""
    name = gpu_name()
    if name is None:
        return {}
    build = tf.sysconfig.get_build_info()
    return {
        "name": name,
        "cuda": build.get("cuda_version"),
        "cudnn": build.get("cudnn_version"),
        "tf32": {"proof": False, "timing": tf32()},
    }


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


def warm_up() -> None:
    """Computes something small, so that thread pools, allocators and kernels are there: the memory that a
    case takes after it is its own."""

    @partial(tf.function, autograph=False)
    def little(matrix):
        with tf.GradientTape() as tape:
            tape.watch(matrix)
            loop = tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, tf.tanh(x @ matrix)), (0, matrix))
        return tape.gradient(loop[1], matrix)

    little(tf.fill((256, 256), 0.01))
    _wait_for_device()()


def memory_mark(device: str) -> Callable[[], int | None]:
    """Begins to watch how far this process's memory rises.

    On a GPU that is what TensorFlow's allocator has handed out; on a CPU the resident size.

    Returns:
        () -> the rise of the high-water mark over the size at the beginning, bytes; None where the system
        does not tell it.
    """
    if device == "gpu":
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        return lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"] - before
    return memory.memory_mark()


def step_flops(layer, case: Case) -> Flops | None:
    """The floating point operations of one step of the layer's cells, from the graph of that step; in `train`
    of the step and of its gradients with respect to weights, inputs and states. None where a cell's cannot
    be counted.

    Dropout is left out, and so is the sum of the weights' gradients over the steps.
    """
    total = Flops()
    try:
        for loop in loops_of(layer):
            cells, initial = cells_of(loop), loop.get_initial_state(case.batch_size)
            for cell, states in zip(cells, initial if len(cells) > 1 else [initial], strict=True):
                total += count(_step_graph(cell, states, case).outputs)
                if not case.input_product:
                    total += Flops(-_input_product_flops(cell, case))
    except Uncountable:
        return None
    return total


def _step_graph(cell, states, case: Case):
    build_shape = (cell.get_build_config() or {}).get("input_shape") or (None, case.features)
    training = {"training": False} if cell._call_has_training_arg else {}

    def step(inputs, states):
        weights = [weight.value for weight in cell.trainable_weights]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            sources = [*weights, inputs, *(s for s in keras.tree.flatten(states) if s.dtype.is_floating)]
            tape.watch(sources if case.mode == "train" else [])
            outputs = keras.tree.flatten(cell(inputs, states, **training))
        if case.mode != "train":
            return outputs
        targets = [output for output in outputs if output.dtype.is_floating]
        return outputs, [g for g in tape.gradient(targets, sources) if g is not None]

    inputs = tf.TensorSpec((case.batch_size, build_shape[-1]), cell.compute_dtype)
    specs = keras.tree.map_structure(lambda state: tf.TensorSpec(state.shape, state.dtype), states)
    return tf.function(step, autograph=False).get_concrete_function(inputs, specs).graph


def _input_product_flops(cell, case: Case) -> int:
    forward = 2 * case.batch_size * math.prod(cell.kernel.shape)
    return 3 * forward if case.mode == "train" else forward


_PEAK_SIZES = {"cpu": 1024, "gpu": 8192}  # large enough for the rate not to grow any more
_PEAK_S = 0.2


@cache
def matmul_peak(dtype: str, device: str) -> float:
    """The most floating point operations a second that a product of square matrices reaches in this process:
    the better of TensorFlow and XLA. Measured once, in about a second.

    Args:
        dtype: that of the matrices.
    """
    size = _PEAK_SIZES[device]
    with tf.device(f"/{device}:0"):
        matrix = tf.cast(tf.fill((size, size), 1 / size), dtype)
    wait = _wait_for_device()
    times = []
    for jit_compile in (False, True):
        product = tf.function(lambda m: m @ m, jit_compile=jit_compile, autograph=False)

        def run(product=product):
            product(matrix)
            wait()

        run()
        mine = [time_call(run) for _ in range(2)]
        while sum(mine) < _PEAK_S:
            mine.append(time_call(run))
        times += mine
    return 2 * size**3 / min(times)


@dataclass(frozen=True)
class Data:
    """What a program computes on, as NumPy arrays of the dtypes that the layer takes.

    Attributes:
        weights: the layer's weights, in the order of `layer.get_weights()`.
        inputs: [batch_size, timesteps, features].
        initial_states: every state, [batch_size, ...], flat.
        cotangents: for every output of the layer (the outputs, then the states, flat) what its gradient
            starts from; None for one that has no gradient, an integer state.
        mask: [batch_size, timesteps], bool, true where a step counts; None where the layer gets no mask.
    """

    weights: Arrays
    inputs: np.ndarray
    initial_states: Arrays
    cotangents: list[np.ndarray | None]
    mask: np.ndarray | None = None


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
        answer: resets the states and the seeds, computes it once, and returns what it computed.
        time: runs it once, through `time_call`; the seconds.
        queue: runs it that many times and waits for the device once, at the end; the seconds of all.
        trace_count: how often it has been traced so far.
        trace_s, compile_s: seconds of tracing, and of the first call.
        graph_nodes: operations in the graph and its function library.
        kernel: `cudnn`, `block`, `while` or `unrolled`.
        xla: whether XLA compiles it, as a whole or the layer by itself.
        fallback: the requirements of the cuDNN kernel that it missed, where that was asked for.
        peak_bytes: how far its making and first call raised the memory of a process of its own; else None.
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


def build_layer(layer, case: Case, seed: int) -> None:
    """Builds the layer for the case's shape, its weights drawn from `seed`."""
    keras.utils.set_random_seed(seed)
    layer.build((*_sizes(case), case.features))


def _sizes(case: Case) -> tuple[int | None, int | None]:
    """The batch size and the timesteps, each None where it is left open."""
    return (
        case.batch_size if case.static_batch else None,
        case.timesteps if case.static_timesteps else None,
    )


def float_dtype(layer) -> np.dtype:
    """The dtype the layer computes in."""
    return tf.as_dtype(layer.compute_dtype).as_numpy_dtype


def initial_state_arrays(layer, batch_size: int) -> Arrays:
    """The states the layer starts from by itself, flat."""
    return [np.asarray(state) for state in keras.tree.flatten(initial_state_of(layer, batch_size))]


def cells_in(layer) -> list[list[tuple[Any, int]]]:
    """The cells of the layer, each with the number of its states: a list for each loop that runs some, one
    upon another; the loops from below, and at each level forward before backward."""
    loops = []
    for loop in loops_of(layer):
        cells, initial = cells_of(loop), loop.get_initial_state(1)
        states = initial if len(cells) > 1 else [initial]
        loops.append([(cell, len(keras.tree.flatten(of))) for cell, of in zip(cells, states, strict=True)])
    return loops


def lost_option(layer, case: Case) -> str | None:
    """An option that the case asks for and that got lost on the way to the layer's loops and cells, in words.

    Options that change the answer of the case's composition are not looked at: the proof finds these.
    """
    wanted = {name: getattr(case, name) for name in ("unroll", "stateful") if getattr(case, name)}
    of_cells: dict[str, Any] = {"use_bias": case.use_bias, "reset_after": case.reset_after}
    if case.implementation != Case.implementation:
        of_cells["implementation"] = case.implementation
    if case.activation is not None:
        of_cells["activation"] = keras.activations.get(case.activation)
    pairs = [(loop, wanted) for loop in loops_of(layer)]
    pairs += [(cell, of_cells) for loop, _ in pairs for cell in cells_of(loop)]
    for owner, options in pairs:
        for name, value in options.items():
            if value is not None and getattr(owner, name, None) != value:
                return f"{type(owner).__name__} has {name} {getattr(owner, name, None)}"
    return None


def drawn_masks(layer, case: Case) -> list[DropoutMasks]:
    """The dropout masks that the layer's cells draw for the first batch after their seeds were reset, those
    of each cell; empty where the case drops nothing, or a cell's masks cannot be read."""
    cells = [cell for loop in cells_in(layer) for cell, _ in loop]
    if case.mode == "infer" or not all(map(_shows_masks, cells)):
        return []

    def draw():
        masks = [
            (
                cell.get_dropout_mask(tf.ones((case.batch_size, cell.kernel.shape[0]), cell.compute_dtype)),
                cell.get_recurrent_dropout_mask(tf.ones((case.batch_size, case.units), cell.compute_dtype)),
            )
            for cell in cells
        ]
        for cell in cells:
            cell.reset_dropout_mask()
            cell.reset_recurrent_dropout_mask()
        return masks

    _reset_seeds(layer)
    drawn = tf.function(draw, jit_compile=case.jit_compile, autograph=False).get_concrete_function()()
    return [DropoutMasks(*keras.tree.map_structure(_float_array, pair)) for pair in drawn]


def _float_array(tensor: tf.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else np.asarray(tensor, float)


def _shows_masks(cell) -> bool:
    """Whether the cell drops something, and shows what: Keras' cells and ours do."""
    drops = getattr(cell, "dropout", 0) or getattr(cell, "recurrent_dropout", 0)
    return bool(drops) and hasattr(cell, "get_dropout_mask") and hasattr(cell, "kernel")


def _reset_seeds(layer) -> None:
    """Lets the layer draw its random numbers anew, each cell others."""
    states = [variable for variable in layer.variables if variable.name == "seed_generator_state"]
    for number, state in enumerate(states):
        state.assign([number + 1, 0])


def differs_in_training(layer, case: Case) -> bool:
    """Whether one eager step of the cell has another answer in training, as dropout makes it."""
    loop = next(loops_of(layer))
    if not loop.cell._call_has_training_arg:
        return False
    step = tf.ones((case.batch_size, case.features), layer.compute_dtype)
    states = keras.tree.map_structure(tf.ones_like, loop.get_initial_state(case.batch_size))
    answers = [
        [np.asarray(tensor) for tensor in keras.tree.flatten(loop.cell(step, states, training=training))]
        for training in (False, True)
    ]
    return not all(np.array_equal(*pair) for pair in zip(*answers, strict=True))


def compile_program(layer, case: Case, data: Data) -> Program:
    """Compiles the layer's `infer` or `train` function for the case and calls it once.

    `layer` is built. Its weights are set to `data.weights`, its states, where it keeps them, to
    `data.initial_states`. Where the case leaves a size open, it is called at another size too.

    Raises:
        NoDevice: the case demands the cuDNN kernel, and there is no GPU.
        KernelMissed: the case demands the cuDNN kernel, and another runs.
        TracedAgain: another size than the first was traced anew, though it was left open.
    """
    _check_kernel_possible(layer, case)
    layer.set_weights(data.weights)
    with tf.device(f"/{case.device}:0"):
        inputs = tf.constant(_given_inputs(case, data))
        states = [tf.constant(state) for state in data.initial_states]
        cotangents = [None if c is None else tf.constant(c) for c in _given_cotangents(case, data)]
        mask = None if data.mask is None else tf.constant(data.mask)
    reset = _reset(layer, states)
    function, arguments = _function(layer, case, inputs, states, mask, cotangents)
    compiled = tf.function(function, jit_compile=case.jit_compile, autograph=False)
    wait = _wait_for_device()

    start = time.perf_counter()
    concrete = compiled.get_concrete_function(*_signature(case, arguments))
    traced = time.perf_counter()
    reset()
    compiled(*arguments)
    wait()
    called = time.perf_counter()
    _call_at_another_size(compiled, case, arguments)

    def run():
        result = compiled(*arguments)
        wait()
        return result

    def run_queue(count):
        for _ in range(count):
            compiled(*arguments)
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

    graph = concrete.graph.as_graph_def()
    nodes = list(_graph_nodes(graph))
    kernel = _kernel(nodes)
    return Program(
        run,
        answer,
        partial(time_call, run),
        lambda count: time_call(partial(run_queue, count)),
        compiled.experimental_get_tracing_count,
        traced - start,
        called - traced,
        len(nodes),
        kernel,
        _uses_xla(concrete.function_def, *graph.library.function),
        _fallback(layer, case, kernel),
    )


def _given_inputs(case: Case, data: Data) -> np.ndarray:
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
        _reset_seeds(layer)
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
    """What the arguments are traced as: themselves, or with the sizes that are left open."""
    if case.static_batch and case.static_timesteps:
        return arguments
    batch_size, timesteps = _sizes(case)

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


def _call_at_another_size(compiled, case: Case, arguments) -> None:
    """One step more where the timesteps are left open, one sequence more where the batch size is."""

    def larger(tensor, has_steps):
        if has_steps and not case.static_timesteps:
            tensor = tf.concat([tensor, tensor[:, :1]], axis=1)
        return tensor if case.static_batch else tf.concat([tensor, tensor[:1]], axis=0)

    if case.static_batch and case.static_timesteps:
        return
    traces = compiled.experimental_get_tracing_count()
    compiled(*_changed(case, arguments, larger))
    if compiled.experimental_get_tracing_count() != traces:
        raise TracedAgain("another size was traced anew, though it was left open")


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
    if any(op.startswith("FusedRNN") for op in operations):
        return "native"
    return "while" if operations & {"While", "StatelessWhile"} else "unrolled"


def _check_kernel_possible(layer, case: Case) -> None:
    """Raises NoDevice or KernelMissed where the cuDNN kernel is demanded and cannot run."""
    if case.use_cudnn != "True":
        return
    if case.device != "gpu":
        raise NoDevice("use_cudnn=True: the cuDNN kernel runs on a GPU only")
    missed = _missed_requirements(layer, case)
    if missed:
        raise KernelMissed(f"use_cudnn=True: the cuDNN kernel cannot run, for {', '.join(missed)}")


# what the cuDNN kernel does not run with, by the argument to blame: (loop, case) -> whether that is so
_BEYOND_CUDNN: dict[str, Callable[[Any, Case], bool]] = {
    "no_gpu": lambda loop, case: case.device != "gpu",
    "jit_compile": lambda loop, case: case.jit_compile,
    "unroll": lambda loop, case: loop.unroll,
    "activation": lambda loop, case: loop.activation is not keras.activations.tanh,
    "recurrent_activation": lambda loop, case: loop.recurrent_activation is not keras.activations.sigmoid,
    "use_bias": lambda loop, case: not loop.use_bias,
    "reset_after": lambda loop, case: not getattr(loop, "reset_after", True),
    "recurrent_dropout": lambda loop, case: bool(loop.recurrent_dropout),
    "mask": lambda loop, case: case.masked in ("left", "full"),
}


def _missed_requirements(layer, case: Case) -> list[str]:
    """Why the cuDNN kernel cannot run the layer's loops, those that have it."""
    loops = [loop for loop in loops_of(layer) if hasattr(loop, "use_cudnn")]
    return [name for name, missed in _BEYOND_CUDNN.items() if any(missed(loop, case) for loop in loops)]


def _fallback(layer, case: Case, kernel: str) -> str | None:
    """Which requirements of the cuDNN kernel a layer missed that asked for it: by `use_cudnn`, or, on a GPU,
    by itself.

    Raises:
        KernelMissed: it was demanded.
    """
    able = any(hasattr(loop, "use_cudnn") for loop in loops_of(layer))
    asked = case.use_cudnn == "auto" or (case.use_cudnn is None and case.device == "gpu")
    if kernel == "cudnn" or not able:
        return None
    if case.use_cudnn == "True":
        raise KernelMissed(f"use_cudnn=True: the kernel is {kernel!r}")
    if not asked:
        return None
    missed = _missed_requirements(layer, case)
    return ", ".join(missed) or ("unknown" if layer.compute_dtype in ("float16", "float32") else "dtype")


def zeroes_masked_outputs(layer, case: Case) -> bool:
    """Whether masked steps give zeros without being asked to: the cuDNN kernel does so."""
    able = any(getattr(loop, "use_cudnn", False) for loop in loops_of(layer))
    return able and not _missed_requirements(layer, case)


def _uses_xla(*functions) -> bool:
    """Whether any of the functions must be compiled by XLA."""
    return any(function.attr["_XlaMustCompile"].b for function in functions)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


def eager_recurrence(cell, drops: DropoutMasks | None = None) -> Callable[..., Any]:
    """A recurrence, f(weights, inputs, initial_states) -> (outputs, states), that calls the built float64
    `cell` step by step, with no loop of Keras' or TensorFlow's and nothing compiled; with `drops`, in
    training, these being what it draws."""
    states = cell.get_initial_state(1) if hasattr(cell, "get_initial_state") else cell.state_size
    structure = list(states) if keras.tree.is_nested(states) else [states]
    training = {} if drops is None else {"training": True}
    if drops is not None:
        cell.get_dropout_mask = lambda _: drops.inputs
        cell.get_recurrent_dropout_mask = lambda _: drops.states

    def recurrence(weights, inputs, initial_states):
        cell.set_weights(weights)
        states = keras.tree.pack_sequence_as(structure, [tf.constant(state) for state in initial_states])
        outputs = []
        for step in np.moveaxis(inputs, 1, 0):
            output, states = cell(tf.constant(step), states, **training)
            states = states if keras.tree.is_nested(states) else [states]
            outputs.append(output.numpy())
        return np.stack(outputs, axis=1), [np.asarray(state) for state in keras.tree.flatten(states)]

    return recurrence
