"""Cells in plain Keras whose products wait for each other: LSTM with projection, multiplicative LSTM,
recurrent highway network, closed-form continuous-time network, Legendre memory unit."""

import numpy as np
from keras import layers, ops, saving

from cells.plain_keras.cell import UnitsCell, positive_integer


@saving.register_keras_serializable("cells")
class ProjectedLSTMCell(UnitsCell):
    """LSTM whose output is a projection of its memory (Sak, Senior & Beaufays, Long short-term memory
    recurrent neural network architectures for large scale acoustic modeling, 2014), without peepholes.

        i, f, g, o = x W + h R + b
        c' = σ(f) ∘ c + σ(i) ∘ tanh(g)
        h' = (σ(o) ∘ tanh(c')) P

    Output: h' [batch, units]. States: h [batch, units], c [batch, memory]. Weights: `kernel` (features,
    4 * memory), `recurrent_kernel` (units, 4 * memory), `bias` (4 * memory,), their blocks in the order
    i, f, g, o, and `projection` (memory, units).

    Args:
        units: int, the width of the output.
        memory: int, the width of c; twice `units` if None.

    Raises:
        ValueError: `units` or `memory` is not a positive integer.
    """

    def __init__(self, units, memory=None, **kwargs):
        super().__init__(units, **kwargs)
        self.memory = positive_integer(self, "memory", 2 * self.units if memory is None else memory)

    @property
    def state_size(self):
        return [self.units, self.memory]

    def build(self, input_shape):
        width = 4 * self.memory
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, width), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(width,), initializer="zeros")
        self.projection = self.add_weight(name="projection", shape=(self.memory, self.units))

    def call(self, inputs, states):
        h, c = states
        sums = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel) + self.bias
        i, f, g, o = ops.split(sums, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.matmul(ops.sigmoid(o) * ops.tanh(c), self.projection)
        return h, [h, c]

    def get_config(self):
        return {**super().get_config(), "memory": self.memory}


@saving.register_keras_serializable("cells")
class MultiplicativeLSTMCell(UnitsCell):
    """LSTM whose gates see a product of input and state in place of the state (Krause et al., Multiplicative
    LSTM for sequence modelling, 2016).

        m = (x W_m) ∘ (h R_m)
        i, f, g, o = x W + m R + b
        c' = σ(f) ∘ c + σ(i) ∘ tanh(g)
        h' = σ(o) ∘ tanh(c')

    Output: h' [batch, units]. States: h, c [batch, units]. Weights: `kernel` (features, 5 * units), its
    blocks in the order m, i, f, g, o; `state_kernel` (units, units), R_m; `recurrent_kernel` (units,
    4 * units), R, and `bias` (4 * units,).

    Args:
        units: int, the width of output and states.
    """

    @property
    def state_size(self):
        return [self.units, self.units]

    def build(self, input_shape):
        units = self.units
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 5 * units))
        self.state_kernel = self.add_weight(
            name="state_kernel", shape=(units, units), initializer="orthogonal"
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(units, 4 * units), initializer="orthogonal"
        )
        self.bias = self.add_weight(name="bias", shape=(4 * units,), initializer="zeros")

    def call(self, inputs, states):
        h, c = states
        from_x = ops.matmul(inputs, self.kernel)
        m = from_x[:, : self.units] * ops.matmul(h, self.state_kernel)
        sums = from_x[:, self.units :] + ops.matmul(m, self.recurrent_kernel) + self.bias
        i, f, g, o = ops.split(sums, 4, axis=-1)
        c = ops.sigmoid(f) * c + ops.sigmoid(i) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]


@saving.register_keras_serializable("cells")
class RHNCell(UnitsCell):
    """Recurrent highway network: several highway layers a step (Zilly et al., Recurrent highway networks,
    2017), with coupled gates.

        s_0 = h
        t, g = [l = 1] x W + s_{l−1} R_l + b_l
        s_l = σ(t) ∘ tanh(g) + (1 − σ(t)) ∘ s_{l−1}             l = 1 … depth
        h' = s_depth

    Output: h' [batch, units]. Weights: `kernel` (features, 2 * units), then `recurrent_kernel_1` (units,
    2 * units) and so on, then `bias` (depth, 2 * units), their blocks in the order t, g.

    Args:
        units: int, the width of output and state.
        depth: int, how many highway layers a step takes.

    Raises:
        ValueError: `units` or `depth` is not a positive integer.
    """

    def __init__(self, units, depth=2, **kwargs):
        super().__init__(units, **kwargs)
        self.depth = positive_integer(self, "depth", depth)

    def build(self, input_shape):
        width = 2 * self.units
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width))
        self.recurrent_kernels = [
            self.add_weight(
                name=f"recurrent_kernel_{layer + 1}", shape=(self.units, width), initializer="orthogonal"
            )
            for layer in range(self.depth)
        ]
        self.bias = self.add_weight(name="bias", shape=(self.depth, width), initializer="zeros")

    def call(self, inputs, states):
        s = states[0]
        for layer, recurrent_kernel in enumerate(self.recurrent_kernels):
            sums = ops.matmul(s, recurrent_kernel) + self.bias[layer]
            if layer == 0:
                sums = sums + ops.matmul(inputs, self.kernel)
            t, g = ops.split(sums, 2, axis=-1)
            t = ops.sigmoid(t)
            s = t * ops.tanh(g) + (1 - t) * s
        return s, [s]

    def get_config(self):
        return {**super().get_config(), "depth": self.depth}


