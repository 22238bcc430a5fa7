"""Group normalization by the quickest way that the running backend has."""

from typing import Any

from keras import ops

from shared.backends.runtime import on_torch_uncompiled


def group_normalization(inputs: Any, groups: int, scale: Any, shift: Any, epsilon: float) -> Any:
    """Normalizes groups of channels, image by image, then scales and shifts each channel.

    On PyTorch, Keras computes moments and normalization in a dozen operations, each a pass over the inputs and again on
    the way back; XLA and TensorFlow join them by themselves.

    Args:
        inputs: (batch, height, width, channels), in floats of 32 bits.
        groups: number of groups, a divisor of the number of channels.
        scale: (channels,), or (batch, channels) where it differs from image to image.
        shift: the same.
        epsilon: added to the variance.

    Returns:
        (batch, height, width, channels).
    """
    height, width, channels = inputs.shape[1:]
    if on_torch_uncompiled():
        return torch_group_normalization(inputs, groups, scale=scale, shift=shift, epsilon=epsilon)
    pixels = ops.reshape(inputs, (-1, height * width, channels))

    def group_mean(values):
        grouped = ops.reshape(ops.mean(values, axis=1), (-1, groups, channels // groups))
        return ops.repeat(ops.mean(grouped, axis=2), channels // groups, axis=1)[:, None]

    mean = group_mean(pixels)
    variance = group_mean(ops.square(pixels - mean))
    factor = ops.rsqrt(variance + epsilon) * ops.reshape(scale, (-1, 1, channels))
    outputs = pixels * factor + (ops.reshape(shift, (-1, 1, channels)) - mean * factor)
    return ops.reshape(outputs, (-1, height, width, channels))


def torch_group_normalization(inputs: Any, groups: int, scale: Any, shift: Any, epsilon: float) -> Any:
    """`group_normalization` on PyTorch, which takes channels last as they are."""
    import torch

    normalize = torch.nn.functional.group_norm
    channels_first = inputs.permute(0, 3, 1, 2)
    if torch.is_grad_enabled() and not inputs.requires_grad:
        # With channels last, PyTorch 2.13's way back ends the process where it need not give a gradient of the inputs.
        channels_first = channels_first.contiguous()
    if scale.ndim == 1:
        outputs = normalize(channels_first, groups, scale, shift, epsilon)
    else:
        normalized = normalize(channels_first, groups, eps=epsilon)
        outputs = torch.addcmul(shift[:, :, None, None], normalized, scale[:, :, None, None])
    return outputs.permute(0, 2, 3, 1)
