"""COCO annotations: JSON with the lists images, annotations and categories, in one file or several.

https://cocodataset.org/#format-data. The part of a file is named by its name, as in instances_train2017.json, or by its
folders.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.detection.annotations import AnnotatedPicture, AnnotatedPictures, BoxFolder, part_by_name, stated_size
from shared.data.detection.boxed_images import CROWD, OBJECT, LabelledBoxes
from shared.data.images.folders import PARTS
from shared.errors import UsageError

COCO_LISTS = ("categories", "images", "annotations")


class CocoFile(NamedTuple):
    """A COCO annotation file."""

    path: Path
    part: str
    """Part of the data: train, validation or test."""
    names: dict[str, str]
    """Class name by category id, which files write as 1 or as "1", in the order of the ids."""
    images: list[dict]
    annotations: list[dict]


def find_coco(folder: BoxFolder) -> list[CocoFile]:
    """COCO annotation files of objects, those for training first.

    Where some are named instances…, as COCO's own, only those count: others hold the same boxes again.
    """
    files = []
    for path, content in folder.json_files().items():
        lists = [content.get(key) for key in COCO_LISTS] if isinstance(content, dict) else []
        missing = [key for key, value in zip(COCO_LISTS, lists, strict=False) if not isinstance(value, list)]
        if len(missing) == 1:
            folder.hints.append(f"{path} is COCO's json but for the list {missing[0]}: export it with its annotations")
        if not lists or missing:
            continue
        try:
            names = {category["id"]: str(category["name"]) for category in lists[0]}
            names = {str(number): names[number] for number in sorted(names)}
        except (KeyError, TypeError):
            folder.hints.append(f"{path}: each of its categories needs an id and a name: add them")
            continue
        words = re.findall("[A-Za-z]+", "/".join(path.relative_to(folder.root).parts[::-1]))
        files.append(CocoFile(path, part_by_name(words) or "train", names, *lists[1:]))
    own = [file for file in files if file.path.name.startswith("instances")]
    return sorted(own or files, key=lambda file: PARTS.index(file.part))


def read_coco(folder: BoxFolder, files: list[CocoFile]) -> AnnotatedPictures:
    """Class names of the training part, in the order of their ids, and annotated images by part.

    Several files of one part may annotate the same image. An image lies beside its JSON file, or anywhere in the folder
    if no other has its name.

    Raises:
        UsageError: there are no classes, or an annotation is of one that does not exist.
    """
    classes = list(dict.fromkeys(name for file in files if file.part == "train" for name in file.names.values()))
    if not classes:
        raise UsageError(
            f"--data {folder.root}: no json file for training names a class: add one, or rename one to train"
        )
    passed_over = folder.remarks.passed_over
    parts: dict[str, dict[Path, AnnotatedPicture]] = {part: {} for part in PARTS}
    for file in files:
        rows = rows_by_image(folder, file, classes)
        for number, path, size in pictures_of(folder, file):
            if any(path in pictures for part, pictures in parts.items() if part != file.part):
                passed_over.add(f"pictures of {folder.name(file.path)} that are in another part too", folder.name(path))
                continue
            boxes = LabelledBoxes.of(rows[number])
            if earlier := parts[file.part].get(path):
                boxes = LabelledBoxes(*map(np.concatenate, zip(earlier.boxes, boxes, strict=True)))
            parts[file.part][path] = AnnotatedPicture(path, boxes, size)
    for path in sorted(set(folder.pictures).difference(*parts.values())):
        passed_over.add("pictures that no json file lists", folder.name(path))
    listed = {part: list(pictures.values()) for part, pictures in parts.items()}
    return AnnotatedPictures(classes, listed, {file.path for file in files})


def rows_by_image(folder: BoxFolder, file: CocoFile, classes: list[str]) -> dict[str, list[tuple]]:
    """Rows (class index, left, top, right, bottom, kind) by image id.

    Raises:
        UsageError: a class is not among `classes`.
    """
    numbers = {
        str(image["id"]) for image in file.images if isinstance(image, dict) and isinstance(image.get("id"), int | str)
    }
    rows = defaultdict(list)
    for index, annotation in enumerate(file.annotations):
        place = f"annotations[{index}] of {folder.name(file.path)}"
        try:
            box = bounding_box(annotation)
            image, category = str(annotation["image_id"]), str(annotation["category_id"])
            name = file.names.get(category, f"number {category}")
            if not math.isfinite(sum(box)):
                raise ValueError
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            reason = "annotations without a bbox of four numbers or an outline, a category_id or an image_id"
            folder.remarks.passed_over.add(reason, place)
            continue
        if image not in numbers:
            folder.remarks.passed_over.add("annotations whose image_id no image has", place)
            continue
        if name not in classes:
            raise UsageError(
                f"{file.path}: annotations[{index}]: class {name} is not among the {len(classes)} of the training "
                "part: fix it"
            )
        if not annotation.get("bbox"):
            folder.remarks.notes["outlines, taken for the boxes around them"] += 1
        rows[image].append((classes.index(name), *box, CROWD if annotation.get("iscrowd") else OBJECT))
    return rows


def bounding_box(annotation: dict) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an annotation's bbox, or of its polygons where it has no bbox.

    Raises:
        KeyError, TypeError, ValueError, OverflowError, AttributeError: it has neither.
    """
    if annotation.get("bbox"):
        left, top, width, height = (float(value) for value in annotation["bbox"])
        return left, top, left + width, top + height
    points = np.concatenate([np.array(outline, np.float64).reshape(-1, 2) for outline in annotation["segmentation"]])
    return *points.min(axis=0).tolist(), *points.max(axis=0).tolist()


def pictures_of(folder: BoxFolder, file: CocoFile) -> Iterator[tuple[str, Path, tuple[float, float] | None]]:
    """Id, path and size (width, height) of each image found; None for a size that the file does not give."""
    passed_over = folder.remarks.passed_over
    for index, image in enumerate(file.images):
        place = f"images[{index}] of {folder.name(file.path)}"
        try:
            number, name = image["id"], str(image["file_name"])
            size = stated_size(image.get("width"), image.get("height"))
            if not isinstance(number, int | str):
                raise TypeError
        except (KeyError, TypeError, ValueError, AttributeError):
            passed_over.add("images without an id or a file_name", place)
            continue
        found = folder.find_pictures(name, file.path, file.part)
        if len(found) == 1:
            yield str(number), found[0], size
        else:
            passed_over.add(
                "images whose name several pictures have" if found else "images that are not in the folder",
                f"{place}: {name}",
            )
