"""RandAugment in NumPy (Cubuk et al. 2019, arXiv:1909.13719): for each image of a batch a few operations at random.

Each operation takes images (batch, height, width, channels) in uint8 and the strength for each, from −1 to 1, of which
those that know no direction take the absolute value; and returns new images. Ranges are those of the paper's table; the
operations on colours compute what Pillow's do. What lies outside of an image is grey, 128.
"""

import numpy as np

LEVELS = np.arange(256)
"""The values of a pixel."""


def rand_augment(images: np.ndarray, rng: np.random.Generator, operations: int, magnitude: float) -> np.ndarray:
    """Applies operations to each image, drawn from `RAND_AUGMENT_OPERATIONS`.

    Args:
        images: (batch, height, width, channels), uint8; with 3 channels these are red, green and blue.
        rng: a NumPy generator.
        operations: number of operations for each image, N in the paper.
        magnitude: 0 to 10, M in the paper; the direction is random.

    Returns:
        The same shape and dtype.
    """
    kinds = rng.integers(len(RAND_AUGMENT_OPERATIONS), size=(operations, len(images)))
    strengths = np.where(rng.random((operations, len(images))) < 0.5, -1, 1) * magnitude / 10
    images = images.copy()
    for kind, strength in zip(kinds, strengths, strict=True):
        for index, operation in enumerate(RAND_AUGMENT_OPERATIONS.values()):
            chosen = np.flatnonzero(kind == index)
            if len(chosen):
                images[chosen] = operation(images[chosen], strength[chosen])
    return images


def warped(images: np.ndarray, a=1.0, b=0.0, c=0.0, d=0.0, e=1.0, f=0.0) -> np.ndarray:
    """Affine transformation around the middle of each image, with the nearest pixels.

    From offsets x and y from the middle, in pixels, to a·x + b·y + c and d·x + e·y + f in the original; each of the
    entries is a number, or one for each image.
    """
    height, width = images.shape[1:3]
    y, x = np.meshgrid(np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2, indexing="ij")
    a, b, c, d, e, f = (np.reshape(entry, (-1, 1, 1)) for entry in (a, b, c, d, e, f))
    columns = np.floor(a * x + b * y + c + width / 2).astype(int)
    rows = np.floor(d * x + e * y + f + height / 2).astype(int)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = images[np.arange(len(images))[:, None, None], rows.clip(0, height - 1), columns.clip(0, width - 1)]
    return np.where(inside[..., None], found, np.uint8(128))


def rotated(images: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rotation by angles (batch,) in radians, counterclockwise."""
    return warped(images, a=np.cos(angle), b=-np.sin(angle), d=np.sin(angle), e=np.cos(angle))


def looked_up(images: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Each value replaced by that of a table (batch, channels or 1, 256), which is clipped to 0 to 255."""
    tables = np.broadcast_to(tables.clip(0, 255).astype(np.uint8), (len(images), images.shape[3], 256))
    batch, channels = np.ogrid[: len(images), : images.shape[3]]
    return tables[batch[:, None, None, :], channels[None, None], images]


def grey_levels(images: np.ndarray) -> np.ndarray:
    """Brightness (batch, height, width, 1), 0 to 255, float64, rounded down to whole numbers."""
    if images.shape[3] != 3:
        return images[..., :1].astype(float)
    return np.floor(images @ np.array([0.299, 0.587, 0.114]) + 0.5)[..., None]


def blended(images: np.ndarray, plain: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Images moved away from a plain version of themselves, or towards it, by up to 90 % of the difference."""
    factor = (1 + 0.9 * strength)[:, None, None, None]
    return (plain + factor * (images - plain)).clip(0, 255).astype(np.uint8)


def contrast(images, strength):
    """Contrast, about the mean brightness of the image."""
    mean = np.floor(grey_levels(images).mean(axis=(1, 2, 3)) + 0.5)[:, None, None]
    return looked_up(images, mean + (1 + 0.9 * strength)[:, None, None] * (LEVELS - mean))


def sharpness(images, strength):
    """Sharpness of all but the outermost pixels."""
    smooth = images.astype(float)
    height, width = images.shape[1:3]
    weighted = sum(
        (5 if row == column == 1 else 1) * images[:, row : height - 2 + row, column : width - 2 + column].astype(float)
        for row in range(3)
        for column in range(3)
    )
    smooth[:, 1:-1, 1:-1] = np.floor(weighted / 13 + 0.5)
    return blended(images, smooth, strength)


def posterize(images, strength):
    """Keeps 8 to 4 bits of each value."""
    steps = 2 ** np.round(4 * np.abs(strength)).astype(int)[:, None, None]
    return looked_up(images, LEVELS // steps * steps)


def solarize(images, strength):
    """Inverts values from a threshold on, which is 256 to 0."""
    threshold = 256 * (1 - np.abs(strength))[:, None, None]
    return looked_up(images, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def autocontrast(images, strength):
    """Stretches each channel to 0 to 255."""
    least, most = (extreme(axis=(1, 2))[..., None].astype(float) for extreme in (images.min, images.max))
    stretched = (LEVELS - least) * (255 / np.maximum(most - least, 1))
    return looked_up(images, np.where(most > least, stretched, LEVELS))


def equalize(images, strength):
    """Equalizes the histogram of each channel."""
    batch, _, _, channels = images.shape
    first = 256 * np.arange(batch * channels).reshape(batch, 1, 1, channels)
    counts = np.bincount((images + first).ravel(), minlength=256 * batch * channels).reshape(batch, channels, 256)
    highest = np.take_along_axis(counts, 255 - (counts[..., ::-1] > 0).argmax(axis=-1)[..., None], axis=-1)
    step = (counts.sum(axis=-1, keepdims=True) - highest) // 255
    below = counts.cumsum(axis=-1) - counts
    return looked_up(images, np.where(step > 0, (step // 2 + below) // np.maximum(step, 1), LEVELS))


RAND_AUGMENT_OPERATIONS = {
    "unchanged": lambda images, s: images,
    "shear_x": lambda images, s: warped(images, b=0.3 * s),
    "shear_y": lambda images, s: warped(images, d=0.3 * s),
    "translate_x": lambda images, s: warped(images, c=np.round(0.45 * images.shape[2] * s)),
    "translate_y": lambda images, s: warped(images, f=np.round(0.45 * images.shape[1] * s)),
    "rotate": lambda images, s: rotated(images, np.radians(30 * s)),
    "brightness": lambda images, s: looked_up(images, (1 + 0.9 * s)[:, None, None] * LEVELS),
    "colour": lambda images, s: blended(images, grey_levels(images), s),
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
}
"""From images and the strength s for each."""
