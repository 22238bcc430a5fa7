"""Positional encodings: sinusoidal, learned, and rotary (RoPE)."""

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal


@keras.saving.register_keras_serializable("keras_recipes")
class SinusoidalPositions(layers.Layer):
    """Sinusoidal positional encoding, added to the inputs (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    The first half of the channels are sines, the second half cosines.

    Args:
        max_wavelength: the wavelengths range from 2π to this times 2π positions.

    Inputs: (batch, length, channels), channels even, and `start`, the first position. Output: the same shape.
    """

    def __init__(self, max_wavelength=10000.0, **kwargs):
        super().__init__(**kwargs)
        self.max_wavelength = max_wavelength

    def call(self, inputs, start=0):
        angles = position_angles(ops.shape(inputs)[1], inputs.shape[-1], self.max_wavelength, start)
        return inputs + ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"max_wavelength": self.max_wavelength}


@keras.saving.register_keras_serializable("keras_recipes")
class LearnedPositions(layers.Layer):
    """Learned position embeddings, added to the inputs (Gehring et al. 2017, arXiv:1705.03122).

    Args:
        length: number of positions.
        stddev: standard deviation of the initial embeddings.

    Inputs: (batch, length, channels), and `start`, the first position. Output: the same shape.
    """

    def __init__(self, length, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.length = length
        self.stddev = stddev

    def build(self, input_shape):
        self.embeddings = self.add_weight(
            shape=(self.length, input_shape[-1]), initializer=RandomNormal(stddev=self.stddev), name="embeddings"
        )

    def call(self, inputs, start=0):
        positions = ops.arange(ops.shape(inputs)[1], dtype="int32") + start
        return inputs + ops.cast(ops.take(self.embeddings, positions, axis=0), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"length": self.length, "stddev": self.stddev}


def position_angles(length, channels, max_wavelength, start=0):
    """Angles (length, channels / 2) in radians of the positions from `start`, float32."""
    frequencies = max_wavelength ** (-ops.arange(channels // 2, dtype="float32") / max(1, channels // 2 - 1))
    positions = ops.cast(ops.arange(length) + start, "float32")
    return positions[:, None] * frequencies


def apply_rotary_embedding(inputs, start=0, max_wavelength=10000.0):
    """Rotary position embedding, RoPE (Su et al. 2021, arXiv:2104.09864, equation 34).

    It rotates each pair of channels by an angle proportional to the position, so that the dot product of a query and a
    key depends only on their distance. Channel i is paired with channel i + depth / 2.

    Args:
        inputs: (batch, length, heads, depth), depth even.
        start: the first position.
        max_wavelength: the slowest pair rotates once in about this times 2π positions.

    Returns:
        The same shape.
    """
    depth = inputs.shape[-1]
    frequencies = max_wavelength ** (-ops.arange(0, depth, 2, dtype="float32") / depth)
    positions = ops.cast(ops.arange(ops.shape(inputs)[1]) + start, "float32")
    angles = (positions[:, None] * frequencies)[:, None, :]
    sines, cosines = ops.cast(ops.sin(angles), inputs.dtype), ops.cast(ops.cos(angles), inputs.dtype)
    first, second = inputs[..., : depth // 2], inputs[..., depth // 2 :]
    return ops.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
