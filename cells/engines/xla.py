"""The XLA engine of `cells.FusedRNN`: a whole recurrence as one compiled program, with a gradient of its own.

    outputs, states = run(recurrence.compiled, operands, constants, sequence=True, save=True)

`run` takes the programs of `cells/engines/native` as well.

TensorFlow only; `cells/fused_rnn.py` imports it where that is the backend. It knows nothing of Keras: a
`Recurrence` says how a cell's gates are made and what its update is, `operands`
holds what has a gradient, `constants` what has none.

Layout. One step's state is kept as a [units, batch] array, flat, so that the elementwise part is a loop over
contiguous memory and the matrix products have the weights as their left operand, (gates, units) x (units,
batch): XLA multiplies so up to 2.5 times faster than (batch, units) x (units, gates) (1024 units, batch 32).
With few units it is the other way round, in an inference and in the training of few sequences: the state
stays [batch, units], and the loop reads and writes the steps of the sequences as they lie, [batch, steps,
...]. To exchange their axes is a pass over all of them, before the loop and after it.

An inference multiplies a step's inputs in the loop, but of one or two sequences, and where all gates are
plain sums in one product with the state. To multiply those of all steps before it writes a stack of all gates
and reads it again, which takes as long as the calls of the small products do.

On a GPU a step costs what launching its kernels costs. The state is [batch, units], all gates are one row,
and the inputs' products are made before the loop: a step is one product, one elementwise kernel, and the
writing of the states. The pre-activations are not written but made again, by one product over all steps,
before the backward loop. The loops count up to a number known when compiling: so XLA knows how often they
turn, and need not ask the GPU at every step.

Gradient. Differentiating the loop would add a weight-sized matrix at every step. Instead the backward loop
makes only the gradients of the gates, and each weight's gradient is one product over all steps after it.

The pre-activations are kept as blocks [units * batch], in this order: the plain sums, the recurrent parts of
the separate gates, their input parts, the late gates. What the recurrent product yields is so one piece.
"""

from functools import partial

import tensorflow as tf
from tensorflow.python.eager import forwardprop_util, record  # no public names

from cells.engines.recurrence import pull_back
from cells.engines.stacks import begun, row_part, write, zeros

# Training with fewer sequences than this: the inputs of all steps are multiplied before the loop, which pays
# where a step's own product is too small to be worth its call; it costs a stack of all gates. Time without /
# with it: 0.95 to 1.1.
SMALL_BATCH = 32
# An inference of fewer sequences than this multiplies so, too. Time of an LSTM's, 256 units, so / without it:
# batch 2 0.95; batch 3 and 4 1.07.
FEW_SEQUENCES = 3
# Up to so many units, in an inference or with a small batch, the state is [batch, units]. Time of an LSTM's
# inference otherwise / so: batch 4, 32 units 1.2; batch 16, 128 units 1.2; batch 32, 256 units 1.03; batch
# 256, 64 units 1.25; batch 64, 512 units 0.8.
FEW_UNITS = 256


def programs(recurrence):
    """The two programs, `forward` and `backward`, of a `Recurrence`; XLA compiles each once for every shape.

    As partials: TensorFlow counts the traces of all functions with the same code, and would warn that the
    programs of several layers were one that is traced too often.
    """
    return tuple(
        tf.function(partial(program, recurrence), jit_compile=True, autograph=False)
        for program in (_forward, _backward)
    )


def _forward(recurrence, operands, constants, zero_masked, sequence, save):
    return _Forward(recurrence, operands, constants, zero_masked, save).run(sequence)


def _backward(recurrence, operands, constants, zero_masked, saved, outputs, states):
    loop = _Backward(recurrence, operands, constants, zero_masked, True, outputs, states)
    return loop.run(saved, outputs, states)


def recording():
    """Whether a gradient tape is active, so that a gradient is likely to be asked for."""
    return record.could_possibly_record()


