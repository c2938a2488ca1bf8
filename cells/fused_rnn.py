"""`FusedRNN`: `keras.layers.RNN` with engines that run a cell faster than Keras' loop."""

import functools
import warnings
from typing import Any, NamedTuple

import keras
from keras import ops, saving, tree

# Weights are read in their own dtype, whatever the layer's policy; Keras has no public names for these.
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope

from cells.rnn import RNN

ENGINES = ("auto", "native", "xla", "keras")
# An equation that changes at every step would be compiled at every step.
MOST_EQUATIONS = 8
# The attributes that `keras.layers.RNN` reads at a call.
_READ = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask", "engine")


@saving.register_keras_serializable("cells")
class FusedRNN(RNN):
    """`keras.layers.RNN`, compiled as a whole with a gradient of its own.

        layer = FusedRNN(MyCell(128), return_sequences=True)  # any Keras cell

    A cell's `call` is traced, as `tf.function` traces it. What does not depend on the states is computed for
    all timesteps at once, and the rest, the loop, is compiled.

    It runs every cell that `keras.layers.RNN` runs, the user's own object and no copy of it. Arguments,
    masks, inputs, outputs, weights, variables and losses are those of `keras.layers.RNN` with the same cell,
    and so are results and gradients to the rounding of the dtype; in a stateful layer those of `cells.RNN`.

    Three engines run it, and without being told the layer takes the first that can; `explain()` says which,
    and why no faster one:

    - "native" writes the loop in C++ and has the machine's compiler make a TensorFlow operation of it, once
      for an equation on a machine (a second or two; kept in the user's cache folder). It takes every shape
      without compiling again. It runs whatever is made of products with weights, elementwise operations,
      reductions (layer norm, softmax, sums) and of moving elements about; states may be of any width, and
      matrices. It is fastest where a step is one product and gates. It needs a C++ compiler, and runs
      float32, float64, and 16-bit policies of a `GatedCell`, on a machine without a GPU.
    - "xla" is a program of XLA, which compiles at the first call with a new batch size or number of
      timesteps. Where the number of timesteps is not known beforehand the sequences are padded to one of a
      few lengths (at most a quarter longer), so that not every length compiles.
    - "keras" is Keras' own loop, at its speed. It runs what the others cannot, and the layer warns of that
      once: a `call` that has an effect (it prints, assigns, calls Python, makes a variable, adds a loss), a
      branch or a loop on values, a convolution, a gradient of its own, numbers drawn without a seed generator
      of the cell; masks with a value for every unit; forward mode; another backend than TensorFlow.

    What the cell has (`activation`, a coefficient) may change: it is looked at at every call, and compiled
    again. As in Keras, a `tf.function` or `fit` heeds it once it is traced again.

    In eager code a call without a gradient tape is traced as a whole when the native engine runs the same
    shapes again, which spares Keras' Python; what changed meanwhile is heeded all the same. Of more than 16
    shapes the others are not traced so.

    Inside of `jit_compile=True` and in a SavedModel, which other programs load, it is always XLA's. Only a
    concrete function that was taken before the saving keeps the native engine, as a signature given to
    `tf.saved_model.save` is, or an endpoint of Keras' `ExportArchive` that was called: `engine="xla"` is for
    those. Converters to TFLite, ONNX and OpenVINO are given Keras' loop, if it is they who trace the model;
    for a function that was traced before, or a SavedModel that is converted later, set `engine="keras"`.

    `.keras` files hold the layer as it is. Weights move between it and `keras.layers.RNN` by `get_weights`
    and `set_weights`. A `.weights.h5` file does so only where the layer is an attribute of a model: in a
    functional or sequential model Keras names a layer there after its class.

    In training the forward pass keeps what the gradient needs. With `training=False` and no gradient tape in
    sight it does not, and a gradient that is asked for all the same runs the forward pass again.

    With a 16-bit policy a `GatedCell` computes in float32, and what goes in and comes out is cast; any other
    cell computes as it does in Keras' loop. What masked steps hold reaches neither outputs nor states, be it
    NaN. With the native engine it reaches no gradient either. With the others, as with `keras.layers.RNN`, a
    NaN or an infinity there makes gradients NaN: of the weights, and of the inputs.

    Args:
        cell: whatever `keras.layers.RNN` takes.
        return_sequences, return_state, go_backwards, stateful, zero_output_for_mask: as in
            `keras.layers.RNN`.
        unroll: must be false; there is no loop to unroll.
        engine: "auto", "native", "xla" or "keras"; also an attribute, which may be set later.

    Raises:
        ValueError: `unroll` is true, there is no such engine, or the one asked for cannot run here, which is
            told at the first call; a mask or an initial state has a shape that does not fit; there are no
            timesteps.
        TypeError: the engine asked for, "native" or "xla", cannot run the cell, which is told at the first
            call.
        NotImplementedError: a second derivative is asked for, or forward mode through a `tf.function`;
            `engine="keras"` has both.
    """

    def __init__(self, cell, *args, engine="auto", **kwargs):
        super().__init__(cell, *args, **kwargs)
        if engine not in ENGINES:
            raise ValueError(f"FusedRNN has no engine {engine!r}, only {', '.join(ENGINES)}.")
        self.engine = engine
        if self.unroll:
            raise ValueError(
                "FusedRNN compiles its loop as a whole and cannot unroll it; leave out `unroll`."
            )
        self._equation: Any = None  # of the cell, once a call has read it
        self._equations_read = 0
        self._calls: Any = None  # in eager code, once there were any
        self._traced: Any = None  # the cell's traced steps, once a call has needed one
        self._built_timesteps = None
        self._built_shape: Any = None

    def get_config(self):
        return {**super().get_config(), "engine": self.engine}

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        self._built_shape, self._built_timesteps = tuple(sequences_shape), sequences_shape[1]
        if keras.backend.backend() == "tensorflow" and self.engine != "keras":
            import cells.engines.converters
            import cells.engines.tracing.traced_cell  # noqa: F401 - takes 50 ms, which no call is to wait for

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if sequences.shape[1] == 0:
            raise ValueError(
                f"FusedRNN needs a timestep: sequences of the shape {tuple(sequences.shape)} have none."
            )
        if not self._is_direct(training):
            return super().call(sequences, initial_state, mask, training)
        if initial_state is None and not self.stateful:
            initial_state = self.get_initial_state(sequences.shape[0])
        return self._calls.run(
            functools.partial(super().call, training=training),
            (sequences, initial_state, mask),
            (
                training,
                *(getattr(self, name) for name in _READ),
                getattr(get_autocast_scope(), "dtype", None),
            ),
            lambda: self._what_runs(sequences, initial_state, mask, training),
        )

    def _is_direct(self, training):
        """Whether an eager call may be traced as a whole, which spares most of Keras' and our Python."""
        if keras.backend.backend() != "tensorflow" or self.engine not in ("auto", "native"):
            return False
        import tensorflow as tf

        is_ordinary = tf.executing_eagerly() and not tf.distribute.has_strategy() and not in_stateless_scope()
        if is_ordinary and self._calls is None:
            from cells.engines.direct import Calls

            self._calls = Calls()
        return is_ordinary and (training is None or isinstance(training, bool))

    def _what_runs(self, sequences, initial_state, mask, training):
        """What a trace of a whole call depends on; None where it is not the native engine's."""
        states = self.states if initial_state is None else initial_state
        states = list(states) if tree.is_nested(states) else [states]
        dtypes = {keras.backend.standardize_dtype(state.dtype) for state in tree.flatten(states)}
        if dtypes != {self.cell.compute_dtype}:  # Keras casts them
            return None
        choice = self._choose((sequences, states, mask, training))
        if choice.engine != "native":
            return None
        found = [choice.recurrence, choice.programs]
        if self.stateful:
            found += tree.flatten(self.states)
        if not choice.is_traced:  # else it is of what the cell had when it was traced
            found += [self.cell.seed_generator, self.cell.dropout, self.cell.recurrent_dropout]
            with AutocastScope(None):
                found += [weight.value for weight in self._weights().values()]
        return found

    def explain(self):
        """What is computed where, which engine runs an ordinary call here, and why no faster one; in lines.

        Raises:
            ValueError: the layer has not been built.
        """
        try:
            choice = self._choose()
        except (TypeError, ValueError) as refusal:
            if not self.built:
                raise
            return str(refusal)
        lines = [f"FusedRNN runs {_LOOPS[choice.engine]} for {_name(self.cell)}."]
        if choice.engine != "keras":
            lines += choice.recurrence.describe(choice.engine)
        if choice.engine == "xla":
            lines += [_IN_THE_LOOP]
        if choice.reason:
            lines.append(f"No faster one: {choice.reason}.")
        return "\n".join(lines)

    def why_no_faster(self):
        """Why no faster engine runs an ordinary call here, in words; None where the native one does.

        Raises:
            ValueError, TypeError: as `chosen_engine`.
        """
        return self._choose().reason

    def chosen_engine(self):
        """The engine that runs an ordinary call here: "native", "xla" or "keras".

        Raises:
            ValueError: the layer has not been built, or the engine asked for cannot run here.
            TypeError: the engine asked for cannot run the cell.
        """
        return self._choose().engine

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The loop of `keras.layers.RNN`: (last output, outputs, states)."""
        choice = self._choose((sequences, initial_state, mask, training))
        if choice.engine == "keras":
            if self.engine == "auto" and choice.reason:
                _say_keras_loop(_name(self.cell), choice.reason)
            return super().inner_loop(sequences, initial_state, mask, training)
        mask = None if mask is None else _mask_of_steps(mask, sequences)
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        run = self._run_traced if choice.is_traced else self._run_gated
        return run(choice, sequences, initial_state, mask, training)

    def _run_traced(self, choice, sequences, initial_state, mask, training):
        """Runs a cell whose `call` was traced."""
        outputs, last_output, states = choice.recurrence.run(
            choice.programs,
            sequences,
            tree.flatten(initial_state),
            mask,
            known_steps=self._built_timesteps,
            **self._options(training),
        )
        either = last_output if outputs is None else outputs  # of which Keras takes one
        return either, either, tree.pack_sequence_as(initial_state, states)

    def _run_gated(self, choice, sequences, initial_state, mask, training):
        """Runs a cell that is made of gates."""
        from cells.engines import xla

        recurrence, dtype = choice.recurrence, _dtype_of(self.cell)
        sequences = _cast(sequences, dtype)
        states = _states_of(sequences, tree.flatten(initial_state), recurrence)
        operands = self._operands(sequences, [_cast(state, dtype) for state in states], training, dtype)
        constants = self._constants(mask, training, dtype)
        if choice.engine == "xla":
            operands, constants = xla.padded(operands, constants, known=self._built_timesteps)
        outputs, states = xla.run(choice.programs, operands, constants, **self._options(training))
        last_output = states[recurrence.output]
        if not self.return_sequences:
            if mask is not None:  # as with all outputs, see `fused.run`
                shown = mask[:, -1:] if self.zero_output_for_mask else ops.any(mask, axis=1, keepdims=True)
                last_output = ops.where(shown, last_output, ops.zeros_like(last_output))
            outputs = last_output  # Keras takes one of the two
        elif "steps" in constants:  # padded
            outputs = outputs[:, : ops.shape(sequences)[1]]
        return last_output, outputs, states[: len(self.state_size)]

    def _options(self, training):
        """What every engine is told of a call; see `fused.run`."""
        from cells.engines import xla

        return {
            "zero_masked": self.zero_output_for_mask,
            "sequence": self.return_sequences,
            "save": bool(training) or xla.recording(),
        }

    def _ordinary_call(self):
        """The arguments of a call for inference."""
        if not self.built:
            raise ValueError("FusedRNN chooses an engine once it is built: build or call it first.")
        states = self.get_initial_state(2)
        shape = (2, 1, *self._built_shape[2:])
        sequences = ops.zeros(shape, dtype=self.compute_dtype)
        cast = lambda state: ops.convert_to_tensor(state, dtype=self.cell.compute_dtype)  # noqa: E731
        return sequences, tree.map_structure(cast, states), None, False

    def _choose(self, call=None):
        """The `_Choice` of a call: the one place that says who runs it.

        Args:
            call: its sequences, states, mask and `training`; None of one for inference.
        """
        if keras.backend.backend() != "tensorflow":
            return _Choice("keras", f"it is written for TensorFlow and not for {keras.backend.backend()}")
        if self.engine == "keras":
            return _Choice("keras", 'engine="keras" was asked for')
        import tensorflow as tf

        from cells.engines import converters, native

        if converters.converting() or tf.config.functions_run_eagerly():
            return _Choice("keras", None)
        recurrence, is_traced, refusal = self._recurrence(*(call or self._ordinary_call()))
        if refusal:
            return self._refused(refusal)
        programs = (
            "it was not asked for"
            if self.engine == "xla"
            else "it runs neither under XLA nor in a SavedModel"
        )
        if self.engine != "xla" and native.in_place():
            programs = recurrence.native
            if not isinstance(programs, str):
                return _Choice("native", None, recurrence, programs, is_traced)
            if self.engine == "native":
                raise ValueError(
                    f"FusedRNN cannot run {_name(self.cell)} with the native engine: {programs}. "
                    'engine="xla" can.'
                )
        reason = f"the native engine cannot: {programs}"
        if isinstance(recurrence.compiled, str):
            return self._refused(f"cannot run with an engine: {recurrence.compiled}, and {reason}")
        if self.engine == "xla":
            reason = 'engine="xla" was asked for'
        return _Choice("xla", reason, recurrence, recurrence.compiled, is_traced)

    def _refused(self, refusal):
        """The choice of Keras' loop, where a certain engine was not asked for."""
        if self.engine != "auto":
            raise TypeError(
                f"FusedRNN cannot run {_name(self.cell)} with the {self.engine} engine: it {refusal}. "
                "keras.layers.RNN runs it, and so does FusedRNN without `engine`."
            )
        return _Choice("keras", f"{_name(self.cell)} {refusal}")

    def _recurrence(self, sequences, states, mask, training):
        """(recurrence of a call, whether it is traced, why there is none or None)."""
        from cells.engines.recurrence import Equation
        from cells.engines.tracing.nodes import Refused
        from cells.engines.tracing.traced_cell import TracedCell

        if self._equation is None or not self._equation.is_of(self.cell):
            self._equation = Equation(self.cell)
            self._equations_read += 1
        refusal = self._refusal_of(sequences, states, mask)
        if refusal:
            return None, False, refusal
        if self._equations_read > MOST_EQUATIONS and self.engine == "auto":
            return None, False, f"had {MOST_EQUATIONS} equations already, each of which is compiled"
        if self._equation.refusal is None and len(sequences.shape) == 3:
            return self._equation.recurrence, False, None
        if self._traced is None or self._traced.cell is not self.cell:
            self._traced = TracedCell(self.cell)
        try:
            return self._traced.recurrence(sequences, states, training, mask is not None), True, None
        except Refused as reason:
            return None, True, str(reason)

    def _refusal_of(self, sequences, states, mask):
        """Why no engine can run a call, as what follows the cell's name; None where one can."""
        from cells.engines import xla

        if mask is not None and len(mask.shape) == 3 and mask.shape[2] != 1:
            return "gets a mask with a value for every unit"
        if xla.in_forward_mode(self._sources(sequences, states)):
            return "is differentiated in forward mode, which only Keras' loop has"
        return None

    def _sources(self, sequences, states):
        """What a call computes with: tensors, and the handles of variables."""
        weights = self._weights().values() if self._equation.refusal is None else self.cell.weights
        for source in (sequences, *tree.flatten(states), *weights):
            value = source.value if isinstance(source, keras.Variable) else source
            yield getattr(value, "handle", value)

    def _weights(self):
        """The weights of a cell made of gates, by name."""
        names = ("kernel", "recurrent_kernel", "bias", *self._equation.vectors)
        weights = {name: getattr(self.cell, name, None) for name in names}
        return {name: weight for name, weight in weights.items() if weight is not None}

    def _operands(self, sequences, states, training, dtype):
        """What the engine takes and gives a gradient for; see `fused.run`."""
        recurrence, vectors = self._equation.recurrence, self._equation.vectors
        with AutocastScope(None):
            weights = {name: _cast(weight, dtype) for name, weight in self._weights().items()}
        width, units = weights["kernel"].shape[1], recurrence.units
        sums, separate = recurrence.sums * units, recurrence.separate * units
        bias = weights.get("bias")
        if bias is None:
            bias = ops.zeros((2, width) if separate else (width,), dtype)
        operands = {"states": states, "vectors": [weights[name] for name in vectors]}
        if separate:
            bias, recurrent_bias = bias[0], bias[1]
            operands["separate_bias"] = recurrent_bias[sums : sums + separate]
            bias = bias + ops.pad(recurrent_bias[:sums], [[0, width - sums]])
        if recurrence.recurrent:
            operands["recurrent"] = weights["recurrent_kernel"]
        return {**operands, **self._inputs(sequences, weights["kernel"], bias, training)}

    def _inputs(self, sequences, kernel, bias, training):
        """Inputs, kernel and bias; with a dropout mask for each gate, the products of all gates instead."""
        masks = None
        if self._drops(self.cell.dropout, training):
            masks = self.cell.get_dropout_mask(sequences[:, 0])  # drawn by Keras before the loop
        if masks is None:
            return {"inputs": sequences, "kernel": kernel, "bias": bias}
        if not isinstance(masks, (list, tuple)):
            return {"inputs": _dropped(sequences, masks), "kernel": kernel, "bias": bias}
        parts = zip(masks, ops.split(kernel, len(masks), axis=1), strict=True)
        # as matrices, for the gradient of a stack of products has no static shape
        rows = [(ops.reshape(_dropped(sequences, mask), (-1, kernel.shape[0])), part) for mask, part in parts]
        products = ops.concatenate([ops.matmul(*each) for each in rows], axis=-1) + bias
        return {"inputs": ops.reshape(products, (*ops.shape(sequences)[:2], kernel.shape[1]))}

    def _constants(self, mask, training, dtype):
        """What the engine takes and gives no gradient for; see `fused.run`."""
        constants = {} if mask is None else {"mask": mask}
        if self._drops(self.cell.recurrent_dropout, training):
            masks = self.cell.get_recurrent_dropout_mask(None)  # drawn by Keras before the loop
            if not isinstance(masks, (list, tuple)):
                masks = [masks] * self._equation.recurrence.gates
            constants["drops"] = [ops.cast(mask, dtype) for mask in masks]
        return constants

    def _drops(self, rate, training):
        return training and rate > 0 and (rate < 1 or self._equation.drops_all)


