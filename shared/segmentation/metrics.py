"""Metrics of segmentation, in NumPy."""

from collections.abc import Iterable

import numpy as np

from shared.data.segmentation.segmented_images import UNLABELLED


def pixel_counts(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Labelled pixels by true and by predicted class, (classes, classes).

    Args:
        truth: any shape, class indices or UNLABELLED.
        predicted: likewise, class indices.
        classes: number of classes.
    """
    counted = truth != UNLABELLED
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_metrics(counts: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Metrics of all images together, not means over images.

    Args:
        counts: (classes, classes), of all images, as from `pixel_counts`.
        classes: class names.

    Returns:
        "miou", the mean intersection over union (Jaccard index) of the classes that occur; "pixel_accuracy"; and
        "iou_CLASS" of each of these classes.
    """
    correct = np.diag(counts)
    union = counts.sum(axis=0) + counts.sum(axis=1) - correct
    occurs = counts.sum(axis=1) > 0
    iou = correct / np.maximum(union, 1)
    return {
        "miou": float(iou[occurs].mean()),
        "pixel_accuracy": float(correct.sum() / max(1, counts.sum())),
        **{f"iou_{classes[index]}": float(iou[index]) for index in np.flatnonzero(occurs)},
    }


def mean_dice(counts: Iterable[np.ndarray]) -> float:
    """Dice coefficient (F1 score) of the second of two classes, averaged over images.

    It is 1 where the class neither occurs nor is predicted.

    Args:
        counts: (2, 2) of each image, as from `pixel_counts`.
    """
    dice = []
    for (_, extra), (missed, correct) in counts:
        dice.append(2 * correct / (2 * correct + extra + missed) if correct + extra + missed else 1.0)
    return float(np.mean(dice))


def overlaps(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Intersection over union of each true with each predicted object, (true objects, predicted objects).

    Args:
        truth: (height, width), integers, the number of the object of each pixel, 0 for none.
        predicted: likewise.
    """
    counts = np.zeros((int(truth.max()) + 1, int(predicted.max()) + 1), np.int64)
    np.add.at(counts, (truth.ravel(), predicted.ravel()), 1)
    union = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0) - counts
    there = [np.flatnonzero(sizes[1:]) + 1 for sizes in (counts.sum(axis=1), counts.sum(axis=0))]
    return (counts / np.maximum(union, 1))[np.ix_(*there)]


def object_counts(truth: np.ndarray, predicted: np.ndarray, threshold: float) -> np.ndarray:
    """Numbers of true positives, false negatives and false positives among objects.

    An object is found where its intersection over union with a predicted one is above the threshold, which is at least
    0.5, so that no two objects match the same one.

    Args:
        truth: (height, width), integers, the number of the object of each pixel, 0 for none.
        predicted: likewise.
        threshold: of the intersection over union.
    """
    iou = overlaps(truth, predicted)
    found = int((iou > threshold).sum())
    return np.array([found, iou.shape[0] - found, iou.shape[1] - found])


def average_precision(counts: Iterable[np.ndarray]) -> float:
    """Average precision as for nuclei (Caicedo et al. 2019, 10.1038/s41592-019-0612-7): TP / (TP + FN + FP) of all.

    Args:
        counts: of each image, from `object_counts`.
    """
    total = np.sum(list(counts), axis=0)
    return float(total[0] / max(1, total.sum()))
