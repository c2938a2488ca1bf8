"""The plan of a recurrence: what is computed before the loop, in it, and after it."""

from collections import Counter
from dataclasses import dataclass

import tensorflow as tf

from cells.engines.tracing import rewrite
from cells.engines.tracing.nodes import Batch, Level, Node, Ref, Refused, leaf, ordered
from cells.engines.tracing.trace import Step


@dataclass(frozen=True)
class Plan:
    """Where each value of a step is computed.

    Attributes:
        step: the traced step.
        output: the output.
        states: the leaves of the states, in order.
        new: their next values.
        delayed: the indices of states whose next values are known before the loop, each a function of those
            before it: such a state is the value of the step before.
        looped: the indices of the other states, which the loop carries.
        held: whether the last state is the output, which is not one of the cell's: where steps may be masked,
            it is held from one to the next.
        outputs: the values that the loop yields at every step: the output, or what the nodes after it take.
        after: the nodes that are computed after the loop for all steps at once, because no state needs them.
        loop: the nodes in the loop.
        inputs: the values that the loop reads of what is known before it for all steps.
        weights: those that are the same at every step.
        cuts: the nodes of the loop whose weight's gradient is one product over all steps.
        summed: the weights whose gradient is summed in the loop.
        weights_after, inputs_after: what the nodes after the loop read beside `outputs`.
    """

    step: Step
    output: Ref
    states: tuple[Ref, ...]
    new: tuple[Ref, ...]
    delayed: tuple[int, ...]
    looped: tuple[int, ...]
    held: bool
    outputs: tuple[Ref, ...]
    after: tuple[Node, ...]
    loop: tuple[Node, ...]
    inputs: tuple[Ref, ...]
    weights: tuple[Ref, ...]
    cuts: tuple[Node, ...]
    summed: tuple[Ref, ...]
    weights_after: tuple[Ref, ...]
    inputs_after: tuple[Ref, ...]

    def users(self):
        """The nodes of the loop that take a value, by values; None among them where the loop yields it."""
        users: dict[Ref, list[Node | None]] = {}
        for each in self.loop:
            for ref in each.inputs:
                users.setdefault(ref, []).append(each)
        for ref in {*(self.new[n] for n in self.looped), *self.outputs}:
            users.setdefault(ref, []).append(None)
        return users

    @property
    def dtype(self):
        """What it computes with: float64 where anything of it does, else float32."""
        leaves = [self.step.inputs, *self.step.states, *(leaf for leaf, _ in self.step.weights)]
        return tf.float64 if any(ref.dtype == tf.float64 for ref in leaves) else tf.float32

    def describe(self):
        """What is computed where, a line each."""
        hoisted = [n for n in self._hoisted() if n.inputs]
        return [
            f"Before the loop, for all steps at once: {_counted(hoisted)}.",
            f"In the loop, at every step: {_counted(self.loop)}.",
            *([f"After the loop, for all steps at once: {_counted(self.after)}."] if self.after else []),
        ]

    def _hoisted(self):
        roots = [*self.inputs, *self.inputs_after, *(self.new[n] for n in self.delayed)]
        roots += [self.output] if self.output.level == Level.INPUT else []
        return [each for each in ordered(roots) if each.level == Level.INPUT]


def plan_of(step, masked, all_in_loop=False):
    """The plan of a traced step.

    Args:
        step: `Step`.
        masked: whether steps may be masked; a state is then not the value of the step before.
        all_in_loop: whether the loop is to do all that it can, as in XLA's inference on a CPU: there a stack
            that is written before the loop and read in it costs more than the calls that it saves.

    Raises:
        Refused: Keras' loop must run it.
    """
    if masked and not all(state.has_rows or step.batch is not None for state in step.states):
        raise Refused("has a state that is not one for each sequence, and steps are masked")
    states, output, new = step.states, step.output, list(step.new_states)
    delayed: list[int] = []
    held = masked and output not in new
    if held:
        states = (*states, leaf("held", output.shape, output.dtype, Level.STATE))
        new.append(output)
    if not masked:
        states, output, new, delayed = _delay(states, output, new)
    count = len(new)

    def each(change, *arguments):
        nonlocal output, new
        output, *new = change([output, *new], *arguments)

    def keep_expansions():
        each(rewrite.expansions_in_the_loop, [new[n] for n in delayed], _usual([output, *new], step.inputs))

    each(rewrite.products_of_several_rows)
    each(rewrite.products_of_parts)
    keep_expansions()
    each(rewrite.known_terms_first)
    if all_in_loop:
        each(rewrite.one_product_of_sums)
        each(rewrite.in_the_loop, _movable(output, new, delayed))
    each(rewrite.one_product_of_each)
    each(rewrite.slices_as_parts)
    each(rewrite.split_before_adding)
    each(rewrite.parts_in_the_loop)
    keep_expansions()
    looped = [n for n in range(count) if n not in delayed]
    return _placed(step, output, states, new, delayed, looped, held)


def plain_products(plan):
    """The plan of an engine that has products of rows with a matrix alone: one for each head."""
    output, *new = rewrite.products_of_heads([plan.output, *plan.new])
    return _placed(plan.step, output, plan.states, new, list(plan.delayed), list(plan.looped), plan.held)


