"""Images with boxes around objects, all of one size.

A box is (left, top, right, bottom) in pixels: the edges of pixels, so that a whole image is (0, 0, width, height).
"""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from shared.errors import UsageError

LETTERBOX_GREY = 114
"""What surrounds an image that is not square: the level of YOLOv5 and YOLOv8."""


class BoxedImages(NamedTuple):
    """Images with boxes, padded to the most boxes that any of them has."""

    images: np.ndarray
    """(images, size, size, 3), uint8: scaled with their proportions kept, the rest grey."""
    boxes: np.ndarray
    """(images, most, 4), float32: left, top, right, bottom in pixels of `images`; zeros where there is no box."""
    labels: np.ndarray
    """(images, most), int64: index of the class; -1 where there is no box."""

    def between(self, start: int | None, stop: int | None) -> "BoxedImages":
        """The images from `start` to `stop`, as views of the same memory."""
        return BoxedImages(*(array[start:stop] for array in self))

    def one(self, index: int) -> "BoxedImage":
        """One of the images."""
        present = self.labels[index] >= 0
        return BoxedImage(self.images[index], self.boxes[index][present], self.labels[index][present])


class BoxedImage(NamedTuple):
    """One image with its boxes, without padding."""

    pixels: np.ndarray
    """(height, width, 3), uint8."""
    boxes: np.ndarray
    """(boxes, 4), float32."""
    labels: np.ndarray
    """(boxes,), int64."""


class DetectionData(NamedTuple):
    """A set of images with boxes, split for training, for choices, and for the one final measurement."""

    name: str
    classes: list[str]
    train: BoxedImages
    validation: BoxedImages
    test: BoxedImages
    mirrored: bool
    """Whether an object mirrored left to right still belongs to its class."""
    fingerprint: str
    """Changes when the source of the data does."""


class Letterboxed(NamedTuple):
    """A picture in a square, and where in it: a point p of the picture is at p * scale + offset in the square."""

    pixels: np.ndarray
    """(size, size, 3), uint8."""
    scale: float
    offset: tuple[int, int]
    """Pixels to the left of the picture and above it."""


def letterbox(picture: Image.Image, size: int) -> Letterboxed:
    """Scales a picture to a square of `size` pixels with its proportions kept, in the middle, the rest grey.

    Its shorter side is rounded to whole pixels, so that points are off by half a pixel at most.
    """
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    offset = (size - width) // 2, (size - height) // 2
    square = Image.new("RGB", (size, size), (LETTERBOX_GREY,) * 3)
    square.paste(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR), offset)
    return Letterboxed(np.asarray(square), scale, offset)


def letterbox_boxes(boxes: np.ndarray, scale: float, offset: tuple[int, int]) -> np.ndarray:
    """Boxes (…, 4) of a picture, in pixels of the square that `letterbox` made of it."""
    return boxes * scale + np.tile(offset, 2)


def unletterbox_boxes(
    boxes: np.ndarray, scale: float, offset: tuple[int, int], picture_size: tuple[int, int]
) -> np.ndarray:
    """Boxes (…, 4) of the square that `letterbox` made, in pixels of the picture, clipped to its (width, height)."""
    return clip_boxes((boxes - np.tile(offset, 2)) / scale, *picture_size)


def clip_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """The parts of boxes (…, 4) inside an image."""
    return np.clip(boxes, 0, [width, height, width, height])


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Areas (…) of boxes (…, 4) in square pixels; 0 of those turned inside out."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


def padded_boxes(boxes: list[np.ndarray], labels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels of each image as two arrays; see `BoxedImages` for their shapes and padding."""
    most = max([1, *map(len, labels)])
    padded = np.zeros((len(boxes), most, 4), np.float32), np.full((len(boxes), most), -1, np.int64)
    for index, (its_boxes, its_labels) in enumerate(zip(boxes, labels, strict=True)):
        padded[0][index, : len(its_labels)] = its_boxes
        padded[1][index, : len(its_labels)] = its_labels
    return padded


def detection_targets(boxes: np.ndarray, labels: np.ndarray, max_boxes: int) -> np.ndarray:
    """What a detector learns from: rows of class index, left, top, right, bottom; the index is -1 where no box is.

    Of more than `max_boxes` the largest are kept: missing a small object costs a detector less than being taught that
    a large one is not there.

    Args:
        boxes: (boxes, 4), or (images, boxes, 4).
        labels: (boxes,), or (images, boxes); -1 where no box is.
        max_boxes: rows an image.

    Returns:
        (max_boxes, 5), or (images, max_boxes, 5), in float32.
    """
    rows = np.concatenate([labels[..., None], boxes], axis=-1).astype(np.float32)
    if labels.shape[-1] > max_boxes:
        sizes = np.where(labels >= 0, box_areas(boxes), -1)
        largest = np.sort(np.argsort(-sizes, axis=-1, kind="stable")[..., :max_boxes], axis=-1)
        return np.take_along_axis(rows, largest[..., None], axis=-2)
    missing = np.zeros((*labels.shape[:-1], max_boxes - labels.shape[-1], 5), np.float32)
    missing[..., 0] = -1
    return np.concatenate([rows, missing], axis=-2)


def boxed_images(
    examples: Iterable[tuple[Image.Image, np.ndarray, np.ndarray]], most: int, size: int, name: str
) -> BoxedImages:
    """Puts pictures with boxes into arrays.

    Boxes that reach outside their picture are clipped; those that have no area inside it, NaN included, are dropped.
    Both are counted on stderr.

    Args:
        examples: pictures with their boxes (boxes, 4) in pixels of the picture, and labels (boxes,).
        most: at least the number of pictures.
        size: height and width that pictures are scaled to, in pixels.
        name: what to call them when speaking of them.

    Raises:
        UsageError: there are no pictures.
    """
    images = np.empty((most, size, size, 3), np.uint8)
    boxes, labels, clipped, dropped = [], [], 0, 0
    for picture, its_boxes, its_labels in examples:
        images[len(boxes)], scale, offset = letterbox(picture, size)
        inside = clip_boxes(its_boxes, *picture.size)
        kept = box_areas(inside) > 0
        dropped += int((~kept).sum())
        clipped += int((np.abs(inside - its_boxes)[kept] > 0.5).any(axis=1).sum())
        boxes.append(letterbox_boxes(inside[kept], scale, offset))
        labels.append(its_labels[kept])
    if clipped or dropped:
        print(
            f"{name}: clipped {clipped} boxes that reach outside their image, dropped {dropped} of no area inside it",
            file=sys.stderr,
        )
    if not boxes:
        raise UsageError(f"{name}: there are no images that can be read")
    return BoxedImages(images[: len(boxes)], *padded_boxes(boxes, labels))
