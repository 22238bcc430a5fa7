"""Detection data from TFDS, a user's folder, or the bundled scenes of digits."""

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.data.arrays import cached_arrays
from shared.data.detection.annotations import has_suffix
from shared.data.detection.boxed_images import (
    CROWD,
    DIFFICULT,
    OBJECT,
    BoxedImages,
    DetectionData,
    LabelledBoxes,
    boxed_images,
)
from shared.data.detection.digit_scenes import make_scenes, scenes_fingerprint
from shared.data.detection.folders import READING_VERSION, annotation_suffixes, decode_boxed_folder, folder_fingerprint
from shared.data.detection.remarks import Remarks
from shared.data.images.folders import PARTS
from shared.data.places import data_directory, fingerprint_of
from shared.errors import UsageError
from shared.files import cache_directory

DIGIT_SCENES = "digit_scenes"
"""The bundled data set, without download or data directory; see `shared.data.detection.digit_scenes`."""


MOST_CLASSES = 12
"""Maximum number of classes with individual counts in the summary of a data set."""


def load_detection(
    name: str, directory: Path | None, preferred: str, validation: float, size: int, limit: int | None = None
) -> DetectionData:
    """Loads a detection data set, letterboxed to squares, and prints a one-line summary to stderr.

    Without a test part, the validation part is used for it, or else a fifth of the training images. Without a
    validation part, a fraction of the training images is held out. The splits do not depend on the seed.

    Crowds and difficult objects are not training targets, as in YOLOv8, which treats them as background; detections of
    them do not count as false positives.

    Args:
        name: a data set prepared by TFDS in the data directory, "digit_scenes", a path to a folder, or to an annotation
            file in it (see `shared.data.detection.folders`), or "auto": `preferred` if available, else "digit_scenes"
            with a warning.
        directory: the data directory, or None for the default.
        preferred: the data set of "auto".
        validation: fraction of the training images held out for validation, unless there is a validation part.
        size: height and width that images are letterboxed to, in pixels.
        limit: train on the first N images; None for all.

    Raises:
        UsageError: the data set is not there, or has no images with boxes.
    """
    if name == "auto":
        try:
            return load_detection(preferred, directory, preferred, validation=validation, size=size, limit=limit)
        except UsageError as error:
            print(f"WARNING: no {preferred}, training on the bundled {DIGIT_SCENES} instead: {error}", file=sys.stderr)
            name = DIGIT_SCENES
    known_as, fingerprint, decode = find_detection(name, data_directory(directory), size)
    decoded = cache_directory() / "decoded" / f"{known_as.replace('/', '-')}-boxes-{fingerprint}"
    arrays, facts = cached_arrays(decoded, lambda: part_arrays(name, *decode()))
    given = {part: BoxedImages(*(arrays.get(f"{part}_{of}") for of in BoxedImages._fields)) for part in facts["parts"]}
    parts = all_parts(name, given, validation)
    counts = [f"{part}{origin(part, given)} {described(parts[part], facts['classes'])}" for part in PARTS]
    if limit is not None and limit < len(parts["train"].images):
        counts[0] += f", the first {limit:,} images used"
        parts["train"] = parts["train"].between(None, limit)
    print(f"--data {name}: {'; '.join([*counts, facts['remarks']])}", file=sys.stderr)
    mirrored = known_as != DIGIT_SCENES
    return DetectionData(known_as, facts["classes"], **parts, mirrored=mirrored, fingerprint=fingerprint)


def origin(part: str, given: dict[str, BoxedImages]) -> str:
    """Origin of a part that the data set lacks; see `all_parts`."""
    if part == "test" and part not in given and "validation" in given:
        return " (its validation images)"
    has_own = part in given and not (part == "validation" and "test" not in given)
    return "" if has_own else " (drawn from train)"


def described(images: BoxedImages, classes: list[str]) -> str:
    """Number of images, of boxes by class, and of ignored boxes."""
    counts = Counter(images.labels[images.labels >= 0].tolist())
    named = [f"{classes[label]} {count:,}" for label, count in counts.most_common(MOST_CLASSES)]
    more = [f"{len(counts) - len(named)} more classes"] if len(counts) > len(named) else []
    ignored = [
        f", {(labels >= 0).sum():,} {what} ignored"
        for what, labels in (("difficult objects", images.difficult), ("crowds (iscrowd)", images.crowds))
        if labels is not None and (labels >= 0).any()
    ]
    boxes = f"{counts.total():,} boxes ({', '.join(named + more)})"
    return f"{len(images.images):,} images with {boxes}{''.join(ignored)}"


