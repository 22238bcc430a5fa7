"""A user's folder of images with boxes, independent of the annotation format."""

import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from shared.data.detection.boxed_images import LabelledBoxes
from shared.data.detection.remarks import Remarks
from shared.data.images.files import open_picture
from shared.data.images.folders import PART_NAMES, PARTS, picture_files
from shared.data.places import left_by_system


class AnnotatedPicture(NamedTuple):
    """A picture, not yet read, with its boxes."""

    path: Path
    boxes: LabelledBoxes
    size: tuple[float, float] | None
    """Width and height of the picture in the units of the boxes: (1, 1) where they are fractions; None for pixels."""


class AnnotatedPictures(NamedTuple):
    """Classes and annotated pictures of a folder."""

    classes: list[str]
    parts: dict[str, list[AnnotatedPicture]]
    """By part: train, validation, test; a part may be missing."""
    used: set[Path]
    """Their annotation files."""


class NamedObject(NamedTuple):
    """An object of a picture, in formats with class names instead of numbers."""

    name: str
    box: tuple[float, float, float, float]
    """Left, top, right, bottom, in pixels."""
    kind: int
    """`OBJECT`, `DIFFICULT` or `CROWD`."""


class AnnotationFile(NamedTuple):
    """The annotations of one picture."""

    picture: str
    """Name or path of the picture; its suffix may differ."""
    size: tuple[float, float] | None
    """Width and height of the picture in pixels; None where they are not given."""
    objects: list[NamedObject]
    part: str | None = None
    """The part of the picture, if the annotations name it."""


class BoxFolder:
    """A user's folder: its pictures, its other files, and remarks collected while reading.

    Args:
        place: the folder, or a file in it, which takes precedence over others of its suffix.

    Attributes:
        root: the folder.
        pictures: paths of its image files, sorted.
        files: paths of all others, sorted, without those left by systems and tools.
        hints: problems of files that are nearly annotations, for the message if none are found.
        damaged: files that cannot be read.
    """

    def __init__(self, place: Path):
        self.remarks = Remarks()
        self.hints: list[str] = []
        self.damaged: set[Path] = set()
        place = Path(os.path.normpath(place))
        self.root = place if place.is_dir() else place.parent
        while place.is_dir() and (inner := only_folder(self.root)):
            self.root = inner
            self.remarks.notes[f"folder level too many ({inner.name})"] += 1
        self.pictures = [path for path in picture_files(self.root) if not self.is_left_by_system(path)]
        self.same_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.pictures:
            self.same_stem[path.stem.casefold()].append(path)
        known = set(self.pictures)
        others = (path for path in self.root.rglob("*") if path not in known and path.is_file())
        self.files = sorted(path for path in others if not self.is_left_by_system(path))
        if place.is_file():
            self.files = [path for path in self.files if path == place or not has_suffix(path, [place.suffix.lower()])]

    def is_left_by_system(self, path: Path) -> bool:
        return left_by_system(path.relative_to(self.root))

    def files_of(self, suffixes: Iterable[str]) -> list[Path]:
        """Files with one of the suffixes, such as ".json", nearest to the root first."""
        return sorted((path for path in self.files if has_suffix(path, suffixes)), key=lambda path: len(path.parts))

    def name(self, path: Path) -> str:
        """A path as shown in messages."""
        return path.relative_to(self.root).as_posix()

    def part(self, path: Path) -> str | None:
        """The part named by the folders of a file."""
        return part_by_name(path.relative_to(self.root).parts[:-1])

    def inside(self, written: str, *bases: Path) -> Path | None:
        """Resolves a path from an annotation file to one in this folder; None if there is none.

        It may have been written on another computer, or relative to a parent folder: leading parts are dropped until
        the rest exists here.

        Args:
            written: the path.
            bases: folders that it may be relative to, beside the root.
        """
        parts = Path(written.strip().replace("\\", "/")).parts
        candidates = [base.joinpath(*parts) for base in (*bases, self.root)]
        candidates += [self.root.joinpath(*parts[start:]) for start in range(1, len(parts))]
        for candidate in candidates:
            path = Path(os.path.normpath(candidate))
            # Unlike Path's, this exists answers for names that no file can have.
            if os.path.exists(path) and path.absolute().is_relative_to(self.root.absolute()):
                return path
        return None

    def find_pictures(self, written: str, near: Path, part: str | None = None) -> list[Path]:
        """Pictures that a name in an annotation may mean: one if it is unambiguous.

        Args:
            written: a path or name, perhaps with another suffix.
            near: the annotation file.
            part: the part of that file, which decides between pictures of the same name.
        """
        written = written.replace("\\", "/")
        path = self.inside(written, near.parent)
        alike = self.same_stem.get(Path(written).stem.casefold(), [])
        if path and path in alike:
            return [path]
        alike = [path for path in alike if path.name == Path(written).name] or alike
        return [path for path in alike if part and self.part(path) == part] or alike

    def json_files(self) -> dict[Path, Any]:
        """Contents of the JSON files, in any Unicode encoding; damaged ones are noted."""
        contents = {}
        for path in self.files_of([".json"]):
            try:
                contents[path] = json.loads(path.read_bytes())
            except (OSError, ValueError, RecursionError) as error:
                self.is_damaged(path, "json", error)
        return contents

    def xml_files(self) -> dict[Path, ElementTree.Element]:
        """Root elements of the XML files, in the encodings that they declare; damaged ones are noted."""
        contents = {}
        for path in self.files_of([".xml"]):
            try:
                contents[path] = ElementTree.fromstring(path.read_bytes())
            except (OSError, ElementTree.ParseError, ValueError, LookupError, RecursionError) as error:
                self.is_damaged(path, "xml", error)
        return contents

    def is_damaged(self, path: Path, kind: str, error: Exception) -> None:
        """Notes a file that cannot be read."""
        self.damaged.add(path)
        self.hints.append(f"{path} cannot be read as {kind} ({' '.join(str(error).split())}): fix it or take it out")