def light_work_in_the_loop(plan):
    """The plan of an engine whose loop does light work at no price but the work.

    What is elementwise or reduces rows, and is known before the loop, is computed in it, if the loop then
    reads no more than before: nothing of it is written and read again for all steps, nor of its gradient.
    """
    roots = [plan.output, *plan.new]
    nodes = ordered(roots)
    users: dict[Node, set[Node]] = {each: set() for each in nodes}
    for each in nodes:
        for ref in each.inputs:
            users[ref.node].add(each)
    kept = {ref.node for ref in roots}
    light: set[Node] = set()
    for each in reversed(nodes):
        is_light = each.level == Level.INPUT and each.inputs and each.kind in rewrite.LIGHT
        if is_light and each not in kept and all(u in light or u.level == Level.STATE for u in users[each]):
            light.add(each)
    reads = _unique(
        ref
        for each in (*plan.loop, *light)
        for ref in each.inputs
        if ref.level == Level.INPUT and ref.node not in light
    )
    if plan.after or sum(ref.size for ref in reads) > sum(ref.size for ref in plan.inputs):
        return plan
    output, *new = rewrite.split_before_adding(rewrite.in_the_loop(roots, light))
    return _placed(plan.step, output, plan.states, new, list(plan.delayed), list(plan.looped), plan.held)


def _delay(states, output, new):
    """States whose next value needs no state are known before the loop, and what needs them alone too."""
    states = list(states)
    delayed: list[int] = []
    while True:
        found = [n for n, ref in enumerate(new) if n not in delayed and ref.level == Level.INPUT]
        if not found:
            return tuple(states), output, new, delayed
        known = {states[n]: leaf("delayed", states[n].shape, states[n].dtype, Level.INPUT) for n in found}

        def rule(each, _, known=known):
            return [known[Ref(each)]] if Ref(each) in known else None

        output, *new = rewrite.rewrite([output, *new], rule, lower=True)
        states = [known.get(state, state) for state in states]
        delayed += found


def _movable(output, new, delayed):
    """The nodes that could be computed in the loop as well as before it."""
    fixed = [new[n] for n in delayed] + ([output] if output.level == Level.INPUT else [])
    nodes = set(ordered([output, *new])) - set(ordered(fixed))
    return {each for each in nodes if each.level == Level.INPUT and each.inputs}


def _usual(roots, inputs):
    """The size of what is surely worth to be known before the loop: the inputs, and their largest product."""
    products = (
        each
        for each in ordered(roots)
        if each.level == Level.INPUT
        and each.kind in rewrite.PRODUCTS
        and each.inputs[1].level <= Level.WEIGHT
    )
    return max([inputs.size, *(Ref(each).size for each in products)])


def _placed(step, output, states, new, delayed, looped, held):
    carried = [new[n] for n in looped]
    outputs, after = ((output,), ()) if output in carried else _after(output, carried)
    nodes = [each for each in ordered([*carried, *outputs]) if each.level == Level.STATE and each.inputs]
    used = [*(ref for each in nodes for ref in each.inputs), *carried, *outputs]
    cuts = [each for each in nodes if rewrite.is_cut(each)]
    weights = _unique(ref for ref in used if ref.level == Level.WEIGHT)
    beside = [ref for each in after for ref in each.inputs]
    in_cuts = Counter(each.inputs[1] for each in cuts)
    uses = Counter(used)
    return Plan(
        step=step,
        output=output,
        states=tuple(states),
        new=tuple(new),
        delayed=tuple(delayed),
        looped=tuple(looped),
        held=held,
        outputs=outputs,
        after=after,
        loop=tuple(nodes),
        inputs=_unique(ref for ref in used if ref.level == Level.INPUT),
        weights=weights,
        cuts=tuple(cuts),
        summed=tuple(ref for ref in weights if ref.is_differentiable and uses[ref] > in_cuts[ref]),
        weights_after=_unique(ref for ref in beside if ref.level == Level.WEIGHT),
        inputs_after=_unique(ref for ref in beside if ref.level == Level.INPUT),
    )


def _after(output, carried):
    """(what the loop yields, the nodes after it): products that no state needs wait for the loop's end."""
    if output.level < Level.STATE:
        return (), ()
    needed = set(ordered(carried))
    after = [
        each for each in ordered([output]) if each.level == Level.STATE and each.inputs and each not in needed
    ]
    if not any(map(rewrite.is_cut, after)):
        return (output,), ()
    inside = set(after)
    border = (ref for each in after for ref in each.inputs if ref.level == Level.STATE)
    return _unique(ref for ref in border if ref.node not in inside), tuple(after)


def _unique(refs):
    return tuple(dict.fromkeys(refs))


def _counted(nodes):
    """Nodes in words: products first, then the others by number."""
    products = [each for each in nodes if each.kind in rewrite.PRODUCTS]
    sizes = ", ".join(" x ".join(map(_size, each.inputs[1].shape)) for each in products)
    others = sum(each.kind not in (*rewrite.PRODUCTS, "parts", "Split", "SplitV") for each in nodes)
    told = [f"{_number(len(products), 'product')} ({sizes})"] if products else []
    told += [_number(others, "other operation")] if others or not told else []
    return " and ".join(told)


def _size(size):
    return "batch" if isinstance(size, Batch) else str(size)


def _number(count, noun):
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"
