"""Pooling and upsampling."""

from typing import Any

import keras


def max_pooling(inputs: Any, size: int, stride: int, padding: str) -> Any:
    """The maxima over squares."""
    return keras.ops.max_pool(inputs, size, stride, padding=padding)


def nearest_upsampling(inputs: Any) -> Any:
    """Each pixel as a square of 2 × 2 pixels."""
    return keras.ops.repeat(keras.ops.repeat(inputs, 2, axis=1), 2, axis=2)