def in_forward_mode(tensors):
    """Whether a `tf.autodiff.ForwardAccumulator` follows one of the tensors, in eager code."""
    if not (tf.executing_eagerly() and recording()):
        return False
    return bool(forwardprop_util.pack_tangents(list(tensors)).tangents)


def shown(mask, zero_masked):
    """Where outputs are not zero, [batch, steps], or None where there is no mask; see `run`."""
    if mask is None or zero_masked:
        return mask
    return tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0


def padded(operands, constants, known):
    """Operands and constants with the steps padded to one of a few numbers, where they may vary.

    That is where the number is unknown in a graph, and for eager calls with another than `known`. There are
    four lengths from each power of two to the next: 8, 10, 12, 14, 16, 20, ..., at most a quarter too many.
    How many steps to take goes in as a number; the others cost only their share of the products after the
    loop.
    """
    steps = operands["inputs"].shape[1]
    if steps is not None and (steps == known or not tf.executing_eagerly()):
        return operands, constants
    steps = tf.shape(operands["inputs"])[1]
    grain = 1
    for power in range(3, 31):
        grain = tf.where(steps > 2**power, 2 ** (power - 2), grain)
    taken = tf.maximum(steps, 1)  # XLA slices no empty stack
    missing = [[0, 0], [0, taken + -taken % grain - steps]]
    operands = {**operands, "inputs": tf.pad(operands["inputs"], [*missing, [0, 0]])}
    if "mask" in constants:
        constants = {**constants, "mask": tf.pad(constants["mask"], missing)}
    return operands, {**constants, "steps": steps}


def run(programs, operands, constants, zero_masked, sequence, save):
    """Runs a recurrence over a batch of sequences, in the dtype of the operands.

    Args:
        programs: the (forward, backward) of the recurrence, its `compiled` or its `native`.
        operands: dict of tensors, each of which gets a gradient:
            inputs [batch, steps, features], or without `kernel` [batch, steps, gates * units]: the inputs'
            products, biases included; kernel (features, gates * units) and bias (gates * units,);
            recurrent (units, gates * units) where there are recurrent products; separate_bias
            (separate * units,) where there are separate gates, added to their recurrent products; vectors, a
            list of (units,); states, a list of [batch, units].
        constants: dict of tensors without a gradient, each where wanted: steps, int32, how many of the
            steps to take (of XLA's programs, for padded sequences); mask [batch, steps], bool, false where
            the states are to stay; drops, a list of a [batch, units] factor of the recurrent product's input
            for each gate.
        zero_masked: bool, whether the outputs of masked steps are zero; if not they are held, and zero only
            before a sequence's first step that is not masked.
        sequence: bool, whether all outputs are wanted.
        save: bool, whether to keep what a gradient needs. Without it a gradient runs the forward pass again.

    Returns:
        (outputs [batch, steps, units] or None, list of the final states [batch, units]); outputs beyond
        `steps` mean nothing. The last state is the output where the recurrence has `own_output`.

    Raises:
        NotImplementedError: when a second derivative is asked for.
    """
    forward, backward = programs
    if tf.executing_eagerly() and not recording():  # no gradient can be asked for
        outputs, states, _ = forward(operands, constants, zero_masked, sequence, save)
        return outputs, states
    constants = tf.nest.map_structure(tf.stop_gradient, constants)

    # The custom gradient stands outside of the compiled functions, whose inputs it cuts off from the tape:
    # inside, an eager tape would differentiate the compiled function, and so the loop.
    @tf.custom_gradient
    def outermost(*flat):
        packed = tf.nest.pack_sequence_as(operands, [tf.stop_gradient(tensor) for tensor in flat])
        outputs, states, saved = forward(packed, constants, zero_masked, sequence, save)
        results = [outputs, *states] if sequence else states

        def gradient(*upstream):
            kept = saved if save else forward(packed, constants, zero_masked, False, True)[2]
            gradients = _first_derivative(
                lambda *of: backward(packed, constants, zero_masked, kept, *of), flat, upstream, sequence
            )
            if not tf.executing_eagerly():  # native operations know no shapes, and optimizers ask for them
                for each, operand in zip(gradients, flat, strict=True):
                    each.set_shape(operand.shape)
            return gradients

        return results, gradient

    results = outermost(*tf.nest.flatten(operands))
    return (results[0], results[1:]) if sequence else (None, list(results))


