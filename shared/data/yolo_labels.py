"""YOLO's text files: one a picture, with a line "class x y width height" a box.

A text file has the name of its picture, and lies in a folder "labels" where the path of the picture says "images", or
beside the picture. The class is a number from 0; x and y are the middle of the box, and all four are shares of the
picture's width and height. The classes are named in data.yaml, or in classes.txt, one a line.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.annotated_pictures import AnnotatedPicture, part_by_name, skipped
from shared.data.folders import PART_NAMES, PARTS, picture_files
from shared.errors import UsageError


class ClassNames(NamedTuple):
    """The classes of YOLO's text files, where they are named, and what else data.yaml says."""

    classes: list[str]
    path: Path
    settings: dict


def class_names(folder: Path) -> ClassNames | None:
    """Finds the names of the classes: data.yaml or another yaml file with an entry "names", else classes.txt.

    Raises:
        UsageError: the file is damaged, or names no classes.
    """
    import yaml

    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")], key=lambda path: path.stem != "data"):
        try:
            settings = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{path} cannot be read as yaml ({reason}): mend it") from None
        if isinstance(settings, dict) and "names" in settings:
            names = settings["names"]
            if isinstance(names, dict) and set(names) == set(range(len(names))):
                names = [names[index] for index in range(len(names))]
            if not isinstance(names, list) or not names:
                raise UsageError(f"{path}: names must list the classes, or number them from 0")
            return ClassNames([str(name) for name in names], path, settings)
    for path in sorted(folder.rglob("classes.txt")):
        names = [
            line.strip() for line in path.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()
        ]
        if not names:
            raise UsageError(f"{path} names no classes: write one a line")
        return ClassNames(names, path, {})
    return None


def yolo_pictures(folder: Path, names: ClassNames) -> dict[str, list[AnnotatedPicture]]:
    """The pictures of each part of a folder with YOLO's text files."""
    parts: dict[str, list[AnnotatedPicture]] = {part: [] for part in PARTS}
    declared = declared_parts(folder, names.settings)
    paths = declared or {path: part_by_name(path.relative_to(folder).parts[:-1]) for path in picture_files(folder)}
    files = {path: label_file(path) for path in paths}
    for path, part in paths.items():
        boxes, labels = read_label_file(files[path], names)
        parts[part or "train"].append(AnnotatedPicture(path, boxes, labels, (1, 1)))
    if without := sum(file is None for file in files.values()):
        print(f"{folder}: {without} images have no text file, and so no boxes", file=sys.stderr)
    return parts


def declared_parts(folder: Path, settings: dict) -> dict[Path, str]:
    """The part of each picture by the entries train, val and test of data.yaml; none where that of train is not there.

    An entry is a folder, a text file that lists pictures, or a list of such, inside the folder. A picture that is in
    several parts counts for the first of train, test and val.
    """
    parts: dict[Path, str] = {}
    for key in ("train", "test", "val"):
        entries = settings.get(key) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            inside = re.sub(r"^(\.\./)+", "", str(entry))  # exports are known to say ../train for train
            places = [(folder / root / inside).resolve() for root in (str(settings.get("path") or "."), ".")]
            place = next((p for p in places if p.exists() and p.is_relative_to(folder.resolve())), None)
            if place is None and key == "train":
                return {}
            if place is None:
                print(f"{folder}: {entry}, which its yaml file names for {key}, is not in it", file=sys.stderr)
            elif place.is_dir():
                parts = dict.fromkeys(picture_files(place), PART_NAMES[key]) | parts
            else:
                lines = place.read_text(errors="replace", encoding="utf-8").splitlines()
                listed = [place.parent / line.strip() for line in lines if line.strip()]
                parts = dict.fromkeys(listed, PART_NAMES[key]) | parts
    return parts


def label_file(picture: Path) -> Path | None:
    """YOLO's text file of a picture; None where there is none, as for a picture without boxes."""
    places = [picture.with_suffix(".txt")]
    if "images" in picture.parts:
        last = len(picture.parts) - 1 - picture.parts[::-1].index("images")
        places.insert(0, Path(*picture.parts[:last], "labels", *picture.parts[last + 1 :]).with_suffix(".txt"))
    return next((place for place in places if place.is_file()), None)


def read_label_file(path: Path | None, names: ClassNames) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (boxes, 4) as shares of the picture's sides, and labels (boxes,), of a text file of YOLO's.

    Lines that are no boxes are named on stderr and left out. A line of more points is the outline of an object.

    Raises:
        UsageError: a class does not exist.
    """
    boxes, labels = [], []
    lines = path.read_text(errors="replace", encoding="utf-8").splitlines() if path else []
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words:
            continue
        try:
            label, values = words[0], np.array(words[1:], np.float64)
        except ValueError:
            skipped(f"{path}:{number}", f"not numbers: {line[:60]!r}")
            continue
        if not np.isfinite(values).all():
            skipped(f"{path}:{number}", f"not finite: {line[:60]!r}")
        elif len(values) == 4:
            middle, half = values[:2], values[2:] / 2
            boxes.append([*(middle - half), *(middle + half)])
            labels.append(class_index(label, names, f"{path}:{number}"))
        elif len(values) >= 6 and len(values) % 2 == 0:
            points = values.reshape(-1, 2)
            boxes.append([*points.min(axis=0), *points.max(axis=0)])
            labels.append(class_index(label, names, f"{path}:{number}"))
        else:
            skipped(f"{path}:{number}", f"{len(words)} values in place of 5: {line[:60]!r}")
    return np.reshape(np.array(boxes, np.float64), (-1, 4)), np.array(labels, np.int64)


def class_index(label: str, names: ClassNames, place: str) -> int:
    """The index of the class that a line begins with: a number, or its name.

    Raises:
        UsageError: there is no such class.
    """
    index = int(float(label)) if re.fullmatch(r"\d+(\.0*)?", label) else None
    if index is None and label in names.classes:
        index = names.classes.index(label)
    if index is not None and index < len(names.classes):
        return index
    known = f"the {len(names.classes)} classes of {names.path}"
    raise UsageError(f"{place}: class {label} is not among {known}, numbered from 0: mend one of the two files")
