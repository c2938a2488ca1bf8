"""A cell under test: made fresh, run in every way, and compared.

`Cells` makes new cells and their inputs; `run` and `walk` run one; `agree` compares two answers. Shapes are
tiny.
"""

import contextlib
import inspect
import linecache
import math
import random
import re
import textwrap
import traceback
import warnings
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, wraps
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from bench.contract.check import Refused, Skipped
from bench.contract.load_cell import Target
from bench.contract.report import short_path
from bench.contract.switches import held

BATCH, STEPS, SEED = 3, 4, 7


# --- the run time: all that is TensorFlow's own -------------------------------------------------------------

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


def _of_tensorflow(function: Callable) -> Callable:
    """Skips a check that takes this function where Keras runs on another back end."""

    @wraps(function)
    def asked(*arguments: Any, **kwargs: Any) -> Any:
        if not ON_TENSORFLOW:
            raise Skipped("asked on Keras' TensorFlow back end alone")
        return function(*arguments, **kwargs)

    return asked


@_of_tensorflow
def compiled(function: Callable, *specs: tuple, xla: bool = False) -> Callable:
    """`function` as a graph; `specs`: shapes of its float32 arguments if they are not to be fixed."""
    signature = [tf.TensorSpec(spec, tf.float32) for spec in specs] or None
    return tf.function(function, input_signature=signature, jit_compile=xla, autograph=False)


@_of_tensorflow
@cache
def has_xla() -> bool:
    """Whether this TensorFlow can compile with XLA for the CPU."""
    try:
        compiled(lambda: tf.constant(1.0) + 1.0, xla=True)()
    except (tf.errors.OpError, ValueError):
        return False
    return True


@_of_tensorflow
def gradients(function: Callable[[], Any], sources: Sequence[Any]) -> list[np.ndarray | None]:
    """The gradient of the number `function()` for each tensor or variable; None where there is none."""
    values = [getattr(source, "value", source) for source in sources]
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = function()
    found = tape.gradient(total, values)
    return [None if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]


@_of_tensorflow
def variables_used(function: Callable[[], Any]) -> list[Any]:
    """The variables that `function` reads; if it cannot be traced as a graph, the trainable ones of them."""
    try:
        return list(tf.function(function, autograph=False).get_concrete_function().graph.variables)
    except Exception:
        with tf.GradientTape() as tape:
            function()
        return list(tape.watched_variables())


@_of_tensorflow
def variables_made(function: Callable[[], Any]) -> list[str]:
    """The names of the variables that `function` creates when it is called."""
    made: list[str] = []

    def note(create, **kwargs):
        made.append(kwargs.get("name") or "a variable")
        return create(**kwargs)

    with tf.variable_creator_scope(note):
        function()
    return made


@_of_tensorflow
def draws_at_random(function: Callable[[], Any]) -> bool:
    """Whether the graph of `function` has an operation that draws random numbers."""
    graph = tf.function(function, autograph=False).get_concrete_function().graph.as_graph_def()
    nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
    return any(re.search(r"Random|Multinomial|TruncatedNormal|Rng", node.op) for node in nodes)