def _first_derivative(backward, operands, upstream, sequence):
    """The gradients of the operands, flat; differentiating them again, by operands or upstream, raises."""

    @tf.custom_gradient
    def once(*arguments):
        upstream = [tf.stop_gradient(tensor) for tensor in arguments[len(operands) :]]
        outputs, states = (upstream[0], upstream[1:]) if sequence else (None, upstream)

        def again(*_):
            raise NotImplementedError(
                "FusedRNN has no second derivative, and no forward mode through a tf.function; "
                'engine="keras" has both, as keras.layers.RNN with the same cell.'
            )

        return tf.nest.flatten(backward(outputs, list(states))), again

    return once(*operands, *upstream)


class _FeatureMajor:
    """A state as the vector [units * batch] of a [units, batch] array, what a gate gives too.

    Several gates are side by side along the last axis of a row; a stack [steps, ...] holds a row a step.

    Attributes:
        block: the part of a row's last axis that is one gate.
        shape: of a state.
        axis: that of the steps in a stack.
        in_rows: whether gates are read and written as one row, and not one by one.
        adds_bias: whether the bias is added to what the loop multiplies; if not, a feature that is 1
            multiplies it.
    """

    axis = 0
    in_rows = False
    adds_bias = False

    def __init__(self, units, batch, steps):
        self.units, self.batch, self.steps = units, batch, steps
        self.block = units * batch
        self.shape = [self.block]

    def row_shape(self, size):
        """The shape of a row whose last axis has that size."""
        return [*self.shape[:-1], size]

    def matrix(self, vector, rows):
        """[rows * batch] -> [rows, batch], as the products take it."""
        return tf.reshape(vector, [rows, self.batch])

    def state(self, rows):
        """A state from [batch, units]."""
        return tf.reshape(tf.transpose(rows), self.shape)

    def rows(self, state):
        """[batch, units] from a state."""
        return tf.transpose(tf.reshape(state, [self.units, self.batch]))

    def spread(self, vector):
        """A state that is the vector (units,) for every sequence."""
        return tf.repeat(vector, self.batch)

    def spread_mask(self, mask):
        """The stack of [batch, steps]: selecting by a byte an element stays vectorised."""
        mask = tf.repeat(tf.transpose(mask)[:, None, :], self.units, axis=1)
        return tf.reshape(mask, [self.steps, *self.shape])

    def stack(self, sequence):
        """The stack of [batch, steps, width]."""
        return tf.reshape(tf.transpose(sequence, [1, 2, 0]), [self.steps, sequence.shape[-1] * self.batch])

    def unstack(self, stack, width):
        """The reverse of `stack`."""
        return tf.transpose(tf.reshape(stack, [self.steps, width, self.batch]), [2, 0, 1])

    def over_steps(self, stack, width):
        """A stack as rows of that width, one for each step of each sequence, for the products over all."""
        cube = tf.transpose(tf.reshape(stack, [self.steps, width, self.batch]), [0, 2, 1])
        return tf.reshape(cube, [-1, width])

    def from_rows(self, rows, width):
        """[batch, steps, width] of rows as `over_steps` gives them."""
        return tf.transpose(tf.reshape(rows, [self.steps, self.batch, width]), [1, 0, 2])

    def multiplier(self, weights):
        """The function that multiplies a state by weights (units, gates * units): state -> row."""
        left, (units, width) = tf.transpose(weights), weights.shape
        return lambda state: tf.reshape(tf.matmul(left, self.matrix(state, units)), [width * self.batch])

    def back(self, weights):
        """The gradient of `multiplier`'s function: row -> state."""
        return lambda row: tf.reshape(tf.matmul(weights, self.matrix(row, weights.shape[1])), self.shape)


