"""The switches of TensorFlow, Keras and Python that change what every cell computes or how fast.

A user's file may flip one for the whole process: a leftover `tf.config.run_functions_eagerly(True)` makes
every loop run eagerly, and Keras' LSTM 70 times slower. `held` compares them before and after, undoes what
has changed, and says so. `SWITCHES` is the one table; a new switch is an entry there.
"""

import gc
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.random import seed_generator
from keras.src.utils import rng_utils
from tensorflow.python.eager import context
from tensorflow.python.framework import config as tf_config
from tensorflow.python.framework import ops as tf_ops
from tensorflow.python.framework import tensor_shape
from tensorflow.python.ops.numpy_ops import np_dtypes

from bench.contract.load_cell import Target, TargetError, load_target

# environment variables that TensorFlow, XLA and their libraries read while they run
_VARIABLES = ("TF_", "XLA_", "KERAS_", "OMP_", "MKL_", "ONEDNN_", "CUDA_", "NVIDIA_TF32")
_NO_MATTER = ("TF_CPP_", "TF_CLI_")  # what is logged; Terraform's


@dataclass(frozen=True)
class Switch:
    """One switch of the process.

    Attributes:
        name: what it switches, for people.
        get: () -> its value; two equal values are the same setting.
        set: sets such a value; raises where it is too late for that.
        counts: whether to say that it has changed; the state of a generator changes with every draw.
        described: whether a run's environment holds it; it has its own place for some, and none for others.
    """

    name: str
    get: Callable[[], Any]
    set: Callable[[Any], object]
    counts: bool = True
    described: bool = True


@dataclass(frozen=True)
class Change:
    """A switch that has changed: its name, its values before and after, and whether that is undone."""

    name: str
    before: str
    after: str
    undone: bool

    def __str__(self) -> str:
        return f"{self.name} from {self.before} to {self.after}"


@contextmanager
def held() -> Iterator[list[Change]]:
    """Holds every switch: after the block each is as it was, and the list says which had changed.

    A switch that can no longer be set stays, and is in the list as not undone.
    """
    before = [(switch, switch.get()) for switch in SWITCHES]
    changes: list[Change] = []
    try:
        yield changes
    finally:
        for switch, was in before:
            now = switch.get()
            if now != was:
                undone = _undo(switch, was)
                if switch.counts or not undone:
                    changes.append(Change(switch.name, _shown(was), _shown(now), undone))


def load_held(text: str, kwargs: Mapping[str, Any] | None = None, whole: bool = False) -> Target:
    """`load_target` with every switch held; what the file changed stands in the target.

    Raises:
        TargetError: as `load_target` does, or the file changed a switch that cannot be set back.
    """
    with held() as changes:
        target = load_target(text, kwargs, whole)
    stuck = [str(change) for change in changes if not change.undone]
    if stuck:
        raise TargetError(f"{text} changes the whole process, which cannot be undone: {', '.join(stuck)}")
    content = target.file.read_bytes() if target.file else b""
    switched = _SWITCHED.setdefault((target.file, content), tuple(map(str, changes)))
    return replace(target, switched=switched)


# what each file changed when it was imported: its other targets do not import it again
_SWITCHED: dict[tuple[Path | None, bytes], tuple[str, ...]] = {}


def changed_since(before: dict[str, Any]) -> list[str]:
    """The names of the switches that count and are not as in `before`, which `values` gave."""
    return [name for name, value in values().items() if value != before.get(name, value)]


def values() -> dict[str, Any]:
    """The value of every switch that counts, by name."""
    return {switch.name: switch.get() for switch in SWITCHES if switch.counts}


def described() -> dict[str, str]:
    """The values of the switches in words, by name: for a run's environment."""
    return {switch.name: _shown(switch.get()) for switch in SWITCHES if switch.counts and switch.described}


def _undo(switch: Switch, value: Any) -> bool:
    try:
        switch.set(value)
    except (RuntimeError, ValueError, OSError):  # TensorFlow has begun to compute, and keeps what it has
        return False
    return switch.get() == value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:119]}…"