def is_tensor_shape(value: Any) -> bool:
    return isinstance(value, tf.TensorShape)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out."""
    return isinstance(error, (MemoryError, tf.errors.ResourceExhaustedError))


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """On the CPU, with whole tracebacks, without the warnings that a broken cell provokes; leaves the
    switches of the process as they were."""
    filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        with held(), tf.device("/CPU:0"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if filtering:
            keras.config.enable_traceback_filtering()


def one_line(error: BaseException) -> str:
    """Type and first sentence of an exception, without what TensorFlow and Keras wrap around it."""
    text = str(error).rpartition("Exception encountered: ")[2]
    text = re.sub(r"\{\{.*?\}\}|\[Op:.*|__inference\S+", "", text).strip()
    first = " ".join(text.partition("\n\n")[0].split())
    return f"{type(error).__name__}: {textwrap.shorten(first, 200, placeholder=' …')}".rstrip(": .")


# --- cells and the data they are asked with -----------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Makes the cells and the inputs of a check, and knows where their source stands.

    Attributes:
        target: what makes the cells.
        units: what it is called with.
        step_shape: the shape of one step of the inputs, without the batch: `(features,)` for a vector.
    """

    target: Target
    units: int
    step_shape: tuple[int, ...]

    def new(self, seed: int = 0, **extra: Any) -> Any:
        """A new cell, not built; what it draws at random, its weights above all, follows from `seed`.

        Keras' initialisers draw their seeds from Python's `random`. TensorFlow's own seed is left alone:
        setting it clears the cache of eager kernels, and the contract took twice as long.
        """
        random.seed(SEED + seed)
        np.random.seed(SEED + seed)
        return self.target.make(self.units, **extra)

    def built(self, seed: int = 0, step_shape: tuple[int, ...] | None = None, **extra: Any) -> Any:
        """A new cell, built, its weights moved a little so that no bias is zero."""
        cell = self.new(seed, **extra)
        cell.build((None, *(step_shape or self.step_shape)))
        vary_weights(cell, seed)
        return cell

    def under(self, dtype: str) -> Any:
        """A cell that computes in this dtype under the policy of now; skips one that sets its own."""
        if dtype == "float64" and keras.backend.backend() == "jax":
            raise Skipped("JAX computes in float64 only where JAX_ENABLE_X64 says so")
        cell = self.built()
        if cell.compute_dtype != dtype:
            raise Skipped(f"the cell sets its own dtype, {cell.dtype_policy.name}")
        return cell

    def inputs(self, timesteps: int = STEPS, seed: int = 0) -> Any:
        """Random numbers [BATCH, timesteps, *step_shape]; those of fewer timesteps are the first of more."""
        shape = (timesteps, BATCH, *self.step_shape)
        numbers = np.random.default_rng(seed).standard_normal(shape).swapaxes(0, 1)
        return ops.convert_to_tensor(numbers, dtype=keras.config.floatx())

    def trained(self, inputs: Any, weights: Any = None, **extra: Any) -> Any:
        """The answer in training of a cell that is made after everything random has been set to one seed.

        Args:
            weights: given to the cell; None: it has its own.
        """
        keras.utils.set_random_seed(SEED)
        cell = self.built(**extra)
        if weights is not None:
            cell.set_weights(weights)
        return run(cell, inputs, training=True)

    def tolerance(self, dtype: str = "float32") -> float:
        """Allowed difference relative to the largest number: rounding errors of a dot product over features
        and units grow as the root of its length, and add up over the timesteps."""
        return 4 * _epsilon(dtype) * STEPS * math.sqrt(math.prod(self.step_shape) + self.units)

    def where(self, method: str) -> str:
        """`file:line` of the user's method, class or function; "" for a cell that is not the user's."""
        for owner in (*self._classes, self.target.factory):
            bases = getattr(owner, "__mro__", ())
            found = next((vars(base)[method] for base in bases if method in vars(base)), None)
            for thing in filter(None, (found, owner)):
                with contextlib.suppress(TypeError, OSError):
                    if inspect.getsourcefile(inspect.unwrap(thing)) in self._files:
                        return _definition(thing)
        return ""

    def line(self, pattern: str, method: str = "") -> str:
        """`file:line` of the first line of the user's classes, or of a method, that matches, or ""."""
        bases = [base for owner in self._classes for base in owner.__mro__ if is_custom(base)]
        things: list[Any] = [vars(base).get(method) for base in bases] if method else [*bases]
        for thing in filter(None, things):
            with contextlib.suppress(TypeError, OSError):
                lines, start = inspect.getsourcelines(thing)
                for number, line in enumerate(lines, start):
                    if re.search(pattern, line):
                        return f"{short_path(inspect.getsourcefile(thing))}:{number}"
        return ""

    def user_frame(self, error: BaseException) -> str:
        """`file:line: source` of the last of the user's lines that an exception went through, or ""."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self._files:
                source = linecache.getline(frame.filename, frame.lineno or 0).strip()
                return f"{short_path(frame.filename)}:{frame.lineno}: {source}"
        return ""

    @property
    def build_shape(self) -> tuple[int | None, ...]:
        """What `build` is given: [batch, *step_shape], the batch size left open."""
        return None, *self.step_shape

    def user_method(self, error: BaseException, methods: Container[str]) -> str:
        """The last of these methods, as the user wrote them, that an exception went through, or ""."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self._files and frame.name in methods:
                return frame.name
        return ""

    @cached_property
    def _classes(self) -> list[Any]:
        """The classes of the cell and its sub-layers that are not Keras' own."""
        return custom_classes(self.new())

    @cached_property
    def _files(self) -> set[str | None]:
        custom = self.target.file and is_custom(self.target.factory)
        files: set[str | None] = {str(self.target.file)} if custom else set()
        for owner in self._classes:
            for base in owner.__mro__:
                if is_custom(base):
                    with contextlib.suppress(TypeError, OSError):
                        files.add(inspect.getsourcefile(base))
        return files


