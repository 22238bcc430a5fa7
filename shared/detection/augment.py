"""Augmentation of images with boxes, in NumPy and Pillow: mosaic, scale and translation, flip, color jitter.

Random numbers come from the given NumPy generator alone, so that every backend trains on the same images.
"""

import math

import numpy as np
from PIL import Image

from shared.data.detection.boxed_images import LETTERBOX_GREY, BoxedImage, box_areas, clip_boxes
from shared.data.images.files import LUMINANCE

LEAST_SIDE = 2
"""Minimum height and width of a box in pixels; smaller ones are dropped."""


LEAST_VISIBLE = 0.2
"""Minimum visible fraction of a box's area; other boxes are dropped."""


def flipped(image: BoxedImage) -> BoxedImage:
    """Horizontal flip of an image and its boxes."""
    left, top, right, bottom = image.boxes.T
    width = image.pixels.shape[1]
    boxes = np.stack([width - right, top, width - left, bottom], axis=1)
    return BoxedImage(image.pixels[:, ::-1], boxes, image.labels)


def random_affine(image: BoxedImage, scale: float, shift: float, rng: np.random.Generator) -> BoxedImage:
    """Random scale and translation of a square image about its centre, with grey borders.

    Args:
        image: a square image.
        scale: zoom by a factor of up to 1 ± `scale`.
        shift: maximum translation, as a fraction of the size.
    """
    size = len(image.pixels)
    zoom = rng.uniform(1 - scale, 1 + scale)
    origin = size * (0.5 + rng.uniform(-shift, shift, 2)) - zoom * size / 2
    return composed([image], [(0, 0, size, size)], zoom=zoom, origins=[origin], size=size)


def random_mosaic(images: list[BoxedImage], scale: float, shift: float, rng: np.random.Generator) -> BoxedImage:
    """Mosaic augmentation: joins four square images at a random point (Bochkovskiy et al. 2020, arXiv:2004.10934).

    As in YOLOv8 the mosaic has twice their size, with the joint anywhere in its inner half; it is scaled and translated
    as by `random_affine`, and the centre is cropped. The grey letterbox of each image is cut off first.
    """
    size = len(images[0].pixels)
    zoom = rng.uniform(1 - scale, 1 + scale)
    joint = size * (0.5 + rng.uniform(-0.5, 0.5, 2) * zoom + rng.uniform(-shift, shift, 2))
    joint = np.round(joint)  # to whole pixels, so that no gap is left between the images
    areas = [content_area(image) for image in images]
    # Which corner of each image lies at the joint: they are the upper left, upper right, lower left and lower right.
    corners = [(area[2 - 2 * (number % 2)], area[3 - 2 * (number // 2)]) for number, area in enumerate(areas)]
    origins = [joint - zoom * np.array(corner) for corner in corners]
    return composed(images, areas, zoom=zoom, origins=origins, size=size)


def content_area(image: BoxedImage) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of an image without the grey of `letterbox`; no box is cut."""
    height, width = image.pixels.shape[:2]
    rows = np.flatnonzero((image.pixels[:, ::8] != LETTERBOX_GREY).any(axis=(1, 2)))  # every eighth pixel suffices
    columns = np.flatnonzero((image.pixels[::8] != LETTERBOX_GREY).any(axis=(0, 2)))
    if not len(rows) or not len(columns):
        return 0, 0, width, height
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    if len(image.boxes):
        left, top = np.minimum((left, top), np.floor(image.boxes[:, :2].min(axis=0)).astype(int))
        right, bottom = np.maximum((right, bottom), np.ceil(image.boxes[:, 2:].max(axis=0)).astype(int))
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def composed(
    images: list[BoxedImage],
    areas: list[tuple[int, int, int, int]],
    zoom: float,
    origins: list[np.ndarray],
    size: int,
) -> BoxedImage:
    """Pastes parts of images on grey; a point p of an image moves to p * zoom + origin.

    Args:
        images: the source images.
        areas: left, top, right and bottom of each part, in pixels of its image.
        zoom: scale factor of all.
        origins: x and y of each image in the result.
        size: height and width of the result, in pixels.
    """
    canvas = Image.new("RGB", (size, size), (LETTERBOX_GREY,) * 3)
    for image, area, origin in zip(images, areas, origins, strict=True):
        ends = np.array(area) * zoom + np.tile(origin, 2)
        left, top = (max(0, math.ceil(end - 1e-6)) for end in ends[:2])
        right, bottom = (min(size, math.floor(end + 1e-6)) for end in ends[2:])
        if left < right and top < bottom:
            source = (np.array([left, top, right, bottom]) - np.tile(origin, 2)) / zoom
            source = np.clip(source, np.tile(area[:2], 2), np.tile(area[2:], 2))  # rounding may have left the image
            part = Image.fromarray(image.pixels).resize(
                (right - left, bottom - top), Image.Resampling.BILINEAR, tuple(source)
            )
            canvas.paste(part, (left, top))
    boxes = [image.boxes * zoom + np.tile(origin, 2) for image, origin in zip(images, origins, strict=True)]
    boxes, labels = np.concatenate(boxes), np.concatenate([image.labels for image in images])
    inside = clip_boxes(boxes, size, size)
    kept = (inside[:, 2:] - inside[:, :2] >= LEAST_SIDE).all(axis=1)
    kept &= box_areas(inside) >= LEAST_VISIBLE * box_areas(boxes)
    return BoxedImage(np.asarray(canvas), inside[kept].astype(np.float32), labels[kept])


def random_colour(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Color jitter: brightness, contrast, saturation and hue of pixels (height, width, 3) in uint8.

    All four are linear and applied in one pass. At strength 1 the maxima are 30 %, 20 %, 70 % and 0.1 radians, close to
    YOLOv8's.
    """
    amounts = strength * rng.uniform(-1, 1, 4) * [0.3, 0.2, 0.7, 0.1]
    (brightness, contrast, saturation), hue = 1 + amounts[:3], amounts[3]
    grey = np.full((3, 3), 1 / 3)
    across = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    rotation = grey + math.cos(hue) * (np.eye(3) - grey) + math.sin(hue) * across  # Rodrigues, about the axis of greys
    saturated = saturation * np.eye(3) + (1 - saturation) * LUMINANCE
    matrix = np.column_stack([brightness * contrast * saturated @ rotation, np.full(3, 128 * (1 - contrast))])
    return np.asarray(Image.fromarray(pixels).convert("RGB", tuple(matrix.ravel())))