# --- how each is read and set, where that is no one function --------------------------------------------


def _set_on(enable: Callable[[], object], disable: Callable[[], object]) -> Callable[[bool], object]:
    return lambda on: enable() if on else disable()


def _renewed(attribute: str) -> Callable[[Any], None]:
    """Sets an attribute of TensorFlow's context, and lets functions read it anew."""

    def set_attribute(value: Any) -> None:
        setattr(context.context(), attribute, value)
        context.context()._thread_local_data.function_call_options = None

    return set_attribute


def _optimizer_options() -> dict[str, Any]:
    return dict(context.context()._optimizer_experimental_options)


def _watchers() -> list[str]:
    """What TensorFlow calls for every operation, as numeric checks and debug dumps do."""
    return [str(getattr(callback, "__qualname__", callback)) for callback in context.context().op_callbacks]


def _remove_watchers(wanted: list[str]) -> None:
    tf.debugging.disable_check_numerics()
    tf.debugging.experimental.disable_dump_debug_info()
    for callback in list(context.context().op_callbacks):
        if str(getattr(callback, "__qualname__", callback)) not in wanted:
            context.context().remove_op_callback(callback)


def _numpy_behaviour() -> tuple[Any, ...]:
    return tf_ops.get_dtype_conversion_mode(), tf_ops._numpy_style_slicing, np_dtypes.is_prefer_float32()


def _set_numpy_behaviour(behaviour: tuple[Any, ...]) -> None:
    tf_ops._dtype_conversion_mode, tf_ops._numpy_style_slicing, prefers_float32 = behaviour
    np_dtypes.set_prefer_float32(prefers_float32)


def _set_eager(on: bool) -> None:
    """What `enable_eager_execution` does, which refuses to once there is a graph."""
    context.default_execution_mode = context.EAGER_MODE if on else context.GRAPH_MODE
    context.context()._thread_local_data.is_eager = on


def _set_keras_seed(seed: int | None) -> None:
    global_state.set_global_attribute(rng_utils.GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)


def restart_seeds(seed: int) -> None:
    """As `keras.utils.set_random_seed`, but TensorFlow keeps what it has compiled.

    `tf.random.set_seed`, which that calls, drops it: the next call of each `tf.function` makes its kernels
    anew, takes ten times as long (26 ms instead of 3), and the next five 10% longer; from then on it may run
    at another speed. TensorFlow's random operations that were called before go on where they were; whether
    there are any, `drew_with_tensorflow` says.
    """
    random.seed(seed)
    np.random.seed(seed)
    _set_keras_seed(seed)
    context.context()._seed, context.context()._rng = seed, random.Random(seed)


def drew_with_tensorflow(seed: int) -> bool:
    """Whether an operation has taken its seed of TensorFlow's, eagerly, since `restart_seeds(seed)`."""
    return context.context()._rng.getstate() != random.Random(seed).getstate()


def _variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(_VARIABLES) and not name.startswith(_NO_MATTER)
    }


def _set_variables(wanted: dict[str, str]) -> None:
    for name in _variables().keys() - wanted.keys():
        del os.environ[name]
    os.environ.update(wanted)


def _numpy_state() -> tuple[Any, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return kind, np.asarray(keys).tobytes(), *rest


def _set_numpy_state(state: tuple[Any, ...]) -> None:
    kind, keys, *rest = state
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))


def _gpus() -> list[str]:
    return [device.name for device in tf.config.get_visible_devices("GPU")]


def _set_gpus(names: list[str]) -> None:
    physical = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([device for device in physical if device.name in names], "GPU")


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


