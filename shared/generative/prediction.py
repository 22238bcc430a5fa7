"""Images of a class, by a trained generator."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from shared.errors import UsageError
from shared.training.predictors import ClassName, InputError, Pictures


def pictures_of_class(
    draw: Callable[[np.ndarray], np.ndarray], name: ClassName, classes: list[str] | None, count: int
) -> Pictures:
    """So many images of a class.

    Args:
        draw: makes an image (height, width, channels) in uint8 for each of the labels (count,) that it is given.
        name: of the class.
        classes: the names of all, or None for a generator that knows none, whose images have no name.
        count: how many images.

    Raises:
        InputError: there is no such class.
        UsageError: the count is below 1.
    """
    if name not in (classes or [""]):
        known = f"one of {', '.join(classes)}" if classes else "nothing: this model was trained without classes"
        raise InputError(f"{name!r} is not a class of the data: name {known}")
    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}")
    images = draw(np.full(count, classes.index(name) if classes else 0))
    return Pictures([Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images])
