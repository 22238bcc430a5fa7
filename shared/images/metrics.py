"""Classification metrics."""

import numpy as np


def top_k_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Top-k accuracy: fraction of the examples whose true class is among the `k` highest scores.

    Ties and NaN count against the model.

    Args:
        scores: (examples, classes), any monotonic score: logits or probabilities.
        labels: (examples,), integers.
        k: number of predictions per example; with at least the number of classes the result is 1.
    """
    true_scores = np.take_along_axis(scores, labels[:, None].astype(int), axis=1)
    not_worse = (~(scores < true_scores)).sum(axis=1)
    return float((not_worse <= k).mean())


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrix: counts of (true class, predicted class), shape (classes, classes), integers.

    Args:
        predicted: (examples,), integers.
        labels: (examples,), integers.
        classes: number of classes.
    """
    pairs = labels.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, same shape."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
