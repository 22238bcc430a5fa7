"""Images with masks, of any sizes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

UNLABELLED = 65535
"""The value of pixels that masks do not label: neither trained on nor counted."""


class SegmentedImages(NamedTuple):
    """Images (height, width, channels) in uint8, each of any size, and masks (height, width) in uint16.

    A mask holds class indices; or, for instance segmentation, the number of the object of each pixel, 0 for the
    background.
    """

    pixels: Sequence[np.ndarray]
    masks: Sequence[np.ndarray]

    def between(self, first: int | None, end: int | None) -> "SegmentedImages":
        """The images from `first` up to `end`, as in a slice."""
        return SegmentedImages(self.pixels[first:end], self.masks[first:end])


class SegmentationData(NamedTuple):
    """A data set of images with masks, split into training, validation and test parts."""

    name: str
    classes: list[str]
    """Class names; for instance segmentation, the background and the objects."""
    train: SegmentedImages
    validation: SegmentedImages
    test: SegmentedImages
    objects: bool
    """Whether masks hold numbers of objects, instead of classes."""
    upright: bool
    """Whether images have an upright orientation, as photographs do and micrographs do not."""
    fingerprint: str
    """Short hash of the source files."""

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return self.train.pixels[0].shape[-1]


def packed_images(images: SegmentedImages) -> dict[str, np.ndarray]:
    """The images as three arrays, which a cache can hold: all pixels in a row, all masks, and the shapes."""
    return {
        "pixels": np.concatenate([each.ravel() for each in images.pixels]),
        "masks": np.concatenate([each.ravel() for each in images.masks]).astype(np.uint16),
        "shapes": np.array([each.shape for each in images.pixels]),
    }


def unpacked_images(pixels: np.ndarray, masks: np.ndarray, shapes: np.ndarray) -> SegmentedImages:
    """The inverse of `packed_images`; the arrays are views."""
    sizes = np.prod(shapes[:, :2], axis=1)
    ends, channels = np.cumsum(sizes), int(shapes[0, 2])
    places = list(zip(ends - sizes, ends, shapes.tolist(), strict=True))
    return SegmentedImages(
        [pixels[channels * first : channels * end].reshape(shape) for first, end, shape in places],
        [masks[first:end].reshape(shape[:2]) for first, end, shape in places],
    )