def is_custom(owner: Any) -> bool:
    """Whether a class or function is neither Keras' nor Python's own."""
    return owner.__module__.partition(".")[0] not in ("keras", "builtins", "tensorflow", "abc")


def custom_classes(cell: Any) -> list[type]:
    """The classes of a cell and its sub-layers that are not Keras' own, outermost first."""
    layers = cell._flatten_layers() if isinstance(cell, keras.layers.Layer) else [cell]
    return list(dict.fromkeys(type(layer) for layer in layers if is_custom(type(layer))))


def custom_objects(cell: Any) -> dict[str, Any]:
    """What Keras needs to make the cell again from its config: its classes, and the functions beside them."""
    found: dict[str, Any] = {}
    for owner in custom_classes(cell):
        for thing in vars(inspect.getmodule(owner) or object).values():  # code of no module has none
            if inspect.isfunction(thing) and thing.__module__ == owner.__module__:
                found[thing.__name__] = thing
        found[keras.saving.get_registered_name(owner)] = owner
    return found


def _definition(thing: Any) -> str:
    """`file:line` of the line with `def` or `class`, below any decorators."""
    lines, start = inspect.getsourcelines(thing)
    offset = next((i for i, line in enumerate(lines) if re.match(r"\s*(def|class)\b", line)), 0)
    return f"{short_path(inspect.getsourcefile(thing))}:{start + offset}"


