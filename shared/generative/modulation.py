"""Conditional affine modulation."""

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal


@keras.saving.register_keras_serializable("keras_recipes")
class ClassModulation(layers.Layer):
    """Conditional affine modulation (FiLM): learned scale and shift of each channel for each class.

    After batch normalization this is conditional batch normalization (Dumoulin et al. 2017, arXiv:1610.07629; in GANs,
    Miyato and Koyama 2018, arXiv:1802.05637).

    Args:
        classes: number of classes.

    Inputs: (batch, height, width, channels) and labels (batch,). Output: the shape of the first.
    """

    def __init__(self, classes, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes

    def build(self, inputs_shape, label_shape):
        shape = (self.classes, 2 * inputs_shape[-1])
        drawn = RandomNormal(stddev=0.5)  # wide, so that classes differ from the first step
        self.table = self.add_weight(shape=shape, initializer=drawn, name="embeddings")

    def call(self, inputs, label):
        scale, shift = ops.split(ops.take(self.table, label, axis=0)[:, None, None], 2, axis=-1)
        return inputs * (1 + scale) + shift

    def compute_output_shape(self, inputs_shape, label_shape=None):
        return inputs_shape

    def get_config(self):
        return super().get_config() | {"classes": self.classes}