class _Choice(NamedTuple):
    """Who runs a call.

    Attributes:
        engine: "native", "xla" or "keras".
        reason: why no faster one, or None.
        recurrence: what an engine runs: of `cells.engines.recurrence`, or of `cells.engines` if `is_traced`.
        programs: those of the engine.
    """

    engine: str
    reason: str | None
    recurrence: Any = None
    programs: Any = None
    is_traced: bool = False


_IN_THE_LOOP = "On a CPU, an inference of three sequences or more does all of it in the loop that it can."
_LOOPS = {
    "native": "the native engine",
    "xla": "the xla engine",
    "keras": "Keras' own loop",
}


def _mask_of_steps(mask, sequences):
    """A mask as [batch, steps], bool; as in Keras it may have 1 for either, and a last axis of 1.

    Raises:
        ValueError: it has another shape; the message names both.
    """
    mask = ops.cast(mask, "bool")
    given = tuple(mask.shape)
    if len(given) == 3:
        mask = ops.squeeze(mask, axis=-1)
    wanted = sequences.shape[:2]
    fits = len(mask.shape) == 2 and all(
        size in (1, None) or expected in (size, None)
        for size, expected in zip(mask.shape, wanted, strict=True)
    )
    if not fits:
        raise ValueError(
            f"FusedRNN: a mask of the shape {given} does not fit sequences of the shape "
            f"{tuple(sequences.shape)}; it must be (batch, timesteps), {tuple(wanted)}."
        )
    if None not in wanted and tuple(mask.shape) == tuple(wanted):
        return mask
    return ops.broadcast_to(mask, ops.shape(sequences)[:2])


