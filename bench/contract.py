"""What a cell promises to Keras and to its user, as one table of named checks.

`check_cell(MyCell)` asks a fresh cell every question of `CHECKS` and returns a `ContractReport`. A check
passes, fails with what was expected, what was seen and what to change, or is skipped: because it does not
apply, or because a check it needs has failed and its answer would say nothing new. What Keras itself does
to every custom cell is a hint on a check that passes, never a failure.

Shapes are tiny and everything runs on the CPU: the contract is about what is right, not what is fast.
A new check is a function here and an entry in `CHECKS`.
"""

import contextlib
import inspect
import json
import linecache
import math
import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops, tree

from bench.target import Target

BATCH, STEPS = 3, 5


# --- values ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: the check's name in `CHECKS`.
        status: `ok`, `failed` or `skipped`.
        message: what was expected and what was seen, or why it was skipped.
        hint: of a failed check what to change and where, of another what is good to know; may be empty.
    """

    name: str
    status: str
    message: str
    hint: str = ""

    @property
    def text(self) -> str:
        """Message and hint."""
        return f"{self.message}. {self.hint}." if self.hint else f"{self.message}."


@dataclass(frozen=True)
class ContractReport:
    """What all checks found, in the order of the table."""

    target: str
    checks: tuple[CheckResult, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.failed

    @property
    def failed(self) -> tuple[CheckResult, ...]:
        return self.having("failed")

    def having(self, status: str) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.checks if result.status == status)


@dataclass(frozen=True)
class Check:
    """One question to a cell.

    Attributes:
        name: as in reports.
        question: what is asked, for people.
        function: f(cells) -> what was seen, or `Seen` with a hint; raises `Refused` or `Skipped`.
        change: what to change where the function has nothing more precise to say.
        place: the method of the cell where the change is likely to be made.
        needs: checks without which this one would only repeat their failure.
    """

    name: str
    question: str
    function: Callable[["Cells"], "str | Seen"]
    change: str
    place: str = "call"
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What a check that passes saw, and what is good to know."""

    message: str
    hint: str = ""


class Refused(Exception):
    """The cell breaks the contract: what was expected, what was seen, and maybe what to change, and where."""

    def __init__(self, expected: str, seen: str, change: str = "", at: str = "") -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        self.change, self.at = change, at


class Skipped(Exception):
    """The check does not apply to this cell."""


# --- the runner --------------------------------------------------------------------------------------


def check_cell(
    target: Target | Callable[..., Any], units: int = 16, features: int | None = None
) -> ContractReport:
    """Asks every question of `CHECKS`, each with cells of its own.

    Args:
        target: a `Target`, or a class or function that takes `units` and returns a new cell.
        units: what the target is called with.
        features: size of the last axis of the inputs; by default 4 (5 if that is `units`), so that a mix-up
            of the two shows. A cell that needs as many features as units is checked with `features=units`.

    Raises:
        TargetError: the constructor raises.
    """
    target = Target.of(target)
    cells = Cells(target, units, features or (5 if units == 4 else 4))
    results: list[CheckResult] = []
    with _surroundings():
        cells.new()
        blocked: dict[str, str] = {}
        for check in CHECKS:
            root = next((blocked[need] for need in check.needs if need in blocked), None)
            result = _ask(check, cells) if root is None else _not_asked(check, root)
            if result.status == "failed" or root is not None:
                blocked[check.name] = root or check.name
            results.append(result)
    return ContractReport(target.text, tuple(results))


def _not_asked(check: Check, root: str) -> CheckResult:
    return CheckResult(check.name, "skipped", f"not asked, since `{root}` failed")


def _ask(check: Check, cells: "Cells") -> CheckResult:
    try:
        with dtype_policy("float32"):
            seen = check.function(cells)
    except Skipped as skipped:
        return CheckResult(check.name, "skipped", str(skipped))
    except Refused as refused:
        at = refused.at or cells.where(check.place)
        return CheckResult(check.name, "failed", str(refused), _advice(refused.change or check.change, at))
    except Exception as error:
        message = f"expected a cell for which this runs; seen {_one_line(error)}"
        at = cells.user_frame(error) or cells.where(check.place)
        return CheckResult(check.name, "failed", message, _advice(check.change, at))
    seen = seen if isinstance(seen, Seen) else Seen(seen)
    return CheckResult(check.name, "ok", seen.message, seen.hint)


def _advice(change: str, at: str) -> str:
    return f"{change} ({at})" if at else change


def _one_line(error: BaseException) -> str:
    text = re.sub(r"\{\{.*?\}\}", "", str(error)).strip()
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:200]}".rstrip(": .")


