"""Augmentation of an image together with its mask, in NumPy: the same on every backend."""

import numpy as np
from PIL import Image

from shared.data.segmentation.segmented_images import UNLABELLED


def padded_example(pixels: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (height, width, channels) and its mask with at least `size` rows and columns.

    What is added mirrors the image, and is unlabelled.
    """
    missing = [max(0, size - length) for length in mask.shape]
    if not any(missing):
        return pixels, mask
    around = [(length // 2, length - length // 2) for length in missing]
    return np.pad(pixels, [*around, (0, 0)], mode="reflect"), np.pad(mask, around, constant_values=UNLABELLED)


def centre_crop(pixels: np.ndarray, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The middle (size, size) of an image and its mask; smaller ones are padded."""
    pixels, mask = padded_example(pixels, mask, size)
    top, left = ((length - size) // 2 for length in mask.shape)
    return pixels[top : top + size, left : left + size], mask[top : top + size, left : left + size]


def random_crop_and_scale(
    pixels: np.ndarray, mask: np.ndarray, size: int, scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random square of an image and its mask, scaled to (size, size) by a random factor from 1 / scale to scale."""
    side = size if scale == 1 else max(2, round(size * np.exp(rng.uniform(-1, 1) * np.log(scale))))
    pixels, mask = padded_example(pixels, mask, side)
    top, left = (rng.integers(length - side + 1) for length in mask.shape)
    pixels, mask = pixels[top : top + side, left : left + side], mask[top : top + side, left : left + side]
    if side == size:
        return pixels, mask
    channels = [
        np.asarray(Image.fromarray(pixels[..., channel]).resize((size, size), Image.Resampling.BILINEAR))
        for channel in range(pixels.shape[-1])
    ]
    nearest = ((np.arange(size) + 0.5) * side / size).astype(int)
    return np.stack(channels, axis=-1), mask[nearest[:, None], nearest]


def random_orientation(
    pixels: np.ndarray, mask: np.ndarray, turn: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Random horizontal flip; with `turn` also quarter turns, so that all eight orientations are as likely."""
    quarters = rng.integers(4) if turn else 0
    step = rng.choice([-1, 1])
    return np.rot90(pixels, quarters)[:, ::step], np.rot90(mask, quarters)[:, ::step]


def random_brightness(pixels: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Random gain of an image, from exp(-strength) to exp(strength), and a tenth of that for each channel by itself."""
    gain = np.exp(strength * (rng.uniform(-1, 1) + 0.1 * rng.uniform(-1, 1, pixels.shape[-1])))
    return np.clip(np.round(pixels * gain), 0, 255).astype(np.uint8)
