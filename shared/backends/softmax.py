"""Log-softmax, computed once for all that need it, and the cross-entropy of it."""

import functools
from typing import Any

import keras


def common_log_softmax(logits: Any) -> Any:
    """Log-softmax over the last axis, in float32.

    A loss and the metrics beside it take it of the same logits, which with a large vocabulary is a twentieth of a step.
    On PyTorch it is kept with the tensor; the other backends compile the step, and compute it once by themselves.

    Args:
        logits: (…, classes).

    Returns:
        (…, classes), float32.
    """
    if keras.config.backend() != "torch":
        return keras.ops.log_softmax(keras.ops.cast(logits, "float32"), axis=-1)
    logits = keras.ops.convert_to_tensor(logits)
    version, found = getattr(logits, "common_log_softmax", (None, None))
    if version != logits._version:  # else it has not been changed in place meanwhile
        found = logits.float().log_softmax(dim=-1)
        logits.common_log_softmax = logits._version, found
    return found


def smoothed_cross_entropy(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Cross-entropy with label smoothing (Szegedy et al. 2015, arXiv:1512.00567), in nats, in float32.

    On PyTorch its gradient by the logits is one tensor of their size, in place of four.

    Args:
        labels: indices (…).
        logits: (…, classes).
        label_smoothing: label smoothing factor, 0 to 1.

    Returns:
        (…), float32.
    """
    labels = keras.ops.cast(labels, "int32")[..., None]
    if keras.config.backend() != "torch":
        return of_log_softmax(labels, common_log_softmax(logits), label_smoothing)
    import torch

    with torch.no_grad():
        log_probabilities = common_log_softmax(logits)
    return torch_cross_entropy().apply(labels.long(), logits, log_probabilities, label_smoothing)


def of_log_softmax(labels: Any, log_probabilities: Any, label_smoothing: float) -> Any:
    """`smoothed_cross_entropy` of labels (…, 1) and the log-softmax of the logits."""
    losses = -keras.ops.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    if label_smoothing:
        uniform = label_smoothing / log_probabilities.shape[-1]
        losses = (1 - label_smoothing) * losses - uniform * keras.ops.sum(log_probabilities, axis=-1)
    return losses


@functools.cache
def torch_cross_entropy() -> Any:
    """`of_log_softmax` on PyTorch, with a gradient by the logits."""
    import torch

    class CrossEntropy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, labels: Any, logits: Any, log_probabilities: Any, label_smoothing: float) -> Any:
            ctx.save_for_backward(labels, log_probabilities)
            ctx.label_smoothing, ctx.dtype = label_smoothing, logits.dtype
            return of_log_softmax(labels, log_probabilities, label_smoothing)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, gradients: Any) -> tuple:
            labels, log_probabilities = ctx.saved_tensors
            gradients, found = gradients[..., None], log_probabilities.exp()
            uniform = ctx.label_smoothing / found.shape[-1]
            torch.addcmul(-uniform * gradients, found, gradients, out=found)
            found.scatter_add_(-1, labels, (ctx.label_smoothing - 1) * gradients)
            return None, found.to(ctx.dtype), None, None

    return CrossEntropy
