"""Labelled images."""

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
    needs_classes: bool = True,
    per_class: int | None = None,
    test_limit: int | None = None,
) -> ImageData:
    """Loads a set by its name, or a folder that holds a folder of images for each class."""
    name = preferred if name == "auto" else name
    if Path(name).is_dir():
        classes, train, test = read_folder(Path(name), size)
    else:
        classes, train, test = read_set(name, directory, None if own_size else size)
    channels = np.moveaxis(train.images, -1, 0)
    mean, deviation = [float(each.mean()) for each in channels], [max(1.0, float(each.std())) for each in channels]
    held_out, train = split_off(train, validation)
    if per_class:
        count = max(1, round(per_class * validation))
        held_out, train = few_of_each(held_out, count), few_of_each(train, per_class - count)
    parts = {"train": train.first(limit), "validation": held_out, "test": test.first(test_limit)}
    print(f"{name}: {', '.join(f'{len(each.labels):,} images for {part}' for part, each in parts.items())}")
    return ImageData(name, classes, **parts, mean=mean, deviation=deviation, mirrored=name != "mnist")


def split_off(images: LabelledImages, share: float) -> tuple[LabelledImages, LabelledImages]:
    """A random share of the images, always the same, and the others."""
    order = np.random.default_rng(0).permutation(len(images.labels))
    parts = np.split(order, [round(len(order) * share)])
    return tuple(LabelledImages(images.images[part], images.labels[part]) for part in parts)


def resized(image: Image.Image, size: int | None) -> np.ndarray:
    """The pixels of an image, cut to a square around its middle and scaled to `size` pixels each way."""
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR))


def read_set(name: str, directory: Path | None, size: int | None) -> tuple[list[str], LabelledImages, LabelledImages]:
    """Classes, training and test images of a set that TFDS has prepared or can prepare, or that Keras downloads."""
    prepared = directory and directory / "tfds" / name
    if name in CLASSES and not (prepared and prepared.is_dir()):
        classes, parts = CLASSES[name].split(","), getattr(keras.datasets, name).load_data()
    else:
        import tensorflow_datasets as tfds

        builder = tfds.builder(name, data_dir=directory and directory / "tfds")
        builder.download_and_prepare(file_format="array_record")
        classes = builder.info.features["label"].names
        sources = [builder.as_data_source(split) for split in ("train", "test")]
        parts = [zip(*((example["image"], example["label"]) for example in source), strict=True) for source in sources]
    found = []
    for images, labels in parts:
        images = np.stack([resized(Image.fromarray(image.squeeze()), size) for image in images])
        images = images[..., None] if images.ndim == 3 else images
        found.append(LabelledImages(images, np.asarray(labels, np.int64).ravel()))
    return classes, *found


def read_folder(folder: Path, size: int | None) -> tuple[list[str], LabelledImages, LabelledImages]:
    """Classes, training and test images of a folder; without folders named train and test, a fifth is for the test."""
    places = [folder / part for part in ("train", "test")] if (folder / "test").is_dir() else [folder]
    classes = sorted(path.name for path in places[0].iterdir() if path.is_dir() and not path.name.startswith("."))
    found = []
    for place in places:
        images, labels = [], []
        for label, name in enumerate(classes):
            for path in sorted((place / name).glob("*.*")):
                images.append(resized(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), size))
                labels.append(label)
        if len({image.shape for image in images}) != 1:
            raise UsageError(f"{place} holds no images, or images of several sizes: cut them to one by --image-size")
        found.append(LabelledImages(np.stack(images), np.array(labels)))
    test, train = (found[1], found[0]) if len(found) > 1 else split_off(found[0], 1 / 5)
    return classes, split_off(train, 0.0)[1], test  # the training images in random order
