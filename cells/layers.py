"""The layers that run a cell over sequences: `RNN`, Keras' loop, and `FusedRNN`, compiled as a whole."""

import functools
import warnings

import keras
from keras import ops, saving, tree

# Weights are read in their own dtype, whatever the layer's policy; Keras has no public name for that.
from keras.src.backend.common.variables import AutocastScope

from cells.gated import GatedCell
from cells.recurrent import GRUCell, LSTMCell, SimpleRNNCell

# Keras' own cells and the ones here that have their equations, weights and arguments.
TWINS: dict[type, type[GatedCell]] = {
    keras.layers.SimpleRNNCell: SimpleRNNCell,
    keras.layers.LSTMCell: LSTMCell,
    keras.layers.GRUCell: GRUCell,
}

ENGINES = ("auto", "native", "xla")


@saving.register_keras_serializable("cells")
class RNN(keras.layers.RNN):
    """`keras.layers.RNN` that starts from the cell's own initial state whenever it starts anew.

    `keras.layers.RNN` asks the cell's `get_initial_state` when it is built, and later writes zeros. Here
    `reset_state()`, and building again, ask it each time.

    A cell may learn its initial state: where `get_initial_state` returns a weight, a stateless layer starts
    every call from it and it gets its gradient. A stateful layer copies its value into the layer's state when
    it is built and when it is reset; what is copied has no gradient, so that the weight does not learn.

    Arguments, inputs and outputs are those of `keras.layers.RNN`. States that are no vectors (`state_size` a
    list of shapes) have their shapes in a functional model too.
    """

    def reset_state(self):
        """Sets the states of a stateful layer to the cell's initial state."""
        if self.states is None:
            return
        variables = tree.flatten(self.states)
        initial = self.get_initial_state(variables[0].shape[0])
        for variable, value in zip(variables, tree.flatten(initial), strict=True):
            variable.assign(value)

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        """The shape of the output, followed by those of the states with `return_state`."""
        shape = super().compute_output_shape(sequences_shape, initial_state_shape)
        if not self.return_state or isinstance(self.cell, keras.layers.StackedRNNCells):
            return shape
        sizes = [size if isinstance(size, (list, tuple)) else (size,) for size in self.state_size]
        return shape[0], *[(sequences_shape[0], *size) for size in sizes]


