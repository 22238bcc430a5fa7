"""Layers of a diffusion U-Net, conditioned on time and class (Ho et al. 2020, arXiv:2006.11239)."""

import keras
from keras import layers, ops

from shared.layers.attention import MultiHeadAttention
from shared.layers.convolution import Convolution
from shared.layers.normalization import GroupNormalization


@keras.saving.register_keras_serializable("keras_recipes")
class TimeEmbedding(layers.Layer):
    """Sinusoidal time embedding, with periods from 2π/1000 to 2π, and two dense layers.

    Args:
        channels: number of output channels, even.

    Input: (batch,), 0 to 1. Output: (batch, channels).
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs | {"autocast": False})  # half precision resolves too few times
        self.channels = channels
        self.hidden = layers.Dense(channels, activation="silu", dtype=self.dtype_policy, name="hidden")
        self.last = layers.Dense(channels, dtype=self.dtype_policy, name="last")

    def build(self, input_shape):
        self.hidden.build((input_shape[0], self.channels))
        self.last.build((input_shape[0], self.channels))

    def call(self, inputs):
        frequencies = 1000 ** (ops.arange(self.channels // 2, dtype="float32") / max(1, self.channels // 2 - 1))
        angles = ops.cast(inputs, "float32")[:, None] * frequencies
        return self.last(self.hidden(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.channels)

    def get_config(self):
        return super().get_config() | {"channels": self.channels}


@keras.saving.register_keras_serializable("keras_recipes")
class ConditionedResidualBlock(layers.Layer):
    """Residual block of two 3×3 convolutions with conditional affine modulation (FiLM) between them.

    Group normalization and SiLU precede each convolution, dropout the second, whose kernel starts at zero, so that the
    block starts as the identity (Dhariwal and Nichol 2021, arXiv:2105.05233). There are no biases, since the
    normalizations shift.

    Args:
        filters: number of output channels, a multiple of `groups`.
        groups: groups of the normalizations.
        dropout: dropout rate before the second convolution.

    Inputs: (batch, height, width, channels) and a condition (batch, features). Output: (batch, height, width, filters).
    """

    def __init__(self, filters, groups=8, dropout=0.0, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.groups = groups
        own = {"dtype": self.dtype_policy}
        self.first_norm = GroupNormalization(groups, name="first_norm", **own)
        self.first = Convolution(filters, 3, kernel_initializer="he_normal", name="first", **own)
        self.modulation = layers.Dense(2 * filters, name="modulation", **own)
        self.second_norm = GroupNormalization(groups, learned=False, name="second_norm", **own)
        self.dropout = layers.Dropout(dropout, name="dropout", **own)
        self.second = Convolution(filters, 3, kernel_initializer="zeros", name="second", **own)
        self.shortcut = None

    def build(self, inputs_shape, condition_shape):
        between = self.compute_output_shape(inputs_shape)
        self.first_norm.build(inputs_shape)
        self.first.build(inputs_shape)
        self.modulation.build(condition_shape)
        self.second_norm.build(between)
        self.second.build(between)
        if inputs_shape[-1] != self.filters:
            self.shortcut = Convolution(self.filters, 1, dtype=self.dtype_policy, name="shortcut")
            self.shortcut.build(inputs_shape)

    def call(self, inputs, condition, training=None):
        scale, shift = ops.split(self.modulation(ops.silu(condition)), 2, axis=-1)
        x = self.first(ops.silu(self.first_norm(inputs)))
        x = ops.silu(self.second_norm(x, 1 + scale, shift))
        x = self.second(self.dropout(x, training=training))
        return x + (self.shortcut(inputs) if self.shortcut else inputs)

    def compute_output_shape(self, inputs_shape, condition_shape=None):
        return (*inputs_shape[:-1], self.filters)

    def get_config(self):
        config = {"filters": self.filters, "groups": self.groups, "dropout": self.dropout.rate}
        return super().get_config() | config


def attention_heads(channels: int, depth: int = 64) -> int:
    """Number of attention heads: the most that divide the channels evenly, with at least `depth` each if possible."""
    return max(heads for heads in range(1, max(1, channels // depth) + 1) if channels % heads == 0)


@keras.saving.register_keras_serializable("keras_recipes")
class ImageAttention(layers.Layer):
    """Self-attention over the positions of an image, with a residual connection.

    Args:
        heads: number of heads, a divisor of the number of channels.
        groups: groups of the normalization before it.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, heads=1, groups=8, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.groups = groups
        self.norm = GroupNormalization(groups, dtype=self.dtype_policy, name="norm")
        self.attention = MultiHeadAttention(heads, dtype=self.dtype_policy, name="attention")

    def build(self, input_shape):
        batch, height, width, channels = input_shape
        self.norm.build(input_shape)
        self.attention.build((batch, height * width, channels))

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        positions = ops.reshape(self.norm(inputs), (-1, height * width, channels))
        return inputs + ops.reshape(self.attention(positions), (-1, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "groups": self.groups}
