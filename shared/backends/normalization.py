"""Batch normalization in one operation, where the running backend has it."""

from typing import Any

import keras


def fused_batch_normalization(
    inputs: Any, gamma: Any, beta: Any, epsilon: float, statistics: tuple[Any, Any] | None = None
) -> tuple[Any, Any, Any] | None:
    """Normalizes each channel to mean beta and standard deviation gamma.

    On PyTorch, Keras computes moments and normalization in a dozen operations, each a pass over the inputs and again on
    the way back; XLA and TensorFlow join them by themselves.

    Args:
        inputs: (batch, …, channels).
        gamma: (channels,).
        beta: (channels,).
        epsilon: added to the variance.
        statistics: mean and variance (channels,) to normalize with; None for those of the batch.

    Returns:
        The outputs, shaped like the inputs and of their type, and the mean and variance that they were normalized with,
        in floats of 32 bits; None where the backend has no such operation.
    """
    if keras.config.backend() != "torch":
        return None
    import torch

    x, gamma, beta = (keras.ops.convert_to_tensor(each).float() for each in (inputs, gamma, beta))
    channels_first = x.movedim(-1, 1)
    if statistics is None:
        outputs, mean, scale = torch.native_batch_norm(channels_first, gamma, beta, None, None, True, 0.0, epsilon)
        statistics = mean.detach(), scale.detach() ** -2 - epsilon
    else:
        statistics = tuple(keras.ops.convert_to_tensor(each).float() for each in statistics)
        outputs = torch.nn.functional.batch_norm(channels_first, *statistics, gamma, beta, False, 0.0, epsilon)
    return outputs.movedim(1, -1).to(inputs.dtype), *statistics


def weighted_mean(average: Any, value: Any, momentum: float | Any) -> Any:
    """average · momentum + value · (1 − momentum), in one operation where the running backend has it."""
    if keras.config.backend() != "torch":
        return average * momentum + value * (1 - momentum)
    import torch

    return torch.lerp(keras.ops.convert_to_tensor(value), keras.ops.convert_to_tensor(average), momentum)