class _BatchMajor(_FeatureMajor):
    """A state as it is, [batch, units], and so a stack, [batch, steps, width]: nothing is turned."""

    axis = 1
    adds_bias = True

    def __init__(self, units, batch, steps):
        super().__init__(units, batch, steps)
        self.block = units
        self.shape = [batch, units]

    def state(self, rows):
        return tf.reshape(rows, self.shape)

    def rows(self, state):
        return state

    def spread(self, vector):
        return tf.broadcast_to(vector, self.shape)

    def spread_mask(self, mask):
        return tf.repeat(self.stack(mask[:, :, None]), self.units, axis=2)

    def stack(self, sequence):
        return sequence

    def unstack(self, stack, width):
        return stack

    def over_steps(self, stack, width):
        return tf.reshape(stack, [-1, width])

    def from_rows(self, rows, width):
        return tf.reshape(rows, [self.batch, self.steps, width])

    def multiplier(self, weights):
        return lambda state: tf.matmul(state, weights)

    def back(self, weights):
        right = tf.transpose(weights)
        return lambda row: tf.matmul(row, right)


class _GpuMajor(_BatchMajor):
    """A state [batch, units], a stack [steps, ...] of whole rows; products take stacks as well as states."""

    axis = 0
    in_rows = True

    def stack(self, sequence):
        return tf.transpose(sequence, [1, 0, 2])

    def unstack(self, stack, width):
        return tf.transpose(stack, [1, 0, 2])

    def from_rows(self, rows, width):
        return self.unstack(tf.reshape(rows, [self.steps, self.batch, width]), width)

    def multiplier(self, weights):
        return lambda states: tf.tensordot(states, weights, 1)


