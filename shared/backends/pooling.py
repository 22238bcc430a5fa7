"""Pooling by the quickest way that the running backend has."""

from typing import Any

import keras

from shared.backends.runtime import on_torch_uncompiled


def max_pooling(inputs: Any, size: int, stride: int, padding: str) -> Any:
    """The maxima over squares.

    On PyTorch, Keras copies the inputs to channels first and back to channels last, which PyTorch takes as they are.

    Args:
        inputs: (batch, height, width, channels).
        size: height and width of the squares, in pixels; odd with same padding.
        stride: step between outputs, in pixels.
        padding: "valid", or "same" without strides.

    Returns:
        (batch, height / stride, width / stride, channels); with valid padding, of the squares that lie within.
    """
    if on_torch_uncompiled():
        import torch

        around = size // 2 if padding == "same" else 0
        channels_first = keras.ops.convert_to_tensor(inputs).permute(0, 3, 1, 2)
        return torch.nn.functional.max_pool2d(channels_first, size, stride, around).permute(0, 2, 3, 1)
    return keras.ops.max_pool(inputs, size, stride, padding=padding)
