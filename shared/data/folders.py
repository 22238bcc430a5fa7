"""Labelled pictures as people have them: a folder a class, files of any size and kind."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from shared.data.images import ImageData, image_data, squared, with_statistics
from shared.data.pictures import LUMINANCE, open_picture, open_pictures
from shared.data.places import fingerprint_of
from shared.errors import UsageError

PARTS = ("train", "validation", "test")
PART_NAMES = {
    "train": "train", "training": "train",
    "val": "validation", "valid": "validation", "validation": "validation", "dev": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def read_picture(path: Path, size: int) -> np.ndarray:
    """Reads an image file as pixels (size, size, 3) in uint8, cut to a square around its middle.

    Raises:
        ValueError: the file is no image, or damaged.
    """
    return squared(open_picture(path), size)


def read_pictures(paths: list[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Reads image files for a model whose input is (height, width, channels), height and width alike.

    Raises:
        UsageError: a file is no image, or damaged.
    """
    images = []
    for picture in open_pictures(paths):
        pixels = squared(picture, shape[0])
        grey = np.round(pixels @ LUMINANCE).astype(np.uint8)
        images.append(pixels if shape[2] == 3 else grey[..., None])
    return np.stack(images)


def picture_files(folder: Path) -> list[Path]:
    """The files in a folder and below it that look like images by their names, sorted."""
    known = Image.registered_extensions()
    files = (path for path in folder.rglob("*") if path.suffix.lower() in known and not path.name.startswith("."))
    return sorted(path for path in files if path.is_file())


def class_folders(folder: Path) -> list[Path]:
    """The folders directly inside a folder, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def find_pictures(folder: Path) -> tuple[list[str], dict[str, list[tuple[Path, int]]]]:
    """Finds the classes of a folder, and the files of each part with the index of their class.

    Where the folder holds folders named train and test (and val), those are the parts, with a folder a class in each.
    Otherwise it holds a folder a class, and a fifth of the files of each become the test part, always the same.

    Raises:
        UsageError: there are fewer than two classes, or no images.
    """
    try:
        inside = class_folders(folder)
    except OSError as error:
        raise UsageError(
            f"--data {folder} cannot be read ({error.strerror}): name a folder of images by class"
        ) from None
    parts = {PART_NAMES[path.name]: path for path in inside if path.name in PART_NAMES}
    if {"train", "test"} <= set(parts):
        classes = [path.name for path in class_folders(parts["train"])]
        files: dict[str, list[tuple[Path, int]]] = {part: [] for part in parts}
        for part, place in parts.items():
            for path in class_folders(place):
                if path.name not in classes:
                    raise UsageError(f"{path} is of a class that {parts['train']} does not have: add it there")
                files[part] += [(file, classes.index(path.name)) for file in picture_files(path)]
    else:
        classes = [path.name for path in inside]
        files = {"train": [], "test": []}
        for index, path in enumerate(inside):
            found = picture_files(path)
            held_out = set(np.random.default_rng(0).permutation(len(found))[: round(len(found) / 5)].tolist())
            for number, file in enumerate(found):
                files["test" if number in held_out else "train"].append((file, index))
    if len(classes) < 2:
        found = f"only the class {classes[0]}" if classes else "no folders"
        raise UsageError(f"--data {folder} holds {found}: it takes a folder for each of two classes or more")
    for part, listed in files.items():
        if not listed:
            raise UsageError(f"--data {folder} holds no images for the {part} part: add image files")
    return classes, files


def decode_folder(folder: Path, size: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the pictures of a folder into arrays, each file that cannot be read named on stderr and left out.

    Raises:
        UsageError: nothing of a part could be read, or nothing of a class.
    """
    classes, files = find_pictures(folder)
    arrays = {}
    for part, listed in files.items():
        read = list(readable(listed, size))
        if not read:
            raise UsageError(f"none of the {len(listed)} images of the {part} part of {folder} can be read")
        arrays[f"{part}_images"] = np.stack([pixels for pixels, _ in read])
        arrays[f"{part}_labels"] = np.array([label for _, label in read], np.int64)
    for index, name in enumerate(classes):
        if index not in arrays["train_labels"]:
            raise UsageError(f"{folder} holds no training image of the class {name} that can be read: add some")
    return arrays, classes


def readable(listed: list[tuple[Path, int]], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """The pixels and class of each file that can be read."""
    for path, label in listed:
        try:
            yield read_picture(path, size), label
        except ValueError as error:
            print(f"skipped {path}: {error}", file=sys.stderr)


def load_folder(folder: Path, size: int, validation: float) -> ImageData:
    """Loads a folder of images by class; see `find_pictures` for how it may be laid out.

    Args:
        folder: where the images are.
        size: height and width that they are cut to, in pixels.
        validation: share of the training images that is kept apart, unless the folder holds some for validation.

    Raises:
        UsageError: there are fewer than two classes, or a part or a class without an image that can be read.
    """
    _, files = find_pictures(folder)
    fingerprint = fingerprint_of([path for listed in files.values() for path, _ in listed], folder, size)
    return image_data("folder", fingerprint, lambda: with_statistics(decode_folder(folder, size)), validation, None)