def on_gpu():
    """Whether TensorFlow computes on a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


def is_fewer(inputs, size):
    """Whether inputs [batch, ...] are known to be fewer sequences than that."""
    return inputs.shape[0] is not None and inputs.shape[0] < size


def _layout_of(recurrence, is_small, save):
    """The layout for where it runs, for few sequences, and for a gradient to come."""
    if on_gpu():
        return _GpuMajor
    in_rows = recurrence.units <= FEW_UNITS and (is_small or not save)
    return _BatchMajor if in_rows else _FeatureMajor


def _size(axis, tensor, *others):
    """A tensor's size along an axis: the number that is known of it or of others of that size, or a tensor.

    A loop refuses variables of which one's size is known and another's not.
    """
    known = {each.shape[axis] for each in (tensor, *others)} - {None}
    return known.pop() if known else tf.shape(tensor)[axis]


class _Loop:
    """One trace of a program, and what both directions share: the layout, reading and writing the stacks.

    Sizes are numbers where the shapes are known and tensors where they are not; XLA knows all of them.
    """

    def __init__(self, recurrence, operands, constants, zero_masked, save, *upstream):
        inputs = operands["inputs"]
        self.shown = shown(constants.get("mask"), zero_masked)
        self.recurrence = recurrence
        self.operands = operands
        self.dtype = inputs.dtype
        others = operands["states"], constants.get("mask", []), constants.get("drops", []), upstream
        self.batch = _size(0, inputs, *(each for each in tf.nest.flatten(others) if each is not None))
        self.steps = _size(1, inputs)
        self.end = constants.get("steps", self.steps)
        self.save = save
        # both directions must lay out the states alike: by what both are told
        self.is_small, self.is_few = (is_fewer(inputs, size) for size in (SMALL_BATCH, FEW_SEQUENCES))
        layout = _layout_of(recurrence, self.is_small, save)
        self.layout = layout(recurrence.units, self.batch, self.steps)
        self.vectors = [self.layout.spread(vector) for vector in operands["vectors"]]
        self.drops = [self.layout.state(drop) for drop in constants.get("drops", [])]
        self.mask = self.layout.spread_mask(constants["mask"]) if "mask" in constants else None

    def show(self, outputs):
        """The outputs [batch, steps, units] that are not to be zero."""
        return outputs if self.shown is None else tf.where(self.shown[:, :, None], outputs, 0)

    def inputs_and_one(self):
        """The inputs with one more feature that is 1, which the bias multiplies."""
        inputs = self.operands["inputs"]
        return tf.concat([inputs, tf.ones_like(inputs[..., :1])], axis=-1)

    def recurrent(self, gates):
        """The recurrent weights of a range of gates, (units, gates * units)."""
        units = self.recurrence.units
        return self.operands["recurrent"][:, gates[0] * units : (gates[-1] + 1) * units]

    def zeros(self, gates):
        """A stack of zeros."""
        shape = self.layout.row_shape(gates * self.layout.block)
        return zeros(shape, self.steps, self.dtype, self.layout.axis)

    def taken(self, stack, first, last=None):
        """The stack of the steps from `first` to before `last`."""
        return stack[(slice(None),) * self.layout.axis + (slice(first, last),)]

    def read(self, stack, step, first=0, gates=1):
        """A step's row of a stack: that of some gates, a state if it is one."""
        return self.row(stack, step, gates * self.layout.block, first)

    def row(self, stack, step, size, first=0):
        """That many of a step's columns, from the gate `first`."""
        shape = self.layout.row_shape(size)
        return row_part(stack, step, shape, first * self.layout.block, self.layout.axis)

    def write(self, stack, step, states):
        """The stack with the states side by side in a step's row, on a GPU by one kernel."""
        if self.layout.in_rows:
            states = [tf.concat(states, axis=-1)]
        return write(stack, step, states, self.layout.axis)

    def part(self, stack, first, last):
        """The stack of the gates from `first` to before `last`."""
        return stack[..., first * self.layout.block : last * self.layout.block]

    def hoisted(self):
        """The stack of the inputs' products of all steps."""
        inputs = self.operands["inputs"]
        if "kernel" in self.operands:
            kernel = self.operands["kernel"]
            rows = tf.matmul(tf.reshape(inputs, [-1, kernel.shape[0]]), kernel) + self.operands["bias"]
            inputs = tf.reshape(rows, [self.batch, self.steps, kernel.shape[1]])
        return self.layout.stack(inputs)

    def in_parts(self):
        """The function (inputs' products, states) -> pre-activations, both of a step, or stacks of all."""
        recurrence = self.recurrence
        sums, together = recurrence.sums, recurrence.together
        bias = []
        if recurrence.separate:
            parts = tf.split(self.operands["separate_bias"], recurrence.separate)
            bias = [self.layout.spread(part) for part in parts]
        multiply = self.recurrent_products(range(together))
        multiply_late = self.recurrent_products(range(together, recurrence.gates))

        def blocks_of(x, states):
            h = multiply(states[0])
            blocks = [a + b for a, b in zip(x[:sums], h[:sums], strict=True)]
            blocks += [a + b for a, b in zip(h[sums:], bias, strict=True)]
            blocks += x[sums:together]
            if recurrence.late:
                late = multiply_late(recurrence.wait(blocks, states, self.vectors))
                blocks += [a + b for a, b in zip(x[together:], late, strict=True)]
            return blocks

        return blocks_of

    def recurrent_products(self, gates):
        """The function from a state to its products with the recurrent weights of `gates`, a range."""
        if not self.recurrence.recurrent or not gates:
            return lambda state: [0] * len(gates)
        if not self.drops:
            multiply = self.layout.multiplier(self.recurrent(gates))
            return lambda state: tf.split(multiply(state), len(gates), axis=-1)
        each = [(self.layout.multiplier(self.recurrent([gate])), self.drops[gate]) for gate in gates]
        return lambda state: [multiply(state * drop) for multiply, drop in each]


