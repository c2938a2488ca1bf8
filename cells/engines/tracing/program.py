"""A plan as two programs, forward and backward, as `cells.engines.xla.run` calls them.

    xla_programs(plan, of_inference), native_programs(plan)

    operands: inputs [batch, steps, ...]; states and weights, lists of those of floats
    constants: states and weights, lists of the others; drawn, the stacks of `Draws`; where wanted mask and
        steps, see `cells.engines.xla.run`

What is known before the loop is TensorFlow's and differentiated by it; the loop has a gradient of its own.
"""

from collections.abc import Callable
from functools import partial

import tensorflow as tf

from cells.engines import native, xla
from cells.engines.direct import Program
from cells.engines.stacks import begun, sizes_of, zeros
from cells.engines.tracing.hoist import over_steps
from cells.engines.tracing.native_loop import NativeLoop, gates_of
from cells.engines.tracing.nodes import Level, dimensions, is_differentiable, replay
from cells.engines.tracing.plan import light_work_in_the_loop, plain_products
from cells.engines.tracing.staged_loop import StagedLoop, Trial, staged
from cells.engines.tracing.xla_loop import XlaLoop


def xla_programs(plan, of_inference):
    """(forward, backward) of a plan, which XLA compiles once for every shape.

    Args:
        plan: `Plan`.
        of_inference: that of an inference on a CPU, see `plan_of`.
    """
    frame = _InferenceFrame if _InferenceFrame.takes(of_inference) else _XlaFrame
    forward, backward = (_compiled_by_xla(each, _XlaFrame, plan) for each in (_forward, _backward))
    inference = _compiled_by_xla(_forward, frame, of_inference)

    def either(operands, constants, zero_masked, sequence, save):
        is_few = xla.is_fewer(operands["inputs"], xla.FEW_SEQUENCES)
        run = forward if save or is_few or xla.on_gpu() else inference
        return run(operands, constants, zero_masked, sequence, save)

    return either, backward


def _compiled_by_xla(direction, frame, plan):
    return tf.function(partial(direction, partial(frame, plan)), autograph=False, jit_compile=True)


def native_programs(plan):
    """(the plan that is run, (forward, backward)) of a plan for the native engine, for every shape.

    Raises:
        native.Unavailable: it cannot; says why.
    """
    frame: Callable[..., _Frame]
    try:
        gates = gates_of(plan)
        frame = partial(_GatesFrame, gates, native.programs(gates.recurrence()))
    except native.Unavailable:
        stages = _stages_of(plan)
        dtype = stages.plan.dtype.name
        made = native.compiled("stages", lambda: stages.header, Trial(stages), dtype)
        frame = partial(_StagedFrame, stages, made)
        plan = stages.plan
    return plan, tuple(Program(partial(each, frame)) for each in (_forward, _backward))


def _stages_of(plan):
    plan = plain_products(plan)
    try:
        return staged(light_work_in_the_loop(plan))
    except native.Unavailable:
        return staged(plan)


def _forward(frame, operands, constants, zero_masked, sequence, save):
    return frame(operands, constants, zero_masked).forward(sequence, save)


def _backward(frame, operands, constants, zero_masked, saved, outputs, states):
    return frame(operands, constants, zero_masked).backward(saved, outputs, states)


