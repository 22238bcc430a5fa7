"""Losses and metrics of token sequences, which ignore padding."""

from typing import Any

import keras
from keras import ops

from shared.backends.softmax import smoothed_cross_entropy
from shared.text.subwords import PAD


def token_losses(labels: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy of each token in nats, padding included.

    Args:
        labels: ids (…).
        logits: (…, vocabulary).
        label_smoothing: label smoothing factor, 0 to 1 (Szegedy et al. 2015, arXiv:1512.00567).

    Returns:
        (…), float32.
    """
    return smoothed_cross_entropy(labels, logits, label_smoothing)


@keras.saving.register_keras_serializable("keras_recipes")
class SequenceLoss(keras.losses.Loss):
    """Mean cross-entropy of the tokens that are not `PAD`, in nats.

    The mean is over all tokens of the batch, not per sequence. Keras masks on the outputs are ignored.

    Args:
        label_smoothing: label smoothing factor.

    Inputs: labels (batch, length), ids, and outputs (batch, length, vocabulary), logits. Output: a scalar, 0 for
    padding alone.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "sequence_loss", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred, sample_weight=None):
        losses = token_losses(y_true, y_pred, self.label_smoothing)
        weights = ops.cast(ops.not_equal(y_true, PAD), losses.dtype)
        if sample_weight is not None:
            weights = weights * sample_weight
        return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-9)

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("keras_recipes")
class Perplexity(keras.metrics.Mean):
    """Perplexity per token: the exponential of the mean cross-entropy of all tokens but `PAD`, without label smoothing.

    Inputs: labels (batch, length), ids, and outputs (batch, length, vocabulary), logits.
    """

    def __init__(self, name: str = "perplexity", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def update_state(self, y_true, y_pred, sample_weight=None):
        # Flat, since Keras would take the mean over each sequence first, padding included.
        losses, weights = ops.ravel(token_losses(y_true, y_pred)), ops.ravel(ops.not_equal(y_true, PAD))
        super().update_state(losses, sample_weight=weights)

    def result(self):
        return ops.exp(super().result())
