"""Masks drawn from the polygons of COCO's json."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from shared.data.detection.annotations import BoxFolder
from shared.data.detection.coco import find_coco, pictures_of
from shared.data.detection.remarks import Remarks
from shared.errors import UsageError


class PolygonMask(NamedTuple):
    """A mask that is yet to be drawn."""

    size: tuple[float, float] | None
    """Width and height of the image in the units of the points; None for those of the image itself."""
    shapes: list[tuple[int, list[float]]]
    """Value and points x, y, x, y, … of each polygon; later ones lie on top."""

    def drawn(self, picture: Image.Image) -> np.ndarray:
        """The mask (height, width) in int64 of an image, 0 where there is no polygon."""
        from skimage.draw import polygon

        mask = np.zeros((picture.height, picture.width), np.int64)
        scale = np.divide(picture.size, self.size or picture.size)
        for value, points in self.shapes:
            columns, rows = (np.array(points).reshape(-1, 2) * scale - 0.5).T  # whole numbers are the middles of pixels
            mask[polygon(rows, columns, mask.shape)] = value
        return mask


def polygon_masks(
    place: Path, objects: bool, remarks: Remarks
) -> tuple[list[str], dict[str, list[tuple[Path, PolygonMask]]], list[Path]]:
    """Images of a folder with the polygons that COCO's json has for them.

    Args:
        place: the folder.
        objects: whether masks number objects, instead of classes.
        remarks: on what is not used.

    Returns:
        Class names, the background first; images and masks by part, and the json files; all empty without such a file.

    Raises:
        UsageError: none of the annotations has a polygon.
    """
    folder = BoxFolder(place)
    folder.remarks = remarks
    files = find_coco(folder)
    classes = list(dict.fromkeys(name for file in files for name in file.names.values()))
    parts: dict[str, list[tuple[Path, PolygonMask]]] = defaultdict(list)
    count = 0
    for file in files:
        shapes: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
        for index, annotation in enumerate(file.annotations):
            try:
                image, value = (
                    str(annotation["image_id"]),
                    1 + classes.index(file.names[str(annotation["category_id"])]),
                )
                polygons = [[float(number) for number in points] for points in annotation["segmentation"]]
                if not polygons or any(len(points) < 6 or len(points) % 2 for points in polygons):
                    raise ValueError
            except (KeyError, TypeError, ValueError, AttributeError):
                where = f"annotations[{index}] of {folder.name(file.path)}"
                remarks.passed_over.add("annotations without polygons of three points or a class", where)
                continue
            count += 1
            number = len({value for value, _ in shapes[image]}) + 1 if objects else value
            shapes[image] += [(number, points) for points in polygons]
        for number, path, size in pictures_of(folder, file):
            parts[file.part].append((path, PolygonMask(size, shapes[number])))
    if files and not count:
        raise UsageError(f"--data {place}: {files[0].path.name} has no polygons: export the outlines of the objects")
    return ["background", *classes], dict(parts), [file.path for file in files]