SWITCHES = (
    # first, since others cannot be set without it
    Switch("eager execution", tf.executing_eagerly, _set_eager),
    Switch(
        "tf.config.run_functions_eagerly",
        tf.config.functions_run_eagerly,
        lambda on: tf.config.run_functions_eagerly(on),
    ),
    Switch("numeric checks and debug dumps", _watchers, _remove_watchers),
    Switch(
        "intra-op threads",
        tf.config.threading.get_intra_op_parallelism_threads,
        tf.config.threading.set_intra_op_parallelism_threads,
    ),
    Switch(
        "inter-op threads",
        tf.config.threading.get_inter_op_parallelism_threads,
        tf.config.threading.set_inter_op_parallelism_threads,
    ),
    Switch("optimizer options", _optimizer_options, _renewed("_optimizer_experimental_options")),
    Switch("tf.config.optimizer.set_jit", tf.config.optimizer.get_jit, _renewed("_optimizer_jit")),
    Switch(
        "determinism",
        tf_config.is_op_determinism_enabled,
        _set_on(tf_config.enable_op_determinism, tf_config.disable_op_determinism),
    ),
    Switch(
        "TF32",
        tf.config.experimental.tensor_float_32_execution_enabled,
        tf.config.experimental.enable_tensor_float_32_execution,
    ),
    Switch("visible GPUs", _gpus, _set_gpus),
    Switch("soft device placement", tf.config.get_soft_device_placement, tf.config.set_soft_device_placement),
    Switch(
        "device policy",
        tf.config.experimental.get_device_policy,
        tf.config.experimental.set_device_policy,
    ),
    Switch(
        "synchronous execution",
        tf.config.experimental.get_synchronous_execution,
        tf.config.experimental.set_synchronous_execution,
    ),
    Switch(
        "log of device placement",
        lambda: context.context().log_device_placement,
        tf.debugging.set_log_device_placement,
    ),
    Switch(
        "control flow v2",
        tf.compat.v1.control_flow_v2_enabled,
        _set_on(tf.compat.v1.enable_control_flow_v2, tf.compat.v1.disable_control_flow_v2),
    ),
    Switch(
        "resource variables",
        tf.compat.v1.resource_variables_enabled,
        _set_on(tf.compat.v1.enable_resource_variables, tf.compat.v1.disable_resource_variables),
    ),
    Switch(
        "tensor shapes v2",
        lambda: tensor_shape._TENSORSHAPE_V2_OVERRIDE is not False,
        _set_on(tf.compat.v1.enable_v2_tensorshape, tf.compat.v1.disable_v2_tensorshape),
    ),
    Switch(
        "tensor equality",
        lambda: tf.Tensor._USE_EQUALITY,
        _set_on(tf.compat.v1.enable_tensor_equality, tf.compat.v1.disable_tensor_equality),
    ),
    Switch("NumPy behaviour", _numpy_behaviour, _set_numpy_behaviour),
    Switch("TensorFlow's seed", context.global_seed, context.set_global_seed),
    Switch(
        "dtype policy",
        lambda: keras.config.dtype_policy().name,
        keras.config.set_dtype_policy,
    ),
    Switch("floatx", keras.config.floatx, keras.config.set_floatx),
    Switch("epsilon", keras.config.epsilon, keras.config.set_epsilon),
    Switch("image data format", keras.config.image_data_format, keras.config.set_image_data_format),
    Switch("keras.distribution", keras.distribution.distribution, keras.distribution.set_distribution),
    Switch("Keras' seed", rng_utils.get_random_seed, _set_keras_seed),
    Switch("environment variables", _variables, _set_variables, described=False),
    Switch("garbage collector", gc.isenabled, _set_on(gc.enable, gc.disable)),
    Switch("garbage collector's thresholds", gc.get_threshold, lambda value: gc.set_threshold(*value)),
    Switch("switch interval", sys.getswitchinterval, sys.setswitchinterval),
    Switch("trace function", sys.gettrace, sys.settrace, described=False),
    Switch("profile function", sys.getprofile, sys.setprofile, described=False),
    Switch("usable cores", _cores, lambda cores: os.sched_setaffinity(0, cores)),
    Switch("current folder", os.getcwd, os.chdir, described=False),
    Switch("Python's random numbers", random.getstate, random.setstate, counts=False),
    Switch("NumPy's random numbers", _numpy_state, _set_numpy_state, counts=False),
)
