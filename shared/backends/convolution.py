"""Convolutions by the quickest way that the running backend has."""

from typing import Any

import keras


def convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """Filters with same padding.

    On PyTorch, Keras copies the inputs to channels first and back to channels last, which PyTorch's convolution takes
    as they are. On JAX, the gradient of a kernel of one pixel takes several times as long by XLA's convolution on a CPU
    as by a product of matrices.

    Args:
        inputs: (batch, height, width, channels).
        kernel: (size, size, channels, filters).
        stride: step between outputs, in pixels.

    Returns:
        (batch, height / stride, width / stride, filters), rounded up.
    """
    if on_torch_uncompiled():
        return torch_convolution(inputs, kernel, stride)
    if keras.config.backend() == "jax" and tuple(kernel.shape[:2]) == (1, 1) and stride == 1:
        return keras.ops.matmul(inputs, kernel[0, 0])
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
    if keras.config.backend() == "jax":
        import jax

        if jax.default_backend() == "cpu":
            return summed_depthwise_convolution(inputs, kernel[..., 0], stride)
    if on_torch_uncompiled():
        return torch_convolution(inputs, keras.ops.swapaxes(kernel, 2, 3), stride, groups=inputs.shape[-1])
    return keras.ops.depthwise_conv(inputs, kernel, stride, padding="same")


def on_torch_uncompiled() -> bool:
    """Whether this is PyTorch, and not at work for torch.compile, which fails on the strides of `torch_convolution`."""
    if keras.config.backend() != "torch":
        return False
    import torch

    return not torch.compiler.is_compiling()


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
    outputs = torch.nn.functional.conv2d(channels_first, kernel.permute(3, 2, 0, 1), None, stride, padding, 1, groups)
    return outputs.permute(0, 2, 3, 1)


def summed_depthwise_convolution(inputs: Any, kernel: Any, stride: int) -> Any:
    """A depthwise convolution on JAX, kernel (size, size, channels).

    Its gradient by the kernel is summed up image by image: an image stays in the processor's cache, which makes that
    several times as quick as over all at once.
    """
    import jax

    @jax.custom_vjp
    def convolve(inputs: Any, kernel: Any) -> Any:
        return sum_of_shifted(inputs, kernel, stride)

    def forward(inputs: Any, kernel: Any) -> tuple[Any, Any]:
        return convolve(inputs, kernel), (inputs, kernel)

    def backward(saved: Any, gradients: Any) -> tuple[Any, Any]:
        inputs, kernel = saved

        def add_image(total: Any, image: Any) -> tuple[Any, None]:
            inputs, gradients = (each[None] for each in image)
            _, by_kernel = jax.vjp(lambda kernel: sum_of_shifted(inputs, kernel, stride), kernel)
            return total + by_kernel(gradients)[0], None

        _, by_inputs = jax.vjp(lambda inputs: sum_of_shifted(inputs, kernel, stride), inputs)
        total, _ = jax.lax.scan(add_image, jax.numpy.zeros(kernel.shape, "float32"), (inputs, gradients))
        return *by_inputs(gradients), total.astype(kernel.dtype)

    convolve.defvjp(forward, backward)
    return convolve(keras.ops.convert_to_tensor(inputs), kernel)


def sum_of_shifted(inputs: Any, kernel: Any, stride: int) -> Any:
    """A depthwise convolution on JAX, as a sum over the entries of the kernel (size, size, channels)."""
    import jax

    batch, *extent, channels = inputs.shape
    size = kernel.shape[0]
    outputs = [-(-length // stride) for length in extent]
    padded = jax.numpy.pad(inputs, ((0, 0), *(same_padding(length, size, stride) for length in extent), (0, 0)))
    total = 0
    for row in range(size):
        for column in range(size):
            end = (row + (outputs[0] - 1) * stride + 1, column + (outputs[1] - 1) * stride + 1)
            shifted = jax.lax.slice(padded, (0, row, column, 0), (batch, *end, channels), (1, stride, stride, 1))
            total = total + shifted * kernel[row, column]
    return total
