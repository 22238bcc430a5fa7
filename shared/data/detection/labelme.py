"""LabelMe annotations: one JSON file per image, with the outline of each object in pixels.

https://github.com/wkentaro/labelme. Rectangles, polygons, circles and masks become their bounding boxes.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from shared.data.detection.annotations import (
    AnnotatedPictures,
    AnnotationFile,
    BoxFolder,
    NamedObject,
    one_file_each,
    stated_size,
)
from shared.data.detection.boxed_images import DIFFICULT, OBJECT


def find_labelme(folder: BoxFolder) -> dict[Path, dict[str, Any]]:
    """Contents by JSON file, of LabelMe's files."""
    return {
        path: content | {"imageData": None}  # the picture itself, in text
        for path, content in folder.json_files().items()
        if isinstance(content, dict) and isinstance(content.get("shapes"), list)
    }


def read_labelme(folder: BoxFolder, files: dict[Path, dict[str, Any]]) -> AnnotatedPictures:
    """Class names in alphabetical order, and annotated images by part."""

    def read(path: Path) -> AnnotationFile:
        content, objects = files[path], []
        for index, shape in enumerate(content["shapes"]):
            try:
                box = box_around(shape)
                name = str(shape["label"]).strip()
                kind = DIFFICULT if shape.get("difficult") else OBJECT
            except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
                place = f"shapes[{index}] of {folder.name(path)}"
                folder.remarks.passed_over.add("shapes without a label, or without an area", place)
                continue
            objects.append(NamedObject(name, box, kind))
        size = stated_size(content.get("imageWidth"), content.get("imageHeight"))
        return AnnotationFile(str(content.get("imagePath") or path.stem), size, objects)

    return one_file_each(folder, list(files), read)


def box_around(shape: dict[str, Any]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a shape.

    Raises:
        KeyError, TypeError, ValueError, OverflowError, AttributeError: it has no area.
    """
    points = np.array(shape["points"], np.float64).reshape(-1, 2)
    if shape.get("shape_type") == "circle":
        middle, radius = points[0], math.dist(*points)
        points = np.stack([middle - radius, middle + radius])
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    if not (left < right and top < bottom) or not np.isfinite(points).all():
        raise ValueError
    return float(left), float(top), float(right), float(bottom)