class _Forward(_Loop):
    """The program of the forward pass."""

    def run(self, sequence):
        """(outputs or None, final states, what the backward pass needs or None)."""
        recurrence, save = self.recurrence, self.save
        self.from_x = self.hoisted() if self.is_hoisted else None
        products = self.products()
        states = [self.layout.state(rows) for rows in self.operands["states"]]
        if recurrence.own_output:
            states.append(tf.zeros_like(states[0]))
        kept = range(len(states)) if save else [recurrence.output] if sequence else []
        # the backward pass reads the states before the steps, of which the first is none of their results
        begin = 1 if save else 0
        stacks = [self.start(states[index]) if save else self.zeros(1) for index in kept]
        blocks = [self.zeros(recurrence.blocks)] if save and not self.layout.in_rows else []

        def body(step, states, stacks, blocks):
            gates = products(step, states)
            new = recurrence.step(gates, states, self.vectors)
            if self.mask is not None:
                visible = self.read(self.mask, step)
                new = [tf.where(visible, after, before) for after, before in zip(new, states, strict=True)]
            stacks = [
                self.write(stack, step + begin, [new[i]]) for i, stack in zip(kept, stacks, strict=True)
            ]
            blocks = [self.write(stack, step, gates) for stack in blocks]
            return step + 1, new, stacks, blocks

        _, states, stacks, blocks = tf.while_loop(
            lambda step, *_: step < self.end, body, (0, states, stacks, blocks)
        )
        outputs = None
        if sequence:
            stack = stacks[kept.index(recurrence.output)]
            outputs = self.show(self.layout.unstack(self.taken(stack, begin), recurrence.units))
        blocks = [self.from_x] if self.layout.in_rows else blocks  # of which they are made again
        return outputs, [self.layout.rows(state) for state in states], (stacks, blocks) if save else None

    def start(self, state):
        """A stack of one step more, that begins with a state."""
        return begun(state, self.zeros(1), self.layout.axis)

    @property
    def is_hoisted(self):
        """Whether the inputs are multiplied before the loop."""
        if self.layout.in_rows or "kernel" not in self.operands:
            return True
        return self.is_small if self.save else self.is_few

    def products(self):
        """The function (step, states) -> pre-activations that suits the shape."""
        recurrence = self.recurrence
        if self.is_hoisted:
            from_x = self.each_hoisted()
        elif recurrence.recurrent and recurrence.sums == recurrence.gates and not self.drops:
            return self.in_one()
        else:
            from_x = self.each()
        blocks_of = self.in_parts()
        return lambda step, states: blocks_of(from_x(step), states)

    def each_hoisted(self):
        """The inputs' products that were made before the loop, as a function of the step."""
        stack, gates = self.from_x, self.recurrence.gates
        if self.layout.in_rows:
            return lambda step: tf.split(self.read(stack, step, gates=gates), gates, axis=-1)
        return lambda step: [self.read(stack, step, gate) for gate in range(gates)]

    def in_one(self):
        """One product a step for all of h and x: [h, x] [R; W]."""
        return self.multiplied(
            lambda weights: tf.concat([self.operands["recurrent"], weights], axis=0),
            lambda x, states: tf.concat([states[0], x], axis=-1),
        )

    def each(self):
        """The inputs' product step by step, as a function of the step."""
        return self.multiplied(lambda weights: weights, lambda x: x)

    def multiplied(self, with_weights, with_x):
        """The function of the step, and what `with_x` takes, that multiplies the step's inputs.

        Args:
            with_weights: the inputs' weights -> the weights of the product.
            with_x: (a step's inputs, ...) -> what they multiply.
        """
        inputs, weights, bias = self.operands["inputs"], self.operands["kernel"], self.operands["bias"]
        gates = self.recurrence.gates
        biases = tf.split(bias, gates) if self.layout.adds_bias else [0] * gates
        if not self.layout.adds_bias:
            inputs, weights = self.inputs_and_one(), tf.concat([weights, bias[None]], axis=0)
        width = inputs.shape[-1] * self.layout.block // self.recurrence.units
        stack = self.layout.stack(inputs)
        multiply = self.layout.multiplier(with_weights(weights))

        def products(step, *states):
            row = multiply(with_x(self.row(stack, step, width), *states))
            return [a + b for a, b in zip(tf.split(row, gates, axis=-1), biases, strict=True)]

        return products


