"""Folders of images with masks: for each image a file with the class or object of each pixel, or COCO's polygons.

An image and its mask have the same name. The masks lie in a folder of their own, such as masks, labels or trainannot,
or beside the images, such as 7_mask.png for 7.jpg.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shared.data.detection.remarks import Remarks
from shared.data.images.files import looks_like_picture, open_picture
from shared.data.images.folders import part_of, user_files
from shared.data.segmentation.class_tables import ClassTable, find_table, table_files
from shared.data.segmentation.coco_polygons import PolygonMask, polygon_masks
from shared.data.segmentation.mask_files import MaskReader, read_mask
from shared.data.segmentation.segmented_images import SegmentedImages
from shared.errors import UsageError

MASKS_VERSION = 1
"""Version of the decoding; increase it when the same files are decoded differently, to invalidate caches."""


MASK_FOLDER = re.compile(
    r"^(masks?|labels?|annot(ations?)?|ground_?truths?|segmentations?|gt)(?![a-z])|"
    r"(masks?|labels?|annot(ations?)?|ground_?truths?|segmentations?|segmentation(class|object)|(?<![a-z])gt)[\W_\d]*$"
)
"""What the name of a folder of masks begins or ends with, in lower case."""


MASK_STEM = re.compile(r"[\W_](masks?|labels?|annot|ground_?truth|gt|seg(mentation)?|l)$", re.IGNORECASE)
"""What the name of a mask ends with that lies beside its image."""


IMAGE_FOLDER = re.compile(r"(images?|imgs?|photos?|pictures?|jpegimages)", re.IGNORECASE)


class MaskPair(NamedTuple):
    """The file of an image; and the file of its mask, or polygons."""

    image: Path
    mask: Path | PolygonMask


class MaskFolder(NamedTuple):
    """What a folder holds, not yet read."""

    pairs: dict[str, list[MaskPair]]
    """Images and masks by part."""
    table: ClassTable
    """Names and colours of the classes, where a file says them."""
    tables: list[Path]
    """The files that say what masks mean."""


class PlaceOfFile(NamedTuple):
    """What the path of an image or a mask says, and both have in common."""

    part: str
    """train, validation or test; empty where no folder says it."""
    name: str

    def of_image(self) -> "PlaceOfFile":
        """The place of the image whose mask lies beside it."""
        return self._replace(name=MASK_STEM.sub("", self.name))


def place_of(path: Path) -> tuple[bool, PlaceOfFile]:
    """Whether a path, relative to the user's folder, is in a folder of masks; and what else it says."""
    in_masks, part, rest = False, "", []
    for folder in path.parts[:-1]:
        if MASK_FOLDER.search(folder.lower()):
            in_masks, folder = True, MASK_FOLDER.sub("", folder.lower())
        name = IMAGE_FOLDER.sub("", folder).strip("-_ .") if not part_of(folder) else folder
        if not part and part_of(name):
            part = part_of(name)
        elif name:
            rest.append(name.lower())
    return in_masks, PlaceOfFile(part, "/".join([*rest, path.stem]))


def find_mask_folder(folder: Path, objects: bool, remarks: Remarks) -> MaskFolder:
    """Finds images and masks, or COCO's polygons where there are no masks.

    Args:
        folder: of the user.
        objects: whether masks number objects, instead of classes.
        remarks: on what is not used.

    Raises:
        UsageError: the folder cannot be read or holds neither, or none for training.
    """
    pairs, counts = find_pairs(folder, remarks)
    found = MaskFolder(pairs, find_table(folder), table_files(folder))
    if not pairs:
        names, parts, files = polygon_masks(folder, objects, remarks)
        if not files:
            raise UsageError(
                f"--data {folder} holds {counts[0]} images and {counts[1]} masks, and no mask of the name of an image: "
                "put masks in a folder masks, such as images/7.jpg and masks/7.png"
            )
        remarks.form = "COCO's json"
        pairs = {part: [MaskPair(*pair) for pair in listed] for part, listed in parts.items()}
        found = MaskFolder(pairs, ClassTable([*names[:1], "object"] if objects else names, []), files)
    if "train" not in found.pairs:
        raise UsageError(f"--data {folder} has images with masks for {' and '.join(found.pairs)}, but none for train")
    return found


