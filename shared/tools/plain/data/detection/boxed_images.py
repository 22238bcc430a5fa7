"""Images with boxes around objects."""

from typing import NamedTuple

import numpy as np

from shared.data.detection.boxed_images import BoxedImage


class BoxedImages(NamedTuple):
    """Images with boxes, padded to the largest number of boxes."""

    images: np.ndarray
    """(images, size, size, 3), uint8, letterboxed."""
    boxes: np.ndarray
    """(images, most, 4), float32: left, top, right, bottom in pixels of `images`; zeros for padding."""
    labels: np.ndarray
    """(images, most), int64: class index of an object; -1 for padding."""

    def between(self, start: int | None, stop: int | None) -> "BoxedImages":
        """The images from `start` to `stop`."""
        return BoxedImages(*(array[start:stop] for array in self))

    def one(self, index: int) -> BoxedImage:
        """One of the images."""
        present = self.labels[index] >= 0
        return BoxedImage(self.images[index], self.boxes[index][present], self.labels[index][present])


class DetectionData(NamedTuple):
    """Images with boxes, split for training, for choices, and for the final measurement."""

    name: str
    classes: list[str]
    train: BoxedImages
    validation: BoxedImages
    test: BoxedImages
    mirrored: bool
