"""Losses and metrics of sequences, in which padding does not count."""

from typing import Any

import keras
from keras import ops

from shared.text.subwords import PAD


def token_losses(labels: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross-entropy of each token in nats, padding included.

    With label smoothing (Szegedy et al. 2015, arXiv:1512.00567), that share of each label is spread over all tokens.

    Args:
        labels: ids (…).
        logits: (…, vocabulary).
        label_smoothing: 0 to 1.

    Returns:
        (…), float32.
    """
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"))
    losses = -ops.take_along_axis(log_probabilities, ops.cast(labels, "int32")[..., None], axis=-1)[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * ops.mean(log_probabilities, axis=-1)
    return losses


@keras.saving.register_keras_serializable("keras_recipes")
class SequenceLoss(keras.losses.Loss):
    """Mean cross-entropy of the tokens that are not `PAD`, in nats.

    It is a mean over all tokens of the batch, whichever sequence they are in; masks that Keras attaches to outputs are
    not needed and not looked at.

    Args:
        label_smoothing: share of each label that is spread over the vocabulary.

    Call with labels (batch, length), ids, and outputs (batch, length, vocabulary), logits. Gives a scalar, 0 where all
    is padding.
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

    def call(self, y_true, y_pred):
        return token_losses(y_true, y_pred, self.label_smoothing)

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable("keras_recipes")
class TokenLoss(keras.metrics.Metric):
    """Mean cross-entropy in nats a token, without label smoothing, over all tokens but `PAD` of all batches.

    Call with labels (batch, length), ids, and outputs (batch, length, vocabulary), logits.
    """

    def __init__(self, name: str = "token_loss", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.total = self.add_weight(shape=(), initializer="zeros", name="total")
        self.tokens = self.add_weight(shape=(), initializer="zeros", name="tokens")

    def update_state(self, y_true, y_pred, sample_weight=None):
        weights = ops.cast(ops.not_equal(y_true, PAD), "float32")
        self.total.assign_add(ops.sum(token_losses(y_true, y_pred) * weights))
        self.tokens.assign_add(ops.sum(weights))

    def result(self):
        return self.total / ops.maximum(self.tokens, 1.0)


@keras.saving.register_keras_serializable("keras_recipes")
class Perplexity(TokenLoss):
    """The exponential of `TokenLoss`: among how many equally likely tokens the model would be as unsure."""

    def __init__(self, name: str = "perplexity", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def result(self):
        return ops.exp(super().result())
