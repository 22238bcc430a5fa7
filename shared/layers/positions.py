"""How a Transformer knows the places of tokens."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("keras_recipes")
class SinusoidalPositions(layers.Layer):
    """Adds to each token sines and cosines of its place (Vaswani et al. 2017, arXiv:1706.03762, section 3.5).

    The first half of the channels are sines, the second half cosines, with wavelengths from 2π to `longest` · 2π.

    Args:
        longest: see above.

    Input: (batch, length, channels), channels even, and `start`, the place of the first token. Output: the same shape.
    """

    def __init__(self, longest=10000.0, **kwargs):
        super().__init__(**kwargs)
        self.longest = longest

    def call(self, inputs, start=0):
        angles = place_angles(ops.shape(inputs)[1], inputs.shape[-1], self.longest, start)
        return inputs + ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"longest": self.longest}


def place_angles(length, channels, longest, start=0):
    """Angles (length, channels / 2) in radians of the places from `start` on, float32."""
    frequencies = longest ** (-ops.arange(channels // 2, dtype="float32") / max(1, channels // 2 - 1))
    places = ops.cast(ops.arange(length) + start, "float32")
    return places[:, None] * frequencies


def rotate_by_place(inputs, start=0, longest=10000.0):
    """Turns each pair of channels by an angle in proportion to the place (Su et al. 2021, arXiv:2104.09864, eq. 34).

    The product of a turned query and a turned key then depends on how far apart they are, not on where they are.
    Channel i is paired with channel i + depth / 2.

    Args:
        inputs: (batch, length, heads, depth), depth even.
        start: the place of the first token.
        longest: the slowest pair turns once in about so many · 2π places.

    Returns:
        The same shape.
    """
    depth = inputs.shape[-1]
    frequencies = longest ** (-ops.arange(0, depth, 2, dtype="float32") / depth)
    places = ops.cast(ops.arange(ops.shape(inputs)[1]) + start, "float32")
    angles = (places[:, None] * frequencies)[:, None, :]
    sines, cosines = ops.cast(ops.sin(angles), inputs.dtype), ops.cast(ops.cos(angles), inputs.dtype)
    first, second = inputs[..., : depth // 2], inputs[..., depth // 2 :]
    return ops.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)