@contextlib.contextmanager
def _surroundings() -> Iterator[None]:
    """On the CPU, with whole tracebacks, and without the warnings that a broken cell provokes."""
    filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        with tf.device("/CPU:0"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if filtering:
            keras.config.enable_traceback_filtering()


# --- the run time: all that is TensorFlow's own ------------------------------------------------------


def compiled(function: Callable, *specs: tuple, xla: bool = False) -> Callable:
    """`function` as a graph; `specs`: shapes of its float32 arguments if they are not to be fixed."""
    signature = [tf.TensorSpec(spec, tf.float32) for spec in specs] or None
    return tf.function(function, input_signature=signature, jit_compile=xla, autograph=False)


@cache
def has_xla() -> bool:
    """Whether this TensorFlow can compile with XLA for the CPU."""
    try:
        compiled(lambda: tf.constant(1.0) + 1.0, xla=True)()
    except (tf.errors.OpError, ValueError):
        return False
    return True


def gradients(function: Callable[[], Any], sources: Sequence[Any]) -> list[np.ndarray | None]:
    """The gradient of the number `function()` for every tensor or variable of `sources`; None if there is none."""
    values = [getattr(source, "value", source) for source in sources]
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = function()
    found = tape.gradient(total, values)
    return [None if gradient is None else np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]


def variables_used(function: Callable[[], Any]) -> list[Any]:
    """The variables that `function` reads."""
    return list(tf.function(function, autograph=False).get_concrete_function().graph.variables)


def variables_made(function: Callable[[], Any]) -> list[str]:
    """The names of the variables that `function` creates when it is called."""
    made: list[str] = []

    def note(create, **kwargs):
        made.append(kwargs.get("name") or "a variable")
        return create(**kwargs)

    with tf.variable_creator_scope(note):
        function()
    return made


def is_tensor_shape(value: Any) -> bool:
    return isinstance(value, tf.TensorShape)


# --- cells and the data they are asked with ----------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Makes the cells and the inputs of a check, and knows where their source stands."""

    target: Target
    units: int
    features: int
    seed: int = field(default=7)

    def new(self, **extra: Any) -> Any:
        """A new cell, not built; its weights will be the same each time."""
        keras.utils.set_random_seed(self.seed)
        return self.target.make(self.units, **extra)

    def built(self, seed: int = 0, features: int | None = None, **extra: Any) -> Any:
        """A new cell, built, its weights moved a little by `seed` so that no bias is zero."""
        cell = self.new(**extra)
        cell.build((None, features or self.features))
        vary_weights(cell, seed)
        return cell

    def inputs(self, timesteps: int = STEPS, seed: int = 0) -> Any:
        """Random numbers [BATCH, timesteps, features]; those of fewer timesteps are the first of more."""
        shape = (timesteps, BATCH, self.features)
        numbers = np.random.default_rng(seed).standard_normal(shape).transpose(1, 0, 2)
        return ops.convert_to_tensor(numbers, dtype=keras.config.floatx())

    def tolerance(self, dtype: str = "float32") -> float:
        """Allowed difference relative to the largest number: rounding errors of a dot product over features
        and units grow as the root of its length, and add up over the timesteps."""
        return 4 * _epsilon(dtype) * STEPS * math.sqrt(self.features + self.units)

    def where(self, method: str) -> str:
        """`file:line` of the user's method, or of the class, "" for a cell that is not the user's."""
        for owner in self._classes:
            found = next((vars(base)[method] for base in owner.__mro__ if method in vars(base)), None)
            for thing in (found, owner):
                with contextlib.suppress(TypeError, OSError):
                    file = inspect.getsourcefile(inspect.unwrap(thing))
                    if file in self._files:
                        return f"{_short(file)}:{inspect.getsourcelines(thing)[1]}"
        return ""

    def line(self, pattern: str) -> str:
        """`file:line` of the first line of the user's classes that matches the pattern, or ""."""
        for owner in self._classes:
            with contextlib.suppress(TypeError, OSError):
                lines, start = inspect.getsourcelines(owner)
                for number, line in enumerate(lines, start):
                    if re.search(pattern, line):
                        return f"{_short(inspect.getsourcefile(owner))}:{number}"
        return ""

    def user_frame(self, error: BaseException) -> str:
        """`file:line: source` of the last of the user's lines that an exception went through, or ""."""
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in self._files:
                source = linecache.getline(frame.filename, frame.lineno or 0).strip()
                return f"{_short(frame.filename)}:{frame.lineno}: {source}"
        return ""

    @cached_property
    def _classes(self) -> list[type]:
        """The classes of the cell and its sub-layers that are not Keras' own."""
        return custom_classes(self.new())

    @cached_property
    def _files(self) -> set[str]:
        files = {str(self.target.file)} if self.target.file else set()
        for owner in self._classes:
            for base in owner.__mro__:
                if _is_custom(base):
                    with contextlib.suppress(TypeError, OSError):
                        files.add(inspect.getsourcefile(base) or "")
        return files


def _is_custom(owner: type) -> bool:
    return owner.__module__.partition(".")[0] not in ("keras", "builtins", "tensorflow", "abc")


def custom_classes(cell: Any) -> list[type]:
    """The classes of a cell and its sub-layers that are not Keras' own, outermost first."""
    layers = cell._flatten_layers() if isinstance(cell, keras.layers.Layer) else [cell]
    return list(dict.fromkeys(type(layer) for layer in layers if _is_custom(type(layer))))


def custom_objects(cell: Any) -> dict[str, Any]:
    """What Keras needs to make the cell again from its config: its classes, and the functions beside them."""
    found: dict[str, Any] = {}
    for owner in custom_classes(cell):
        for thing in vars(inspect.getmodule(owner)).values():
            if inspect.isfunction(thing) and thing.__module__ == owner.__module__:
                found[thing.__name__] = thing
        found[keras.saving.get_registered_name(owner)] = owner
    return found


def _short(file: str | None) -> str:
    relative = os.path.relpath(file or "")
    return relative if not relative.startswith("..") else str(file)


def _epsilon(dtype: str) -> float:
    return float(2.0 ** -{"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype])


def vary_weights(cell: Any, seed: int) -> None:
    """Moves every trainable weight by up to 10% and away from zero; signs stay, constraints are applied."""
    rng = np.random.default_rng(seed)
    for weight in cell.trainable_variables:
        old = np.asarray(weight.value)
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


# --- running a cell ----------------------------------------------------------------------------------


def initial_states(cell: Any, batch_size: int = BATCH) -> list[Any]:
    """The states as `keras.layers.RNN` hands them to the first step: in a list, in the compute dtype."""
    states = keras.layers.RNN(cell).get_initial_state(batch_size)
    return tree.map_structure(lambda state: ops.convert_to_tensor(state, dtype=cell.compute_dtype), states)


def step(cell: Any, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
    """One call of the cell, [batch, features] -> ([batch, output], new states in a list)."""
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
    cell: Any, inputs: Any, initial_state: Any = None, mask: Any = None, training: bool = False, **options: Any
) -> tuple[Any, list[Any]]:
    """The cell in `keras.layers.RNN(cell, **options)`: ([batch, timesteps, output], final states)."""
    layer = keras.layers.RNN(cell, return_sequences=True, return_state=True, **options)
    outputs, *states = layer(inputs, initial_state=initial_state, mask=mask, training=training)
    return outputs, states


def reached_states(cell: Any, inputs: Any) -> list[Any]:
    """States that the cell can really be in: those after its first steps, not invented ones."""
    return walk(cell, inputs[:, :2])[1]


def arrays(values: Any) -> list[np.ndarray]:
    """All tensors of a structure as NumPy arrays of float64."""
    return [np.asarray(ops.cast(value, "float64")) for value in tree.flatten(values)]


def difference(seen: Any, expected: Any) -> float:
    """The largest difference, relative to the largest number expected (if that is over 1).

    Infinite where numbers, shapes or NaNs do not correspond.
    """
    pairs = list(zip(arrays(seen), arrays(expected), strict=False))
    if [a.shape for a in arrays(seen)] != [b.shape for b in arrays(expected)]:
        return math.inf
    worst = 0.0
    for a, b in pairs:
        if np.any(np.isfinite(a) != np.isfinite(b)):
            return math.inf
        with np.errstate(invalid="ignore"):
            gap = np.where(np.isfinite(b), np.abs(a - b), 0.0)
        worst = max(worst, float(gap.max(initial=0.0)) / max(1.0, float(np.abs(b).max(initial=0.0))))
    return worst


def agree(seen: Any, expected: Any, tolerance: float, what: str, change: str = "") -> str:
    """Refuses unless both structures hold the same numbers; returns what was seen."""
    found = difference(seen, expected)
    if found > tolerance:
        size = "other shapes or numbers that are not finite" if math.isinf(found) else f"up to {found:.2g}"
        raise Refused(f"{what} (to within {tolerance:.0e})", f"a difference of {size}", change)
    return f"{what}: to within {found:.0e}"


def shapes(values: Any) -> str:
    """The shapes of a structure, for people."""
    return str(tree.map_structure(lambda value: tuple(getattr(value, "shape", ())), values))


# --- protocol ----------------------------------------------------------------------------------------


def layer(cells: Cells) -> str:
    cell, other = cells.new(), cells.new()
    if not isinstance(cell, keras.layers.Layer):
        raise Refused("a keras.layers.Layer, which tracks its weights", f"{type(cell).__name__}")
    if isinstance(cell, (keras.layers.RNN, keras.layers.Bidirectional)):
        change = "name the cell that runs one step, such as LSTMCell for LSTM"
        raise Refused("a cell, which runs one step", "a layer, which runs whole sequences", change)
    if cell is other:
        raise Refused("a new cell at each call", "the same one twice", "make the cell inside the function")
    return f"a {type(cell).__name__}"


def state_size(cells: Cells) -> str:
    size = getattr(cells.new(), "state_size", None)
    expected = "`state_size` set in __init__, an integer or a list with one entry a state"
    if size is None:
        raise Refused(expected, "no `state_size` before the cell is built")
    if is_tensor_shape(size) or (isinstance(size, (list, tuple)) and any(map(is_tensor_shape, size))):
        change = "Keras 3 knows no tf.TensorShape here: write self.state_size = units, or [(rows, columns)] for a matrix"
        raise Refused(expected, f"{size!r}", change)
    if not _is_size(size):
        raise Refused(expected, f"{size!r} of type {type(size).__name__}")
    return f"state_size is {size}"


def _is_size(size: Any) -> bool:
    if isinstance(size, (list, tuple)):
        return bool(size) and all(map(_is_size, size))
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def build(cells: Cells) -> str:
    cell = cells.new()
    expected = "`build` to be a method that Keras can call"
    at = cells.line(r"self\.build\s*=")
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    cell.build((None, cells.features))
    if not callable(cell.build):
        raise Refused(expected, f"self.build = {cell.build!r}", at=at)
    return f"builds {len(cell.weights)} weights for [batch, {cells.features}]"


def own_variables(cells: Cells) -> str:
    one, other = cells.built(), cells.built()
    mine = {id(variable) for variable in one.variables}
    shared = [variable.path for variable in other.variables if id(variable) in mine]
    if shared:
        raise Refused("two cells to have no variable in common", f"both use {', '.join(shared)}")
    return f"{len(one.variables)} variables of its own"


def sublayers_built(cells: Cells) -> str:
    cell = cells.new()
    cell.build((None, cells.features))
    unbuilt = [part for part in cell._flatten_layers(include_self=False) if not part.built]
    if unbuilt:
        with contextlib.suppress(Exception):  # what `call` has to say, `call` will say
            step(cell, cells.inputs()[:, 0], initial_states(cell))
    for part in unbuilt:
        if part.variables or type(part).build is not keras.layers.Layer.build:
            name = _attribute(cell, part)
            change = f"call self.{name}.build(input_shape) at the end of build, with the shape of what it is given"
            raise Refused(f"self.{name} to have its weights once the cell is built", "it has none yet", change)
    return "all sub-layers are built with the cell"


def _attribute(cell: Any, part: Any) -> str:
    for owner in (cell, *cell._flatten_layers(include_self=False)):
        for name, value in vars(owner).items():
            if value is part:
                return name
    return part.name


def get_initial_state(cells: Cells) -> Seen | str:
    cell = cells.built()
    method = getattr(cell, "get_initial_state", None)
    if method is None:
        sizes = cell.state_size if isinstance(cell.state_size, (list, tuple)) else [cell.state_size]
        if not all(isinstance(size, int) for size in sizes):
            change = "write get_initial_state(self, batch_size=None), which returns one tensor [batch_size, …] a state"
            raise Refused("get_initial_state, since a state is a tensor", "no such method", change)
        return "none: Keras starts from zeros"
    hint = _old_signature(method)
    for batch_size in (1, BATCH):
        states = method(batch_size=batch_size)
        states = list(states) if tree.is_nested(states) else [states]
        if not _fits(_as_list(cell.state_size), states, batch_size):
            expected = (
                f"one state [{batch_size}, …] for each entry of state_size {_as_list(cell.state_size)}"
            )
            raise Refused(expected, f"shapes {shapes(states)}", _tensor_state_advice(cell.state_size))
    return Seen("one state for each entry of state_size", hint)


def _old_signature(method: Callable) -> str:
    """A hint where the pre-Keras-3 signature happens to work, "" for today's; refuses it where it cannot."""
    parameters = inspect.signature(method).parameters
    old = [name for name in ("inputs", "dtype") if name in parameters]
    change = (
        "write get_initial_state(self, batch_size=None): Keras 3 gives neither inputs nor dtype; "
        "use self.compute_dtype for the dtype"
    )
    try:
        inspect.signature(method).bind(batch_size=1)
        if old:
            method(batch_size=1)
    except Exception as error:
        signature = f"get_initial_state({', '.join(parameters)})"
        called = "get_initial_state(batch_size=…), as Keras 3 calls it, to work"
        raise Refused(
            called, f"{signature}{', the signature of Keras 2' if old else ''}: {_one_line(error)}", change
        ) from error
    return f"{' and '.join(old)} are never given in Keras 3; {change}" if old else ""


def _as_list(size: Any) -> list[Any]:
    return list(size) if isinstance(size, (list, tuple)) else [size]


def _fits(size: Any, state: Any, batch_size: int) -> bool:
    """Whether a structure of states has the shapes that `state_size` says, [batch_size, *size] each."""
    if isinstance(state, (list, tuple)):
        size = _as_list(size)
        return len(size) == len(state) and all(
            _fits(s, t, batch_size) for s, t in zip(size, state, strict=True)
        )
    return tuple(getattr(state, "shape", ())) == (batch_size, *_as_list(size))


def _tensor_state_advice(size: Any) -> str:
    if isinstance(size, tuple) and len(size) > 1:
        return f"state_size = {size} means {len(size)} states; for one state of that shape write [{size}]"
    return ""


def call(cells: Cells) -> str:
    cell = cells.built()
    result = cell(cells.inputs()[:, 0], tuple(initial_states(cell)))
    expected = "call to return a pair: (output, [new states])"
    if ops.is_tensor(result):
        raise Refused(expected, f"one tensor {tuple(result.shape)}", "write `return output, [state]`")
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        count = len(result) if isinstance(result, (list, tuple)) else type(result).__name__
        raise Refused(expected, f"{count} values", "write `return output, [state, …]`")
    if not ops.is_tensor(result[0]):
        raise Refused(expected, f"an output of type {type(result[0]).__name__}")
    return f"returns an output {tuple(result[0].shape)} and its states"


def state_structure(cells: Cells) -> Seen | str:
    cell = cells.built()
    states = initial_states(cell)
    _, new = cell(cells.inputs()[:, 0], tuple(states))
    bare = ops.is_tensor(new)
    if _skeleton([new] if bare else new) != _skeleton(states):
        raise Refused(
            f"new states of the same structure as the old, {shapes(states)}", _structure_text(new)
        )
    hint = (
        "`return output, [state]` is what Keras documents; a bare state breaks where cells are stacked"
        if bare
        else ""
    )
    return Seen("the new states have the structure of the old", hint)


def _skeleton(states: Any) -> Any:
    if isinstance(states, (list, tuple)):
        return tuple(map(_skeleton, states))
    return "tensor" if ops.is_tensor(states) else type(states).__name__


def _structure_text(states: Any) -> str:
    if isinstance(states, (list, tuple)) and all(map(ops.is_tensor, states)):
        return f"{len(states)} states of shapes {shapes(list(states))}"
    return f"{_skeleton(states)}".replace("'", "")


def _one_step(cells: Cells) -> tuple[list[Any], list[Any]]:
    """All states before a step, and after it."""
    cell = cells.built()
    states = initial_states(cell)
    _, new = step(cell, cells.inputs()[:, 0], states)
    return tree.flatten(states), tree.flatten(new)


def state_shapes(cells: Cells) -> str:
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        if tuple(old.shape) != tuple(new.shape):
            raise Refused(f"state {index} to keep its shape {tuple(old.shape)}", f"{tuple(new.shape)}")
    return "the new states have the shapes of the old"


def state_dtypes(cells: Cells) -> str:
    for index, (old, new) in enumerate(zip(*_one_step(cells), strict=True)):
        before, after = map(keras.backend.standardize_dtype, (old.dtype, new.dtype))
        if before != after:
            change = f"Keras hands every state over in the compute dtype: return ops.cast(state, states[{index}].dtype)"
            raise Refused(f"state {index} to keep the dtype it is given in, {before}", after, change)
    return "the new states have the dtypes of the old"


def output_size(cells: Cells) -> str:
    cell = cells.built()
    output, _ = step(cell, cells.inputs()[:, 0], initial_states(cell))
    declared = getattr(cell, "output_size", None)
    said = declared if declared is not None else _as_list(cell.state_size)[0]
    name = "output_size" if declared is not None else "output_size, or else the first entry of state_size,"
    shape = tuple(output.shape)
    if not isinstance(said, int) or shape != (BATCH, said):
        change = f"set self.output_size = {shape[-1]} in __init__" if len(shape) == 2 else ""
        raise Refused(f"{name} to say the size of the output {shape}", f"{said}", change)
    return f"the output is {shape}, as declared"


def finite(cells: Cells) -> str:
    cell = cells.built()
    outputs, states = walk(cell, cells.inputs())
    for name, values in (("outputs", outputs), ("states", states)):
        if not all(np.isfinite(array).all() for array in arrays(values)):
            raise Refused(f"finite {name} over {STEPS} steps of random inputs", "NaN or infinity")
    return "outputs and states are finite"


# --- purity ------------------------------------------------------------------------------------------


def same_answer_twice(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    states = reached_states(cell, inputs)
    first, again = (step(cell, inputs[:, 2], states) for _ in range(2))
    return agree(again, first, 0.0, "the same answer to the same inputs and states")


def hidden_state(cells: Cells) -> Seen:
    cell, inputs = cells.built(), cells.inputs()
    states = reached_states(cell, inputs)
    first, before = step(cell, inputs[:, 2], states), _attributes(cell)
    step(cell, inputs[:, 3], initial_states(cell))
    again = step(cell, inputs[:, 2], states)
    changed = ", ".join(f"self.{name}" for name in _changed(before, _attributes(cell)))
    change = f"{changed} changes from call to call: carry it in the states instead" if changed else ""
    seen = agree(again, first, 0.0, "an answer that does not depend on earlier calls", change)
    return Seen(seen, f"{changed} changes from call to call; in a graph it would not" if changed else "")


def _attributes(cell: Any) -> dict[str, Any]:
    """What the cell's attributes hold: variables and lists by content, the rest by identity."""
    hidden = vars(keras.layers.Layer()).keys() | {"_dropout_mask", "_recurrent_dropout_mask"}
    own = {name: value for name, value in vars(cell).items() if name not in hidden}
    return {name: _content(value) for name, value in own.items()}


def _content(value: Any) -> Any:
    if isinstance(value, keras.Variable):
        return np.asarray(value.value).tobytes()
    if isinstance(value, (list, tuple, dict, set)):
        return len(value)
    return value


def _changed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    def same(one: Any, other: Any) -> bool:
        plain = isinstance(one, (bytes, int, float, str)) and isinstance(other, type(one))
        return one is other or (plain and one == other)

    return [name for name, value in after.items() if not same(before.get(name), value)]


def causality(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    future = ops.concatenate([inputs[:, :3], cells.inputs(seed=1)[:, 3:]], axis=1)
    outputs, _ = run(cell, inputs)
    others, _ = run(cell, future)
    return agree(
        others[:, :3], outputs[:, :3], cells.tolerance(), "outputs that do not depend on later inputs"
    )


def independent_samples(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    changed = ops.concatenate([cells.inputs(seed=1)[:1], inputs[1:]], axis=0)
    outputs, states = _samples(run(cell, inputs), slice(1, None))
    return agree(
        _samples(run(cell, changed), slice(1, None)),
        (outputs, states),
        cells.tolerance(),
        "samples of a batch that do not change each other's answers",
    )


def _samples(result: tuple[Any, Any], rows: slice) -> tuple[Any, Any]:
    return tree.map_structure(lambda value: value[rows], result)


def any_batch_size(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    whole = run(cell, inputs)
    first = _samples(whole, slice(0, 1))
    agree(run(cell, inputs[:1]), first, cells.tolerance(), "a batch of 1 to be as the first sample of 3")
    many = compiled(lambda x: run(cell, x), (None, STEPS, cells.features))
    agree(many(inputs), whole, cells.tolerance(), "a graph for any batch size to answer as for 3")
    return agree(many(inputs[:1]), first, cells.tolerance(), "one answer at batch sizes 1, 3 and None")


def any_timesteps(cells: Cells) -> str:
    cell, longest = cells.built(), 4 * STEPS
    inputs = cells.inputs(longest)
    outputs, _ = run(cell, inputs)
    for timesteps in (1, STEPS):
        shorter, _ = run(cell, inputs[:, :timesteps])
        what = f"{timesteps} timesteps to be as the first of {longest}"
        agree(shorter, outputs[:, :timesteps], cells.tolerance(), what)
    many = compiled(lambda x: run(cell, x)[0], (BATCH, None, cells.features))
    agree(many(inputs[:, :1]), outputs[:, :1], cells.tolerance(), "a graph for any timesteps to answer for 1")
    return agree(
        many(inputs), outputs, cells.tolerance(), f"one answer at 1, {STEPS}, {longest} and None timesteps"
    )


# --- weights -----------------------------------------------------------------------------------------


def weights_created_once(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    made = variables_made(lambda: run(cell, inputs))
    if made:
        raise Refused("all weights to be made in build", f"{', '.join(sorted(set(made)))} made in call again")
    return f"{len(cell.weights)} weights, made in build"


def weights_tracked(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    states = initial_states(cell)
    used = variables_used(lambda: step(cell, inputs[:, 0], states))
    tracked = {id(variable.value) for variable in cell.variables}
    lost = [variable for variable in used if id(variable) not in tracked]
    if lost:
        names = ", ".join(f"{variable.name.partition(':')[0]} {tuple(variable.shape)}" for variable in lost)
        raise Refused(
            "every variable that call uses to be in cell.weights", f"{names} used but not in cell.weights"
        )
    return f"all {len(used)} variables that call uses are tracked"


def weight_gradients(cells: Cells) -> Seen:
    cell, inputs = cells.built(), cells.inputs()
    run(cell, inputs)
    excused = dict(getattr(cell, "no_gradient", {}))
    names = {variable.name for variable in cell.trainable_variables}
    unknown = sorted(set(excused) - names)
    if unknown:
        raise Refused(f"no_gradient to name trainable weights ({', '.join(sorted(names))})", f"{unknown}")
    found = gradients(lambda: _total(run(cell, inputs)), cell.trainable_variables)
    zero = []
    for variable, gradient in zip(cell.trainable_variables, found, strict=True):
        if variable.name in excused:
            continue
        if gradient is None or not np.isfinite(gradient).all():
            seen = "none" if gradient is None else "one that is not finite"
            raise Refused(f"a finite gradient for the weight {variable.name!r}", seen)
        zero += [] if gradient.any() else [variable.name]
    hint = f"the gradient of {', '.join(zero)} is zero on random inputs" if zero else ""
    excuse = "".join(f"; {name} has none: {reason}" for name, reason in excused.items())
    return Seen(f"{len(found) - len(excused)} trainable weights receive a finite gradient{excuse}", hint)


def _total(result: Any, seed: int = 3) -> Any:
    """A random combination of all float tensors of a structure: one number with a gradient for all."""
    rng = np.random.default_rng(seed)
    total: Any = 0.0
    for value in tree.flatten(result):
        if keras.backend.is_float_dtype(value.dtype):
            factors = ops.convert_to_tensor(rng.uniform(0.5, 1.5, tuple(value.shape)), dtype=value.dtype)
            total = total + ops.sum(value * factors)
    return total


def set_weights(cells: Cells) -> str:
    one, other, inputs = cells.built(seed=0), cells.built(seed=1), cells.inputs()
    run(other, inputs)
    other.set_weights(one.get_weights())
    what = "a cell that is given another's weights to answer as that one"
    return agree(run(other, inputs), run(one, inputs), cells.tolerance(), what)


def get_config(cells: Cells) -> Seen:
    cell, inputs = cells.built(), cells.inputs()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(cell)))
    with keras.saving.custom_object_scope(custom_objects(cell)):
        twin = keras.saving.deserialize_keras_object(config)
        again = json.loads(json.dumps(keras.saving.serialize_keras_object(twin)))
    lost = [key for key, value in config["config"].items() if again["config"].get(key, ...) != value]
    if lost:
        raise Refused("the same config from the cell made again", f"other values of {', '.join(lost)}")
    twin.build((None, cells.features))
    if [w.shape for w in twin.weights] != [w.shape for w in cell.weights]:
        raise Refused("the same weights in the cell made again", f"{shapes(twin.weights)}")
    twin.set_weights(cell.get_weights())
    what = "the cell made again from its config to answer the same"
    seen = agree(run(twin, inputs), run(cell, inputs), cells.tolerance(), what)
    silent = ", ".join(_not_in_config(cell, config["config"]))
    return Seen(
        seen, f"get_config says nothing of {silent}: a copy gets the default value" if silent else ""
    )


def _not_in_config(cell: Any, config: dict[str, Any]) -> list[str]:
    """Arguments of the constructor that the config does not mention."""
    if not _is_custom(type(cell)):
        return []
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(type(cell).__init__).parameters.values()
    return [p.name for p in list(parameters)[1:] if p.kind in named and p.name not in config]


def save_load(cells: Cells) -> Seen:
    cell, inputs = cells.built(), cells.inputs()
    model = keras.Sequential(
        [keras.Input((STEPS, cells.features)), keras.layers.RNN(cell, return_sequences=True)]
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        loaded = keras.models.load_model(file, custom_objects=custom_objects(cell))
    seen = agree(
        loaded(inputs), model(inputs), cells.tolerance(), "a saved and loaded model to answer the same"
    )
    return Seen(
        seen, _registration(cell, "keras.models.load_model needs custom_objects={name: class} for it")
    )


def _registration(cell: Any, consequence: str) -> str:
    names = [
        owner.__name__
        for owner in custom_classes(cell)
        if keras.saving.get_registered_object(keras.saving.get_registered_name(owner)) is not owner
    ]
    if not names:
        return ""
    return f"{', '.join(names)} has no @keras.saving.register_keras_serializable(): {consequence}"


# --- gradients ---------------------------------------------------------------------------------------


def gradient(cells: Cells) -> Seen | str:
    """Autodiff against differences in float64: along a random direction for each source, its derivative must
    lie between the slopes to the left and to the right, which are one unless the direction meets a kink."""
    with dtype_policy("float64"):
        cell, inputs = _cell_under(cells, "float64"), cells.inputs(3)
        if getattr(cell, "surrogate_gradient", None):
            raise Skipped(f"the cell says its gradient is a surrogate: {cell.surrogate_gradient}")
        excused = dict(getattr(cell, "no_gradient", {}))
        states = reached_states(cell, cells.inputs(3, seed=1))
        weights = [weight for weight in cell.trainable_variables if weight.name not in excused]
        moving = [
            keras.Variable(value, dtype="float64", trainable=False) for value in tree.flatten([inputs, *states])
        ]
        names = ["the inputs", *(f"state {i}" for i in range(len(moving) - 1))]
        names += [f"the weight {weight.name!r}" for weight in weights]

        def total() -> Any:
            start = tree.pack_sequence_as(states, [variable.value for variable in moving[1:]])
            return _total(walk(cell, moving[0].value, start))

        sources = [*moving, *weights]
        found = gradients(total, sources)
        for name, source, slope in zip(names, sources, found, strict=True):
            _compare_slopes(name, source, slope, total)
        return f"agrees with differences along {len(sources)} directions"


# Rounding errs by about 1e-16 / step relative to the total, curvature by step: 1e-10 and less, both far
# below the tolerance, and a kink is seldom met within so short a step.
_STEP, _SLOPE_TOLERANCE = 1e-6, 1e-6


def _compare_slopes(name: str, source: Any, slope: np.ndarray | None, total: Callable[[], Any]) -> None:
    here = np.asarray(source.value)
    direction = np.random.default_rng(5).standard_normal(here.shape)
    values = []
    for move in (-_STEP, 0.0, _STEP):
        source.assign(here + move * direction)
        values.append(float(total()))
    source.assign(here)
    left, right = np.diff(values) / _STEP
    auto = 0.0 if slope is None else float(np.sum(slope * direction))
    allowed = _SLOPE_TOLERANCE * (1 + abs(values[1]) + abs(left) + abs(right) + abs(auto))
    if not min(left, right) - allowed <= auto <= max(left, right) + allowed:
        raise Refused(
            f"the derivative with respect to {name} to be {(left + right) / 2:.6g}, as differences say",
            f"{auto:.6g} from autodiff",
        )


# --- one answer however it is run --------------------------------------------------------------------


def graph(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    return agree(
        compiled(lambda x: run(cell, x))(inputs),
        run(cell, inputs),
        cells.tolerance(),
        "the same answer from a graph as from eager execution",
    )


def xla(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    if not cell.supports_jit:
        raise Skipped("the cell says supports_jit = False")
    if not has_xla():
        raise Skipped("this TensorFlow has no XLA for the CPU")
    return agree(
        compiled(lambda x: run(cell, x), xla=True)(inputs),
        run(cell, inputs),
        cells.tolerance(),
        "the same answer compiled with XLA as without",
    )


def unroll(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    what = "the same answer unrolled as in a loop"
    return agree(run(cell, inputs, unroll=True), run(cell, inputs), cells.tolerance(), what)


def stateful(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    chunks = keras.layers.RNN(cell, return_sequences=True, stateful=True)
    outputs = ops.concatenate([chunks(inputs[:, :2]), chunks(inputs[:, 2:])], axis=1)
    whole, states = run(cell, inputs)
    what = "a stateful layer, given the sequence in chunks, to answer as for the whole"
    agree(chunks.states, states, cells.tolerance(), f"{what}, in its states")
    return agree(outputs, whole, cells.tolerance(), what)


def go_backwards(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    what = "go_backwards to be as the reversed inputs"
    return agree(
        run(cell, inputs, go_backwards=True), run(cell, ops.flip(inputs, axis=1)), cells.tolerance(), what
    )


_LENGTHS = (STEPS, 3, 1)


def _mask() -> np.ndarray:
    """[BATCH, STEPS], true for the first steps of each sample."""
    return np.arange(STEPS) < np.array(_LENGTHS)[:, None]


def mask(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    outputs, states = run(cell, inputs, mask=_mask())
    for sample, length in enumerate(_LENGTHS):
        rows = slice(sample, sample + 1)
        expected = run(cell, inputs[rows, :length])
        seen = _samples((outputs[:, :length], states), rows)
        agree(seen, expected, cells.tolerance(), "a right-padded sequence to be as the truncated one")
        after = ops.broadcast_to(expected[0][:, -1:], (1, STEPS - length, expected[0].shape[-1]))
        what = "the last output to be repeated over the padding"
        agree(outputs[rows, length:], after, cells.tolerance(), what)
    seen = compiled(lambda x: run(cell, x, mask=_mask()))(inputs)
    return agree(seen, (outputs, states), cells.tolerance(), "masked sequences to be as truncated ones")


def zero_output_for_mask(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    outputs, states = run(cell, inputs, mask=_mask())
    zeroed = ops.where(_mask()[:, :, None], outputs, ops.zeros_like(outputs))
    seen = compiled(lambda x: run(cell, x, mask=_mask(), zero_output_for_mask=True))(inputs)
    return agree(
        seen, (zeroed, states), cells.tolerance(), "zeros for the masked steps, and nothing else changed"
    )


def mask_gradients(cells: Cells) -> str:
    cell = cells.built()
    inputs = cells.inputs() * ops.cast(_mask()[:, :, None], "float32")  # padded with zeros, as people do
    weights = [w for w in cell.trainable_variables if w.name not in getattr(cell, "no_gradient", {})]

    def masked() -> Any:
        return _total([run(cell, inputs, mask=_mask())[1]])

    def truncated() -> Any:
        runs = [run(cell, inputs[i : i + 1, :length])[1] for i, length in enumerate(_LENGTHS)]
        return _total([tree.map_structure(lambda *states: ops.concatenate(states, axis=0), *runs)])

    seen, expected = gradients(masked, weights), gradients(truncated, weights)
    given = [(a, b) for a, b in zip(seen, expected, strict=True) if a is not None and b is not None]
    what = "padding with zeros not to change the gradients of the weights"
    return agree(
        [a for a, _ in given], [b for _, b in given], STEPS * cells.tolerance(), what
    )  # backwards adds up once more over the steps


def return_state(cells: Cells) -> Seen | str:
    cell, inputs = cells.built(), cells.inputs()
    seen = agree(
        run(cell, inputs), walk(cell, inputs), cells.tolerance(), "RNN to answer as the steps one by one"
    )
    last = keras.layers.RNN(cell)(inputs)
    agree(last, run(cell, inputs)[0][:, -1], cells.tolerance(), "the last output alone to be the last of all")
    sizes = _as_list(cell.state_size)
    nested = any(isinstance(size, (list, tuple)) for size in sizes)
    hint = "in a functional model Keras' RNN gives other symbolic shapes for such states with return_state=True"
    return Seen(seen, hint if nested else "")


def stacked(cells: Cells) -> str:
    lower, inputs = cells.built(), cells.inputs()
    width = step(lower, inputs[:, 0], initial_states(lower))[0].shape[-1]
    upper = cells.built(seed=1, features=width)
    for batch in (BATCH, 1):
        stack = keras.layers.RNN([lower, upper], return_sequences=True)
        two_layers = run(upper, run(lower, inputs[:batch])[0])[0]
        what = f"RNN([cell, cell]) to be as two layers, at batch size {batch}"
        seen = agree(stack(inputs[:batch]), two_layers, 2 * cells.tolerance(), what)
    return seen


def bidirectional(cells: Cells) -> Seen:
    cell, inputs = cells.new(), cells.inputs()
    with keras.saving.custom_object_scope(custom_objects(cell)):
        both = keras.layers.Bidirectional(keras.layers.RNN(cell, return_sequences=True))
        outputs = both(inputs)
    forth, back = both.forward_layer.cell, both.backward_layer.cell
    backwards = ops.flip(run(back, ops.flip(inputs, axis=1))[0], axis=1)
    expected = ops.concatenate([run(forth, inputs)[0], backwards], axis=-1)
    seen = agree(outputs, expected, cells.tolerance(), "Bidirectional to be as both directions side by side")
    return Seen(
        seen, _registration(cell, "Bidirectional cannot clone it outside of keras.saving.custom_object_scope")
    )


def _cell_under(cells: Cells, dtype: str) -> Any:
    """A cell that computes in this dtype under the policy of now; skips one that sets its own."""
    cell = cells.built()
    if cell.compute_dtype != dtype:
        raise Skipped(f"the cell sets its own dtype, {cell.dtype_policy.name}")
    return cell


def _precision(policy: str, dtype: str, variables: str) -> Callable[[Cells], str]:
    def check(cells: Cells) -> str:
        float32 = cells.built()
        with dtype_policy(policy):
            cell, inputs = _cell_under(cells, dtype), cells.inputs()
            _expect_dtype("the weights", cell.trainable_variables, variables)
            output, states = walk(cell, inputs)
            _expect_dtype("the output", [output], dtype)
            _expect_dtype("the states", tree.flatten(states), dtype)
            cell.set_weights(float32.get_weights())
            seen = compiled(lambda: run(cell, inputs))()
        tolerance = max(cells.tolerance(dtype), cells.tolerance("float32"))
        return agree(
            seen, run(float32, cells.inputs()), tolerance, f"under {policy} the answer of float32, rounded"
        )

    return check


def _expect_dtype(what: str, values: Sequence[Any], dtype: str) -> None:
    for value in values:
        seen = keras.backend.standardize_dtype(value.dtype)
        if keras.backend.is_float_dtype(seen) and seen != dtype:
            raise Refused(f"{what} to be {dtype}", seen)


def dropout(cells: Cells) -> str:
    rates = {name: 0.5 for name in ("dropout", "recurrent_dropout") if cells.target.accepts(name)}
    cell, inputs = cells.built(**rates), cells.inputs()
    if not rates and not cell._call_has_training_arg:
        raise Skipped("call has no `training` argument, and the constructor no `dropout`")
    infer, plain = run(cell, inputs), run(cells.built(**dict.fromkeys(rates, 0.0)), inputs)
    agree(infer, plain, cells.tolerance(), "the answer without dropout when training=False")
    trained = run(cell, inputs, training=True)
    if difference(trained, infer) <= cells.tolerance():
        if not rates:
            raise Skipped("`training` changes nothing for a cell made with these arguments")
        raise Refused(f"{rates} to change the answer when training=True", "the same answer")
    first, again = (_training_runs(cells, rates) for _ in range(2))
    agree(again, first, cells.tolerance(), "the same answers after keras.utils.set_random_seed")
    if difference(first[0], first[1]) <= cells.tolerance():
        raise Refused("a new mask for each sequence in a graph", "the same mask twice")
    return "active only in training, new for each sequence, and reproducible from a seed"


def _training_runs(cells: Cells, rates: dict[str, float]) -> list[Any]:
    """Two runs of one compiled function in training mode, with a cell made anew from the seed."""
    cell, inputs = cells.built(**rates), cells.inputs()
    function = compiled(lambda x: run(cell, x, training=True))
    return [function(inputs), function(inputs)]


def initial_state(cells: Cells) -> Seen:
    started, cell, inputs = cells.built(), cells.built(), cells.inputs()
    states = initial_states(started)
    whole = run(started, inputs)
    what = "an initial_state given to the layer to be used as the cell's own would"
    seen = agree(run(cell, inputs, initial_state=states), whole, cells.tolerance(), what)
    head, middle = run(cell, inputs[:, :2])
    tail, final = run(cell, inputs[:, 2:], initial_state=middle)
    joined = (ops.concatenate([head, tail], axis=1), final)
    agree(joined, whole, cells.tolerance(), "a run continued from its states to be as one run")
    return Seen(seen, _nonzero_start(started, inputs))


def _nonzero_start(cell: Any, inputs: Any) -> str:
    """A hint for a cell that does not start from zeros, if this Keras forgets that at a reset."""
    if not any(array.any() for array in arrays(initial_states(cell))):
        return ""
    layer = keras.layers.RNN(cell, stateful=True)
    layer.build(inputs.shape)
    layer.reset_state()
    if difference(layer.states, initial_states(cell)) == 0:
        return ""
    return (
        "the initial state is not zero: a fresh stateful keras.layers.RNN keeps it, but reset_state() and a "
        "second build overwrite it with zeros; cells.RNN asks the cell again"
    )


def reference(cells: Cells) -> str:
    cell, inputs = cells.built(), cells.inputs()
    if not hasattr(cell, "reference"):
        raise Skipped("the cell has no method reference(self, inputs, initial_states)")
    start = reached_states(cell, cells.inputs(seed=1))
    result = cell.reference(arrays(inputs)[0], tree.map_structure(lambda state: arrays(state)[0], start))
    if not isinstance(result, (list, tuple)) or len(result) != 2:
        raise Refused("reference to return (outputs, [final states])", type(result).__name__)
    outputs, states = run(cell, inputs, initial_state=start)
    for what, seen, expected in (("outputs", outputs, result[0]), ("states", states, list(result[1]))):
        if [a.shape for a in arrays(seen)] != [b.shape for b in arrays(expected)]:
            raise Refused(f"{what} of the reference of shapes {shapes(seen)}", shapes(expected))
        agree(seen, expected, cells.tolerance(), f"the {what} that the reference computes")
    return "outputs and final states are those of the reference"


# --- the table ---------------------------------------------------------------------------------------

RUNS = ("state_structure", "state_shapes", "state_dtypes", "sublayers_built", "finite")
PURE = (*RUNS, "same_answer_twice", "hidden_state", "weights_created_once")
COPIED = (*PURE, "own_variables", "weights_tracked", "set_weights")

_EAGER = "keep Python `if`, float() and .numpy() off tensors: use ops.where, ops.cond and shapes"
_HIDDEN = "whatever a step leaves for later steps has to be in the states: no attribute, list or variable"
_CONFIG = "let get_config return every argument of __init__ beside super().get_config()"
_DTYPE = "take dtypes from the inputs or self.compute_dtype, and cast constants to them"

CHECKS = (
    Check("layer", "Is it a new Keras layer each time?", layer, "subclass keras.layers.Layer", "__init__"),
    Check(
        "state_size",
        "Does state_size say what the states are?",
        state_size,
        "set self.state_size in __init__ to a positive int, or a list with one int or shape a state",
        "__init__",
        ("layer",),
    ),
    Check(
        "build",
        "Can Keras build it?",
        build,
        "`build(self, input_shape)` makes the weights; the flag that Keras sets itself is called `built`",
        "build",
        ("layer",),
    ),
    Check(
        "own_variables",
        "Does each cell have its own variables?",
        own_variables,
        "make sub-layers and weights in __init__ or build, not as a default argument or in the class",
        "__init__",
        ("build",),
    ),
    Check(
        "sublayers_built",
        "Are sub-layers built with the cell?",
        sublayers_built,
        "build sub-layers in build",
        "build",
        ("build", "get_initial_state"),
    ),
)
