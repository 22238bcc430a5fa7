"""Batch and group normalization."""

import keras
from keras import layers, ops

from shared.backends.group_normalization import group_normalization
from shared.backends.normalization import fused_batch_normalization, weighted_mean


@keras.saving.register_keras_serializable("keras_recipes")
class BatchNormalization(layers.BatchNormalization):
    """Batch normalization (Ioffe and Szegedy 2015, arXiv:1502.03167), as one fused operation where the backend has one.

    Options, weights and outputs are those of `keras.layers.BatchNormalization`.
    """

    def call(self, inputs, training=None, mask=None):
        learning = training and self.trainable
        fused = None
        if mask is None and self.is_plain(len(inputs.shape)):
            averages = None if learning else (self.moving_mean, self.moving_variance)
            fused = fused_batch_normalization(inputs, self.gamma, self.beta, epsilon=self.epsilon, statistics=averages)
        if fused is None:
            return super().call(inputs, training, mask)
        outputs, mean, variance = fused
        if learning:
            for average, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
                average.assign(weighted_mean(average, value, self.momentum))
        return outputs

    def is_plain(self, rank):
        """Whether it normalizes the last of `rank` axes, with gamma and beta and without renormalization."""
        return self.axis in (-1, rank - 1) and self.center and self.scale and not self.renorm


@keras.saving.register_keras_serializable("keras_recipes")
class GroupNormalization(layers.Layer):
    """Group normalization (Wu and He 2018, arXiv:1803.08494).

    Args:
        groups: number of groups, a divisor of the number of channels.
        learned: whether scale and shift are weights. If not, they are inputs (batch, channels): adaptive group
            normalization, or FiLM (Dhariwal and Nichol 2021, arXiv:2105.05233, section 3.1).
        epsilon: added to the variance.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, groups=8, learned=True, epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.learned = learned
        self.epsilon = epsilon

    def build(self, inputs_shape, scale_shape=None, shift_shape=None):
        channels = inputs_shape[-1]
        if channels % self.groups:
            raise ValueError(f"{channels} channels cannot be divided into {self.groups} equal groups")
        if self.learned:
            self.gamma = self.add_weight(shape=(channels,), initializer="ones", name="gamma")
            self.beta = self.add_weight(shape=(channels,), initializer="zeros", name="beta")

    def call(self, inputs, scale=None, shift=None):
        scale, shift = (self.gamma, self.beta) if self.learned else (scale, shift)
        x, scale, shift = (ops.cast(each, "float32") for each in (inputs, scale, shift))
        outputs = group_normalization(x, self.groups, scale=scale, shift=shift, epsilon=self.epsilon)
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, inputs_shape, scale_shape=None, shift_shape=None):
        return inputs_shape

    def get_config(self):
        config = {"groups": self.groups, "learned": self.learned, "epsilon": self.epsilon}
        return super().get_config() | config