def find_pairs(folder: Path, remarks: Remarks) -> tuple[dict[str, list[MaskPair]], tuple[int, int]]:
    """Images and files of masks by part, and how many images and masks there are; those without the other are noted.

    Raises:
        UsageError: the folder cannot be read.
    """
    try:
        files = user_files(folder)
    except OSError as error:
        raise UsageError(f"--data {folder} cannot be read ({error.strerror})") from None
    images: dict[PlaceOfFile, Path] = {}
    masks: dict[PlaceOfFile, Path] = {}
    for path in files:
        name = path.relative_to(folder)
        if not path.is_file() or not looks_like_picture(path):
            if path not in table_files(folder):
                remarks.passed_over.add("that are no images", name)
            continue
        in_masks, place = place_of(name)
        if (masks if in_masks else images).setdefault(place, path) != path:
            remarks.passed_over.add("of the name of another", name)
    for place in [place for place in images if place != place.of_image() in images]:
        masks.setdefault(place.of_image(), images.pop(place))
    masks = {place if place in images else place.of_image(): path for place, path in masks.items()}
    if not images.keys() & masks.keys():
        remarks.passed_over.places.clear()
        return {}, (len(images), len(masks))
    for place in sorted(images.keys() - masks.keys()):
        remarks.passed_over.add("without a mask", images[place].relative_to(folder))
    for place in sorted(masks.keys() - images.keys()):
        remarks.passed_over.add("masks without an image", masks[place].relative_to(folder))
    pairs: dict[str, list[MaskPair]] = {}
    for place in sorted(images.keys() & masks.keys()):
        pairs.setdefault(place.part or "train", []).append(MaskPair(images[place], masks[place]))
    return pairs, (len(images), len(masks))


def mask_folder_files(folder: Path, objects: bool) -> list[Path]:
    """The files by which a folder is known again: images, masks, and those that say what masks mean.

    Raises:
        UsageError: there are none that can be used.
    """
    found = find_mask_folder(folder, objects, Remarks())
    paths = (path for listed in found.pairs.values() for pair in listed for path in pair if isinstance(path, Path))
    return [*found.tables, *paths]


def decode_mask_folder(
    folder: Path, objects: bool, classes: list[str]
) -> tuple[dict[str, SegmentedImages], list[str], Remarks]:
    """Decodes a folder's images and masks, each part in random order; unused files are noted.

    Images are grey where all of them are, else RGB.

    Args:
        folder: of the user.
        objects: whether masks number objects, instead of classes.
        classes: names of the classes, where they are known; else empty.

    Raises:
        UsageError: the masks cannot be read as classes or objects.
    """
    from tqdm import tqdm

    remarks = Remarks()
    pairs, table, _ = find_mask_folder(folder, objects, remarks)
    reader = MaskReader(table._replace(names=classes) if classes else table, objects)
    read: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {part: [] for part in pairs}
    print(f"decoding {sum(map(len, pairs.values())):,} images and masks of {folder}, once", file=sys.stderr)
    with tqdm(total=sum(map(len, pairs.values())), disable=None, unit="image") as bar:
        for part, listed in pairs.items():
            for place in np.random.default_rng(0).permutation(len(listed)):
                bar.update()
                if (example := read_pair(listed[place], folder, table, remarks)) is not None:
                    read[part].append(example)
                    reader.see(example[1])
    read = {part: examples for part, examples in read.items() if examples}
    if "train" not in read:
        raise UsageError(f"--data {folder}: none of the training images can be used ({remarks})")
    grey = all(is_grey(pixels) for examples in read.values() for pixels, _ in examples)
    names, convert = reader.classes(folder)
    parts = {
        part: SegmentedImages(
            [pixels[..., :1] if grey else pixels for pixels, _ in examples],
            [convert(mask) for _, mask in examples],
        )
        for part, examples in read.items()
    }
    return parts, names, remarks


def is_grey(pixels: np.ndarray) -> bool:
    """Whether an RGB image (height, width, 3) has no colours."""
    return bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 0] == pixels[..., 2]).all())


def read_pair(
    pair: MaskPair, folder: Path, table: ClassTable, remarks: Remarks
) -> tuple[np.ndarray, np.ndarray] | None:
    """RGB pixels and mask of a pair; None where one cannot be read or they differ in size, which is noted."""
    try:
        picture = open_picture(pair.image)
        mask = pair.mask.drawn(picture) if isinstance(pair.mask, PolygonMask) else read_mask(pair.mask, table)
    except ValueError as error:
        print(f"skipped {pair.image}: {error}", file=sys.stderr)
        remarks.passed_over.add("that cannot be read", pair.image.relative_to(folder))
        return None
    if mask.shape != (picture.height, picture.width):
        remarks.passed_over.add("whose mask is of another size", pair.image.relative_to(folder))
        return None
    return np.asarray(picture), mask