@saving.register_keras_serializable("cells")
class FusedRNN(RNN):
    """`keras.layers.RNN` for cells made of gates, compiled as a whole with a gradient of its own.

        layer = FusedRNN(SLSTMCell(128), return_sequences=True)

    Arguments, inputs, outputs, weights and saved files are those of `keras.layers.RNN` with the same cell,
    and so are the results to the rounding of the dtype. The layer compiles itself: nothing else is to be set.

    Two engines run it, and without being told the layer takes the first that can:

    - "native" writes the cell's equation in C++ and has the machine's compiler make a TensorFlow operation of
      it, once for an equation on a machine (a second or two; kept in the user's cache folder). It takes every
      shape without compiling again. It needs a C++ compiler, and runs float32 and 16-bit policies on a
      machine without a GPU.
    - "xla" is a program of XLA, which compiles at the first call with a new batch size or number of
      timesteps. Where the number of timesteps is not known beforehand the sequences are padded to one of a
      few lengths (at most a quarter longer), so that not every length compiles.

    Inside of `jit_compile=True` and in a SavedModel, which other programs load, it is always XLA's. Only a
    concrete function that was taken before the saving keeps the native engine, as a signature given to
    `tf.saved_model.save` is, or an endpoint of Keras' `ExportArchive` that was called: `engine="xla"` is for
    those.

    In training the forward pass keeps what the gradient needs. With `training=False` and no gradient tape in
    sight it does not, and a gradient that is asked for all the same runs the forward pass again.

    With a 16-bit policy it computes in float32, and casts what goes in and comes out.

    On another Keras backend than TensorFlow it runs Keras' loop, and says so once.

    Args:
        cell: a `GatedCell` whose `update` is elementwise, or a `keras.layers.LSTMCell`, `GRUCell` or
            `SimpleRNNCell`.
        return_sequences, return_state, go_backwards, stateful, zero_output_for_mask: as in
            `keras.layers.RNN`.
        unroll: must be false; there is no loop to unroll.
        engine: "auto", "native" or "xla".

    Raises:
        TypeError: the cell cannot be fused; the message says what is missing.
        ValueError: `unroll` is true, there is no such engine, or the one asked for cannot run here, which is
            told at the first call.
        NotImplementedError: a second derivative is asked for.
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
        self._definition = definition_of(self.cell)
        self._built_timesteps = None

    def get_config(self):
        return {**super().get_config(), "engine": self.engine}

    def build(self, sequences_shape, initial_state_shape=None):
        super().build(sequences_shape, initial_state_shape)
        self._built_timesteps = sequences_shape[1]

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """What `keras.layers.RNN` calls for the loop: (last output, outputs, states)."""
        if keras.backend.backend() != "tensorflow":
            _say_plain_loop(keras.backend.backend())
            return super().inner_loop(sequences, initial_state, mask, training)
        from cells import fused

        dtype = "float64" if self.cell.compute_dtype == "float64" else "float32"
        sequences = ops.cast(sequences, dtype)
        mask = None if mask is None else ops.cast(ops.reshape(mask, ops.shape(sequences)[:2]), "bool")
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        operands = self._operands(sequences, tree.flatten(initial_state), training, dtype)
        constants = self._constants(mask, training, dtype)
        programs, takes_any_length = self._programs()
        if not takes_any_length:
            operands, constants = fused.padded(operands, constants, known=self._built_timesteps)
        outputs, states = fused.run(
            programs,
            operands,
            constants,
            zero_masked=self.zero_output_for_mask,
            sequence=self.return_sequences,
            save=training or fused.recording(),
        )
        last_output = states[self._recurrence.output]
        if not self.return_sequences:
            if mask is not None:  # as with all outputs, see `fused.run`
                shown = mask[:, -1:] if self.zero_output_for_mask else ops.any(mask, axis=1, keepdims=True)
                last_output = ops.where(shown, last_output, ops.zeros_like(last_output))
            outputs = last_output[:, None]
        elif "steps" in constants:  # padded
            outputs = outputs[:, : ops.shape(sequences)[1]]
        return outputs[:, -1], outputs, states[: len(self.state_size)]

    @functools.cached_property
    def _recurrence(self):
        from cells import fused

        return fused.recurrence_of(self._definition)

    def _native_programs(self):
        """The programs of the native engine, or None where it cannot run the cell here."""
        if self.engine == "xla":
            return None
        is_double = self.cell.compute_dtype == "float64"
        programs = "it computes in float64" if is_double else self._recurrence.native
        if not isinstance(programs, str):
            return programs
        if self.engine == "native":
            raise ValueError(
                f"FusedRNN cannot run {type(self.cell).__name__} with the native engine: {programs}. "
                'engine="xla" can.'
            )
        return None

    def _programs(self):
        """The two programs that run the recurrence where TensorFlow traces, and whether they are native."""
        from cells import native

        programs = self._native_programs() if native.in_place() else None
        return (programs, True) if programs else (self._recurrence.compiled, False)

    def _operands(self, sequences, states, training, dtype):
        """What the engine takes and gives a gradient for; see `fused.run`."""
        definition = self._definition
        with AutocastScope(None):
            weights = {
                name: ops.cast(getattr(self.cell, name), dtype)
                for name in ("kernel", "recurrent_kernel", "bias", *definition.vectors)
                if getattr(self.cell, name, None) is not None
            }
        width, units = weights["kernel"].shape[1], definition.units
        separate = len(definition.separate) * units
        sums = width - separate - len(definition.late) * units
        bias = weights.get("bias", ops.zeros((2, width) if definition.separate else (width,), dtype))
        operands = {
            "states": [ops.cast(state, dtype) for state in states],
            "vectors": [weights[name] for name in definition.vectors],
        }
        if definition.separate:
            bias, recurrent_bias = bias[0], bias[1]
            operands["separate_bias"] = recurrent_bias[sums : sums + separate]
            bias = bias + ops.pad(recurrent_bias[:sums], [[0, width - sums]])
        if definition.recurrent:
            operands["recurrent"] = weights["recurrent_kernel"]
        return {**operands, **self._inputs(sequences, weights["kernel"], bias, training)}

    def _inputs(self, sequences, kernel, bias, training):
        """Inputs, kernel and bias; with a dropout mask for each gate, the products of all gates instead."""
        masks = self.cell.get_dropout_mask(sequences[:, 0]) if _drops(self.cell.dropout, training) else None
        if masks is None:
            return {"inputs": sequences, "kernel": kernel, "bias": bias}
        if not isinstance(masks, (list, tuple)):
            return {"inputs": sequences * masks[:, None], "kernel": kernel, "bias": bias}
        parts = zip(masks, ops.split(kernel, len(masks), axis=1), strict=True)
        products = [ops.matmul(sequences * mask[:, None], part) for mask, part in parts]
        return {"inputs": ops.concatenate(products, axis=-1) + bias}

    def _constants(self, mask, training, dtype):
        """What the engine takes and gives no gradient for; see `fused.run`."""
        constants = {} if mask is None else {"mask": mask}
        if _drops(self.cell.recurrent_dropout, training):
            masks = self.cell.get_recurrent_dropout_mask(None)  # drawn by Keras before the loop
            if not isinstance(masks, (list, tuple)):
                masks = [masks] * len(self._definition.gates)
            constants["drops"] = [ops.cast(mask, dtype) for mask in masks]
        return constants


def definition_of(cell):
    """The `GatedCell` that has the cell's equation: the cell, or the twin of one of Keras' own.

    Raises:
        TypeError: there is none; the message says what is missing.
    """
    twin = TWINS.get(type(cell))
    if twin is not None:
        return twin.from_config(cell.get_config())
    name = type(cell).__name__
    if not isinstance(cell, GatedCell):
        missing = "is no GatedCell: it has no list of `gates` and no elementwise `update` of them"
    elif type(cell).call is not GatedCell.call:
        missing = "has a `call` of its own, which need not be its `update`"
    elif not cell.gates:
        missing = "names no `gates`"
    else:
        return cell
    raise TypeError(f"FusedRNN cannot run {name}, which {missing}. keras.layers.RNN runs it.")


def _drops(rate, training):
    return training and 0 < rate < 1


@functools.cache
def _say_plain_loop(backend):
    warnings.warn(
        f"FusedRNN is written for TensorFlow; on {backend} it runs Keras' own loop, at its speed.",
        stacklevel=2,
    )