@saving.register_keras_serializable("cells")
class CfCCell(UnitsCell):
    """Closed-form continuous-time network: what lies between two candidates, by the time that a step takes
    (Hasani et al., Closed-form continuous-time neural networks, 2022).

        z = tanh([x, h] W + b)
        t = σ(−τ (z W_f + b_f))
        h' = t ∘ tanh(z W_g + b_g) + (1 − t) ∘ tanh(z W_k + b_k)

    Output: h' [batch, units]. Weights: those of four dense layers, a kernel and a bias each: the backbone's
    (features + units, backbone), then f's, g's and k's (backbone, units).

    Args:
        units: int, the width of output and state.
        backbone: int, the width of z; `units` if None.
        elapsed: float, τ, the time between two steps.

    Raises:
        ValueError: `units` or `backbone` is not a positive integer.
    """

    def __init__(self, units, backbone=None, elapsed=1.0, **kwargs):
        super().__init__(units, **kwargs)
        self.width = positive_integer(self, "backbone", self.units if backbone is None else backbone)
        self.elapsed = float(elapsed)
        self.backbone = layers.Dense(self.width, "tanh", dtype=self.dtype_policy, name="backbone")
        self.time, self.first, self.second = (
            layers.Dense(self.units, activation, dtype=self.dtype_policy, name=name)
            for name, activation in (("time", None), ("first", "tanh"), ("second", "tanh"))
        )

    def build(self, input_shape):
        self.backbone.build((None, input_shape[-1] + self.units))
        for head in (self.time, self.first, self.second):
            head.build((None, self.width))

    def call(self, inputs, states):
        z = self.backbone(ops.concatenate([inputs, states[0]], axis=-1))
        t = ops.sigmoid(-self.elapsed * self.time(z))
        h = t * self.first(z) + (1 - t) * self.second(z)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "backbone": self.width, "elapsed": self.elapsed}


@saving.register_keras_serializable("cells")
class LMUCell(UnitsCell):
    """Legendre memory unit: a memory that holds the last θ steps of one signal as polynomials (Voelker, Kajić
    & Eliasmith, Legendre memory units, 2019), without the paper's e_m, by which the signal sees the memory.

        u = x e_x + h e_h
        m' = m Ā + u B̄
        h' = tanh(x W + h R + m' M)

    Ā [order, order] and B̄ [order] are no weights: they are the paper's A and B, held constant over a step and
    integrated exactly, transposed for states that are rows.

    Output: h' [batch, units]. States: h [batch, units], m [batch, order]. Weights: `input_encoder` (features,
    1), `hidden_encoder` (units, 1); `kernel` (features, units), `recurrent_kernel` (units, units),
    `memory_kernel` (order, units).

    Args:
        units: int, the width of the output.
        order: int, how many polynomials there are.
        theta: float, θ, steps.

    Raises:
        ValueError: `units` or `order` is not a positive integer.
    """

    def __init__(self, units, order=16, theta=100.0, **kwargs):
        super().__init__(units, **kwargs)
        self.order = positive_integer(self, "order", order)
        self.theta = float(theta)
        self.transition, self.entry = _legendre_memory(self.order, self.theta)

    @property
    def state_size(self):
        return [self.units, self.order]

    def build(self, input_shape):
        features = input_shape[-1]
        self.input_encoder = self.add_weight(name="input_encoder", shape=(features, 1))
        self.hidden_encoder = self.add_weight(name="hidden_encoder", shape=(self.units, 1))
        self.kernel = self.add_weight(name="kernel", shape=(features, self.units))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, self.units), initializer="orthogonal"
        )
        self.memory_kernel = self.add_weight(name="memory_kernel", shape=(self.order, self.units))

    def call(self, inputs, states):
        h, m = states
        u = ops.matmul(inputs, self.input_encoder) + ops.matmul(h, self.hidden_encoder)
        transition, entry = (ops.cast(each, m.dtype) for each in (self.transition, self.entry))
        m = ops.matmul(m, transition) + u * entry
        h = ops.matmul(inputs, self.kernel) + ops.matmul(h, self.recurrent_kernel)
        h = ops.tanh(h + ops.matmul(m, self.memory_kernel))
        return h, [h, m]

    def get_config(self):
        return {**super().get_config(), "order": self.order, "theta": self.theta}


def _legendre_memory(order, theta):
    """Ā [order, order] and B̄ [order], NumPy, float64."""
    from scipy.linalg import expm

    row, column = np.indices((order, order))
    scale = (2 * np.arange(order) + 1) / theta
    continuous = scale[:, None] * np.where(row < column, -1.0, (-1.0) ** (row - column + 1))
    enter = scale * (-1.0) ** np.arange(order)
    transition = expm(continuous)
    return transition.T, np.linalg.solve(continuous, (transition - np.eye(order)) @ enter)