def _epsilon(dtype: str) -> float:
    return float(2.0 ** -{"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype])


def vary_weights(cell: Any, seed: int) -> None:
    """Moves every trainable weight by up to 10% and away from zero; signs stay, constraints are applied."""
    rng = np.random.default_rng(seed)
    for weight in cell.trainable_variables:
        old = ops.convert_to_numpy(weight.value)
        moved = np.where(old == 0, rng.uniform(0.05, 0.15, old.shape), old * rng.uniform(0.9, 1.1, old.shape))
        moved = moved.astype(old.dtype)
        weight.assign(weight.constraint(moved) if weight.constraint else moved)


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """New layers get this dtype policy; new tensors are float64 under "float64", else float32."""
    policy, floatx = keras.config.dtype_policy(), keras.config.floatx()
    keras.config.set_dtype_policy(name)
    keras.config.set_floatx("float64" if name == "float64" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_floatx(floatx)


# --- running a cell -----------------------------------------------------------------------------------------


def initial_states(cell: Any, batch_size: int = BATCH) -> list[Any]:
    """The states as `keras.layers.RNN` hands them to the first step: in a list, in the compute dtype."""
    states = keras.layers.RNN(cell).get_initial_state(batch_size)
    return tree.map_structure(lambda state: ops.convert_to_tensor(state, dtype=cell.compute_dtype), states)


def step(cell: Any, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
    """One call of the cell, [batch, *step_shape] -> ([batch, output], new states in a list)."""
    output, new_states = cell(inputs, tuple(states))
    return output, list(new_states) if tree.is_nested(new_states) else [new_states]


def walk(cell: Any, inputs: Any, states: Sequence[Any] | None = None) -> tuple[Any, list[Any]]:
    """The cell step by step in Python: ([batch, timesteps, output], final states)."""
    states = initial_states(cell, inputs.shape[0]) if states is None else list(states)
    outputs = []
    for time in range(inputs.shape[1]):
        output, states = step(cell, inputs[:, time], states)
        outputs.append(output)
    return ops.stack(outputs, axis=1), states


def run(
    cell: Any,
    inputs: Any,
    initial_state: Any = None,
    mask: Any = None,
    training: bool = False,
    **options: Any,
) -> tuple[Any, list[Any]]:
    """The cell in `keras.layers.RNN(cell, **options)`: ([batch, timesteps, output], final states)."""
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True, **options)
    outputs, *states = layer(inputs, initial_state=initial_state, mask=mask, training=training)
    return outputs, states


NO_MODEL = "no functional model takes keras.layers.RNN where the output of a step is no vector"


def is_vector(cell: Any) -> bool:
    """Whether the output of a step is said to be a vector, [batch, size]."""
    said = getattr(cell, "output_size", None)
    sizes = cell.state_size if said is None else said
    return isinstance(sizes[0] if said is None and isinstance(sizes, (list, tuple)) else sizes, int)


def reached_states(cell: Any, inputs: Any) -> list[Any]:
    """States that the cell can really be in: those after its first steps, not invented ones."""
    return walk(cell, inputs[:, :2])[1]


def arrays(values: Any) -> list[np.ndarray]:
    """All tensors of a structure as NumPy arrays of float64."""
    if ON_TENSORFLOW:
        return [np.asarray(ops.cast(value, "float64")) for value in tree.flatten(values)]
    return [np.asarray(ops.convert_to_numpy(value), "float64") for value in tree.flatten(values)]


def difference(seen: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number expected (if that is over 1).

    Infinite where numbers, shapes or NaNs do not correspond.
    """
    ours, theirs = arrays(seen), arrays(expected)
    if [a.shape for a in ours] != [b.shape for b in theirs]:
        return math.inf
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if np.any(np.isfinite(a) != np.isfinite(b)):
            return math.inf
        with np.errstate(invalid="ignore"):
            gap = np.where(np.isfinite(b), np.abs(a - b), 0.0)
        worst = max(worst, float(gap.max(initial=0.0)) / max(1.0, float(np.abs(b).max(initial=0.0))))
    return worst


def agree(seen: Any, expected: Any, tolerance: float, what: str, at: str = "") -> str:
    """Refuses unless both structures hold the same numbers; returns what was seen."""
    found = difference(seen, expected)
    if found <= tolerance:
        return f"{what}: to within {found:.0e}"
    ours, theirs = shapes(tree.flatten(seen)), shapes(tree.flatten(expected))
    if ours != theirs:
        raise Refused(f"{what}, of shapes {theirs}", ours, at=at)
    size = "numbers that are not finite" if math.isinf(found) else f"a difference of up to {found:.2g}"
    raise Refused(f"{what} (to within {tolerance:.0e})", size, at=at)


def shapes(values: Any) -> str:
    """The shapes of a structure, for people."""
    return str(tree.map_structure(lambda value: tuple(getattr(value, "shape", ())), values))


def attribute_of(cell: Any, part: Any) -> str:
    """The name of the attribute of the cell or of one of its sub-layers that holds `part`, or ""."""
    attributes = [item for owner in cell._flatten_layers() for item in vars(owner).items()]
    return next((name for name, value in attributes if value is part), "")


def is_excused(cell: Any, variable: Any) -> bool:
    """Whether the cell's `no_gradient` names the weight, by its name or the end of its path."""
    return any(is_called(variable, key) for key in getattr(cell, "no_gradient", {}))


def is_called(variable: Any, name: str) -> bool:
    return f"/{variable.path}".endswith(f"/{name}")


def samples(result: tuple[Any, Any], rows: slice) -> tuple[Any, Any]:
    return tree.map_structure(lambda value: value[rows], result)


def total_of(result: Any, seed: int = 3) -> Any:
    """A random combination of all float tensors of a structure: one number with a gradient for all."""
    rng = np.random.default_rng(seed)
    total: Any = 0.0
    for value in tree.flatten(result):
        if keras.backend.is_float_dtype(value.dtype):
            factors = ops.convert_to_tensor(rng.uniform(0.5, 1.5, tuple(value.shape)), dtype=value.dtype)
            total = total + ops.sum(value * factors)
    return total
