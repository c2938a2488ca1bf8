"""`GatedCell`: what recurrent cells made of gates have in common, written once.

A cell derived from it declares its gates and states and writes its equation as one elementwise
`update`; weights, initialisers, biases, dropout, dtype, configuration and the matrix products are here.
"""

import inspect
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

from keras import activations, constraints, initializers, layers, ops, random, regularizers

# Keras looks for this very class to draw the dropout masks once a sequence, outside its loop; it has no
# public name.
from keras.src.layers.rnn.dropout_rnn_cell import DropoutRNNCell

_SERIALIZE = {
    "activation": activations.serialize,
    "initializer": initializers.serialize,
    "regularizer": regularizers.serialize,
    "constraint": constraints.serialize,
}


class GatedCell(DropoutRNNCell, layers.Layer):
    """Base of cells whose gates are sums of two matrix products, and whose rest is elementwise.

    With x [batch, features] the input of a step, h [batch, units] the first state, and W, R, b the gate's
    blocks of the weights, every gate's pre-activation is

        a_g = x W_g + h R_g + b_g

    except the last ones, where a cell may say otherwise:

    - `separate` gates get the two products apart, as the pair (x W_g + b_g, h R_g + b'_g); the bias then
      has the shape (2, gates * units), as in Keras' GRU with `reset_after`;
    - `late` gates multiply their recurrent block not by h but by `late_input(gates, states)`, an
      elementwise function of the other gates and the states, as in Keras' GRU without `reset_after`.

    A cell sets the class attributes below and writes `update`:

        gates      names of the gates, in the order of their blocks in the weights
        states     names of the states, each [batch, units]; the first is the h of the products
        separate   the gates, last in `gates`, that want their products apart
        late       the gates, last in `gates`, whose recurrent product waits for the others
        recurrent  whether there are products with h; without them a gate is x W_g + b_g
        vectors    names of further weights (units,), which `update` and `late_input` take as further
                   arguments, each with the group ("kernel", "recurrent", "bias") whose initialiser,
                   regulariser and constraint it has
        without    names of arguments below that the equation does not have; they are refused

    Weights: `kernel` (features, gates * units), `recurrent_kernel` (units, gates * units) if `recurrent`,
    with `use_bias` `bias` (gates * units,), or (2, gates * units) where a gate is `separate`, and `vectors`.

    The first four arguments may be given by position, in Keras' order; the others by keyword alone, for the
    cells have different ones.

    Args:
        units: int, the width of the output and of every state.
        activation, recurrent_activation: names or functions, for `update` to use.
        use_bias: bool, whether the gates have biases.
        kernel_initializer, recurrent_initializer, bias_initializer: how the weights start.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties on the weights.
        kernel_constraint, recurrent_constraint, bias_constraint: projections of the weights.
        dropout: float in [0, 1], the share of the inputs to drop, the same ones at every step; as in Keras
            a share of 1 drops nothing.
        recurrent_dropout: float in [0, 1], the same for h. As in Keras it implies `implementation=1`.
        implementation: 2, or as in Keras 0, multiplies by the weights of all gates at once; 1 gate by gate,
            each gate with a dropout mask of its own.
        seed: int, seeds the dropout masks.

    Raises:
        ValueError: an argument outside of its range.
        TypeError: an argument that the cell's equation does not have.
    """

    gates: ClassVar[tuple[str, ...]] = ()
    states: ClassVar[tuple[str, ...]] = ("h",)
    separate: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    recurrent: ClassVar[bool] = True
    vectors: ClassVar[dict[str, str]] = {}
    without: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args, **kwargs):
        refused = sorted(set(kwargs) & set(cls.without))
        if refused:
            raise TypeError(f"{cls.__name__}'s equation has no {', '.join(refused)}.")
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        units,
        activation=None,
        recurrent_activation=None,
        use_bias=True,
        *,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        kernel_regularizer=None,
        recurrent_regularizer=None,
        bias_regularizer=None,
        kernel_constraint=None,
        recurrent_constraint=None,
        bias_constraint=None,
        dropout=0.0,
        recurrent_dropout=0.0,
        implementation=2,
        seed=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        _check(
            type(self).__name__, units, implementation, dropout=dropout, recurrent_dropout=recurrent_dropout
        )
        self.units = int(units)
        self.activation = activations.get(activation)
        self.recurrent_activation = activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = regularizers.get(recurrent_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.recurrent_constraint = constraints.get(recurrent_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.dropout = float(dropout)
        self.recurrent_dropout = float(recurrent_dropout)
        self.implementation = 1 if recurrent_dropout else int(implementation)
        if self.implementation == 1:
            self.dropout_mask_count = len(self.gates)
        self.seed = seed
        self.seed_generator = random.SeedGenerator(seed)

    @property
    def state_size(self):
        """The width of the one state, or the list of the widths of all of them."""
        return self.units if len(self.states) == 1 else [self.units] * len(self.states)

    @property
    def output_size(self):
        """The width of the output."""
        return self.units

    def update(self, gates: Sequence[Any], states: Sequence[Any], *vectors: Any):
        """One step of the equation, elementwise: of what it takes and of numbers, nothing else.

        Args:
            gates: for each gate its pre-activation [batch, units]; a pair of them for a `separate` gate.
            states: the states before the step, each [batch, units].
            vectors: the weights named in `vectors`, in a shape that broadcasts against the others.

        Returns:
            (output, states): the output [batch, units] and the list of the states after the step.
        """
        raise NotImplementedError(f"{type(self).__name__} must write `update`, its equation.")

    def late_input(self, gates: Sequence[Any], states: Sequence[Any], *vectors: Any):
        """What the recurrent products of the `late` gates multiply, [batch, units], elementwise."""
        raise NotImplementedError(f"{type(self).__name__} has late gates and must write `late_input`.")

    def get_initial_state(self, batch_size=None):
        """Zeros [batch_size, units] for every state."""
        return [ops.zeros((batch_size, self.units), dtype=self.compute_dtype) for _ in self.states]

    def get_bias_initializer(self):
        """The initialiser of `bias`; a cell overrides it to let some gate's bias start elsewhere."""
        return self.bias_initializer

    def build(self, input_shape):
        width = len(self.gates) * self.units
        self.kernel = self._add("kernel", "kernel", (input_shape[-1], width), self.kernel_initializer)
        self.recurrent_kernel: Any = None
        if self.recurrent:
            self.recurrent_kernel = self._add(
                "recurrent_kernel", "recurrent", (self.units, width), self.recurrent_initializer
            )
        self.bias = None
        if self.use_bias:
            shape = (2, width) if self.separate else (width,)
            self.bias = self._add("bias", "bias", shape, self.get_bias_initializer())
        for name, kind in self.vectors.items():
            setattr(self, name, self._add(name, kind, (self.units,), getattr(self, f"{kind}_initializer")))
        super().build(input_shape)

    def _add(self, name, kind, shape, initializer):
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            regularizer=getattr(self, f"{kind}_regularizer"),
            constraint=getattr(self, f"{kind}_constraint"),
        )

    def call(self, inputs, states, training=False):
        nested = isinstance(states, (list, tuple))
        states = list(states) if nested else [states]
        gates = self._gates(inputs, states, training)
        output, new_states = self.update(gates, states, *self._vectors())
        return output, list(new_states) if nested else new_states[0]

    def _gates(self, inputs, states, training):
        """The pre-activations of all gates, as `update` takes them."""
        drop_x, drop_h = self._dropout_masks(inputs, states[0], training)
        input_bias, recurrent_bias = self._biases()
        together = len(self.gates) - len(self.late)  # the gates whose recurrent product takes h
        sums = together - len(self.separate)
        if not self.recurrent:
            return self._products(inputs, self.kernel, drop_x, input_bias)
        if self.implementation != 1 and sums == len(self.gates):  # one sum for all, then split
            total = ops.matmul(_drop(inputs, drop_x), self.kernel)
            total = total + ops.matmul(_drop(states[0], drop_h), self.recurrent_kernel)
            return _split(total if input_bias is None else total + input_bias, sums)

        x = self._products(inputs, self.kernel, drop_x, input_bias)
        h = []
        if together:
            kernel = self.recurrent_kernel[:, : together * self.units]
            h = self._products(states[0], kernel, drop_h, recurrent_bias)
        gates = [a + b for a, b in zip(x[:sums], h[:sums], strict=True)]
        gates += zip(x[sums:together], h[sums:], strict=True)
        if self.late:
            kernel = self.recurrent_kernel[:, together * self.units :]
            if self.implementation == 1 and drop_h is not None:
                drop_h = drop_h[together:]
            late_input = self.late_input(gates, states, *self._vectors())
            late = self._products(late_input, kernel, drop_h, None)
            gates += [a + b for a, b in zip(x[together:], late, strict=True)]
        return gates

    def _products(self, vector, kernel, drop, bias):
        """vector @ kernel + bias, one array [batch, units] for each gate in `kernel`."""
        count = kernel.shape[-1] // self.units
        if self.implementation == 1:
            drops = [None] * count if drop is None else drop
            kernels = _split(kernel, count)
            products = [ops.matmul(_drop(vector, d), k) for d, k in zip(drops, kernels, strict=False)]
            if bias is None:
                return products
            biases = _split(bias, len(self.gates))
            return [product + b for product, b in zip(products, biases, strict=False)]
        product = ops.matmul(_drop(vector, drop), kernel)
        return _split(product if bias is None else product + bias[: count * self.units], count)

    def _vectors(self):
        """The weights named in `vectors`, in the compute dtype."""
        return [ops.cast(getattr(self, name), self.compute_dtype) for name in self.vectors]

    def _biases(self):
        """The bias of the input products and that of the recurrent products, each (width,) or None."""
        if self.bias is None:
            return None, None
        if self.separate:
            return self.bias[0], self.bias[1]
        return self.bias, None

    def _dropout_masks(self, inputs, h, training):
        """The masks of the inputs and of h; None where nothing is dropped, which includes a share of 1."""
        drops_x, drops_h = (training and 0 < rate < 1 for rate in (self.dropout, self.recurrent_dropout))
        drop_x = self.get_dropout_mask(inputs) if drops_x else None
        drop_h = self.get_recurrent_dropout_mask(h) if drops_h else None
        return drop_x, drop_h

    def get_config(self):
        """The arguments that make an equal cell: those of every constructor from `GatedCell`'s down."""
        owners = [owner for owner in reversed(type(self).__mro__) if issubclass(owner, GatedCell)]
        parameters = [
            parameter
            for owner in owners
            for parameter in list(inspect.signature(owner.__init__).parameters.values())[1:]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        names = dict.fromkeys(parameter.name for parameter in parameters)
        own = {name: self._config_value(name) for name in names if name not in self.without}
        return {**super().get_config(), **own}

    def _config_value(self, name):
        serialize = _SERIALIZE.get(name.split("_")[-1])
        value = getattr(self, name)
        return value if serialize is None else serialize(value)


def _check(name, units, implementation, **rates):
    if not isinstance(units, Integral) or isinstance(units, bool) or units <= 0:
        raise ValueError(f"{name}: units must be a positive integer, not {units!r}.")
    if implementation not in (0, 1, 2):
        raise ValueError(f"{name}: implementation must be 1 or 2, not {implementation!r}; 0 is 2.")
    for rate, value in rates.items():
        if not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise ValueError(f"{name}: {rate} must be between 0 and 1, not {value!r}.")


def _drop(vector, mask):
    return vector if mask is None else vector * mask


def _split(blocks, count):
    return list(ops.split(blocks, count, axis=-1))
