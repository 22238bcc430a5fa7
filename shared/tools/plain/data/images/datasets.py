"""Labelled images."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image, ImageOps

from shared.data.images.datasets import LabelledImages, few_of_each
from shared.errors import UsageError

CLASSES = {
    "cifar10": "airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck",
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
    "mnist": "0,1,2,3,4,5,6,7,8,9",
}


class ImageData(NamedTuple):
    """Labelled images of one size, split for training, for choices, and for the final measurement."""

    name: str
    classes: list[str]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    mean: list[float]  # of the training images, a value a channel, in 0..255
    deviation: list[float]
    mirrored: bool  # whether an image mirrored left to right is still of its class


def load_images(
    name: str,
    directory: Path | None,
    preferred: str,
    validation: float,
    limit: int | None = None,
    size: int | None = None,
    own_size: bool = False,
    per_class: int | None = None,
    test_limit: int | None = None,
) -> ImageData:
    """Loads a set by its name, or a folder that holds a folder of images for each class."""
    name = preferred if name == "auto" else name
    classes, found = read_folder(Path(name)) if Path(name).is_dir() else read_set(name, directory)
    parts = {}
    for part, examples in found.items():
        images, labels = zip(*examples, strict=True)
        sizes = {image.size for image in images}
        if size and not (own_size and len(sizes) == 1):
            images = [ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR) for image in images]
        elif len(sizes) > 1:
            raise UsageError(f"{name} has images of several sizes: cut them to one by --image-size")
        pixels = np.stack([np.asarray(image) for image in images])
        parts[part] = LabelledImages(pixels.reshape(*pixels.shape[:3], -1), np.array(labels, np.int64))
    if "test" not in parts:
        parts["test"], parts["train"] = split_off(parts["train"], 1 / 5)
    channels = np.moveaxis(parts["train"].images, -1, 0)
    parts["validation"], parts["train"] = split_off(parts["train"], validation)
    if per_class:
        count = max(1, round(per_class * validation))
        parts["validation"] = few_of_each(parts["validation"], count)
        parts["train"] = few_of_each(parts["train"], per_class - count)
    parts["train"] = LabelledImages(*(each[:limit] for each in parts["train"]))
    parts["test"] = LabelledImages(*(each[:test_limit] for each in parts["test"]))
    print(f"{name}: {', '.join(f'{len(each.labels):,} images for {part}' for part, each in parts.items())}")
    mean, deviation = ([float(of(each)) for each in channels] for of in (np.mean, np.std))
    return ImageData(name, classes, **parts, mean=mean, deviation=deviation, mirrored=name != "mnist")


def split_off(images: LabelledImages, fraction: float) -> tuple[LabelledImages, LabelledImages]:
    """A random fraction of the images, always the same, and the others."""
    order = np.random.default_rng(0).permutation(len(images.labels))
    parts = np.split(order, [round(len(order) * fraction)])
    return tuple(LabelledImages(images.images[part], images.labels[part]) for part in parts)


def read_set(name: str, directory: Path | None) -> tuple[list[str], dict[str, Iterable]]:
    """Classes, and pairs of image and label, of a set that TFDS prepared in the data directory, or Keras downloads."""
    if directory and (directory / "tfds" / name).is_dir():
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=directory / "tfds")
        classes = builder.info.features["label"].names
        source = {part: builder.as_data_source(part) for part in ("train", "test") if part in builder.info.splits}
        found = {part: ((each["image"], each["label"]) for each in examples) for part, examples in source.items()}
    elif name in CLASSES:
        classes = CLASSES[name].split(",")
        found = zip(("train", "test"), getattr(keras.datasets, name).load_data(), strict=True)
        found = {part: zip(*arrays, strict=True) for part, arrays in found}
    else:
        raise UsageError(f"there is no data set or folder {name}: choose one of {', '.join(CLASSES)}")
    return classes, {
        part: ((Image.fromarray(image.squeeze()), int(label)) for image, label in each) for part, each in found.items()
    }


def read_folder(folder: Path) -> tuple[list[str], dict[str, Iterable]]:
    """Classes, and pairs of image and label, of a folder, which may hold folders train and test."""
    places = {part: folder / part for part in ("train", "test") if (folder / part).is_dir()} or {"train": folder}
    classes = sorted(path.name for path in places["train"].iterdir() if path.is_dir())

    def examples(place):
        for label, name in enumerate(classes):
            for path in sorted((place / name).glob("*.*")):
                yield ImageOps.exif_transpose(Image.open(path)).convert("RGB"), label

    return classes, {part: examples(place) for part, place in places.items()}
