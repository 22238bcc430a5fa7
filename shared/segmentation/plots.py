"""Figures of segmentation."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from shared.data.segmentation.segmented_images import UNLABELLED
from shared.files import replacing


def class_palette(count: int) -> np.ndarray:
    """Colours of classes, or of objects by their number, (count, 3) in uint8, the first black: those of Pascal VOC.

    The bits of the number go to red, green and blue in turn, the lowest to their highest bits.
    """
    numbers = np.arange(count)
    colours = np.zeros((count, 3), int)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def coloured_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (height, width) as RGB (height, width, 3), unlabelled pixels in grey."""
    colours = class_palette(int(mask[mask != UNLABELLED].max(initial=0)) + 1)
    unlabelled = mask == UNLABELLED
    return np.where(unlabelled[..., None], 128, colours[np.where(unlabelled, 0, mask)]).astype(np.uint8)


def outlines(objects: np.ndarray) -> np.ndarray:
    """Pixels (height, width) with a neighbour of another object to the right or below."""
    edges = np.zeros(objects.shape, bool)
    edges[:, :-1] |= objects[:, :-1] != objects[:, 1:]
    edges[:-1] |= objects[:-1] != objects[1:]
    return edges


def brightened(pixels: np.ndarray) -> np.ndarray:
    """An image (height, width, channels) as RGB, to be looked at: its 99.5th percentile becomes white."""
    shown = np.clip(pixels / max(1.0, np.percentile(pixels, 99.5)), 0, 1)
    return np.broadcast_to((255 * shown).astype(np.uint8), (*pixels.shape[:2], 3))


def with_mask(pixels: np.ndarray, mask: np.ndarray, objects: bool) -> np.ndarray:
    """An image (height, width, channels) with its mask over it: outlines of objects, or colours of classes, in RGB."""
    shown = brightened(pixels)
    if objects:
        return np.where(outlines(mask)[..., None], np.array([255, 220, 0], np.uint8), shown)
    return ((shown.astype(int) + coloured_mask(mask)) // 2).astype(np.uint8)


def errors_of(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Errors as RGB (height, width, 3): false negatives red, false positives blue, other errors orange.

    Args:
        truth: (height, width), class indices or UNLABELLED, which is grey.
        predicted: (height, width), class indices.
    """
    shown = np.full((*truth.shape, 3), 255, np.uint8)
    shown[truth != predicted] = (240, 140, 20)
    shown[(truth != predicted) & (predicted == 0)] = (210, 30, 40)
    shown[(truth == 0) & (predicted != 0)] = (40, 80, 220)
    shown[truth == UNLABELLED] = 128
    return shown


def plot_segmentations(
    pixels: list[np.ndarray], truth: list[np.ndarray], predicted: list[np.ndarray], classes: list[str], objects: bool
) -> Figure:
    """A row for each image: the image, its true mask, the predicted one, and the wrong pixels.

    Args:
        pixels: of each image, (height, width, channels).
        truth: of each, (height, width), classes or, with `objects`, objects.
        predicted: likewise.
        classes: class names.
        objects: whether masks number objects.
    """
    heights = [2.7 * image.shape[0] / image.shape[1] for image in pixels]
    figure = Figure(figsize=(11, sum(heights) + 0.4), layout="constrained")
    rows = figure.subplots(len(pixels), 4, squeeze=False, height_ratios=heights)
    for row, image, true, found in zip(rows, pixels, truth, predicted, strict=True):
        wrong = errors_of((true > 0).astype(int), (found > 0).astype(int)) if objects else errors_of(true, found)
        shown_masks = (with_mask(image, mask, objects) for mask in (true, found))
        for axes, shown in zip(row, (brightened(image), *shown_masks, wrong), strict=True):
            axes.imshow(shown)
            axes.axis("off")
    for axes, title in zip(rows[0], ("image", "truth", "prediction", "errors"), strict=True):
        axes.set_title(title)
    if not objects:
        colours = class_palette(len(classes)) / 255
        patches = [Patch(color=colour, label=name) for colour, name in zip(colours, classes, strict=True)]
        figure.legend(handles=patches[:20], loc="outside lower center", ncols=6, fontsize=8)
    return figure


def draw_mask(path: Path, picture: Image.Image, mask: Image.Image, classes: list[str]) -> dict[str, Any]:
    """Writes a mask, and beside it a copy of the image with the mask over it.

    Args:
        path: the PNG file of the mask.
        picture: the image.
        mask: numbers of objects in 16 bits, or class indices in 8 bits.
        classes: class names.

    Returns:
        The paths, and the number of objects or the fraction of each class, as JSON.
    """
    over = path.with_name(f"{path.stem}-over.png")
    for place, shown in ((path, mask), (over, mask_over(picture, mask))):
        with replacing(place) as unfinished:
            shown.save(unfinished)
    return {"drawn": str(over), "mask": str(path)} | mask_facts(mask, classes)


def mask_over(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """An image with its mask over it."""
    return Image.fromarray(with_mask(np.asarray(picture), np.asarray(mask), mask.mode == "I;16"))


def mask_facts(mask: Image.Image, classes: list[str]) -> dict[str, Any]:
    """The size of a mask, and its number of objects or the fraction of each class, as JSON."""
    values, size = np.asarray(mask), {"width": mask.width, "height": mask.height}
    if mask.mode == "I;16":
        return size | {"count": int(values.max())}
    fractions = np.bincount(values.ravel(), minlength=len(classes)) / values.size
    return size | {"fractions": {name: round(float(each), 4) for name, each in zip(classes, fractions, strict=True)}}