class _Frame:
    """One trace of a program: what is known before the loop, and what follows it.

    Attributes:
        axis: that of the steps in stacks, 0 or 1; the other one is that of the sequences.
        known: dict of tensors by values, the same at every step.
        stacks: dict of stacks by values.
    """

    axis = 0

    def __init__(self, plan, operands, constants, zero_masked):
        self.plan, self.operands, self.constants = plan, operands, constants
        self.states = _merged(plan.step.states, operands["states"], constants["states"])
        leaves = [leaf for leaf, _ in plan.step.weights]
        weights = _merged(leaves, operands["weights"], constants["weights"])
        self.batch = _batch(operands["inputs"], plan.step.states, self.states)
        self.steps = sizes_of(operands["inputs"])[1]
        self.end = constants.get("steps", self.steps)
        self.mask = constants.get("mask")
        self.zero_masked = zero_masked
        self.known = dict(zip(leaves, weights, strict=True))
        replay([*plan.weights, *plan.weights_after], self.known, self.batch)
        self.stacks = {plan.step.inputs: self._filled(self.laid_out(operands["inputs"]))}
        for draw, drawn in zip(plan.step.draws, constants["drawn"], strict=True):
            self.stacks[draw.ref] = _turned(drawn) if self.axis == 1 else drawn
        for n in plan.delayed:
            self._delay(n)
        self.first = [self._first(n) for n in plan.looped]
        self.loop = self._loop()

    def _loop(self):
        raise NotImplementedError

    def laid_out(self, tensor):
        """[batch, steps, ...] as a stack, or a stack so."""
        return _turned(tensor) if self.axis == 0 else tensor

    def at(self, stack, step):
        """A step of a stack."""
        return stack[step] if self.axis == 0 else stack[:, step]

    def stack_of(self, *refs):
        """Adds the stacks of values that are known before the loop."""
        missing = [ref for ref in refs if ref not in self.stacks]
        made = over_steps(missing, self.stacks, self.known, self.steps, self.batch, self.axis)
        self.stacks.update(zip(missing, made, strict=True))
        return self.stacks[refs[0]] if refs else None

    def forward(self, sequence, save):
        plan = self.plan
        outputs, looped, kept = {}, [], None
        if plan.looped:
            outputs, looped, kept = self.loop.forward(keep=save, yields=sequence or self._place is None)
        final = dict(zip(plan.looped, looped, strict=True))
        final.update((n, self.at(self.stacks[plan.new[n]], self.end - 1)) for n in plan.delayed)
        states = [final[n] for n in range(len(self.states))]
        result = self.result(outputs, looped, sequence)
        saved = (kept, list(outputs.values()) if plan.after else []) if save else None
        return (result, states, saved) if sequence else (None, [*states, result], saved)

    def backward(self, saved, of_outputs, of_states):
        plan = self.plan
        saved, kept_outputs = saved
        sequence = of_outputs is not None
        of_result = of_outputs if sequence else of_states[len(self.states)]
        # Only what follows the loop reads its outputs: without it their values are of no account.
        outputs = dict(zip(plan.outputs, kept_outputs or map(self.zeros, plan.outputs), strict=True))
        looped = [
            tf.zeros(dimensions(plan.states[n].shape, self.batch), plan.states[n].dtype) for n in plan.looped
        ]
        result = self.result(outputs, looped, sequence)
        targets, upstream = [result], [of_result]
        if plan.looped:
            of_outputs, of_looped = self._through_result(result, of_result, outputs, looped)
            floats = [n for n in plan.looped if plan.states[n].is_differentiable]
            of_looped = [
                each if n == len(self.states) else of_states[n] if each is None else of_states[n] + each
                for n, each in of_looped.items()
            ]
            of_looped, pairs = self.loop.backward(saved, of_outputs, of_looped)
            targets += [target for target, _ in pairs]
            upstream += [gradient for _, gradient in pairs]
        for n in plan.delayed:
            if plan.states[n].is_differentiable:
                targets.append(self.at(self.stacks[plan.new[n]], self.end - 1))
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
        floats = [ref for ref in outputs if ref.is_differentiable]
        states = [n for n in plan.looped if plan.states[n].is_differentiable]
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
        if sequence:
            output = self.laid_out(self._output(outputs, self.stacks, self.steps))
            shown = xla.shown(self.mask, self.zero_masked)
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
            return tf.repeat(tf.expand_dims(tensor, self.axis), steps, axis=self.axis)
        outputs = {ref: self._filled(stack) for ref, stack in outputs.items()}
        return over_steps([output], {**stacks, **outputs}, self.known, steps, self.batch, self.axis)[0]

    def _last_output(self, outputs):
        outputs, stacks = (
            {ref: tf.expand_dims(self.at(stack, self.end - 1), self.axis) for ref, stack in each.items()}
            for each in (outputs, self.stacks)
        )
        return self.at(self._output(outputs, stacks, 1), 0)

    def _last_shown(self):
        """Which of the last outputs are not zero, [batch], or None where all are shown."""
        if self.mask is None:
            return None
        if self.zero_masked:
            return self.mask[:, self.end - 1]
        return tf.reduce_any(self.mask, axis=1)

    # --- what comes before it

    def zeros(self, ref):
        """A stack of zeros."""
        return zeros(dimensions(ref.shape, self.batch), self.steps, ref.dtype, self.axis)

    def _filled(self, stack):
        """A stack whose steps that are not taken are as the last that is: harmless, whatever reads them."""
        if "steps" not in self.constants or stack.shape[self.axis] == 1:
            return stack
        ones = [1] * stack.shape.rank
        taken = tf.range(sizes_of(stack)[self.axis]) < self.end
        taken = tf.reshape(taken, [*ones[: self.axis], -1, *ones[self.axis + 1 :]])
        return tf.where(taken, stack, tf.expand_dims(self.at(stack, self.end - 1), self.axis))

    def _delay(self, n):
        """Adds the values of a delayed state: those of its next value, a step later."""
        ref, state = self.plan.new[n], self.plan.states[n]
        later = self.stack_of(ref)
        later = later[:-1] if self.axis == 0 else later[:, :-1]
        first = tf.reshape(self._first(n), dimensions(state.shape, self.batch))
        self.stacks[state] = begun(first, later, self.axis)

    def _first(self, n):
        """A state before the first step."""
        if n < len(self.states):
            return self.states[n]
        state = self.plan.states[n]  # the held output
        return tf.zeros(dimensions(state.shape, self.batch), state.dtype)


