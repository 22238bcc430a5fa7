"""Images with boxes as people have them: a folder with YOLO's text files, or with COCO's json.

What a picture is for is told by the entries train, val and test of data.yaml, else by folders of these names (digits
may follow); with json files, by words in the name of the file, such as instances_train2017.json, or of its folders.
"""

import sys
from pathlib import Path

import numpy as np

from shared.data.annotated_pictures import readable_examples
from shared.data.boxes import BoxedImages, boxed_images
from shared.data.coco_json import coco_files, coco_pictures
from shared.data.folders import PARTS, picture_files
from shared.data.places import fingerprint_of
from shared.data.yolo_labels import class_names, yolo_pictures
from shared.errors import UsageError


def folder_fingerprint(folder: Path, size: int) -> str:
    """A short hash of a folder's pictures and annotations, and of `size`.

    Raises:
        UsageError: a file cannot be read.
    """
    annotations = {path for suffix in ("txt", "yaml", "yml", "json") for path in folder.rglob(f"*.{suffix}")}
    return fingerprint_of(annotations.union(picture_files(folder)), folder, size)


def decode_boxed_folder(folder: Path, size: int) -> tuple[dict[str, BoxedImages], list[str]]:
    """Reads a folder's pictures and boxes, each part in random order; what cannot be used is named on stderr.

    Raises:
        UsageError: the folder has no pictures or no annotations, or a box is of a class that does not exist.
    """
    if names := class_names(folder):
        classes, parts = names.classes, yolo_pictures(folder, names)
    elif files := coco_files(folder):
        classes, parts = coco_pictures(folder, files)
    else:
        raise UsageError(
            f"--data {folder} is no folder of images with boxes: name the classes of YOLO's text files in data.yaml or "
            "classes.txt, or add a json file as COCO has it"
        )
    if not parts.get("train"):
        raise UsageError(f"--data {folder} holds no images to train on: add image files")
    decoded = {}
    for part in PARTS:
        if pictures := parts.get(part):
            order = np.random.default_rng(0).permutation(len(pictures))
            examples = readable_examples([pictures[index] for index in order])
            decoded[part] = boxed_images(examples, len(pictures), size, f"{folder} {part}")
    counts = ", ".join(f"{len(images.labels)} {part}" for part, images in decoded.items())
    print(f"{folder}: {counts} images, {len(classes)} classes", file=sys.stderr)
    return decoded, classes
