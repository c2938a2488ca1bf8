"""Text sampled from a stateful character model with a batch of one: its last prediction is its next input.

TensorFlow's alone, like `bench.backend`: `tf.random.categorical` with a fixed seed is one stream of random
numbers, which goes on from draw to draw and from sample to sample, the same eagerly and compiled.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

# f(character, most) -> the characters that follow, one to `most` of them, the last one perhaps the end
Draw = Callable[[int, int], list[int]]
_SEED = 1  # of the operation; beside it `seed` sets the global one


def seed(number: int) -> None:
    """Starts the stream of random numbers again."""
    tf.random.set_seed(number)


def sample(layer, feed: Callable, draw: Draw, start: Sequence[int], end: int, limit: int) -> list[int]:
    """The characters that follow `start`, up to and with `end`, at most `limit` of them.

    Args:
        layer: the model's recurrent layer, stateful; it is reset first.
        feed: the model, or the model compiled; it reads `start` but for its last character.
        draw: `draw_eagerly` or `draw_compiled` of the same model.
    """
    layer.reset_state()
    if len(start) > 1:
        feed(_batch(start[:-1]))
    text: list[int] = []
    while len(text) < limit and text[-1:] != [end]:
        text += draw(text[-1] if text else start[-1], limit - len(text))
    return text


def compiled(model) -> Callable:
    """The model's forward pass as a compiled function."""
    return tf.function(lambda characters: model(characters, training=False), autograph=False)


def draw_eagerly(model) -> Draw:
    """Draws one character a call, operation by operation, as in the tutorials."""
    return lambda character, most: [int(_next(model, _batch([character]))[0, 0])]


def draw_compiled(model, end: int, steps: int) -> Draw:
    """Draws up to `steps` characters a call, in one compiled loop that stops behind `end`."""

    def loop(character, most):
        def step(number, character, drawn):
            character = _next(model, character)
            return number + 1, character, drawn.write(number, character[0, 0])

        def go_on(number, character, drawn):
            return (number < most) & ((number == 0) | (character[0, 0] != end))

        drawn = tf.TensorArray(tf.int32, steps, element_shape=())
        number, _, drawn = tf.while_loop(go_on, step, (0, character, drawn))
        return drawn.stack()[:number]

    function = tf.function(loop, autograph=False)
    return lambda character, most: (
        function(_batch([character]), tf.constant(min(most, steps))).numpy().tolist()
    )


def _next(model, character):
    """The character drawn after `character`, both int32 [1, 1]."""
    logits = model(character, training=False)[:, -1]
    return tf.random.categorical(logits, 1, dtype=tf.int32, seed=_SEED)


def _batch(characters: Sequence[int]):
    return tf.constant(np.asarray(characters, np.int32)[None])
