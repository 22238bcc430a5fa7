"""COCO's json: the lists images, annotations and categories, in one file or several."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.annotated_pictures import AnnotatedPicture, part_by_name, skipped
from shared.data.folders import PARTS, picture_files
from shared.errors import UsageError


class CocoFile(NamedTuple):
    """A json file of COCO's."""

    path: Path
    part: str
    """What its pictures are for: train, validation or test."""
    names: dict[Any, str]
    """The name of each class by its number, in the order of the numbers."""
    images: list[dict]
    annotations: list[dict]


def coco_files(folder: Path) -> list[CocoFile]:
    """The json files in a folder and below it that are COCO's annotations of objects, those for training first.

    Where some are named instances…, as COCO's own, only those count: others hold the same boxes again.

    Raises:
        UsageError: a json file is damaged.
    """
    files = []
    for path in sorted(folder.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UsageError(f"{path} cannot be read as json ({error}): mend it or take it out") from None
        lists = (
            [content.get(key) for key in ("categories", "images", "annotations")] if isinstance(content, dict) else []
        )
        if lists and all(isinstance(each, list) for each in lists):
            try:
                names = {category["id"]: str(category["name"]) for category in lists[0]}
                names = {number: names[number] for number in sorted(names)}
            except (KeyError, TypeError):
                raise UsageError(f"{path}: each of its categories needs an id and a name: mend it") from None
            words = re.findall("[A-Za-z]+", "/".join(path.relative_to(folder).parts[::-1]))
            files.append(CocoFile(path, part_by_name(words) or "train", names, *lists[1:]))
    own = [file for file in files if file.path.name.startswith("instances")]
    return sorted(own or files, key=lambda file: PARTS.index(file.part))


def coco_pictures(folder: Path, files: list[CocoFile]) -> tuple[list[str], dict[str, list[AnnotatedPicture]]]:
    """The classes of the training part, in the order of their numbers, and the pictures of each part.

    What cannot be used is named on stderr and left out. Several files may annotate a picture, if they are for one part.

    Args:
        folder: where the pictures are: beside their json file, or anywhere in the folder if no other has their name.
        files: those for training first.

    Raises:
        UsageError: there are no classes, or an annotation is of one that does not exist.
    """
    classes = list(dict.fromkeys(name for file in files if file.part == "train" for name in file.names.values()))
    if not classes:
        raise UsageError(f"--data {folder}: no json file for training names a class: add one, or rename one to train")
    same_name = defaultdict(list)
    for path in picture_files(folder):
        same_name[path.name].append(path)
    parts: dict[str, dict[Path, AnnotatedPicture]] = {part: {} for part in PARTS}
    for file in files:
        boxes = boxes_by_image(file, classes)
        for number, path, size in pictures_of(file, folder, same_name):
            if any(path in pictures for part, pictures in parts.items() if part != file.part):
                skipped(path, f"{file.path} has it for {file.part}, another file for training or validation")
                continue
            earlier = parts[file.part].get(path, AnnotatedPicture(path, np.empty((0, 4)), np.empty(0, np.int64), size))
            rows = np.array(boxes[number], np.float64).reshape(-1, 5)
            parts[file.part][path] = earlier._replace(
                boxes=np.concatenate([earlier.boxes, rows[:, 1:]]),
                labels=np.concatenate([earlier.labels, rows[:, 0].astype(np.int64)]),
            )
    return classes, {part: list(pictures.values()) for part, pictures in parts.items()}


def boxes_by_image(file: CocoFile, classes: list[str]) -> dict[Any, list[list[float]]]:
    """For each image number the rows class index, left, top, right, bottom; boxes around crowds are left out.

    Raises:
        UsageError: a class is not among `classes`.
    """
    numbers = {
        image["id"] for image in file.images if isinstance(image, dict) and isinstance(image.get("id"), int | str)
    }
    rows = defaultdict(list)
    for index, annotation in enumerate(file.annotations):
        place = f"{file.path}: annotations[{index}]"
        try:
            left, top, width, height = (float(value) for value in annotation["bbox"])
            image, category = annotation["image_id"], annotation["category_id"]
            name = file.names.get(category, f"number {category}")
            if image not in numbers or not math.isfinite(left + top + width + height):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            skipped(place, "it takes a bbox of four numbers, a category_id, and the image_id of an image")
            continue
        if name not in classes:
            raise UsageError(f"{place}: class {name} is not among the {len(classes)} of the training part: mend it")
        if not annotation.get("iscrowd"):
            rows[image].append([classes.index(name), left, top, left + width, top + height])
    return rows


def pictures_of(
    file: CocoFile, folder: Path, same_name: dict[str, list[Path]]
) -> Iterator[tuple[Any, Path, tuple[float, float] | None]]:
    """Number, path and size (width, height) of each image that is there; None where the file does not give the size."""
    for index, image in enumerate(file.images):
        place = f"{file.path}: images[{index}]"
        try:
            number, name = image["id"], Path(str(image["file_name"]).replace("\\", "/"))
            size = (float(image["width"]), float(image["height"])) if "width" in image else None
            if not isinstance(number, int | str) or (size and not min(size) > 0):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            skipped(place, "it takes an id, a file_name, and no width and height or ones above 0")
            continue
        beside = [base / name for base in (file.path.parent, folder) if (base / name).is_file()]
        others = same_name.get(name.name, [])
        in_part = [path for path in others if part_by_name(path.relative_to(folder).parts[:-1]) == file.part]
        found = beside[:1] or in_part or others
        if len(found) == 1:
            yield number, found[0], size
        else:
            skipped(place, f"{len(found) or 'no'} pictures in {folder} are called {name.name}")
