"""Convolutions."""

from typing import Any

import keras


def depthwise_convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """Filters each channel by itself, with same padding."""
    return keras.ops.depthwise_conv(inputs, kernel, stride, padding="same")
