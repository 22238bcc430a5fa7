"""Softmax."""

from typing import Any

import keras


def smoothed_cross_entropy(labels: Any, logits: Any, label_smoothing: float) -> Any:
    """Cross-entropy with label smoothing (Szegedy et al. 2015, arXiv:1512.00567), in nats, in float32.

    Args:
        labels: indices (…).
        logits: (…, classes).
        label_smoothing: label smoothing factor, 0 to 1.

    Returns:
        (…), float32.
    """
    log_probabilities = keras.ops.log_softmax(keras.ops.cast(logits, "float32"), axis=-1)
    labels = keras.ops.cast(labels, "int32")[..., None]
    losses = -keras.ops.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    if label_smoothing:
        uniform = label_smoothing / log_probabilities.shape[-1]
        losses = (1 - label_smoothing) * losses - uniform * keras.ops.sum(log_probabilities, axis=-1)
    return losses
