"""Convolutions by the quickest way that the running backend has."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from shared.backends.runtime import on_jax_cpu, on_torch_uncompiled

PIXELS_AT_ONCE = 4096
"""Output pixels of a part of a batch, over which the gradient of a kernel is summed up: they stay in the cache."""


def convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """Filters with same padding.

    On PyTorch, Keras copies the inputs to channels first and back to channels last, which PyTorch's convolution takes
    as they are; a kernel that is channels last in memory, too, is the quickest. On JAX, the gradient of a kernel takes
    two to three times as long by XLA's convolution on a CPU as by products of matrices, unless there are strides, few
    channels, or large images; and for images smaller than the kernel, such as the last of VGG, XLA's convolution takes
    twenty to fifty times as long, both ways.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (size, size, channels, filters).
        stride: step between outputs, in pixels.

    Returns:
        (batch, height / stride, width / stride, filters), rounded up.
    """
    if on_torch_uncompiled():
        return torch_convolution(inputs, kernel, stride)
    if on_jax_cpu() and stride == 1:
        if tuple(kernel.shape[:2]) == (1, 1):
            return keras.ops.matmul(inputs, kernel[0, 0])
        if max(inputs.shape[1:3]) < kernel.shape[0]:
            return convolution_as_product(inputs, kernel)
        if min(kernel.shape[2:]) >= 16 and inputs.shape[1] * inputs.shape[2] <= 2 * PIXELS_AT_ONCE:
            return convolution_by_parts(inputs, kernel)
    return keras.ops.conv(inputs, kernel, stride, padding="same")


def depthwise_convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """Filters each channel by itself, with same padding.

    XLA's own depthwise convolution on a CPU is 15 to 30 times slower than adding up shifted inputs, a multiple of the
    kernel's entries each.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (size, size, channels, 1).
        stride: step between outputs, in pixels.

    Returns:
        (batch, height / stride, width / stride, channels), rounded up.
    """
    if on_jax_cpu():
        return summed_depthwise_convolution(inputs, kernel[..., 0], stride)
    if on_torch_uncompiled():
        return torch_convolution(inputs, keras.ops.swapaxes(kernel, 2, 3), stride, groups=inputs.shape[-1])
    return keras.ops.depthwise_conv(inputs, kernel, stride, padding="same")


def same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    """How much same padding adds before and behind."""
    missing = max((-(-length // stride) - 1) * stride + size - length, 0)
    return missing // 2, missing - missing // 2


def torch_convolution(inputs: Any, kernel: Any, stride: int, groups: int = 1) -> Any:
    """A convolution on PyTorch, kernel (size, size, channels / groups, filters)."""
    import torch

    inputs, kernel = (keras.ops.convert_to_tensor(each) for each in (inputs, kernel))
    size = kernel.shape[0]
    height, width = (same_padding(length, size, stride) for length in inputs.shape[1:3])
    channels_first = inputs.permute(0, 3, 1, 2)
    padding = (height[0], width[0])
    if padding != (height[1], width[1]):
        channels_first, padding = torch.nn.functional.pad(channels_first, (*width, *height)), 0
    kernel = kernel.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    outputs = torch.nn.functional.conv2d(channels_first, kernel, None, stride, padding, 1, groups)
    return outputs.permute(0, 2, 3, 1)


def convolution_as_product(inputs: Any, kernel: Any) -> Any:
    """A convolution on JAX with same padding and without strides, as one product of matrices."""
    import jax

    size, extent = kernel.shape[0], inputs.shape[1:3]
    around = [same_padding(length, size, 1) for length in extent]
    padded = jax.numpy.pad(keras.ops.convert_to_tensor(inputs), ((0, 0), *around, (0, 0)))
    neighbours = jax.numpy.concatenate(shifted(padded, size, 1, extent), axis=-1)
    return keras.ops.matmul(neighbours, keras.ops.reshape(kernel, (-1, kernel.shape[-1])))


def convolution_by_parts(inputs: Any, kernel: Any) -> Any:
    """A convolution on JAX with same padding and without strides, kernel (size, size, channels, filters)."""
    import jax

    inputs, kernel = (keras.ops.convert_to_tensor(each) for each in (inputs, kernel))
    size, extent = kernel.shape[0], inputs.shape[1:3]
    padding = [same_padding(length, size, 1) for length in extent]

    def convolve(inputs: Any, kernel: Any) -> Any:
        return keras.ops.conv(inputs, kernel, padding="same")

    def by_kernel(inputs: Any, gradients: Any, kernel: Any) -> Any:
        padded = jax.numpy.pad(inputs, ((0, 0), *padding, (0, 0)))
        gradients = gradients.reshape(-1, gradients.shape[-1])
        products = [
            jax.numpy.matmul(each.reshape(-1, each.shape[-1]).T, gradients, preferred_element_type="float32")
            for each in shifted(padded, size, 1, extent)
        ]
        return jax.numpy.stack(products).reshape(kernel.shape)

    def by_inputs(inputs: Any, gradients: Any, kernel: Any) -> Any:
        return jax.vjp(lambda inputs: convolve(inputs, kernel), inputs)[1](gradients)[0]

    images = max(1, PIXELS_AT_ONCE // (extent[0] * extent[1]))
    return with_gradients(convolve, by_kernel, by_inputs, images)(inputs, kernel)


def summed_depthwise_convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """A depthwise convolution on JAX, kernel (size, size, channels)."""
    import jax

    size, extent = kernel.shape[0], inputs.shape[1:3]
    outputs = [-(-length // stride) for length in extent]
    padding = [same_padding(length, size, stride) for length in extent]

    def convolve(inputs: Any, kernel: Any) -> Any:
        padded = jax.numpy.pad(inputs, ((0, 0), *padding, (0, 0)))
        return sum_of_products(shifted(padded, size, stride, outputs), kernel)

    def by_kernel(inputs: Any, gradients: Any, kernel: Any) -> Any:
        return jax.vjp(lambda kernel: convolve(inputs, kernel), kernel)[1](gradients)[0]

    def by_inputs(inputs: Any, gradients: Any, kernel: Any) -> Any:
        # A convolution with the kernel turned around, of gradients that stand as far apart as the outputs did.
        around = [
            (size - 1 - before, length + before - (count - 1) * stride - 1, stride - 1)
            for length, count, (before, _) in zip(extent, outputs, padding, strict=True)
        ]
        zero = jax.numpy.zeros((), gradients.dtype)
        padded = jax.lax.pad(gradients, zero, ((0, 0, 0), *around, (0, 0, 0)))
        return sum_of_products(shifted(padded, size, 1, extent), kernel[::-1, ::-1])

    return with_gradients(convolve, by_kernel, by_inputs, 1)(keras.ops.convert_to_tensor(inputs), kernel)


def with_gradients(convolve: Callable, by_kernel: Callable, by_inputs: Callable, images: int) -> Callable:
    """A convolution on JAX whose gradient by the kernel is summed up, a few images at a time.

    They stay in the processor's cache, which makes that several times as quick as over all at once.

    Args:
        convolve: of inputs and kernel.
        by_kernel: the gradient by the kernel, of inputs, the gradients of the outputs, and the kernel.
        by_inputs: the gradient by the inputs, of the same.
        images: at most how many at a time for the gradient by the kernel.
    """
    import jax

    def forward(inputs: Any, kernel: Any) -> tuple[Any, Any]:
        return convolve(inputs, kernel), (inputs, kernel)

    def backward(saved: Any, gradients: Any) -> tuple[Any, Any]:
        inputs, kernel = saved
        batch = len(inputs)
        size = max(part for part in range(1, min(images, batch) + 1) if batch % part == 0)

        def add_part(total: Any, part: Any) -> tuple[Any, None]:
            return total + by_kernel(*part, kernel), None

        parts = [each.reshape(-1, size, *each.shape[1:]) for each in (inputs, gradients)]
        total, _ = jax.lax.scan(add_part, jax.numpy.zeros(kernel.shape, "float32"), parts)
        return by_inputs(inputs, gradients, kernel), total.astype(kernel.dtype)

    convolution = jax.custom_vjp(convolve)
    convolution.defvjp(forward, backward)
    return convolution


def sum_of_products(parts: list[Any], kernel: Any) -> Any:
    """The sum of parts (…, channels) times the entries of a kernel (size, size, channels)."""
    return sum(part * entry for part, entry in zip(parts, kernel.reshape(len(parts), -1), strict=True))


def shifted(padded: Any, size: int, stride: int, outputs: Sequence[int]) -> list[Any]:
    """What each entry of a kernel of size × size is multiplied with, on JAX.

    Args:
        padded: (batch, height, width, channels), with the padding.
        size: of the kernel.
        stride: step between outputs, in pixels.
        outputs: height and width of the outputs.
    """
    import jax

    batch, _, _, channels = padded.shape
    ends = [(length - 1) * stride + 1 for length in outputs]
    return [
        jax.lax.slice(
            padded, (0, row, column, 0), (batch, row + ends[0], column + ends[1], channels), (1, stride, stride, 1)
        )
        for row in range(size)
        for column in range(size)
    ]
