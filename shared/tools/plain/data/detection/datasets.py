"""Images with boxes."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from shared.data.detection.boxed_images import (
    BoxedImages,
    DetectionData,
    box_areas,
    clip_boxes,
    letterbox,
    letterbox_boxes,
    padded_boxes,
)
from shared.errors import UsageError


def load_detection(
    name: str, directory: Path | None, preferred: str, validation: float, size: int, limit: int | None = None
) -> DetectionData:
    """Loads a set of TFDS, or a folder of images with a text file of YOLO's beside each, scaled to squares."""
    name = preferred if name == "auto" else name
    classes, found = read_yolo(Path(name)) if Path(name).is_dir() else read_tfds(name, directory)
    parts = {part: boxed_images(examples, size) for part, examples in found.items()}
    if "validation" not in parts:
        order = np.random.default_rng(0).permutation(len(parts["train"].images))
        chosen = np.split(order, [max(1, round(len(order) * validation))])
        parts["validation"], parts["train"] = (BoxedImages(*(each[part] for each in parts["train"])) for part in chosen)
    parts = {"test": parts["validation"], **parts, "train": parts["train"].between(None, limit)}
    print(f"{name}: {', '.join(f'{len(each.images):,} images for {part}' for part, each in parts.items())}")
    return DetectionData(name, classes, **parts, mirrored=True)


def boxed_images(examples: Iterable[tuple[Image.Image, np.ndarray, np.ndarray]], size: int) -> BoxedImages:
    """Images, their boxes in fractions of their sides and the classes of these, as squares of `size` pixels."""
    images, all_boxes, all_labels = [], [], []
    for image, boxes, labels in examples:
        square = letterbox(image, size)
        boxes = clip_boxes(boxes.reshape(-1, 4) * np.tile(image.size, 2), *image.size)
        kept = box_areas(boxes) > 0
        images.append(square.pixels)
        all_boxes.append(letterbox_boxes(boxes[kept], square.scale, square.offset))
        all_labels.append(labels[kept])
    return BoxedImages(np.stack(images), *padded_boxes(all_boxes, all_labels))


def read_tfds(name: str, directory: Path | None) -> tuple[list[str], dict[str, Iterable]]:
    """Classes, and images with boxes and labels by part, of a set of TFDS."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=directory and directory / "tfds")
    builder.download_and_prepare(file_format="array_record")
    classes = builder.info.features["objects"]["label"].names

    def examples(part):
        for example in builder.as_data_source(part):
            top, left, bottom, right = np.moveaxis(np.asarray(example["objects"]["bbox"]).reshape(-1, 4), 1, 0)
            boxes = np.stack([left, top, right, bottom], axis=1)
            yield Image.fromarray(example["image"]), boxes, np.asarray(example["objects"]["label"], np.int64)

    parts = [part for part in ("train", "validation", "test") if part in builder.info.splits]
    return classes, {part: examples(part) for part in parts}


def read_yolo(folder: Path) -> tuple[list[str], dict[str, Iterable]]:
    """The same of a folder with classes.txt and, perhaps in folders train, validation and test, images and texts.

    A line of a text is "class x y width height": a number, and the middle of a box and its size as fractions of the
    image.
    """
    classes = (folder / "classes.txt").read_text(encoding="utf-8").split("\n")
    classes = [name.strip() for name in classes if name.strip()]

    def examples(place):
        for path in sorted(path for path in place.rglob("*.txt") if path.name != "classes.txt"):
            rows = np.array(path.read_text(encoding="utf-8").split(), float).reshape(-1, 5)
            middle, half = rows[:, 1:3], rows[:, 3:] / 2
            (image,) = (other for other in path.parent.glob(f"{path.stem}.*") if other != path)
            image = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
            yield image, np.concatenate([middle - half, middle + half], axis=1), rows[:, 0].astype(np.int64)

    places = {part: folder / part for part in ("train", "validation", "test") if (folder / part).is_dir()}
    if places and "train" not in places:
        raise UsageError(f"{folder} holds no folder train: put the training images there")
    return classes, {part: examples(place) for part, place in (places or {"train": folder}).items()}
