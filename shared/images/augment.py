"""Image augmentation in NumPy, random for each image of a batch.

Each function takes images (batch, height, width, channels) of any dtype and a NumPy generator, and returns new images
of the same shape and dtype. Random numbers are drawn on the host, so that every backend trains on the same images.
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
