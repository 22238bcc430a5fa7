"""Pictures in folders as people have them: a folder a class, files of any size and kind."""

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
"""To be raised with each change of what is read from the same files, so that it is read anew."""


class FoundPictures(NamedTuple):
    """The pictures of a folder, yet to be read."""

    folder: Path
    classes: list[str]
    parts: dict[str, list[tuple[Path, int]]]
    """By part (train, and validation and test where the folder has them): each file, and the index of its class."""
    passed_over: PassedOver
    """Files that are no pictures or belong to no class, relative to the folder."""

    def paths(self) -> list[Path]:
        """The files of all parts."""
        return [path for listed in self.parts.values() for path, _ in listed]


def user_files(folder: Path) -> list[Path]:
    """The files in a folder and below it, sorted, but for those that systems and tools leave.

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
    """The folders directly inside a folder, sorted by name, but for those that systems and tools leave."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not left_by_system(Path(path.name)))


def part_of(name: str) -> str | None:
    """The part that the name of a folder stands for, such as Training, test_set or val2017; None if for none."""
    return PART_NAMES.get(re.sub(r"([\W_]?(set|images|data))?[\W_\d]*$", "", name.lower()))


def plain_text_name(path: Path) -> str:
    """The name of a folder in composed characters, which archives made on macOS take apart."""
    return unicodedata.normalize("NFC", path.name)


def has_pictures(folder: Path) -> bool:
    """Whether a folder holds images itself, not only in folders in it."""
    return any(path.is_file() and looks_like_picture(path) for path in folder.iterdir())


def without_extra_levels(folder: Path, part: str = "train") -> Path:
    """A folder, or the one in it where that is all that it holds, and holds classes: cats in photos/photos/cats."""
    while len(inside := subfolders(folder)) == 1 and subfolders(inside[0]):
        if part_of(inside[0].name) not in (None, part) or has_pictures(folder) or has_pictures(inside[0]):
            break
        folder = inside[0]
    return folder


def part_folders(folder: Path) -> dict[str, Path]:
    """The folder of each part; that of the training images alone, which is all, where no folder names a part.

    Raises:
        UsageError: two folders are for one part, or there is none to train on.
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
    """The classes of a folder of training images, by the folders in it; none where the images are in no classes.

    Raises:
        UsageError: it holds something else than folders of images.
    """
    inside = subfolders(train)
    if not inside or (has_pictures(train) and not any(map(picture_files, inside))):
        if needs_classes:
            kind = "images" if has_pictures(train) else "nothing to learn from"
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
        raise UsageError(f"--data {train} holds only the class {classes[0]}: it takes a folder for each of two or more")
    return classes


def find_pictures(folder: Path, needs_classes: bool = True) -> FoundPictures:
    """Finds the classes of a folder, and the pictures of each part.

    Where the folder holds folders named train, validation and test (or val, dev, testing, Train, …), those are the
    parts, with a folder a class in each. Otherwise it holds a folder a class. A class's pictures may lie in folders
    below its own.

    Args:
        folder: where they are.
        needs_classes: refuse pictures that are in no folders of classes; if not, they are of one class, "images".

    Raises:
        UsageError: there are fewer classes than are needed, a class or a part without an image, or folders of another
            meaning.
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
    """Raises a UsageError where a part has no pictures, or a class none to train on.

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
                    f"--data {found.folder} holds no image of the class {name} to train on{why}: add some, or move its "
                    "folder away"
                )
        if not labels:
            raise UsageError(
                f"--data {found.folder} holds no image for the {part} part ({found.passed_over}): add some or move its "
                "folder away"
            )


def stratified_split(labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Stratified split: indices of the examples held out, and of the others, both in random order, always the same.

    Of each class, `share` of the examples is held out, at least one, but never the last one.

    Args:
        labels: (examples,), the class of each.
        share: above 0 and below 1; 0 to hold out none.
    """
    rng = np.random.default_rng(0)
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        held_out[places[: min(max(1, round(len(places) * share)), len(places) - 1)]] = share > 0
    order = rng.permutation(len(labels))
    return order[held_out[order]], order[~held_out[order]]


def decode_folder(found: FoundPictures, size: int | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads pictures into arrays, those of each part in random order; each that cannot be read is named on stderr.

    Where there is neither a part for validation nor one for the test, a fifth of each class becomes the test part.

    Args:
        found: them.
        size: height and width that they are cut to, in pixels; None for their own size.

    Returns:
        The arrays by part, such as "train_images" and "train_labels", and what else is known: the names of the
        "classes", and what was "passed_over".

    Raises:
        UsageError: nothing of a part could be read, or nothing of a class to train on, or the images are not of one
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
