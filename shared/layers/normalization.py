"""Normalization."""

import keras
from keras import layers

from shared.backends.normalization import fused_batch_normalization, weighted_mean


@keras.saving.register_keras_serializable("keras_recipes")
class BatchNormalization(layers.BatchNormalization):
    """Keras's batch normalization over the last axis, in one operation where the backend has it.

    Takes and gives what `keras.layers.BatchNormalization` does, with the same weights (Ioffe and Szegedy 2015,
    arXiv:1502.03167).
    """

    def call(self, inputs, training=None, mask=None):
        learning = training and self.trainable
        fused = None
        if mask is None and self.is_plain(len(inputs.shape)):
            averages = None if learning else (self.moving_mean, self.moving_variance)
            fused = fused_batch_normalization(inputs, self.gamma, self.beta, self.epsilon, averages)
        if fused is None:
            return super().call(inputs, training, mask)
        outputs, mean, variance = fused
        if learning:
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(weighted_mean(average, value, self.momentum))
        return outputs

    def is_plain(self, rank):
        """Whether this is over the last of `rank` axes, with gamma and beta, and without renormalization."""
        return self.axis in (-1, rank - 1) and self.center and self.scale and not self.renorm
