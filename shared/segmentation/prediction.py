"""Segmentation of images of any size, by overlapping tiles."""

import itertools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops
from PIL import Image

from shared.backends.compiling import compiled_inference
from shared.segmentation.instances import separate_objects
from shared.segmentation.plots import class_palette
from shared.training.predictors import Mask


def tile_predictor(model: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """The class probabilities of one tile: a function from pixels (size, size, channels) to (size, size, classes)."""
    probabilities = compiled_inference(lambda pixels: ops.softmax(model(pixels, training=False)), [model])
    return lambda pixels: ops.convert_to_numpy(probabilities(pixels[None]))[0]


def tile_starts(length: int, size: int, overlap: float) -> list[int]:
    """Where the fewest tiles begin that cover a side, evenly spaced and overlapping by at least a fraction."""
    if length <= size:
        return [0]
    count = 1 + int(np.ceil((length - size) / max(1, round(size * (1 - overlap)))))
    return np.linspace(0, length - size, count).round().astype(int).tolist()


def predict_in_tiles(predict: Callable, pixels: np.ndarray, size: int, overlap: float) -> np.ndarray:
    """Class probabilities (height, width, classes) of an image of any size.

    Where tiles overlap, the predictions are blended with weights that fall from the middle of a tile to its edges,
    where the network sees less of what is around. Smaller images are mirrored at their edges to the size of a tile.

    Args:
        predict: the class probabilities of one tile; see `tile_predictor`.
        pixels: (height, width, channels), uint8.
        size: height and width of the tiles, in pixels.
        overlap: fraction of a tile by which it overlaps the next one, at least.
    """
    height, width = pixels.shape[:2]
    missing = [max(0, size - length) for length in (height, width)]
    padded = np.pad(pixels, [*((length // 2, length - length // 2) for length in missing), (0, 0)], mode="reflect")
    ramp = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1))
    weights = np.outer(ramp, ramp).astype(np.float32)[..., None]
    total, weight = 0.0, np.zeros((*padded.shape[:2], 1), np.float32)
    for top, left in itertools.product(*(tile_starts(length, size, overlap) for length in padded.shape[:2])):
        place = slice(top, top + size), slice(left, left + size)
        found = predict(np.ascontiguousarray(padded[place]))
        if isinstance(total, float):
            total = np.zeros((*padded.shape[:2], found.shape[-1]), np.float32)
        total[place] += weights * found
        weight[place] += weights
    top, left = (length // 2 for length in missing)
    return (total / weight)[top : top + height, left : left + width]


def predicted_classes(probabilities: np.ndarray, objects: bool) -> np.ndarray:
    """The class of each pixel, (height, width) in uint8.

    Args:
        probabilities: (height, width, classes).
        objects: whether the classes are background, interior and border; all but the background are then class 1.
    """
    if objects:
        return (probabilities[..., 0] < 0.5).astype(np.uint8)
    return probabilities.argmax(axis=-1).astype(np.uint8)


def mask_of(probabilities: np.ndarray, objects: bool, smallest: int) -> Mask:
    """The mask of an image, as a picture: numbers of objects, or classes with a palette.

    Args:
        probabilities: (height, width, classes).
        objects: whether the classes are background, interior and border.
        smallest: smaller objects, in pixels, are dropped.
    """
    if objects:
        return Mask(Image.fromarray(separate_objects(probabilities, smallest)))
    mask = Image.fromarray(predicted_classes(probabilities, objects)).convert("P")
    mask.putpalette(class_palette(256).tobytes())
    return Mask(mask)
