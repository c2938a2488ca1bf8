"""Activations that Keras no longer has, registered so that cells that use them can be saved."""

from keras import ops, saving


@saving.register_keras_serializable("cells")
def historical_hard_sigmoid(x):
    """clip(0.2 x + 0.5, 0, 1), elementwise: what `hard_sigmoid` was in Keras 1 and 2.

    In Keras 3 `hard_sigmoid` is relu6(x + 3) / 6, another function under the same name: the two differ
    by up to 0.1, at x = ±2.5.

    Args:
        x: tensor of floats.

    Returns:
        A tensor of x's shape and dtype.

    Source: `keras.activations.hard_sigmoid` of Keras 2; Courbariaux et al. (BinaryConnect, 2015) has
    the same shape with slope 0.5.
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)
