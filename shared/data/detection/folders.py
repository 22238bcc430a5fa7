"""Folders of images with boxes, in the formats of labelling tools.

A format is a module with a function that finds its annotations in a folder and one that reads them, and a line of
`FORMATS`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.data.detection.annotations import AnnotatedPictures, BoxFolder, has_suffix, readable_examples
from shared.data.detection.boxed_images import BoxedImages, boxed_images
from shared.data.detection.coco import find_coco, read_coco
from shared.data.detection.csv_boxes import find_csv, read_box_csv
from shared.data.detection.cvat import find_cvat, read_cvat
from shared.data.detection.labelme import find_labelme, read_labelme
from shared.data.detection.pascal_voc import find_voc, read_voc
from shared.data.detection.remarks import Remarks
from shared.data.detection.yolo import YOLO_SUFFIXES, find_yolo, read_yolo
from shared.data.images.folders import PARTS
from shared.data.places import fingerprint_of
from shared.errors import UsageError


class AnnotationFormat(NamedTuple):
    """An annotation format."""

    name: str
    suffixes: tuple[str, ...]
    """Suffixes of the annotation files and of settings that affect their reading."""
    find: Callable[[BoxFolder], Any]
    """Function that finds annotations of this format in a folder; empty or None if there are none."""
    read: Callable[[BoxFolder, Any], AnnotatedPictures]
    """Function that reads classes and pictures of a folder, from the result of `find`."""


FORMATS = (
    AnnotationFormat("YOLO's text files", YOLO_SUFFIXES, find_yolo, read_yolo),
    AnnotationFormat("COCO's json", (".json",), find_coco, read_coco),
    AnnotationFormat("Pascal VOC's xml", (".xml",), find_voc, read_voc),
    AnnotationFormat("LabelMe's json", (".json",), find_labelme, read_labelme),
    AnnotationFormat("CVAT's xml", (".xml",), find_cvat, read_cvat),
    AnnotationFormat("tables of boxes", (".csv",), find_csv, read_box_csv),
)
"""In the order in which they are tried."""


READING_VERSION = 2
"""Version of the decoding; increase it when the same files are decoded differently, to invalidate caches."""


def annotation_suffixes() -> set[str]:
    """Suffixes of annotation files and of settings that affect their reading."""
    return {suffix for each in FORMATS for suffix in each.suffixes}


def folder_fingerprint(place: Path, size: int) -> str:
    """A short hash of a folder's pictures and annotations, of the file in it that was chosen, and of `size`.

    Raises:
        UsageError: a file cannot be read.
    """
    folder = BoxFolder(place)
    files = [*folder.pictures, *folder.files_of(annotation_suffixes())]
    return fingerprint_of(files, folder.root, size, READING_VERSION, place.name if place.is_file() else "")


def decode_boxed_folder(place: Path, size: int) -> tuple[dict[str, BoxedImages], list[str], Remarks]:
    """Decodes a folder's pictures and boxes, each part in random order; unused files are noted.

    Args:
        place: the folder, or a file of annotations in it.
        size: height and width that pictures are scaled to, in pixels.

    Raises:
        UsageError: the folder has no pictures or no annotations, or a box is of a class that does not exist.
    """
    folder, suffixes = BoxFolder(place), annotation_suffixes()
    formats = [each for each in FORMATS if place.is_dir() or has_suffix(place, each.suffixes)]
    found, chosen = next(((found, each) for each in formats if (found := each.find(folder))), (None, None))
    if chosen is None and folder.hints:
        raise UsageError(folder.hints[0])
    if not folder.pictures:
        raise UsageError(f"--data {place} holds no images for training: add image files")
    if chosen is None:
        known = ", ".join(each.name for each in formats)
        others = [folder.name(path) for path in folder.files_of(suffixes - {".txt"})]
        raise UsageError(
            f"--data {place} holds {len(folder.pictures):,} images but no annotations in a known format: {known}"
            f"{f'; {others[0]} is none of them' if others else ''} (see docs/data.md)"
        )
    classes, parts, used = chosen.read(folder, found)
    remarks = folder.remarks
    remarks.form = chosen.name
    for path in folder.files_of(suffixes - {".txt"}):
        if path not in used:
            reason = "damaged files" if path in folder.damaged else "files that are not annotations of this kind"
            remarks.passed_over.add(reason, folder.name(path))
    if not parts.get("train"):
        raise UsageError(f"--data {place} holds no images for training that its annotations name ({remarks})")
    decoded = {}
    for part in PARTS:
        if pictures := parts.get(part):
            print(f"decoding {len(pictures):,} {part} images of {folder.root}, once", file=sys.stderr)
            order = np.random.default_rng(0).permutation(len(pictures))
            examples = readable_examples([pictures[index] for index in order], folder)
            decoded[part] = boxed_images(examples, len(pictures), size, remarks)
            if not len(decoded[part].images):
                raise UsageError(f"--data {place}: none of its {part} images can be used ({remarks})")
    return decoded, classes, remarks
