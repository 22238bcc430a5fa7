"""Group normalization."""

from typing import Any

from keras import ops


def group_normalization(inputs: Any, groups: int, scale: Any, shift: Any, epsilon: float) -> Any:
    """Normalizes groups of channels, image by image, then scales and shifts each channel."""
    height, width, channels = inputs.shape[1:]
    x = ops.reshape(inputs, (-1, height * width, groups, channels // groups))
    mean, variance = ops.moments(x, axes=(1, 3), keepdims=True)
    x = ops.reshape((x - mean) * ops.rsqrt(variance + epsilon), (-1, height * width, channels))
    x = x * ops.reshape(scale, (-1, 1, channels)) + ops.reshape(shift, (-1, 1, channels))
    return ops.reshape(x, (-1, height, width, channels))
