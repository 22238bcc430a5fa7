"""Pixels as numbers from 0 to 255, as files have them, and from −1 to 1, as networks that make images do."""

import numpy as np


def scaled_pixels(images: np.ndarray) -> np.ndarray:
    """Images of uint8 in floats of 32 bits, −1 to 1."""
    return images.astype(np.float32) / 127.5 - 1


def shown_image(image: np.ndarray) -> np.ndarray:
    """Pixels in uint8 of images whose range is -1 to 1; what is beyond is cut off."""
    return np.clip(np.round((image + 1) * 127.5), 0, 255).astype(np.uint8)
