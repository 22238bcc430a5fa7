"""Losses of segmentation. Each takes the class of each pixel, -1 where it is unlabelled, and logits."""

from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

LossName = Literal["cross_entropy", "focal", "dice", "lovasz"]

FOCUS = 2.0
"""Exponent of the focal loss, as in the paper."""


def cross_entropy_loss(labelled: Any, truth: Any, log_probabilities: Any) -> Any:
    """Cross-entropy: −log of the probability of the true class, averaged over the labelled pixels.

    Args:
        labelled: (pixels,), 1.0, or 0.0 for those that are not counted.
        truth: (pixels, classes), one-hot.
        log_probabilities: (pixels, classes).
    """
    return weighted_average(-ops.sum(truth * log_probabilities, axis=-1), labelled)


def focal_loss(labelled: Any, truth: Any, log_probabilities: Any) -> Any:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002): cross-entropy, less of it where the probability is high.

    Arguments as those of `cross_entropy_loss`.
    """
    of_truth = ops.sum(truth * log_probabilities, axis=-1)
    return weighted_average(-((1 - ops.exp(of_truth)) ** FOCUS) * of_truth, labelled)


def dice_loss(labelled: Any, truth: Any, log_probabilities: Any) -> Any:
    """Soft Dice loss (Milletari et al. 2016, arXiv:1606.04797): 1 − 2 Σ p g / (Σ p + Σ g), over the whole batch.

    The mean over the classes, each with 1 added above and below, so that a class that is not there costs little.
    Arguments as those of `cross_entropy_loss`.
    """
    predicted = ops.exp(log_probabilities) * labelled[:, None]
    truth = truth * labelled[:, None]
    overlap = ops.sum(predicted * truth, axis=0)
    size = ops.sum(predicted, axis=0) + ops.sum(truth, axis=0)
    return 1 - ops.mean((2 * overlap + 1) / (size + 1))


def lovasz_loss(labelled: Any, truth: Any, log_probabilities: Any) -> Any:
    """Lovász-Softmax loss (Berman et al. 2018, arXiv:1705.08790): 1 − IoU, extended to probabilities.

    The mean over the classes of the batch. Arguments as those of `cross_entropy_loss`.
    """
    truth = ops.transpose(truth * labelled[:, None])
    errors = ops.abs(truth - ops.transpose(ops.exp(log_probabilities) * labelled[:, None]))
    order = ops.argsort(-ops.stop_gradient(errors), axis=-1)
    errors, truth = ops.take_along_axis(errors, order, axis=-1), ops.take_along_axis(truth, order, axis=-1)
    size = ops.sum(truth, axis=-1, keepdims=True)
    jaccard = 1 - (size - ops.cumsum(truth, axis=-1)) / (size + ops.cumsum(1 - truth, axis=-1))
    slopes = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    present = ops.cast(size[:, 0] > 0, errors.dtype)
    return weighted_average(ops.sum(errors * ops.stop_gradient(slopes), axis=-1), present)


def weighted_average(values: Any, weights: Any) -> Any:
    """Σ w v / Σ w; 0 where all weights are 0."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1)


SEGMENTATION_LOSSES: dict[str, Callable] = {
    "cross_entropy": cross_entropy_loss,
    "focal": focal_loss,
    "dice": dice_loss,
    "lovasz": lovasz_loss,
}


@keras.saving.register_keras_serializable("keras_recipes")
class SegmentationLoss(keras.losses.Loss):
    """The sum of several losses.

    Targets: (batch, height, width), integers, -1 where a pixel is unlabelled. Predictions: logits (batch, height,
    width, classes).

    Args:
        names: of the losses.
    """

    def __init__(self, names: tuple[str, ...], **kwargs):
        super().__init__(**{"name": "segmentation_loss", "reduction": None} | kwargs)
        self.names = names

    def call(self, y_true, y_pred):
        classes = y_pred.shape[-1]
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        labelled = ops.cast(labels >= 0, "float32")
        # Not `one_hot`: on PyTorch it asks for the value of the largest label at each step.
        truth = ops.cast(ops.maximum(labels, 0)[:, None] == ops.arange(classes, dtype="int32"), "float32")
        logits = ops.reshape(ops.cast(y_pred, "float32"), (-1, classes))
        log_probabilities = ops.log_softmax(logits, axis=-1)
        return sum(SEGMENTATION_LOSSES[name](labelled, truth, log_probabilities) for name in self.names)

    def get_config(self):
        return super().get_config() | {"names": self.names}
