"""Pooling by the quickest way that the running backend has."""

from typing import Any

import keras

from shared.backends.runtime import on_torch_uncompiled


def max_pooling(inputs: Any, size: int) -> Any:
    """The maxima over squares around each pixel.

    On PyTorch, Keras copies the inputs to channels first and back to channels last, which PyTorch takes as they are.

    Args:
        inputs: (batch, height, width, channels).
        size: height and width of the squares, in pixels, odd.

    Returns:
        (batch, height, width, channels).
    """
    if on_torch_uncompiled():
        import torch

        channels_first = inputs.permute(0, 3, 1, 2)
        return torch.nn.functional.max_pool2d(channels_first, size, 1, size // 2).permute(0, 2, 3, 1)
    return keras.ops.max_pool(inputs, size, 1, padding="same")
