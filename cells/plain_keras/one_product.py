"""Cells in plain Keras whose step has at most one product with the state: minimal GRU, SRU, coupled LSTM,
antisymmetric RNN, GRU with layer normalisation."""

from keras import layers, ops, saving

from cells.plain_keras.cell import UnitsCell


@saving.register_keras_serializable("cells")
class MinGRUCell(UnitsCell):
    """Minimal GRU: gates that do not see the state (Feng et al., Were RNNs all we needed?, 2024).

        z = σ(x W_z + b_z)
        h' = (1 − z) ∘ h + z ∘ (x W_h + b_h)

    Output: h' [batch, units]. Weights: those of two dense layers, W_z and b_z, then W_h and b_h.

    Args:
        units: int, the width of output and state.
    """

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.gate = layers.Dense(self.units, "sigmoid", dtype=self.dtype_policy, name="gate")
        self.candidate = layers.Dense(self.units, dtype=self.dtype_policy, name="candidate")

    def build(self, input_shape):
        self.gate.build(input_shape)
        self.candidate.build(input_shape)

    def call(self, inputs, states):
        z = self.gate(inputs)
        h = (1 - z) * states[0] + z * self.candidate(inputs)
        return h, [h]


@saving.register_keras_serializable("cells")
class SRUCell(UnitsCell):
    """Simple recurrent unit: each unit sees no past but its own (Lei et al., Simple recurrent units for
    highly parallelizable recurrence, 2018), with a projection of x in its highway: x may have any width.

        f = σ(x W_f + v_f ∘ c + b_f)
        r = σ(x W_r + v_r ∘ c + b_r)
        c' = f ∘ c + (1 − f) ∘ (x W_c)
        h = r ∘ c' + (1 − r) ∘ (x W_x)

    Output: h [batch, units]. State: c [batch, units]. Weights: `kernel` (features, 4 * units), its blocks in
    the order c, f, r, x; `state_vector` (2, units), v_f and v_r; `bias` (2 * units,), b_f and b_r.

    Args:
        units: int, the width of output and state.
    """

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 4 * self.units))
        self.state_vector = self.add_weight(name="state_vector", shape=(2, self.units))
        self.bias = self.add_weight(name="bias", shape=(2 * self.units,), initializer="zeros")

    def call(self, inputs, states):
        c = states[0]
        candidate, forget, reset, highway = ops.split(ops.matmul(inputs, self.kernel), 4, axis=-1)
        forget_bias, reset_bias = ops.split(self.bias, 2)
        forget = ops.sigmoid(forget + self.state_vector[0] * c + forget_bias)
        reset = ops.sigmoid(reset + self.state_vector[1] * c + reset_bias)
        c = forget * c + (1 - forget) * candidate
        return reset * c + (1 - reset) * highway, [c]


@saving.register_keras_serializable("cells")
class CIFGLSTMCell(UnitsCell):
    """LSTM with coupled input and forget gate (Greff et al., LSTM: a search space odyssey, 2017), over input
    and state side by side.

        f, o, g = [x, h] W + b
        c' = σ(f) ∘ c + (1 − σ(f)) ∘ tanh(g)
        h' = σ(o) ∘ tanh(c')

    Output: h' [batch, units]. States: h, c [batch, units]. Weights: `kernel` (features + units, 3 * units),
    `bias` (3 * units,), their blocks in the order f, o, g.

    Args:
        units: int, the width of output and states.
    """

    @property
    def state_size(self):
        return [self.units, self.units]

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1] + self.units, 3 * self.units))
        self.bias = self.add_weight(name="bias", shape=(3 * self.units,), initializer="zeros")

    def call(self, inputs, states):
        h, c = states
        sums = ops.matmul(ops.concatenate([inputs, h], axis=-1), self.kernel) + self.bias
        f, o, g = ops.split(sums, 3, axis=-1)
        f = ops.sigmoid(f)
        c = f * c + (1 - f) * ops.tanh(g)
        h = ops.sigmoid(o) * ops.tanh(c)
        return h, [h, c]


@saving.register_keras_serializable("cells")
class AntisymmetricRNNCell(UnitsCell):
    """A step of a stable differential equation, with its gate (Chang et al., AntisymmetricRNN: a dynamical
    system view on recurrent neural networks, 2019).

        A = R − Rᵀ − γ I
        z = σ(x W_z + h A + b_z)
        h' = h + ε z ∘ tanh(x W_h + h A + b_h)

    Output: h' [batch, units]. Weights: `kernel` (features, 2 * units), `recurrent_kernel` (units, units), R,
    and `bias` (2 * units,), their blocks in the order z, h.

    Args:
        units: int, the width of output and state.
        step_size: float, ε.
        diffusion: float, γ.
    """

    def __init__(self, units, step_size=0.1, diffusion=0.1, **kwargs):
        super().__init__(units, **kwargs)
        self.step_size, self.diffusion = float(step_size), float(diffusion)

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], 2 * self.units))
        self.recurrent_kernel = self.add_weight(name="recurrent_kernel", shape=(self.units, self.units))
        self.bias = self.add_weight(name="bias", shape=(2 * self.units,), initializer="zeros")

    def call(self, inputs, states):
        h = states[0]
        antisymmetric = self.recurrent_kernel - ops.transpose(self.recurrent_kernel)
        from_h = ops.matmul(h, antisymmetric) - self.diffusion * h
        z, candidate = ops.split(ops.matmul(inputs, self.kernel) + self.bias, 2, axis=-1)
        h = h + self.step_size * ops.sigmoid(z + from_h) * ops.tanh(candidate + from_h)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "step_size": self.step_size, "diffusion": self.diffusion}


@saving.register_keras_serializable("cells")
class LayerNormGRUCell(UnitsCell):
    """GRU with layer normalisation of what its products give (Ba, Kiros & Hinton, Layer normalization, 2016).

        z, r, g = N(x W)
        z', r', g' = N'(h R)
        h' = z'' ∘ h + (1 − z'') ∘ tanh(g + σ(r + r') ∘ g'),   z'' = σ(z + z')

    N and N' are `keras.layers.LayerNormalization`: over all 3 * units sums of a sequence, with a factor and
    an offset each.

    Output: h' [batch, units]. Weights: `kernel` (features, 3 * units), `recurrent_kernel` (units, 3 * units),
    their blocks in the order z, r, g; then gamma and beta, (3 * units,), of N and of N'.

    Args:
        units: int, the width of output and state.
    """

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.input_norm = layers.LayerNormalization(dtype=self.dtype_policy, name="input_norm")
        self.state_norm = layers.LayerNormalization(dtype=self.dtype_policy, name="state_norm")

    def build(self, input_shape):
        width = 3 * self.units
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width))
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel", shape=(self.units, width), initializer="orthogonal"
        )
        self.input_norm.build((None, width))
        self.state_norm.build((None, width))

    def call(self, inputs, states):
        h = states[0]
        from_x = ops.split(self.input_norm(ops.matmul(inputs, self.kernel)), 3, axis=-1)
        from_h = ops.split(self.state_norm(ops.matmul(h, self.recurrent_kernel)), 3, axis=-1)
        z, r = (ops.sigmoid(from_x[gate] + from_h[gate]) for gate in range(2))
        h = z * h + (1 - z) * ops.tanh(from_x[2] + r * from_h[2])
        return h, [h]
