"""Dense layers for sequences."""

import keras
from keras import layers, ops


def as_one_matrix(function, inputs):
    """Applies a function of matrices (rows, channels) to inputs (…, channels): (…, output channels).

    With more than two dimensions XLA transposes the gradients first, which on a CPU takes longer than the products.
    """
    outputs = function(ops.reshape(inputs, (-1, inputs.shape[-1])))
    return ops.reshape(outputs, (-1, *ops.shape(inputs)[1:-1], outputs.shape[-1]))


@keras.saving.register_keras_serializable("keras_recipes")
class SequenceDense(layers.Dense):
    """Dense layer, with the weights and options of Keras's, that trains faster on sequences with JAX.

    Input: (…, channels), output: (…, units).
    """

    def call(self, inputs, training=None):
        return as_one_matrix(super().call, inputs)