def only_folder(folder: Path) -> Path | None:
    """The only entry of a folder, if that is a folder that does not name a part."""
    inside = [path for path in folder.iterdir() if not left_by_system(Path(path.name))]
    is_between = len(inside) == 1 and inside[0].is_dir() and not part_by_name([inside[0].name])
    return inside[0] if is_between else None


def has_suffix(path: Path, suffixes: Iterable[str]) -> bool:
    """Whether a file name has one of the suffixes, ignoring case."""
    return path.suffix.lower() in suffixes


def stated_size(width: Any, height: Any) -> tuple[float, float] | None:
    """Size of a picture as stated by its annotations; None if it is missing, or 0, as some tools write."""
    try:
        size = float(width), float(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if 0 < min(size) <= max(size) < 1e9 else None


def part_by_name(words: Iterable[str]) -> str | None:
    """The part named by the first matching word, such as train2017."""
    plain = [re.sub(r"\d+$", "", word.lower()) for word in words]
    return next((PART_NAMES[word] for word in plain if word in PART_NAMES), None)


def paired(pictures: list[Path], files: list[Path]) -> dict[Path, Path]:
    """For each picture the file with the same stem in the nearest folder, unless that has a nearer picture.

    So labels/train/7.txt belongs to images/train/7.jpg, and not to images/val/7.jpg, even if that has no file.
    """

    def distance(one: Path, other: Path) -> int:
        ours, theirs = Counter(one.parts[:-1]), Counter(other.parts[:-1])
        return ((ours - theirs) + (theirs - ours)).total()

    stems: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for paths, of_stem in ((pictures, 0), (files, 1)):
        for path in paths:
            stems[path.stem][of_stem].append(path)
    pairs = {}
    for some_pictures, some_files in stems.values():
        for picture in some_pictures if some_files else ():
            nearest = min(some_files, key=lambda file: distance(file, picture))
            if distance(nearest, picture) == min(distance(nearest, other) for other in some_pictures):
                pairs[picture] = nearest
    return pairs


def one_file_each(folder: BoxFolder, files: list[Path], read: Callable[[Path], AnnotationFile]) -> AnnotatedPictures:
    """Pictures with one annotation file each, as in Pascal VOC.

    Args:
        folder: the folder.
        files: the annotation files.
        read: function that reads one.
    """
    pairs = {file: picture for picture, file in paired(folder.pictures, files).items()}
    return named_pictures(folder, ((file, read(file), pairs.get(file)) for file in files))


def named_pictures(
    folder: BoxFolder, annotations: Iterable[tuple[Path, AnnotationFile, Path | None]]
) -> AnnotatedPictures:
    """Finds the picture and part of each annotation, and the class names, which are those of the training part.

    Args:
        folder: the folder of the pictures.
        annotations: for each, its file, its content, and its picture if known.
    """
    passed_over = folder.remarks.passed_over
    used = set()
    found: dict[str, dict[Path, AnnotationFile]] = {part: {} for part in PARTS}
    for file, annotation, picture in annotations:
        used.add(file)
        candidates = [picture] if picture else folder.find_pictures(annotation.picture, file, annotation.part)
        if len(candidates) != 1:
            passed_over.add(
                "annotations that several pictures fit" if candidates else "annotations without a picture",
                f"{folder.name(file)}: {annotation.picture}",
            )
            continue
        picture = candidates[0]
        part = annotation.part or folder.part(picture) or folder.part(file) or "train"
        earlier = found[part].get(picture)
        objects = annotation.objects if earlier is None else earlier.objects + annotation.objects
        found[part][picture] = annotation._replace(objects=objects)
    for picture in sorted(set(folder.pictures).difference(*found.values())):
        passed_over.add("pictures without annotations", folder.name(picture))

    names = {each.name for annotation in found["train"].values() for each in annotation.objects}
    classes = sorted(names, key=lambda name: (name.casefold(), name))
    numbers = {name: number for number, name in enumerate(classes)}
    parts: dict[str, list[AnnotatedPicture]] = {part: [] for part in PARTS}
    for part, pictures in found.items():
        for picture, annotation in pictures.items():
            rows = []
            for name, box, kind in annotation.objects:
                if name in numbers:
                    rows.append((numbers[name], *box, kind))
                else:
                    passed_over.add("boxes of a class that no training image has", f"{folder.name(picture)}: {name}")
            parts[part].append(AnnotatedPicture(picture, LabelledBoxes.of(rows), annotation.size))
    return AnnotatedPictures(classes, parts, used)


def readable_examples(
    pictures: list[AnnotatedPicture], folder: BoxFolder
) -> Iterator[tuple[Image.Image, LabelledBoxes]]:
    """Readable pictures, with their boxes in pixels; the others are noted."""
    from tqdm import tqdm

    remarks = folder.remarks
    for path, boxes, size in tqdm(pictures, disable=None, unit="image"):
        try:
            picture = open_picture(path)
        except ValueError as error:
            remarks.passed_over.add("pictures that cannot be read", f"{folder.name(path)}: {error}")
            continue
        if size != (1, 1) and len(boxes.boxes) and 0 < np.nanmax(boxes.boxes) <= 1:
            reason = "pictures with numbers up to 1: are they fractions of the picture's sides, and not pixels?"
            remarks.passed_over.add(reason, folder.name(path))
            continue
        width, height = size or picture.size
        zoom = np.array(picture.size) / (width, height)
        if (width, height) != (1, 1) and (width, height) != picture.size:
            shape = f"{picture.width}×{picture.height}"
            if abs(zoom[0] / zoom[1] - 1) > 0.02:
                turned = " as its EXIF data turn it" if is_turned(path) else ""
                remarks.passed_over.add(
                    "pictures of other proportions than their annotations",
                    f"{folder.name(path)}: it is {shape}{turned}, but its annotations are for {width:g}×{height:g}",
                )
                continue
            remarks.notes["pictures of another size than their annotations, whose boxes are scaled"] += 1
        _, once = np.unique(np.column_stack([boxes.boxes, boxes.labels]), axis=0, return_index=True)
        if len(once) < len(boxes.labels):
            remarks.passed_over.add("pictures' boxes that are there twice", folder.name(path))
        boxes = boxes.where(np.sort(once))
        yield picture, boxes._replace(boxes=boxes.boxes * np.tile(zoom, 2))


def is_turned(path: Path) -> bool:
    """Whether the EXIF data of an image file swap its width and height."""
    with Image.open(path) as file:
        return file.getexif().get(0x0112, 1) >= 5
