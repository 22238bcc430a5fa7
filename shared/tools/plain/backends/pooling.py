"""Pooling."""

from typing import Any

import keras


def max_pooling(inputs: Any, size: int, stride: int, padding: str) -> Any:
    """The maxima over squares."""
    return keras.ops.max_pool(inputs, size, stride, padding=padding)
