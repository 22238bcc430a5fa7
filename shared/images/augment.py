"""Image augmentation in NumPy, random for each image of a batch.

Each function takes images (batch, height, width, channels) of any dtype and a NumPy generator, and returns new images
of the same shape and dtype; one that mixes images takes and returns their targets (batch, classes), too. Random numbers
are drawn on the host, so that every backend trains on the same images.
"""

import numpy as np


def random_flip(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random horizontal flip of half of the images."""
    flipped = rng.random(len(images)) < 0.5
    return np.where(flipped[:, None, None, None], images[:, :, ::-1], images)


def random_crop(images: np.ndarray, padding: int, rng: np.random.Generator) -> np.ndarray:
    """Random crop after reflection padding of `padding` pixels."""
    height, width = images.shape[1:3]
    shifts = rng.integers(-padding, padding + 1, (2, len(images), 1))
    rows = mirror_index(np.arange(height) + shifts[0], height)
    columns = mirror_index(np.arange(width) + shifts[1], width)
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def mirror_index(index: np.ndarray, size: int) -> np.ndarray:
    """Indices beyond 0..size-1, reflected at the outermost pixel."""
    index = np.abs(index)
    return np.where(index < size, index, 2 * (size - 1) - index)


def random_cutout(images: np.ndarray, size: int, fill: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cutout: covers a square of `size` pixels in each image (DeVries and Taylor 2017, arXiv:1708.04552).

    The square's centre is anywhere in the image, so that part of it may lie outside.

    Args:
        fill: value of the covered pixels, one or one per channel.
    """
    height, width = images.shape[1:3]
    top = rng.integers(0, height, (len(images), 1)) - size // 2
    left = rng.integers(0, width, (len(images), 1)) - size // 2
    rows, columns = np.arange(height), np.arange(width)
    covered = ((rows >= top) & (rows < top + size))[:, :, None] & ((columns >= left) & (columns < left + size))[:, None]
    return np.where(covered[..., None], np.asarray(fill, images.dtype), images)


def mixup(
    images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mixup: weighted means of an image and another of the batch, and of their targets (Zhang et al. 2018,
    arXiv:1710.09412).

    Args:
        alpha: the weights are drawn from Beta(alpha, alpha), for each image: the larger, the more equal.
    """
    others = rng.permutation(len(images))
    weights = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    x, y = weights[:, None, None, None], weights[:, None]
    mixed = x * images + (1 - x) * images[others]
    mixed = np.rint(mixed) if np.issubdtype(images.dtype, np.integer) else mixed
    return mixed.astype(images.dtype), (y * targets + (1 - y) * targets[others]).astype(targets.dtype)


def cutmix(
    images: np.ndarray, targets: np.ndarray, alpha: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """CutMix: a rectangle of each image is that of another of the batch, and the targets are mixed by its area (Yun et
    al. 2019, arXiv:1905.04899).

    The rectangle's centre is anywhere in the image; what of it lies outside does not count.

    Args:
        alpha: the area of the rectangle, as a fraction, is drawn from Beta(alpha, alpha), for each image.
    """
    count, (height, width) = len(images), images.shape[1:3]
    others = rng.permutation(count)
    side = np.sqrt(rng.beta(alpha, alpha, (count, 1)))
    inside = []
    for size in (height, width):
        middle, half = rng.integers(0, size, (count, 1)), side * size / 2
        first, last = np.rint(middle - half), np.rint(middle + half)
        inside.append((np.arange(size) >= first) & (np.arange(size) < last))
    covered = inside[0][:, :, None] & inside[1][:, None]
    fraction = covered.mean(axis=(1, 2), dtype=np.float32)[:, None]
    mixed = np.where(covered[..., None], images[others], images)
    return mixed, ((1 - fraction) * targets + fraction * targets[others]).astype(targets.dtype)