def find_detection(name: str, directory: Path, size: int) -> tuple[str, str, Callable]:
    """Finds a data set without reading its images: its name, its fingerprint, and the function that decodes it."""
    if name == DIGIT_SCENES:
        return name, scenes_fingerprint(size), lambda: (*make_scenes(size), Remarks())
    is_name = re.fullmatch(r"\w+(/[\w.-]+)?", name)
    if is_name and (version := prepared_version(directory / "tfds" / name)):
        files = [path for path in version.iterdir() if path.is_file()]
        fingerprint = fingerprint_of(files, version, size, READING_VERSION)
        return name, fingerprint, lambda: decode_boxed_tfds(version, size)
    if Path(name).is_dir() or (Path(name).is_file() and has_suffix(Path(name), annotation_suffixes() - {".txt"})):
        return "folder", folder_fingerprint(Path(name), size), lambda: decode_boxed_folder(Path(name), size)
    if Path(name).is_file():
        raise UsageError(f"--data {name} is a file: name a folder of images with boxes, or its data.yaml or json")
    prepared = [path.name for path in sorted((directory / "tfds").glob("*")) if path.is_dir()]
    raise UsageError(
        f"no data set {name!r} in {directory / 'tfds'}, and no folder of that name: choose one of "
        f"{', '.join(['auto', DIGIT_SCENES, *prepared])}, the path of a folder, or set --data-dir"
    )


def prepared_version(place: Path) -> Path | None:
    """Newest version of a data set prepared by TFDS, in its first configuration such as voc/2007; None without."""
    versions = sorted(path.parent for path in place.rglob("features.json"))
    return max((path for path in versions if path.parent == versions[0].parent), default=None)


def part_arrays(
    name: str, parts: dict[str, BoxedImages], classes: list[str], remarks: Remarks
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Contents of a cache: arrays by part and field; and facts: the classes, parts with boxes, and remarks.

    Raises:
        UsageError: no training image has a box.
    """
    used = [part for part, images in parts.items() if (images.labels >= 0).any()]
    if "train" not in used:
        crowds = parts["train"].crowds if "train" in parts else None
        reason = (
            "there is nothing to learn"
            if crowds is None
            else f"all {(crowds >= 0).sum():,} are marked as crowds, as tools do with masks drawn with a brush: set "
            "iscrowd to 0 where a box is of one object"
        )
        raise UsageError(f"--data {name}: none of the training images has a box to learn: {reason} ({remarks})")
    for part in parts:
        if part not in used:
            remarks.passed_over.add("parts of which no image has a box", part)
    arrays = {
        f"{part}_{field}": array for part in used for field, array in parts[part]._asdict().items() if array is not None
    }
    return arrays, {"classes": classes, "parts": used, "remarks": str(remarks)}


def all_parts(name: str, parts: dict[str, BoxedImages], validation: float) -> dict[str, BoxedImages]:
    """Completes the parts as described in `load_detection`; the training images must be in random order.

    Raises:
        UsageError: there are too few images, or those of a part have no boxes.
    """
    train, rest = parts["train"], {part: images for part, images in parts.items() if part != "train"}
    if "test" not in rest and "validation" in rest:
        rest["test"] = rest.pop("validation")
    for part, fraction in {"test": 1 / 5, "validation": validation}.items():
        if part not in rest:
            count = max(1, round(len(train.images) * fraction))
            rest[part], train = train.between(None, count), train.between(count, None)
    completed = {"train": train} | rest
    for part, images in completed.items():
        if not (images.labels >= 0).any():
            raise UsageError(
                f"--data {name}: no box is in its {len(images.labels)} {part} images: it takes more images"
            )
    return completed


def decode_boxed_tfds(version: Path, size: int) -> tuple[dict[str, BoxedImages], list[str], Remarks]:
    """Decodes a data set prepared by TFDS as array_record, without TensorFlow, each part in random order."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    try:
        builder = tfds.builder_from_directory(version)
        classes = builder.info.features["objects"]["label"].names
        parts, remarks = {}, Remarks()
        for part in PARTS:
            if part in builder.info.splits:
                source = builder.as_data_source(part)
                name = f"{version.parent.name} {part}"
                print(f"decoding {len(source):,} images of {name}, once", file=sys.stderr)
                order = np.random.default_rng(0).permutation(len(source)).tolist()
                examples = (tfds_example(source[index]) for index in tqdm(order, disable=None, unit="image"))
                parts[part] = boxed_images(examples, len(source), size, remarks)
        return parts, classes, remarks
    except KeyError as error:
        raise UsageError(f"{version} is not a set of images with boxes: no {error}") from None
    except Exception as error:  # noqa: BLE001 - array_record, Pillow and NumPy each raise their own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{version} cannot be read as images with boxes ({reason})") from None


def tfds_example(example: dict) -> tuple[Image.Image, LabelledBoxes]:
    """Picture and boxes in pixels of a TFDS example."""
    picture, objects = Image.fromarray(example["image"].squeeze()), example["objects"]
    top, left, bottom, right = np.reshape(objects["bbox"], (-1, 4)).T
    boxes = np.stack([left, top, right, bottom], axis=1) * np.tile(picture.size, 2)
    kinds = np.full(len(boxes), OBJECT, np.uint8)
    for mark, kind in (("is_difficult", DIFFICULT), ("is_crowd", CROWD)):
        if mark in objects:
            kinds[np.array(objects[mark], bool)] = kind
    return picture, LabelledBoxes(boxes, np.array(objects["label"], np.int64), kinds)
