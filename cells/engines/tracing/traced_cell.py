"""A cell with its plans, each made when it is first needed."""

from functools import cached_property, partial
from typing import Any

import tensorflow as tf
from keras import tree
from keras.src.backend.common.stateless_scope import in_stateless_scope  # no public name

from cells.engines import native, xla
from cells.engines.attributes import Attributes, contents
from cells.engines.tracing import program
from cells.engines.tracing.hoist import Draws
from cells.engines.tracing.nodes import Refused
from cells.engines.tracing.plan import plan_of
from cells.engines.tracing.supported import unsupported
from cells.engines.tracing.trace import batch_of, trace

# A cell that changes at every step would be compiled at every step.
MOST_CHANGES = 8


class TracedCell:
    """Runs the recurrence of a Keras cell.

    Args:
        cell: the cell, built.
    """

    def __init__(self, cell):
        self.cell = cell
        self._recurrences = {}
        self._quick = {}  # of the calls that there were, by what is quick to read
        self._had: Any = None  # what the cell had when it was traced
        self._changes = 0

    def recurrence(self, sequences, states, training, masked):
        """The `Recurrence` of a call.

        Args:
            sequences: [batch, steps, ...].
            states: structure of tensors, as the cell takes its states.
            training: as the cell's `call` takes it.
            masked: whether steps may be masked.

        Raises:
            Refused: Keras' loop must run the cell.
        """
        if self._had is None or self._is_changed():
            self._recurrences.clear()
            self._quick.clear()
            self._had = Attributes(self.cell), contents(type(self.cell).call)
            self._changes += 1
        if self._changes > MOST_CHANGES:
            raise Refused(f"was changed {MOST_CHANGES} times, and is compiled each time")
        leaves = [(each.shape, each.dtype) for each in tree.flatten(states)]
        key = sequences.shape[:1], sequences.shape[2:], sequences.dtype, *leaves, training, masked
        found = None if in_stateless_scope() else self._quick.get(key)
        if found is None:
            inputs = tf.TensorSpec([sequences.shape[0], *sequences.shape[2:]], sequences.dtype)
            specs = tree.map_structure(lambda state: tf.TensorSpec(state.shape, state.dtype), states)
            found = self._find(inputs, specs, training, masked)
            if any(found is each for each in self._recurrences.values()):
                self._quick[key] = found
        if isinstance(found, Refused):
            raise found
        return found

    def _find(self, inputs, specs, training, masked):
        """The `Recurrence` of a call, or the `Refused` that says why there is none."""
        key = (inputs, tuple(tree.flatten(specs)), training, masked)
        keys = {False: _any_batch(key), True: key}  # most serve any number of sequences
        for each in keys.values():
            if each in self._recurrences and not in_stateless_scope():  # where weights have other values
                return self._recurrences[each]
        try:
            step = trace(self.cell, inputs, specs, training)
            found = Recurrence(plan_of(step, masked), partial(plan_of, step, masked, all_in_loop=True))
            if step.keeps:
                self._recurrences[keys[step.batch is not None]] = found
            return found
        except Refused as refusal:
            self._recurrences[keys[refusal.may_be_of_batch]] = refusal
            return refusal

    def _is_changed(self):
        attributes, call = self._had
        return any(attributes.changed()) or contents(type(self.cell).call) != call


def _any_batch(key):
    inputs, specs, *others = key
    batch = batch_of(inputs, specs)

    def opened(spec):
        if not spec.shape.rank or spec.shape[0] not in (None, batch):
            return spec
        return tf.TensorSpec([None, *spec.shape[1:]], spec.dtype)

    return (opened(inputs), tuple(map(opened, specs)), *others)


class Recurrence:
    """A planned recurrence with its programs.

    Args:
        plan: `Plan`.
        plan_of_inference: () -> that of XLA's inference, see `plan_of`.
    """

    def __init__(self, plan, plan_of_inference):
        self.plan, self._plan_of_inference = plan, plan_of_inference
        self.draws = Draws(plan.step)

    def describe(self, engine):
        """What is computed where by an engine, a line each."""
        plan = self._native[0] if engine == "native" else self.plan
        return plan.describe()

    @cached_property
    def compiled(self):
        """The two programs of the XLA engine, or the sentence that says why they cannot be had."""
        return unsupported(self.plan.step) or program.xla_programs(self.plan, self._plan_of_inference())

    @property
    def native(self):
        """The two programs of the native engine, or the sentence that says why they cannot be had."""
        return self._native[1]

    @cached_property
    def _native(self):
        try:
            return program.native_programs(self.plan)
        except native.Unavailable as reason:
            return self.plan, str(reason)

    def run(self, programs, sequences, states, mask, *, zero_masked, sequence, save, known_steps=None):
        """Runs it over a batch of sequences.

        Args:
            programs: its `compiled` or its `native`.
            sequences: [batch, steps, ...].
            states: flat list of the initial states.
            mask: [batch, steps], bool, false where the states are to stay; or None.
            zero_masked, sequence, save: as `cells.engines.xla.run` takes them.
            known_steps: a number of steps that sequences are not padded for.

        Returns:
            (outputs [batch, steps, ...] or None, last output [batch, ...] or None, list of the final states).
        """
        step = self.plan.step
        weights = [supply() for _, supply in step.weights]
        states = [tf.convert_to_tensor(state) for state in states]  # those of a stateful layer are variables
        floats, others = program.parted([leaf for leaf, _ in step.weights], weights)
        float_states, other_states = program.parted(step.states, states)
        operands = {"inputs": sequences, "states": float_states, "weights": floats}
        constants = {"states": other_states, "weights": others}
        if mask is not None:
            constants["mask"] = mask
        steps, batch = (sequences.shape[n] or tf.shape(sequences)[n] for n in (1, 0))
        if programs is not self.native:
            operands, constants = xla.padded(operands, constants, known=known_steps)
        padded = operands["inputs"].shape[1] or tf.shape(operands["inputs"])[1]
        constants["drawn"] = self.draws(steps, padded, batch)
        outputs, states = xla.run(
            programs, operands, constants, zero_masked=zero_masked, sequence=sequence, save=save
        )
        if not sequence:
            return None, states[-1], states[:-1]
        if "steps" in constants:
            outputs = outputs[:, :steps]
        return outputs, None, states
