"""Pictures with boxes that are yet to be read, whatever their annotations were written as."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from shared.data.folders import PART_NAMES
from shared.data.pictures import open_picture


class AnnotatedPicture(NamedTuple):
    """A picture that is yet to be read, with its boxes."""

    path: Path
    boxes: np.ndarray
    """(boxes, 4): left, top, right, bottom."""
    labels: np.ndarray
    """(boxes,), int64."""
    size: tuple[float, float] | None
    """Width and height of the picture in the units of the boxes: (1, 1) where they are shares; None for pixels."""


def part_by_name(words: list[str]) -> str | None:
    """The part that the first of some words such as train2017 names."""
    plain = [re.sub(r"\d+$", "", word.lower()) for word in words]
    return next((PART_NAMES[word] for word in plain if word in PART_NAMES), None)


def skipped(place: str, reason: object) -> None:
    """Says on stderr what is left out, and why."""
    print(f"skipped {place}: {reason}", file=sys.stderr)


def readable_examples(pictures: list[AnnotatedPicture]) -> Iterator[tuple[Image.Image, np.ndarray, np.ndarray]]:
    """Each picture that can be read, with its boxes in its pixels and their labels; the others are named on stderr."""
    from tqdm import tqdm

    for path, boxes, labels, size in tqdm(pictures, disable=None, unit="image"):
        try:
            picture = open_picture(path)
        except ValueError as error:
            skipped(path, error)
            continue
        width, height = size or picture.size
        zoom = np.array(picture.size) / (width, height)
        if (width, height) != (1, 1) and abs(zoom[0] / zoom[1] - 1) > 0.02:
            shape = f"{picture.width}×{picture.height}"
            skipped(path, f"it is {shape}, but its annotations are for {width:g}×{height:g}")
            continue
        yield picture, boxes * np.tile(zoom, 2), labels
