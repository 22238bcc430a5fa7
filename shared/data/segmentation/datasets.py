"""Images with masks from the data directory, a user's folder, or the bundled micrographs, decoded once."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.arrays import cached_arrays
from shared.data.detection.remarks import Remarks
from shared.data.images.folders import PARTS
from shared.data.places import data_directory, fingerprint_of
from shared.data.segmentation.folders import MASKS_VERSION, decode_mask_folder, mask_folder_files
from shared.data.segmentation.segmented_images import (
    UNLABELLED,
    SegmentationData,
    SegmentedImages,
    packed_images,
    unpacked_images,
)
from shared.data.segmentation.synthetic_cells import CELLS_VERSION, make_cells
from shared.errors import UsageError
from shared.files import cache_directory

SYNTHETIC_CELLS = "synthetic_cells"
"""The bundled data set, without download or data directory."""


class KnownMasks(NamedTuple):
    """What is known of a data set that lies in raw/NAME of the data directory."""

    objects: bool
    upright: bool
    classes: tuple[str, ...] = ()
    """Class names, where no file there says them."""


KNOWN_MASKS = {
    "dsb2018": KnownMasks(objects=True, upright=False, classes=("background", "nucleus")),
    "camvid": KnownMasks(objects=False, upright=True),
}


CLASSES_SHOWN = 12
"""Maximum number of classes with individual fractions in the summary of a data set."""


def load_segmentation(
    name: str,
    directory: Path | None,
    preferred: str,
    validation: float,
    objects: bool = False,
    limit: int | None = None,
    test_limit: int | None = None,
) -> SegmentationData:
    """Loads a data set of images with masks, and prints a one-line summary to stderr.

    Without a test part, a fifth of the training images is used for it; without a validation part, a fraction of them.
    The splits do not depend on the seed.

    Args:
        name: one of `KNOWN_MASKS` in the data directory, "synthetic_cells", the path of a folder (see
            `shared.data.segmentation.folders`), or "auto": `preferred` if available, else "synthetic_cells" with a
            warning.
        directory: the data directory, or None for the default.
        preferred: the data set of "auto".
        validation: fraction of the training images held out for validation, unless there is a validation part.
        objects: whether the masks of a folder number objects, instead of classes.
        limit: train on the first N images; None for all.
        test_limit: validate and test on the first N images each; None for all.

    Raises:
        UsageError: the data set is not there, or holds no images with masks.
    """
    if name == "auto":
        how = {"validation": validation, "objects": objects, "limit": limit, "test_limit": test_limit}
        try:
            return load_segmentation(preferred, directory, preferred, **how)
        except UsageError as error:
            print(f"WARNING: no {preferred}, training on bundled {SYNTHETIC_CELLS} instead: {error}", file=sys.stderr)
            return load_segmentation(SYNTHETIC_CELLS, directory, preferred, **how)
    known_as, known, fingerprint, decode = find_masks(name, data_directory(directory), objects)
    arrays, facts = cached_arrays(cache_directory() / "decoded" / f"{known_as}-masks-{fingerprint}", decode)
    given = {
        part: unpacked_images(*(arrays[f"{part}_{field}"] for field in ("pixels", "masks", "shapes")))
        for part in facts["parts"]
    }
    parts = with_all_parts(name, given, validation)
    origins = {part: "" if part in given else " (drawn from train)" for part in PARTS}
    parts["train"] = parts["train"].between(None, limit)
    parts |= {part: parts[part].between(None, test_limit) for part in ("validation", "test")}
    counts = [
        f"{part}{origins[part]} {described_masks(parts[part], facts['classes'], known.objects)}" for part in PARTS
    ]
    print(f"--data {name}: {'; '.join([*counts, facts['remarks']])}", file=sys.stderr)
    return SegmentationData(
        known_as, facts["classes"], **parts, objects=known.objects, upright=known.upright, fingerprint=fingerprint
    )


def find_masks(name: str, directory: Path, objects: bool) -> tuple[str, KnownMasks, str, Callable]:
    """Finds a data set without reading its images: its name, what is known of it, its fingerprint, and a decoder."""
    if name == SYNTHETIC_CELLS:
        known = KnownMasks(objects=True, upright=False, classes=("background", "cell"))
        fingerprint = fingerprint_of([], directory, CELLS_VERSION)
        return name, known, fingerprint, lambda: cache_contents(make_cells(), list(known.classes), Remarks())
    place = directory / "raw" / name if name in KNOWN_MASKS else Path(name).expanduser()
    if not place.is_dir():
        if place.is_file():
            raise UsageError(f"--data {name} is a file: name the folder of the images and masks")
        raise UsageError(
            f"no data set {name!r} in {directory / 'raw'}, and no folder of that name: choose one of "
            f"{', '.join(['auto', *KNOWN_MASKS, SYNTHETIC_CELLS])}, the path of a folder, or set --data-dir"
        )
    known = KNOWN_MASKS.get(name, KnownMasks(objects=objects, upright=not objects))
    known_as = name if name in KNOWN_MASKS else "folder"
    fingerprint = fingerprint_of(mask_folder_files(place, known.objects), place, MASKS_VERSION, *known)
    return (
        known_as, known, fingerprint,
        lambda: cache_contents(*decode_mask_folder(place, known.objects, list(known.classes))),
    )  # fmt: skip


def cache_contents(
    parts: dict[str, SegmentedImages], classes: list[str], remarks: Remarks
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Contents of a cache: arrays by part and field; and facts: the classes, the parts, and remarks."""
    arrays = {
        f"{part}_{field}": array for part, images in parts.items() for field, array in packed_images(images).items()
    }
    return arrays, {"classes": classes, "parts": list(parts), "remarks": str(remarks)}


def with_all_parts(name: str, given: dict[str, SegmentedImages], validation: float) -> dict[str, SegmentedImages]:
    """Completes the parts as described in `load_segmentation`; the training images must be in random order."""
    train, rest = given["train"], {part: images for part, images in given.items() if part != "train"}
    for part, fraction in {"test": 1 / 5, "validation": validation}.items():
        if part not in rest:
            count = max(1, round(len(train.pixels) * fraction))
            rest[part], train = train.between(None, count), train.between(count, None)
    if not train.pixels:
        raise UsageError(f"--data {name}: {len(given['train'].pixels)} images with masks are too few: add some")
    return {"train": train} | rest


def described_masks(images: SegmentedImages, classes: list[str], objects: bool) -> str:
    """Number and sizes of images, and of objects, or the fraction of labelled pixels of each class."""
    shapes = sorted({each.shape[:2] for each in images.masks}, key=np.prod)
    sizes = " to ".join(f"{width}×{height}" for height, width in dict.fromkeys((shapes[0], shapes[-1])))
    text = f"{len(images.masks):,} images of {sizes} pixels"
    if objects:
        return f"{text} with {sum(len(np.unique(mask[mask > 0])) for mask in images.masks):,} objects"
    counts = sum(np.bincount(mask[mask != UNLABELLED], minlength=len(classes)) for mask in images.masks)
    fractions = counts / max(1, counts.sum())
    order = np.argsort(-fractions, kind="stable")[:CLASSES_SHOWN]
    named = [f"{classes[index]} {fractions[index]:.1%}" for index in order]
    more = [f"{len(classes) - len(named)} more classes"] if len(classes) > len(named) else []
    unlabelled = 1 - counts.sum() / sum(mask.size for mask in images.masks)
    left = [f"unlabelled {unlabelled:.1%} of all"] if unlabelled else []
    return f"{text} ({', '.join([*named, *more, *left])})"
