"""Bundled segmentation data: synthetic micrographs of cells with exact masks."""

import numpy as np

from shared.data.segmentation.segmented_images import SegmentedImages

CELL_COUNTS = {"train": 120, "validation": 20, "test": 30}
"""Images of each part."""


CELL_IMAGE_SIZE = 96


CELLS_VERSION = 1
"""Version of the images; increase it when they change, to invalidate caches."""


def make_cells() -> dict[str, SegmentedImages]:
    """Makes the images of each part, always the same."""
    parts = {}
    for seed, (part, count) in enumerate(CELL_COUNTS.items()):
        rng = np.random.default_rng(seed)
        pixels, masks = zip(*(cell_image(CELL_IMAGE_SIZE, rng) for _ in range(count)), strict=True)
        parts[part] = SegmentedImages(list(pixels), list(masks))
    return parts


def cell_image(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bright, textured ellipses that may touch, on an uneven background with noise.

    Args:
        size: height and width, in pixels.
        rng: of all choices.

    Returns:
        Grey levels (size, size, 1) in uint8, and the number of the cell of each pixel (size, size) in uint16.
    """
    rows, columns = np.mgrid[:size, :size]
    light = rng.uniform(0.3, 1)
    slope = rng.normal(0, 0.1, 2)
    scene = light * (0.12 + slope[0] * (rows / size - 0.5) + slope[1] * (columns / size - 0.5))
    mask = np.zeros((size, size), np.uint16)
    for number in range(1, rng.integers(4, 15) + 1):
        axes, angle, (top, left) = rng.uniform(5, 12, 2), rng.uniform(0, np.pi), rng.uniform(0, size, 2)
        down, right = rows - top, columns - left
        turned = np.cos(angle) * down + np.sin(angle) * right, np.cos(angle) * right - np.sin(angle) * down
        inside = (turned[0] / axes[0]) ** 2 + (turned[1] / axes[1]) ** 2 < 1
        if inside.sum() > 20 and not (inside & (mask > 0)).any():
            texture = np.sin(rows / rng.uniform(1, 3) + rng.uniform(0, 6)) * np.sin(columns / rng.uniform(1, 3))
            scene = np.where(inside, light * rng.uniform(0.35, 0.9) * (1 + 0.2 * texture), scene)
            mask[inside] = number
    for axis in (0, 1):  # a little blur
        scene = (np.roll(scene, 1, axis) + 2 * scene + np.roll(scene, -1, axis)) / 4
    scene = 255 * np.clip(scene + rng.normal(0, 0.04, scene.shape), 0, 1)
    _, numbers = np.unique(mask, return_inverse=True)
    return np.round(scene).astype(np.uint8)[..., None], numbers.reshape(mask.shape).astype(np.uint16)
