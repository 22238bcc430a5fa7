"""Pooling."""

from typing import Any

import keras


def max_pooling(inputs: Any, size: int) -> Any:
    """The maxima over squares around each pixel."""
    return keras.ops.max_pool(inputs, size, 1, padding="same")
