"""Pooling and upsampling by the quickest way that the running backend has."""

from typing import Any

import keras

from shared.backends.runtime import on_jax_cpu, on_torch_uncompiled


def max_pooling(inputs: Any, size: int, stride: int, padding: str) -> Any:
    """The maxima over squares.

    On PyTorch, Keras copies the inputs to channels first and back to channels last, which PyTorch takes as they are. On
    JAX, XLA's gradient takes up to 20 times as long on a CPU as those of `pooling_by_two` and `pooling_by_shifts`.

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
    if on_jax_cpu() and size == stride == 2 and padding == "valid":
        return pooling_by_two(inputs)
    if on_jax_cpu() and stride == 1 and padding == "same":
        return pooling_by_shifts(inputs, size)
    return keras.ops.max_pool(inputs, size, stride, padding=padding)


def nearest_upsampling(inputs: Any) -> Any:
    """Each pixel as a square of 2 × 2 pixels.

    PyTorch's own takes half as long as repeating rows and columns, both ways; broadcasting takes five times as long as
    that on PyTorch and TensorFlow, whose sums over two axes at once are slow.

    Args:
        inputs: (batch, height, width, channels).

    Returns:
        (batch, 2 · height, 2 · width, channels).
    """
    if on_torch_uncompiled():
        import torch

        channels_first = keras.ops.convert_to_tensor(inputs).permute(0, 3, 1, 2)
        return torch.nn.functional.interpolate(channels_first, scale_factor=2).permute(0, 2, 3, 1)
    return keras.ops.repeat(keras.ops.repeat(inputs, 2, axis=1), 2, axis=2)


def pooling_by_two(inputs: Any) -> Any:
    """The maxima over squares of 2 × 2 pixels, on JAX; a gradient goes to the first of equal pixels."""
    import jax
    import jax.numpy as jnp

    inputs = keras.ops.convert_to_tensor(inputs)
    batch, height, width, channels = inputs.shape
    rows, columns = height // 2, width // 2

    def forward(inputs: Any) -> tuple[Any, Any]:
        squares = inputs[:, : 2 * rows, : 2 * columns].reshape(batch, rows, 2, columns, 2, channels)
        largest, place = squares[:, :, 0, :, 0], jnp.zeros((batch, rows, columns, channels), "int8")
        for index, (row, column) in enumerate([(0, 1), (1, 0), (1, 1)], start=1):
            pixel = squares[:, :, row, :, column]
            place = jnp.where(pixel > largest, jnp.int8(index), place)
            largest = jnp.maximum(largest, pixel)
        return largest, place

    def backward(place: Any, gradients: Any) -> tuple[Any]:
        places = jnp.arange(4, dtype="int8").reshape(2, 1, 2, 1)
        squares = jnp.where(place[:, :, None, :, None] == places, gradients[:, :, None, :, None], 0)
        whole = squares.reshape(batch, 2 * rows, 2 * columns, channels)
        return (jnp.pad(whole, ((0, 0), (0, height % 2), (0, width % 2), (0, 0))),)

    pooled = jax.custom_vjp(lambda inputs: forward(inputs)[0])
    pooled.defvjp(forward, backward)
    return pooled(inputs)


def pooling_by_shifts(inputs: Any, size: int) -> Any:
    """The maxima over squares around each pixel, on JAX; a gradient goes to the first of equal pixels."""
    import jax
    import jax.numpy as jnp

    outputs = keras.ops.convert_to_tensor(inputs)
    for axis in (2, 1):  # columns first, so that the first of equal pixels is that of the first row
        around = [(0, 0)] * 4
        around[axis] = (size // 2, size // 2)
        padded = jnp.pad(outputs, around, constant_values=-jnp.inf)
        length = outputs.shape[axis]
        outputs, *others = (jax.lax.slice_in_dim(padded, start, start + length, axis=axis) for start in range(size))
        for other in others:
            outputs = jnp.where(other > outputs, other, outputs)
    return outputs
