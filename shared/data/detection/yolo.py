"""YOLO annotations: a text file per image, with one line "class x y width height" per box.

A text file has the name of its image, and lies beside it, or in a folder such as labels where the images are in images.
The class is an index; x and y are the centre of the box, and all four are fractions of the image's width and height.
More numbers are a polygon, or keypoints where data.yaml has kpt_shape. The classes are named in data.yaml
(https://docs.ultralytics.com/datasets/detect/) or, one per line, in classes.txt or in Darknet's obj.names.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.detection.annotations import AnnotatedPicture, AnnotatedPictures, BoxFolder, paired
from shared.data.detection.boxed_images import OBJECT, LabelledBoxes
from shared.data.encoding import read_text
from shared.data.images.folders import PART_NAMES, PARTS, picture_files
from shared.errors import UsageError

YOLO_SUFFIXES = (".txt", ".yaml", ".yml", ".names", ".labels", ".data")


NAME_LISTS = ("classes.txt", "predefined_classes.txt", "_darknet.labels")


PIXELS = 2
"""Numbers above are taken for pixels; fractions may be a little above 1."""


class YoloFolder(NamedTuple):
    """Class names and settings of a folder of YOLO annotations."""

    numbers: dict[int, str]
    """Class name by its index in the text files."""
    path: Path
    settings: dict[str, Any]
    """The entries of data.yaml or obj.data, all of them strings, or lists and dictionaries of them."""
    texts: dict[Path, Path]
    """The text file of each image."""

    @property
    def classes(self) -> list[str]:
        return list(dict.fromkeys(self.numbers.values()))

    @property
    def keypoint_numbers(self) -> int | None:
        """Numbers per row of keypoints, after the box; None without keypoints.

        Raises:
            UsageError: kpt_shape is no pair of numbers.
        """
        shape = self.settings.get("kpt_shape")
        if shape is None:
            return None
        try:
            count, numbers = map(int, shape)
        except (TypeError, ValueError):
            raise UsageError(f"{self.path}: kpt_shape must be two numbers, such as [17, 3], not {shape}") from None
        return count * numbers


def find_yolo(folder: BoxFolder) -> YoloFolder | None:
    """Class names and text files; None where either is missing."""
    named = find_class_names(folder)
    files = [path for path in folder.files_of([".txt"]) if path.name.lower() not in NAME_LISTS]
    texts = label_texts(folder.pictures, files)
    if named and texts:
        return YoloFolder(*named, texts)
    if named and folder.pictures:
        folder.hints.append(
            f"{named[1]} names classes, but no text files found in {folder.root} that are called as the pictures are: "
            f"{folder.name(folder.pictures[0])} takes {folder.pictures[0].stem}.txt"
        )
    elif texts:
        folder.hints.append(
            f"{next(iter(texts.values()))} and {len(texts) - 1} other text files are called as the pictures are, but "
            "nothing names the classes: write their names, one a line, to classes.txt"
        )
    return None


def find_class_names(folder: BoxFolder) -> tuple[dict[int, str], Path, dict[str, Any]] | None:
    """Class names by index, the file that names them, and its settings; unreadable files are noted."""
    yaml_files = sorted(folder.files_of([".yaml", ".yml"]), key=lambda path: (len(path.parts), path.stem != "data"))
    for path in yaml_files:
        settings = read_yaml(folder, path)
        if isinstance(settings, dict) and "names" in settings:
            if numbers := numbered(settings["names"]):
                return numbers, path, settings
            folder.hints.append(f"{path}: names must list the classes, or give their names by number")
    lists = [path for path in folder.files_of([".txt", ".labels"]) if path.name.lower() in NAME_LISTS]
    for path in [*folder.files_of([".names"]), *lists]:
        if names := [line.strip() for line in read_text(path).splitlines() if line.strip()]:
            settings: dict[str, str] = {}
            for file in folder.files_of([".data"]):
                settings = darknet_settings(file) | settings
            return dict(enumerate(names)), path, settings
        folder.hints.append(f"{path} names no classes: write one a line")
    return None


def read_yaml(folder: BoxFolder, path: Path) -> Any:
    """The contents of a YAML file, all scalars as strings, so that a class may be called no; None if damaged."""
    import yaml

    try:
        return yaml.load(read_text(path), Loader=yaml.BaseLoader)  # which makes nothing but text, lists, dictionaries
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        folder.is_damaged(path, "yaml", error)
    return None


def numbered(names: Any) -> dict[int, str]:
    """Class names by index from the entry names of data.yaml, a list or a dictionary; empty if it is neither."""
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not all(re.fullmatch("[0-9]{1,9}", number) for number in names):
        return {}
    return {int(number): str(names[number]) for number in sorted(names, key=int)}


def darknet_settings(path: Path) -> dict[str, str]:
    """The lines "key = value" of Darknet's obj.data."""
    pairs = (line.split("=", 1) for line in read_text(path).splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def label_texts(pictures: list[Path], files: list[Path]) -> dict[Path, Path]:
    """The text file of each annotated image: in labels for images, else the nearest of its stem."""
    known = set(files)
    exact = {}
    for picture in pictures:
        if "images" in picture.parts:
            last = len(picture.parts) - 1 - picture.parts[::-1].index("images")
            path = Path(*picture.parts[:last], "labels", *picture.parts[last + 1 :]).with_suffix(".txt")
            if path in known:
                exact[picture] = path
    taken = set(exact.values())
    others = paired([path for path in pictures if path not in exact], [path for path in files if path not in taken])
    return exact | others


def read_yolo(folder: BoxFolder, found: YoloFolder) -> AnnotatedPictures:
    """Annotated images by part.

    Raises:
        UsageError: a class does not exist.
    """
    reader = YoloReader(folder, found)
    parts: dict[str, list[AnnotatedPicture]] = {part: [] for part in PARTS}
    passed_over = folder.remarks.passed_over
    declared = declared_parts(folder, found)
    for path in folder.pictures:
        if declared and path not in declared:
            passed_over.add(f"pictures in no part that {found.path.name} names", folder.name(path))
            continue
        part = declared.get(path) or folder.part(path) or "train"
        text = found.texts.get(path)
        if text is None:
            folder.remarks.notes["pictures without a text file, and so without boxes"] += 1
        parts[part].append(AnnotatedPicture(path, reader.boxes_of(text) if text else LabelledBoxes.of([]), (1, 1)))
    label_folders = {path.parent for path in found.texts.values()} - {path.parent for path in folder.pictures}
    for path in set(folder.files_of([".txt"])).difference(found.texts.values()):
        if path.parent in label_folders and path.name.lower() not in NAME_LISTS:
            passed_over.add("text files without a picture", folder.name(path))
    reader.check_classes()
    return AnnotatedPictures(found.classes, parts, {found.path, *folder.files_of([".data"]), *found.texts.values()})


def declared_parts(folder: BoxFolder, found: YoloFolder) -> dict[Path, str]:
    """The part of each image by the entries train, val and test; empty without an entry train.

    An entry is a folder, an image, a text file that lists images, or a list of such. An image in several parts counts
    for the first of train, test and val.
    """
    entries: dict[str, list[str]] = {"train": [], "test": [], "validation": []}
    for key, value in found.settings.items():
        if part := PART_NAMES.get(key.lower()):
            entries[part] += [str(each) for each in (value if isinstance(value, list) else [value]) if each]
    root = folder.inside(str(found.settings.get("path") or "."), found.path.parent) or folder.root
    known = set(folder.pictures)
    parts: dict[Path, str] = {}
    for part, written in entries.items():
        for entry in written:
            place = folder.inside(entry, root, found.path.parent)
            if place is None:
                folder.remarks.passed_over.add(f"entries of {found.path.name} that are not in the folder", entry)
            elif place in known:
                parts.setdefault(place, part)
            elif place.is_dir():
                parts = {path: part for path in picture_files(place) if path in known} | parts
            else:
                for line in filter(str.strip, read_text(place).splitlines()):
                    path = folder.inside(line, place.parent, root)
                    if path in known:
                        parts.setdefault(path, part)
                    else:
                        folder.remarks.passed_over.add(f"pictures of {place.name} that are not there", line.strip())
    return parts if "train" in parts.values() else {}


class YoloReader:
    """Reader of YOLO text files, which notes unusable lines and the classes that occur.

    Args:
        folder: where they are.
        found: the names of its classes.
    """

    def __init__(self, folder: BoxFolder, found: YoloFolder):
        self.folder = folder
        self.found = found
        if twice := len(found.numbers) - len(found.classes):
            folder.remarks.notes["classes that have the name of another, and are taken for that one"] += twice
        self.indices = {name: index for index, name in enumerate(found.classes)}
        self.keypoint_numbers = found.keypoint_numbers
        self.used: set[int] = set()
        """The class indices that occur."""
        self.unknown: list[tuple[str, str]] = []
        """File, line and class of each line of an unknown class."""

    def boxes_of(self, path: Path) -> LabelledBoxes:
        """The boxes of a text file, as fractions of the image's width and height."""
        rows = []
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if not (words := line.split()):
                continue
            place = f"{self.folder.name(path)}:{number}"
            try:
                box = self.box(words)
            except ValueError as error:
                self.folder.remarks.passed_over.add(str(error), f"{place}: {line[:60].strip()}")
                continue
            if (index := self.class_index(words[0])) is None:
                self.unknown.append((f"{path}:{number}", words[0]))
            else:
                rows.append((index, *box, OBJECT))
        return LabelledBoxes.of(rows)

    def box(self, words: list[str]) -> list[float]:
        """Left, top, right and bottom of the box of a line.

        Raises:
            ValueError: it has none; the message is the reason, for many lines in common.
        """
        if any("," in word or ";" in word for word in words):
            raise ValueError("lines with commas: blanks belong between the numbers, and points in them")
        try:
            values = np.array(words[1:], np.float64)
        except ValueError:
            raise ValueError("lines that are not numbers") from None
        if not np.isfinite(values).all():
            raise ValueError("lines with a number that is not finite")
        if self.keypoint_numbers is not None and len(values) == 4 + self.keypoint_numbers:
            values = values[:4]
        elif len(values) > 4 and looks_like_keypoints(values):
            raise ValueError("lines of keypoints? then data.yaml must have their kpt_shape, such as [17, 3]")
        elif len(values) == 5 and 0 <= values[4] <= 1:
            raise ValueError("lines with a sixth number: predictions with their confidence? leave it out")
        if len(values) < 4 or len(values) == 5 or len(values) % 2:
            raise ValueError("lines that are not a class and four numbers, or an outline")
        if values.max() > PIXELS:
            raise ValueError("lines with numbers above 1: are they pixels, and not fractions of the picture's sides?")
        if len(values) == 4:
            middle, half = values[:2], values[2:] / 2
            return [*(middle - half), *(middle + half)]
        if self.keypoint_numbers is not None:
            raise ValueError(f"lines of other than {5 + self.keypoint_numbers} numbers, as kpt_shape has it")
        self.folder.remarks.notes[
            "outlines, taken for the boxes around them (keypoints need kpt_shape in data.yaml)"
        ] += 1
        points = values.reshape(-1, 2)
        return [*points.min(axis=0), *points.max(axis=0)]

    def class_index(self, label: str) -> int | None:
        """The index of the class that a line begins with, a number or its name; None where there is no such class."""
        number = int(float(label)) if re.fullmatch(r"[0-9]{1,9}(\.0*)?", label) else None
        if number is not None:
            self.used.add(number)
        if number in self.found.numbers:
            return self.indices[self.found.numbers[number]]
        return self.indices.get(label)

    def check_classes(self) -> None:
        """Raises a UsageError if a line has an unknown class."""
        if not self.unknown:
            return
        place, label = self.unknown[0]
        numbers = list(self.found.numbers)
        from_one = numbers == list(range(len(numbers))) and self.used and self.used <= set(range(1, len(numbers) + 1))
        raise UsageError(
            f"{place}: class {label} is not among the {len(numbers)} classes of {self.found.path}, numbered from "
            f"{numbers[0]}: "
            + (
                "no line is of class 0, so are they numbered from 1? name them so in data.yaml, as in names: {1: "
                f"{self.found.numbers[0]}, …}}"
                if from_one
                else "fix one of the two files"
            )
        )


def looks_like_keypoints(values: np.ndarray) -> bool:
    """Whether after four numbers each third is a visibility, 0, 1 or 2, and they are no points of an outline."""
    visibilities = values[6::3]
    are_visibilities = len(values) % 3 == 1 and np.isin(visibilities, [0, 1, 2]).all()
    return bool(are_visibilities and (len(values) % 2 or visibilities.max() == 2))
