"""Dense layers for sequences."""

import keras
from keras import layers, ops


def as_one_matrix(function, inputs):
    """What a function of matrices (rows, channels) makes of inputs (…, channels): (…, channels of what it gives).

    The product of a matrix with a kernel is differentiated without copies. Of more than two dimensions XLA brings the
    gradients into another order first, which on a CPU takes longer than the products themselves.
    """
    outputs = function(ops.reshape(inputs, (-1, inputs.shape[-1])))
    return ops.reshape(outputs, (-1, *ops.shape(inputs)[1:-1], outputs.shape[-1]))


@keras.saving.register_keras_serializable("keras_recipes")
class SequenceDense(layers.Dense):
    """Keras's Dense with the same weights and options, whose training step takes less time on JAX for sequences.

    Input: (…, channels), output: (…, units).
    """

    def call(self, inputs, training=None):
        return as_one_matrix(super().call, inputs)
