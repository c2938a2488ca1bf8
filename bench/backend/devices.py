"""The devices: which there are, waiting for them, their memory, their precision and their fastest product."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import numpy as np

from bench.backend.libraries import keras, tf
from bench.cases.case import Case
from bench.cases.devices import missing_gpu
from bench.timing import memory
from bench.timing.blocks import time_call

_TF32_CAPABILITY = (8, 0)  # the first GPUs that have it


class NoDevice(RuntimeError):
    """The device asked for is not there."""


def choose_device(wanted: str) -> str:
    """Chooses `cpu` or `gpu` for `cpu`, `gpu` or `auto`, for the whole process.

    On `cpu` TensorFlow sees no GPU from here on. `hide_gpus`, before it is imported, does more: Keras asks
    for physical devices too.

    Raises:
        NoDevice: there is no GPU to be had, or TensorFlow computes on it already.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if wanted == "gpu" and not gpus:
        raise NoDevice(f"--device gpu: {missing_gpu()}; there is cpu")
    if gpus and wanted != "cpu":
        return "gpu"
    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError as error:  # it has computed already
        raise NoDevice(
            "--device cpu: this process has used the GPU already; CUDA_VISIBLE_DEVICES=-1 hides it"
        ) from error
    return "cpu"


def tf32() -> bool:
    """True where products of float32 are rounded to TF32, as this process is configured and its GPU can."""
    gpus = tf.config.get_visible_devices("GPU")
    able = any(
        tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) >= _TF32_CAPABILITY
        for gpu in gpus
    )
    switched_on = tf.config.experimental.tensor_float_32_execution_enabled()
    return able and switched_on and os.environ.get("NVIDIA_TF32_OVERRIDE") != "0"


def rounds_to_tf32(case: Case) -> bool:
    """True where products of the case may be computed in TF32, as configured: those of float32, which layers
    such as `FusedRNN` compute in under a 16-bit policy too."""
    return case.device == "gpu" and case.dtype != "float64" and tf32()


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
    """Describes how TensorFlow was built and set up, and the GPUs it sees."""
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
def wait_for_device() -> Callable[[], None]:
    """Waits until the devices have finished. On a CPU a function returns when it has finished."""
    if tf.config.get_visible_devices("GPU"):
        return tf.test.experimental.sync_devices
    return lambda: None


def sync_seconds() -> float:
    """The price of waiting for devices that have nothing to do: the median of 101 waits, seconds."""
    wait = wait_for_device()
    times = []
    for _ in range(101):
        start = time.perf_counter()
        wait()
        times.append(time.perf_counter() - start)
    return sorted(times)[50]


def warm_up(device: str = "cpu") -> None:
    """Computes something small, so that thread pools, allocators and kernels are there: the memory that a
    case takes after it, and the time of its first call, are its own.

    On a GPU XLA's compiler and cuDNN are loaded too, which takes seconds.
    """
    with tf.device(f"/{device}:0"):
        for warm in _WARM[device]:
            warm()
    wait_for_device()()


def _warm_loop() -> None:
    @partial(tf.function, autograph=False)
    def little(matrix):
        with tf.GradientTape() as tape:
            tape.watch(matrix)
            loop = tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, tf.tanh(x @ matrix)), (0, matrix))
        return tape.gradient(loop[1], matrix)

    little(tf.fill((256, 256), 0.01))


def _warm_xla() -> None:
    tf.function(lambda matrix: tf.tanh(matrix @ matrix), jit_compile=True, autograph=False)(
        tf.fill((256, 256), 0.01)
    )


def _warm_cudnn() -> None:
    """Runs a layer that Keras gives to cuDNN, forth and back."""
    layer, inputs = keras.layers.LSTM(8), tf.ones((1, 2, 8))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs)
    tape.gradient(output, inputs)


_WARM: dict[str, tuple[Callable[[], None], ...]] = {
    "cpu": (_warm_loop,),
    "gpu": (_warm_loop, _warm_xla, _warm_cudnn),
}


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
    # random numbers, which no compiler knows and whose bits change: of equal ones a GPU clocks higher
    numbers = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32) / size**0.5
    with tf.device(f"/{device}:0"):
        matrix = tf.cast(tf.constant(numbers), dtype)
    wait = wait_for_device()
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


def is_out_of_memory(error: BaseException) -> bool:
    """True where the error says that memory ran out."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))