class _XlaFrame(_Frame):
    def _loop(self):
        plan = self.plan
        self.stack_of(*plan.inputs, *plan.inputs_after)
        mask = None if self.mask is None else self.laid_out(self.mask)
        sizes = self.batch, self.steps, self.end
        return XlaLoop(plan, self.known, self.stacks, self.first, *sizes, mask, self.axis)


class _InferenceFrame(_XlaFrame):
    """Reads and writes the steps of the sequences as they lie: no axes are exchanged before and after."""

    axis = 1

    @staticmethod
    def takes(plan):
        """Whether all that it stacks has a row for each sequence."""
        step = plan.step
        stacked = [step.inputs, *(draw.ref for draw in step.draws), *plan.inputs, *plan.inputs_after]
        stacked += [*plan.outputs, plan.output, *plan.states, *plan.new]
        return all(ref.has_rows for ref in stacked)


class _GatesFrame(_Frame):
    axis = 1

    def __init__(self, gates, programs, *arguments):
        self.gates, self.programs = gates, programs
        super().__init__(gates.plan, *arguments)

    def _loop(self):
        self.stack_of(*self.plan.inputs_after)
        known = self.known, self.stack_of, self.first, self.batch, self.steps
        return NativeLoop(self.gates, self.programs, *known, self.mask, self.zero_masked)


class _StagedFrame(_Frame):
    axis = 1

    def __init__(self, stages, operations, *arguments):
        self.programs = stages, operations
        super().__init__(stages.plan, *arguments)

    def _loop(self):
        self.stack_of(*self.plan.inputs, *self.plan.inputs_after)
        known = self.known, self.stacks, self.first, self.batch, self.steps
        return StagedLoop(*self.programs, *known, self.mask)


def _merged(refs, floats, others):
    """The tensors of values, from those of floats and the others."""
    floats, others = iter(floats), iter(others)
    return [next(floats) if ref.is_differentiable else next(others) for ref in refs]


def parted(refs, tensors):
    """(those of floats, the others) of the tensors of values."""
    pairs = list(zip(refs, tensors, strict=True))
    return tuple([each for ref, each in pairs if ref.is_differentiable == which] for which in (True, False))


def _floats(refs):
    return [n for n, ref in enumerate(refs) if ref.is_differentiable]


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
    floats = [is_differentiable(each.dtype) for each in targets]
    targets, upstream = (
        [each for each, is_float in zip(all_, floats, strict=True) if is_float]
        for all_ in (targets, upstream)
    )
    sources = tf.nest.flatten(operands)
    found = tf.gradients(targets, sources, upstream, unconnected_gradients="zero")
    return tf.nest.pack_sequence_as(operands, list(map(tf.convert_to_tensor, found)))