def _states_of(sequences, states, recurrence):
    """Initial states as [batch, units]; as in Keras one for all sequences may stand for them.

    Raises:
        ValueError: there are too few or too many, or one has another shape.
    """
    if len(states) != recurrence.carried:
        raise ValueError(f"FusedRNN: the cell has {recurrence.carried} states, not {len(states)}.")
    wanted = (sequences.shape[0], recurrence.units)
    return [_state_of(sequences, state, wanted) for state in states]


def _state_of(sequences, state, wanted):
    """One of the initial states as [batch, units]."""
    given = tuple(state.shape)
    if given == wanted:
        return state
    fits = len(given) in (1, 2) and all(
        size in (expected, None) or expected is None or (axis == 1 and size == 1)
        for axis, (size, expected) in enumerate(zip(reversed(given), reversed(wanted), strict=False))
    )
    if not fits:
        raise ValueError(
            f"FusedRNN: an initial state of the shape {given} does not fit sequences of the shape "
            f"{tuple(sequences.shape)}; it must be (batch, units), {wanted}."
        )
    if len(given) == 2 and given[0] != 1:
        return state
    return ops.broadcast_to(state, (ops.shape(sequences)[0], wanted[1]))


def _dropped(sequences, mask):
    """Sequences with the features dropped that are 0 in a mask [batch, features], at every step."""
    return sequences * ops.cast(mask, sequences.dtype)[:, None]


def _cast(value, dtype):
    """A tensor or a variable as a tensor of a dtype; to look is cheaper than Keras' cast."""
    import tensorflow as tf

    value = tf.convert_to_tensor(value)
    return value if value.dtype == dtype else tf.cast(value, dtype)


def _name(cell):
    return type(cell).__name__


def _dtype_of(cell):
    """The dtype that the engines compute a cell in."""
    return "float64" if cell.compute_dtype == "float64" else "float32"


@functools.cache
def _say_keras_loop(name, reason):
    warnings.warn(f"FusedRNN runs Keras' own loop for {name}, at its speed: {reason}.", stacklevel=2)
