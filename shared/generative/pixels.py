"""Pixel ranges: 0 to 255 in files, −1 to 1 in generative networks."""

import numpy as np


def scaled_pixels(images: np.ndarray) -> np.ndarray:
    """Images in uint8 as float32, −1 to 1."""
    return images.astype(np.float32) / 127.5 - 1


def shown_image(image: np.ndarray) -> np.ndarray:
    """Images from -1 to 1, clipped, as uint8."""
    return np.clip(np.round((image + 1) * 127.5), 0, 255).astype(np.uint8)
