"""A plan as two programs, forward and backward, as `cells.fused.run` calls them.

    operands: inputs [batch, steps, ...]; states and weights, lists of those of floats
    constants: states and weights, lists of the others; drawn, the stacks of `Draws`; where wanted mask and
        steps, see `cells.fused.run`

What is known before the loop is TensorFlow's and differentiated by it; the loop has a gradient of its own.
"""

from functools import partial

import tensorflow as tf

from cells import fused
from cells.engines.hoist import over_steps
from cells.engines.nodes import Level, dimensions, replay
from cells.engines.xla_loop import XlaLoop, sizes_of


def programs(plan):
    """(forward, backward) of a plan, which XLA compiles once for every shape."""
    return tuple(
        tf.function(partial(program, plan), jit_compile=True, autograph=False)
        for program in (_forward, _backward)
    )


def _forward(plan, operands, constants, zero_masked, sequence, save):
    return _Frame(plan, operands, constants, zero_masked).forward(sequence, save)


def _backward(plan, operands, constants, zero_masked, saved, outputs, states):
    return _Frame(plan, operands, constants, zero_masked).backward(saved, outputs, states)


class _Frame:
    """One trace of a program: what is known before the loop.

    Attributes:
        known: dict of tensors by values, the same at every step.
        stacks: dict of stacks [steps, batch, ...] by values.
    """

    def __init__(self, plan, operands, constants, zero_masked):
        self.plan, self.operands, self.constants = plan, operands, constants
        self.states = _merged(plan.step.states, operands["states"], constants["states"])
        weights = _merged([leaf for leaf, _ in plan.step.weights], operands["weights"], constants["weights"])
        self.batch = _batch(operands["inputs"], plan.step.states, self.states)
        self.steps = sizes_of(operands["inputs"])[1]
        self.end = constants.get("steps", self.steps)
        self.mask = _turned(constants["mask"]) if "mask" in constants else None
        self.zero_masked = zero_masked
        self.known = dict(zip([leaf for leaf, _ in plan.step.weights], weights, strict=True))
        replay([*plan.weights, *plan.weights_after], self.known, self.batch)
        self.stacks = {plan.step.inputs: self._inputs()}
        self.stacks.update(
            (draw.ref, stack) for draw, stack in zip(plan.step.draws, constants["drawn"], strict=True)
        )
        for n in plan.delayed:
            self._delay(n)
        wanted = [*plan.inputs, *plan.inputs_after]
        stacks = over_steps(wanted, self.stacks, self.known, self.steps, self.batch)
        self.stacks.update(zip(wanted, stacks, strict=True))
        self.loop = XlaLoop(plan, self.known, self.stacks, self.batch, self.steps, self.end, self.mask)

    def forward(self, sequence, save):
        plan = self.plan
        outputs, looped, saved = {}, [], ()
        if plan.looped:
            outputs, looped, saved = self.loop.forward(
                [self._first(n) for n in plan.looped], keep=save, yields=sequence or self._place is None
            )
        final = dict(zip(plan.looped, looped, strict=True))
        final.update((n, self.stacks[plan.new[n]][self.end - 1]) for n in plan.delayed)
        states = [final[n] for n in range(len(self.states))]
        result = self.result(outputs, looped, sequence)
        needed = outputs if plan.after else {}
        saved = (saved, list(needed.values())) if save else None
        return (result, states, saved) if sequence else (None, [*states, result], saved)

    def backward(self, saved, of_outputs, of_states):
        plan = self.plan
        saved, kept_outputs = saved
        sequence = of_outputs is not None
        of_result = of_outputs if sequence else of_states[len(self.states)]
        # Only what follows the loop reads its outputs: without it their values are of no account.
        outputs = dict(zip(plan.outputs, kept_outputs or map(self.loop.zeros, plan.outputs), strict=True))
        looped = [
            tf.zeros(dimensions(plan.states[n].shape, self.batch), plan.states[n].dtype) for n in plan.looped
        ]
        result = self.result(outputs, looped, sequence)
        targets, upstream = [result], [of_result]
        if plan.looped:
            of_outputs, of_looped = self._through_result(result, of_result, outputs, looped)
            floats = [n for n in plan.looped if plan.states[n].is_float]
            of_looped = [
                each if n == len(self.states) else of_states[n] if each is None else of_states[n] + each
                for n, each in of_looped.items()
            ]
            of_looped, pairs = self.loop.backward(saved, of_outputs, of_looped)
            targets += [target for target, _ in pairs]
            upstream += [gradient for _, gradient in pairs]
        for n in plan.delayed:
            if plan.states[n].is_float:
                targets.append(self.stacks[plan.new[n]][self.end - 1])
                upstream.append(of_states[n])
        gradients = _gradients(targets, self.operands, upstream)
        if plan.looped:
            places = {n: place for place, n in enumerate(_floats(plan.step.states))}
            for n, each in zip(floats, of_looped, strict=True):
                if n in places:
                    gradients["states"][places[n]] = each
        return gradients

    def _through_result(self, result, of_result, outputs, looped):
        """(gradients of the loop's outputs by value, those of its final states by index or None)."""
        plan = self.plan
        floats = [ref for ref in outputs if ref.is_float]
        states = [n for n in plan.looped if plan.states[n].is_float]
        final = dict(zip(plan.looped, looped, strict=True))
        sources = [*(outputs[ref] for ref in floats), *(final[n] for n in states)]
        gradients = tf.gradients(result, sources, of_result)
        of_outputs = {
            ref: each for ref, each in zip(floats, gradients[: len(floats)], strict=True) if each is not None
        }
        of_states = dict(zip(states, gradients[len(floats) :], strict=True))
        if plan.held and of_states[len(self.states)] is None:
            of_states[len(self.states)] = tf.zeros_like(final[len(self.states)])
        return of_outputs, of_states

    # --- what follows the loop

    def result(self, outputs, looped, sequence):
        """The outputs [batch, steps, ...] or the last one [batch, ...].

        Args:
            outputs: dict of the stacks of the loop's outputs.
            looped: the loop's final states.
            sequence: whether all outputs are wanted.
        """
        plan = self.plan
        if sequence:
            output = _turned(self._output(outputs, self.stacks, self.steps))
            shown = fused.shown(self.constants.get("mask"), self.zero_masked)
        else:
            output = looped[self._place] if self._place is not None else self._last_output(outputs)
            shown = self._last_shown()
        if shown is None:
            return output
        shown = tf.reshape(shown, [*sizes_of(shown), *[1] * (output.shape.rank - shown.shape.rank)])
        return tf.where(shown, output, tf.zeros_like(output))

    @property
    def _place(self):
        """The index among the looped states of that which is the output, or None."""
        new = [self.plan.new[n] for n in self.plan.looped]
        return new.index(self.plan.output) if self.plan.output in new else None

    def _output(self, outputs, stacks, steps):
        """The stack of the output."""
        output = self.plan.output
        if output.level <= Level.WEIGHT:
            tensor = replay([output], self.known, self.batch)[0]
            return tf.repeat(tensor[None], steps, axis=0)
        outputs = {ref: self._filled(stack) for ref, stack in outputs.items()}
        return over_steps([output], {**stacks, **outputs}, self.known, steps, self.batch)[0]

    def _last_output(self, outputs):
        last = slice(self.end - 1, self.end)
        outputs, stacks = (
            {ref: stack[last] for ref, stack in each.items()} for each in (outputs, self.stacks)
        )
        return self._output(outputs, stacks, 1)[0]

    def _last_shown(self):
        """Which of the last outputs are not zero, [batch], or None where all are shown."""
        if self.mask is None:
            return None
        if self.zero_masked:
            return self.mask[self.end - 1]
        return tf.reduce_any(self.mask, axis=0)

    # --- what comes before it

    def _inputs(self):
        return self._filled(_turned(self.operands["inputs"]))

    def _filled(self, stack):
        """A stack whose steps that are not taken are as the last that is: harmless, whatever is done to them."""
        if "steps" not in self.constants or stack.shape[0] == 1:
            return stack
        taken = tf.reshape(tf.range(sizes_of(stack)[0]) < self.end, [-1, *[1] * (stack.shape.rank - 1)])
        return tf.where(taken, stack, stack[self.end - 1])

    def _delay(self, n):
        """Adds the values of a delayed state: those of its next value, a step later."""
        ref, state = self.plan.new[n], self.plan.states[n]
        (self.stacks[ref],) = over_steps([ref], self.stacks, self.known, self.steps, self.batch)
        first = tf.reshape(self._first(n), [1, *dimensions(state.shape, self.batch)])
        self.stacks[state] = tf.concat([first, self.stacks[ref][:-1]], axis=0)

    def _first(self, n):
        """A state before the first step."""
        if n < len(self.states):
            return self.states[n]
        state = self.plan.states[n]  # the held output
        return tf.zeros(dimensions(state.shape, self.batch), state.dtype)


