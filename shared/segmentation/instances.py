"""Instance segmentation: the border class that a network learns, and a watershed on its predictions."""

import numpy as np

BACKGROUND = 0
"""With the next two, the classes of pixels in instance segmentation."""


INTERIOR = 1


BORDER = 2


SMOOTHING = 1.0
"""Standard deviation by which the depth in the interior of objects is smoothed, in pixels."""


SMALLEST_RISE = 0.25
"""How much deeper than the ridge between them two maxima must lie to be two objects, in pixels."""


def border_targets(mask: np.ndarray) -> np.ndarray:
    """Background, interior and border of objects: their outermost pixels, in int32.

    Args:
        mask: (height, width), the number of the object of each pixel, 0 for the background.
    """
    padded = np.pad(mask, 1, mode="edge")
    height, width = mask.shape
    neighbours = [padded[down : down + height, right : right + width] for down in range(3) for right in range(3)]
    border = np.any([each != mask for each in neighbours], axis=0)
    return np.where(mask == 0, BACKGROUND, np.where(border, BORDER, INTERIOR)).astype(np.int32)


def separate_objects(probabilities: np.ndarray, smallest: int) -> np.ndarray:
    """Number of the object of each pixel, (height, width) in uint16, 0 for the background.

    A watershed over the foreground (Meyer 1994), from the pixels that lie deepest in the interiors: the maxima of the
    distance transform, smoothed, so that two objects whose interiors touch have two. An interior that is too small for
    one is a seed too, and so is foreground without an interior.

    Args:
        probabilities: (height, width, 3) of background, interior and border.
        smallest: smaller objects, in pixels, are dropped.
    """
    from scipy import ndimage
    from skimage.morphology import h_maxima
    from skimage.segmentation import watershed

    foreground = probabilities[..., BACKGROUND] < 0.5
    interior = foreground & (probabilities[..., INTERIOR] > probabilities[..., BORDER])
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(interior), SMOOTHING)
    seeds = ndimage.label(h_maxima(depth, SMALLEST_RISE))[0]
    for region in (interior, foreground):
        parts, count = ndimage.label(region)
        seeded = np.bincount(parts.ravel(), seeds.ravel() > 0, minlength=count + 1) > 0
        seeds = np.where(seeded[parts], seeds, np.where(parts > 0, parts + seeds.max(), 0))
    _, numbers = np.unique(without_small(watershed(-depth, seeds, mask=foreground), smallest), return_inverse=True)
    return numbers.reshape(foreground.shape).astype(np.uint16)


def without_small(objects: np.ndarray, smallest: int) -> np.ndarray:
    """Numbered objects (height, width), without those of fewer pixels than `smallest`."""
    sizes = np.bincount(objects.ravel())
    return np.where(sizes[objects] < smallest, 0, objects)
