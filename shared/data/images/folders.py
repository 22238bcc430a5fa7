"""Image folders of users: one folder per class, with files of any size and format."""

import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.images.files import is_heif, looks_like_picture, open_picture, reads_heif, squared
from shared.data.places import PassedOver, left_by_system
from shared.errors import UsageError

PARTS = ("train", "validation", "test")


PART_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


FOLDERS_VERSION = 2
"""Version of the decoding; increase it when the same files are decoded differently, to invalidate caches."""


class FoundPictures(NamedTuple):
    """The pictures of a folder, not yet read."""

    folder: Path
    classes: list[str]
    parts: dict[str, list[tuple[Path, int]]]
    """By part (train, and validation and test where the folder has them): each file, and the index of its class."""
    passed_over: PassedOver
    """Files that are not pictures or belong to no class, relative to the folder."""

    def paths(self) -> list[Path]:
        """The files of all parts."""
        return [path for listed in self.parts.values() for path, _ in listed]


def user_files(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted, without those left by systems and tools.

    Raises:
        OSError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    files = []
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        if os.path.islink(place) and any(map(Path(place).samefile, Path(place).parents)):  # it would never end
            folders.clear()
            continue
        files += [Path(place) / name for name in names]
    return sorted(path for path in files if not left_by_system(path.relative_to(folder)))


def picture_files(folder: Path) -> list[Path]:
    """The files in a folder and below it that are images by their suffix or their first bytes, sorted."""
    return [path for path in user_files(folder) if path.is_file() and looks_like_picture(path)]


def subfolders(folder: Path) -> list[Path]:
    """The folders directly inside a folder, sorted by name, without those left by systems and tools."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not left_by_system(Path(path.name)))


def part_of(name: str) -> str | None:
    """The part that a folder's name means, such as Training, test_set or val2017; None for other names."""
    return PART_NAMES.get(re.sub(r"([\W_]?(set|images|data))?[\W_\d]*$", "", name.lower()))


def plain_text_name(path: Path) -> str:
    """The name of a folder in composed Unicode (NFC), since archives made on macOS decompose it."""
    return unicodedata.normalize("NFC", path.name)


def has_pictures(folder: Path) -> bool:
    """Whether a folder holds images directly."""
    return any(path.is_file() and looks_like_picture(path) for path in folder.iterdir())


def without_extra_levels(folder: Path, part: str = "train") -> Path:
    """A folder, or the only folder in it if that holds the classes, such as cats in photos/photos/cats."""
    while len(inside := subfolders(folder)) == 1 and subfolders(inside[0]):
        if part_of(inside[0].name) not in (None, part) or has_pictures(folder) or has_pictures(inside[0]):
            break
        folder = inside[0]
    return folder


def part_folders(folder: Path) -> dict[str, Path]:
    """The folder of each part; only the training part if no folder names a part.

    Raises:
        UsageError: two folders are for one part, or there is none for training.
    """
    named: dict[str, Path] = {}
    for path in subfolders(folder):
        if part := part_of(path.name):
            if part in named:
                raise UsageError(f"{named[part]} and {path} both are the {part} part: keep one")
            named[part] = path
    if named and "train" not in named:
        found = " and ".join(str(path) for path in named.values())
        raise UsageError(f"there is {found}, but no {folder / 'train'}: put the training images there")
    return named or {"train": folder}


def class_folders(train: Path, needs_classes: bool) -> list[str]:
    """Class names of a folder of training images, from the folders in it; empty if the images have no classes.

    Raises:
        UsageError: it holds anything but folders of images.
    """
    inside = subfolders(train)
    if not inside or (has_pictures(train) and not any(map(picture_files, inside))):
        if needs_classes:
            kind = "images" if has_pictures(train) else "no images"
            raise UsageError(
                f"--data {train} holds {kind}, and no folder for each class: move the images of a class to a folder of "
                f"its name, such as {train / 'CLASS'}"
            )
        return []
    for path in inside:
        if split := next((deeper for deeper in subfolders(path) if part_of(deeper.name)), None):
            raise UsageError(f"{split}: parts go above classes, move it to {train / split.name / path.name}")
    deeper = [{path.name for path in subfolders(place)} for place in inside]
    if len(recurring := sorted(set.intersection(*deeper))) > 1 < len(inside) and not any(map(has_pictures, inside)):
        raise UsageError(
            f"{train} has a level of folders too many: {inside[0]} and {inside[1]} both hold {recurring[0]} and "
            f"{recurring[1]}: put all images of a class into one folder right inside {train}"
        )
    classes = sorted({plain_text_name(path) for path in inside})
    if needs_classes and len(classes) < 2:
        raise UsageError(f"--data {train} holds only the class {classes[0]}: at least two class folders are needed")
    return classes


def find_pictures(folder: Path, needs_classes: bool = True) -> FoundPictures:
    """Finds the classes of a folder, and the pictures of each part.

    Folders named train, validation and test (or val, dev, testing, Train, …) are the parts, with one folder per class
    in each. Otherwise the folder itself holds one folder per class. Pictures of a class may be in deeper folders.

    Args:
        folder: the folder.
        needs_classes: refuse pictures outside class folders; otherwise all get one class, "images".

    Raises:
        UsageError: there are too few classes, a class or part without an image, or ambiguous folders.
    """
    try:
        top = without_extra_levels(folder)
        parts = {part: without_extra_levels(place, part) for part, place in part_folders(top).items()}
        classes = class_folders(parts["train"], needs_classes)
        files = user_files(folder)
    except OSError as error:
        raise UsageError(
            f"--data {folder} cannot be read ({error.strerror}): name a folder of images by class"
        ) from None
    passed_over, heif = PassedOver(), reads_heif()
    listed: dict[str, list[tuple[Path, int]]] = {part: [] for part in parts}
    for path in files:
        name = path.relative_to(folder)
        part = next((part for part, place in parts.items() if path.is_relative_to(place)), None)
        within = path.relative_to(parts[part]).parts if part else ()
        if not path.is_file():
            passed_over.add("that are no files", name)
        elif not looks_like_picture(path):
            passed_over.add("that are no images", name)
        elif is_heif(path) and not heif:
            passed_over.add("in HEIC, to be read after  pip install pillow-heif", name)
        elif part and not classes:
            listed[part].append((path, 0))
        elif len(within) < 2:
            passed_over.add("outside the folders of the classes", name)
        elif (label := unicodedata.normalize("NFC", within[0])) in classes:
            listed[part].append((path, classes.index(label)))
        else:
            raise UsageError(
                f"{parts[part] / within[0]} is of a class that {parts['train']} does not have: add it there"
            )
    found = FoundPictures(folder, classes or ["images"], listed, passed_over)
    check_all_there(found, listed)
    return found


def check_all_there(found: FoundPictures, parts: dict[str, Any]) -> None:
    """Raises a UsageError where a part has no pictures, or a class none for training.

    Args:
        found: the pictures of a folder.
        parts: of each part, what is left of them, pairs with the class at the end.
    """
    for part, listed in parts.items():
        labels = {label for _, label in listed}
        for index, name in enumerate(found.classes if part == "train" else ()):
            if index not in labels:
                reasons = found.passed_over.where(lambda place, name=name: name in Path(place).parts)
                why = f" ({reasons})" if len(reasons) else ""
                raise UsageError(
                    f"--data {found.folder} holds no image of the class {name} for training{why}: add some, or move "
                    "its folder away"
                )
        if not labels:
            raise UsageError(
                f"--data {found.folder} holds no image for the {part} part ({found.passed_over}): add some or move its "
                "folder away"
            )


def stratified_split(labels: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Stratified split: indices of the held-out examples and of the others, in random order with a fixed seed.

    Of each class, a fraction of the examples is held out, at least one, but never all.

    Args:
        labels: (examples,), class indices.
        fraction: above 0 and below 1; 0 to hold out none.
    """
    rng = np.random.default_rng(0)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        held_out[places[: min(max(1, round(len(places) * fraction)), len(places) - 1)]] = fraction > 0
    order = rng.permutation(len(labels))
    return order[held_out[order]], order[~held_out[order]]


def decode_folder(found: FoundPictures, size: int | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Decodes pictures into arrays, shuffled within each part; unreadable ones are named on stderr.

    Without a validation and a test part, a fifth of each class becomes the test part.

    Args:
        found: the pictures.
        size: height and width that they are resized to, in pixels; None for their own size.

    Returns:
        The arrays by part, such as "train_images" and "train_labels", and facts: "classes", the names, and
        "passed_over", a summary.

    Raises:
        UsageError: nothing of a part could be read, or nothing of a class for training, or the images are not of one
            size, where that is theirs.
    """
    from tqdm import tqdm

    read: dict[str, list[tuple[np.ndarray, int]]] = {part: [] for part in found.parts}
    print(f"decoding {len(found.paths()):,} images of {found.folder}, once", file=sys.stderr)
    with tqdm(total=len(found.paths()), disable=None, unit="image") as bar:
        for part, listed in found.parts.items():
            for place in np.random.default_rng(0).permutation(len(listed)):
                path, label = listed[place]
                bar.update()
                try:
                    picture = open_picture(path)
                except ValueError as error:
                    print(f"skipped {path}: {error}", file=sys.stderr)
                    found.passed_over.add("that cannot be read", path.relative_to(found.folder))
                    continue
                read[part].append((np.asarray(picture) if size is None else squared(picture, size), label))
    check_all_there(found, read)
    shapes = sorted({pixels.shape[:2] for each in read.values() for pixels, _ in each})
    if len(shapes) > 1:
        examples = " and ".join(f"{width}×{height}" for height, width in (shapes[0], shapes[-1]))
        raise UsageError(
            f"--data {found.folder} holds images of {len(shapes)} sizes, such as {examples}: cut them to one with "
            "--image-size, such as 64"
        )
    arrays = {}
    for part, examples in read.items():
        arrays[f"{part}_images"] = np.stack([pixels for pixels, _ in examples])
        arrays[f"{part}_labels"] = np.array([label for _, label in examples], np.int64)
    if set(read) == {"train"}:
        images, labels = arrays["train_images"], arrays["train_labels"]
        for part, places in zip(("test", "train"), stratified_split(labels, 1 / 5), strict=True):
            arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[places], labels[places]
    return arrays, {"classes": found.classes, "passed_over": found.passed_over.places}
