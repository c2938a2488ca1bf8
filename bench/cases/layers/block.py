"""TensorFlow's fused CPU kernels, which Keras does not use, as layers with Keras' weights and results.

They heed no mask, no `go_backwards` and no dropout.
"""

import keras
import tensorflow as tf


class BlockLSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` whose steps are one `BlockLSTMV2`; float16 or float32.

    Its gates are Keras', in Keras' order; its one weight [features + units, 4 * units] is Keras' two, joined
    in each call, and it is time-major, which the transpositions here are for.
    """

    def inner_loop(self, sequences, initial_state, mask, training=False):
        h, c = initial_state
        kernel = tf.concat([self.cell.kernel, self.cell.recurrent_kernel], axis=0)
        h, c = _lstm(tf.transpose(sequences, (1, 0, 2)), h, c, kernel, tf.convert_to_tensor(self.cell.bias))
        return h[-1], tf.transpose(h, (1, 0, 2)), [h[-1], c[-1]]


class BlockGRU(keras.layers.GRU):
    """`keras.layers.GRU` with `reset_after=False` whose steps are each a `GRUBlockCell`; float32."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        weights = self._block_weights()

        def step(h, x):
            h = _gru_step(x, h, *weights)
            return h, h

        h, outputs = keras.ops.scan(step, initial_state[0], tf.transpose(sequences, (1, 0, 2)))
        return h, tf.transpose(outputs, (1, 0, 2)), [h]

    def _block_weights(self):
        """The reset and update gates' weights, the candidate's, and both biases."""
        kernel = tf.concat([self.cell.kernel, self.cell.recurrent_kernel], axis=0)
        update, reset, candidate = tf.split(kernel, 3, axis=1)
        update_bias, reset_bias, candidate_bias = tf.split(tf.convert_to_tensor(self.cell.bias), 3)
        return (
            tf.concat([reset, update], axis=1),
            candidate,
            tf.concat([reset_bias, update_bias], axis=0),
            candidate_bias,
        )


@tf.custom_gradient
def _lstm(x, h, c, kernel, bias):
    """h and c of all steps [timesteps, batch_size, units], by one `BlockLSTMV2`.

    TensorFlow 2.21 takes `BlockLSTMGrad` for its gradient, which has the forget gate and the candidate in
    each other's place, and so is wrong; the right one is `BlockLSTMGradV2`.
    """
    unused = tf.zeros((h.shape[-1],), x.dtype)  # the peepholes
    given = {
        **{"seq_len_max": tf.shape(x, out_type=tf.int64)[0], "x": x, "cs_prev": c, "h_prev": h},
        **{"w": kernel, "b": bias, "wci": unused, "wcf": unused, "wco": unused},
    }
    made = tf.raw_ops.BlockLSTMV2(**given)

    def gradient(of_h, of_c):
        of_x, of_c_0, of_h_0, of_kernel, *_, of_bias = tf.raw_ops.BlockLSTMGradV2(
            **given, **made._asdict(), cs_grad=of_c, h_grad=of_h, use_peephole=False
        )
        return of_x, of_h_0, of_c_0, of_kernel, of_bias

    return (made.h, made.cs), gradient


@tf.custom_gradient
def _gru_step(x, h, gates_weight, candidate_weight, gates_bias, candidate_bias):
    """One `GRUBlockCell`; TensorFlow has the kernel of its gradient, and no longer registers it."""
    given = {
        "x": x,
        "h_prev": h,
        "w_ru": gates_weight,
        "w_c": candidate_weight,
        "b_ru": gates_bias,
        "b_c": candidate_bias,
    }
    reset, update, candidate, h_next = tf.raw_ops.GRUBlockCell(**given)

    def gradient(of_h_next):
        of_x, of_h, of_candidate, of_gates = tf.raw_ops.GRUBlockCellGrad(
            **given, r=reset, u=update, c=candidate, d_h=of_h_next
        )
        return (
            of_x,
            of_h,
            tf.matmul(tf.concat([x, h], axis=1), of_gates, transpose_a=True),
            tf.matmul(tf.concat([x, reset * h], axis=1), of_candidate, transpose_a=True),
            tf.reduce_sum(of_gates, axis=0),
            tf.reduce_sum(of_candidate, axis=0),
        )

    return h_next, gradient