class _Backward(_Loop):
    """The program of the backward pass."""

    def run(self, saved, outputs, states):
        """The gradients of the operands, from those of the outputs, or None, and of the final states."""
        stacks, (blocks,) = saved
        if self.layout.in_rows:
            blocks = self.made_again(stacks, blocks)
        upstream = None if outputs is None else self.layout.stack(self.show(outputs))
        together = range(self.recurrence.together)
        self.back = self.recurrent_back(together)
        self.back_late = self.recurrent_back(range(len(together), self.recurrence.gates))

        def body(number, states, vectors, gates):
            step = self.end - 1 - number
            if upstream is not None:
                states[self.recurrence.output] += self.read(upstream, step)
            stay = None
            if self.mask is not None:  # what a masked step did not change passes it by
                visible = self.read(self.mask, step)
                stay = [tf.where(visible, tf.zeros_like(state), state) for state in states]
                states = [tf.where(visible, state, tf.zeros_like(state)) for state in states]
            before = [self.read(stack, step) for stack in stacks]
            here = self.read_blocks(blocks, step)
            of_blocks, states, of_vectors = self.through_step(here, before, states)
            gates = self.write(gates, step, of_blocks)
            if self.back:
                states[0] += self.back(self.of_together(gates, step, of_blocks))
            if stay is not None:
                states = [a + b for a, b in zip(states, stay, strict=True)]
            return number + 1, states, [a + b for a, b in zip(vectors, of_vectors, strict=True)], gates

        _, states, vectors, gates = tf.while_loop(
            lambda number, *_: number < self.end,
            body,
            (
                0,
                [self.layout.state(rows) for rows in states],
                [tf.zeros_like(vector) for vector in self.vectors],
                tf.zeros_like(blocks),
            ),
        )
        return self.after_loop(stacks, blocks, gates, states, vectors)

    def made_again(self, stacks, from_x):
        """The stack of the pre-activations, from those of the states and of the inputs' products."""
        x = tf.split(from_x, self.recurrence.gates, axis=-1)
        return tf.concat(self.in_parts()(x, [self.taken(stack, 0, -1) for stack in stacks]), axis=-1)

    def read_blocks(self, stack, step):
        """The pre-activations of a step."""
        count = self.recurrence.blocks
        if self.layout.in_rows:
            return tf.split(self.read(stack, step, gates=count), count, axis=-1)
        return [self.read(stack, step, block) for block in range(count)]

    def of_together(self, stack, step, of_blocks):
        """The gradients of the gates that take h, as one piece; on a CPU it is read as `write` wrote it."""
        together = self.recurrence.together
        if self.layout.in_rows:
            return tf.concat(of_blocks[:together], axis=-1)
        return self.read(stack, step, gates=together)

    def through_step(self, blocks, states, upstream):
        """The gradients of a step's blocks, states and vectors, without the recurrent product of h."""
        recurrence = self.recurrence
        variables = [blocks, states, self.vectors]
        of_blocks, of_states, of_vectors = pull_back(
            lambda variables: recurrence.step(*variables), variables, upstream
        )
        if recurrence.late:
            of_input = self.back_late(tf.concat(of_blocks[-recurrence.late :], axis=-1))
            more = pull_back(lambda variables: [recurrence.wait(*variables)], variables, [of_input])
            of_blocks, of_states, of_vectors = (
                [a + b for a, b in zip(*pair, strict=True)]
                for pair in zip((of_blocks, of_states, of_vectors), more, strict=True)
            )
        return of_blocks, of_states, of_vectors

    def recurrent_back(self, gates):
        """The function from the gradients of `gates`, a range, to that of what their weights multiply."""
        if not self.recurrence.recurrent or not gates:
            return None
        if not self.drops:
            return self.layout.back(self.recurrent(gates))
        each = [(self.layout.back(self.recurrent([gate])), self.drops[gate]) for gate in gates]
        return lambda row: tf.add_n(
            [
                back(part) * drop
                for (back, drop), part in zip(each, tf.split(row, len(gates), axis=-1), strict=True)
            ]
        )

    def after_loop(self, stacks, blocks, gates, states, vectors):
        """The gradients of all operands, each weight's as one product over all steps."""
        recurrence = self.recurrence
        sums, together, count = recurrence.sums, recurrence.together, recurrence.blocks
        twice = together + recurrence.separate
        of_x = gates
        if recurrence.separate:
            of_x = tf.concat([self.part(gates, 0, sums), self.part(gates, together, count)], axis=-1)
        gradients = self.of_inputs(of_x)
        if recurrence.separate:
            of_h = self.layout.over_steps(
                self.part(gates, sums, together), recurrence.separate * recurrence.units
            )
            gradients["separate_bias"] = tf.reduce_sum(of_h, axis=0)
        if recurrence.recurrent:
            before = [self.taken(stack, 0, -1) for stack in stacks]
            parts = []
            if together:
                parts.append(self.of_recurrent(before[0], self.part(gates, 0, together), range(together)))
            if recurrence.late:
                known = [self.part(blocks, block, block + 1) for block in range(twice)]
                at_every_step = [tf.expand_dims(each, self.layout.axis) for each in self.vectors]
                multiplied = recurrence.wait(known, before, at_every_step)
                late = range(together, recurrence.gates)
                parts.append(self.of_recurrent(multiplied, self.part(gates, twice, count), late))
            gradients["recurrent"] = tf.concat(parts, axis=1)
        gradients["vectors"] = [tf.reduce_sum(self.layout.rows(vector), axis=0) for vector in vectors]
        gradients["states"] = [self.layout.rows(state) for state in states[: recurrence.carried]]
        return gradients

    def of_inputs(self, upstream):
        """The gradients of inputs, kernel and bias."""
        width = self.recurrence.gates * self.recurrence.units
        if "kernel" not in self.operands:
            return {"inputs": self.layout.unstack(upstream, width)}
        kernel, upstream = self.operands["kernel"], self.layout.over_steps(upstream, width)
        features = kernel.shape[0]
        inputs = self.layout.over_steps(self.layout.stack(self.inputs_and_one()), features + 1)
        of_weights = tf.matmul(inputs, upstream, transpose_a=True)
        of_inputs = tf.matmul(upstream, kernel, transpose_b=True)
        return {
            "inputs": self.layout.from_rows(of_inputs, features),
            "kernel": of_weights[:-1],
            "bias": of_weights[-1],
        }

    def of_recurrent(self, multiplied, upstream, gates):
        """The gradient of the recurrent weights of `gates`; they multiplied the rows of a stack."""
        units = self.recurrence.units
        if not self.drops:
            return self.over_all(multiplied, upstream, len(gates) * units)
        parts = [self.part(upstream, index, index + 1) for index in range(len(gates))]
        products = [
            self.over_all(multiplied * tf.expand_dims(self.drops[gate], self.layout.axis), part, units)
            for gate, part in zip(gates, parts, strict=True)
        ]
        return tf.concat(products, axis=1)

    def over_all(self, left, right, width):
        """The product over all steps of a stack of states and one of rows, (units, width)."""
        left = self.layout.over_steps(left, self.recurrence.units)
        return tf.matmul(left, self.layout.over_steps(right, width), transpose_a=True)
