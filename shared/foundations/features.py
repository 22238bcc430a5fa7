"""Features measured on images: two numbers that a person can see."""

from collections.abc import Sequence

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.errors import UsageError

FEATURES = ("brightness", "width")


def brightness_and_width(images: np.ndarray) -> np.ndarray:
    """Mean brightness of each image, 0 to 1, and width of what is bright in it, shape (examples, 2).

    The width is the standard deviation of the columns, weighted by their brightness, in widths of the image.

    Args:
        images: (examples, height, width, channels), uint8.
    """
    columns = images.mean(axis=(1, 3)) / 255
    weights = columns / np.maximum(columns.sum(axis=1, keepdims=True), 1e-9)
    places = (np.arange(columns.shape[1]) + 0.5) / columns.shape[1]
    middle = weights @ places
    variance = (weights * (places - middle[:, None]) ** 2).sum(axis=1)
    return np.stack([columns.mean(axis=1), np.sqrt(variance)], axis=1)


def points_of_pair(data: LabelledImages, pair: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Brightness and width of the images of two classes, and −1 for the first and 1 for the second, (examples,).

    Raises:
        UsageError: there are none of one of them.
    """
    chosen = np.isin(data.labels, pair)
    if len(np.unique(data.labels[chosen])) < 2:
        raise UsageError("the perceptron needs images of both its classes: see --pair and --train-examples")
    return brightness_and_width(data.images[chosen]), np.where(data.labels[chosen] == pair[1], 1, -1)
