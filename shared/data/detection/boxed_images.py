"""Images with bounding boxes, letterboxed to one size.

A box is (left, top, right, bottom) in pixels: the edges of pixels, so that a whole image is (0, 0, width, height).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from shared.data.detection.remarks import Remarks

LETTERBOX_GREY = 114
"""Grey level of letterbox padding, as in YOLOv5 and YOLOv8."""


OBJECT = 0


DIFFICULT = 1


CROWD = 2
"""What a box surrounds. Difficult objects and crowds are no targets, and finding them is neither right nor wrong:
Everingham et al. 2010, "The Pascal Visual Object Classes Challenge", and https://cocodataset.org/#detection-eval."""


class BoxedImages(NamedTuple):
    """Images with boxes, padded to the largest number of boxes."""

    images: np.ndarray
    """(images, size, size, 3), uint8, letterboxed."""
    boxes: np.ndarray
    """(images, most, 4), float32: left, top, right, bottom in pixels of `images`; zeros for padding."""
    labels: np.ndarray
    """(images, most), int64: class index of an object; -1 for padding and ignored boxes."""
    difficult: np.ndarray | None = None
    """The same of objects that are ignored because VOC marks them as difficult; None: no image has one."""
    crowds: np.ndarray | None = None
    """The same of boxes around crowds, which COCO ignores."""

    def between(self, start: int | None, stop: int | None) -> "BoxedImages":
        """The images from `start` to `stop`, as views of the same memory."""
        return BoxedImages(*(None if array is None else array[start:stop] for array in self))

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
    """A detection data set, split into training, validation and test parts."""

    name: str
    classes: list[str]
    train: BoxedImages
    validation: BoxedImages
    test: BoxedImages
    mirrored: bool
    """Whether a horizontal flip keeps the class of an object."""
    fingerprint: str
    """Short hash of the source files."""


class Letterboxed(NamedTuple):
    """A letterboxed picture: a point p of the picture is at p * scale + offset in the square."""

    pixels: np.ndarray
    """(size, size, 3), uint8."""
    scale: float
    offset: tuple[int, int]
    """Pixels to the left of the picture and above it."""


def letterbox(picture: Image.Image, size: int) -> Letterboxed:
    """Letterbox: resizes a picture to a square of `size` pixels with its aspect ratio kept, centred on grey.

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
    """Areas (…) of boxes (…, 4) in square pixels; 0 for inverted boxes."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)


class LabelledBoxes(NamedTuple):
    """Boxes of a picture, from its annotations."""

    boxes: np.ndarray
    """(boxes, 4), float64: left, top, right, bottom."""
    labels: np.ndarray
    """(boxes,), int64: class index."""
    kinds: np.ndarray
    """(boxes,), uint8: `OBJECT`, `DIFFICULT` or `CROWD`."""

    @classmethod
    def of(cls, rows: list[tuple]) -> "LabelledBoxes":
        """From rows of class index, left, top, right, bottom, kind."""
        table = np.array(rows, np.float64).reshape(-1, 6)
        return cls(table[:, 1:5], table[:, 0].astype(np.int64), table[:, 5].astype(np.uint8))

    def where(self, chosen: np.ndarray) -> "LabelledBoxes":
        """Boxes selected by a mask or by index."""
        return LabelledBoxes(*(array[chosen] for array in self))


def padded_boxes(boxes: list[np.ndarray], labels: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and labels of each image as two arrays; see `BoxedImages` for their shapes and padding."""
    most = max([1, *map(len, labels)])
    padded = np.zeros((len(boxes), most, 4), np.float32), np.full((len(boxes), most), -1, np.int64)
    for index, (its_boxes, its_labels) in enumerate(zip(boxes, labels, strict=True)):
        padded[0][index, : len(its_labels)] = its_boxes
        padded[1][index, : len(its_labels)] = its_labels
    return padded


def boxed_images(
    examples: Iterable[tuple[Image.Image, LabelledBoxes]], most: int, size: int, remarks: Remarks
) -> BoxedImages:
    """Letterboxes pictures with boxes into arrays.

    Boxes are clipped to their picture; those without area inside it, NaN included, are passed over.

    Args:
        examples: pictures with their boxes, in pixels of the picture.
        most: at least the number of pictures.
        size: height and width that pictures are scaled to, in pixels.
        remarks: where boxes that are clipped or passed over are noted.
    """
    images = np.empty((most, size, size, 3), np.uint8)
    kept_boxes = []
    for picture, annotated in examples:
        images[len(kept_boxes)], scale, offset = letterbox(picture, size)
        inside = clip_boxes(annotated.boxes, *picture.size)
        kept = box_areas(inside) > 0
        remarks.notes["boxes clipped to their image"] += int(
            (np.abs(inside - annotated.boxes)[kept] > 0.5).any(axis=1).sum()
        )
        for box in annotated.boxes[~kept]:
            remarks.passed_over.add("boxes of no area inside their image", " ".join(f"{side:g}" for side in box))
        kept_boxes.append(annotated._replace(boxes=letterbox_boxes(inside, scale, offset)).where(kept))
    boxes, labels = padded_boxes([each.boxes for each in kept_boxes], [each.labels for each in kept_boxes])
    _, kinds = padded_boxes([each.boxes for each in kept_boxes], [each.kinds for each in kept_boxes])
    of_kind = [np.where(kinds == kind, labels, -1) for kind in (OBJECT, DIFFICULT, CROWD)]
    ignored = [of_one if (of_one >= 0).any() else None for of_one in of_kind[1:]]
    return BoxedImages(images[: len(boxes)], boxes, of_kind[0], *ignored)
