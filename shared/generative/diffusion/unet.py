"""The layers of a U-Net that removes noise from images, told how much there is (Ho et al. 2020, arXiv:2006.11239)."""

import keras
from keras import layers, ops

from shared.layers.attention import MultiHeadAttention
from shared.layers.convolution import Convolution
from shared.layers.normalization import GroupNormalization


@keras.saving.register_keras_serializable("keras_recipes")
class TimeEmbedding(layers.Layer):
    """Sines and cosines of a time, with periods from 2π/1000 to 2π, through two dense layers.

    Args:
        channels: number of output channels, even.

    Input: (batch,), 0 to 1. Output: (batch, channels).
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs | {"autocast": False})  # half precision knows too few times
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
    """Two 3×3 convolutions around which the input is passed on; a condition scales and shifts what is between them.

    Each convolution comes after group normalization and SiLU, the second after dropout too. It begins as zeros, so that
    at first the block passes on its input (Dhariwal and Nichol 2021, arXiv:2105.05233). Biases are left out, since the
    normalizations shift.

    Args:
        filters: number of output channels, a multiple of `groups`.
        groups: groups of the normalizations.
        dropout: share of the values that is left out before the second convolution.

    Call with (batch, height, width, channels) and a condition (batch, features). Gives (batch, height, width, filters).
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
    """The number of attention heads: the most that share the channels evenly, of at least `depth` each if possible."""
    return max(heads for heads in range(1, max(1, channels // depth) + 1) if channels % heads == 0)


@keras.saving.register_keras_serializable("keras_recipes")
class ImageAttention(layers.Layer):
    """Each place of an image takes from all others what it asks for, and adds it to what it has.

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
        places = ops.reshape(self.norm(inputs), (-1, height * width, channels))
        return inputs + ops.reshape(self.attention(places), (-1, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "groups": self.groups}