def _merged(refs, floats, others):
    """The tensors of values, from those of floats and the others."""
    floats, others = iter(floats), iter(others)
    return [next(floats) if ref.is_float else next(others) for ref in refs]


def parted(refs, tensors):
    """(those of floats, the others) of the tensors of values."""
    pairs = list(zip(refs, tensors, strict=True))
    return tuple([each for ref, each in pairs if ref.is_float == which] for which in (True, False))


def _floats(refs):
    return [n for n, ref in enumerate(refs) if ref.is_float]


def _batch(inputs, refs, states):
    """The number of sequences: an int where anything tells it."""
    sizes = {each.shape[0] for ref, each in zip(refs, states, strict=True) if ref.has_rows}
    known = ({inputs.shape[0]} | sizes) - {None}
    return known.pop() if known else tf.shape(inputs)[0]


def _turned(tensor):
    """[batch, steps, ...] as [steps, batch, ...], and back."""
    return tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])


def _gradients(targets, operands, upstream):
    """The gradients of operands, a structure of tensors, as such a structure."""
    floats = [each.dtype.is_floating for each in targets]
    targets, upstream = (
        [each for each, is_float in zip(all_, floats, strict=True) if is_float]
        for all_ in (targets, upstream)
    )
    sources = tf.nest.flatten(operands)
    found = tf.gradients(targets, sources, upstream, unconnected_gradients="zero")
    return tf.nest.pack_sequence_as(operands, list(map(tf.convert_to_tensor, found)))
