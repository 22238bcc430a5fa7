"""Prediction of a generative recipe: images of a class."""

from collections.abc import Callable, Iterable

import numpy as np
from PIL import Image

from shared.errors import UsageError
from shared.training.predictors import ClassName, InputError, Pictures, Watcher


def pictures_of_class(
    draw: Callable[[np.ndarray], Iterable[np.ndarray]],
    name: ClassName,
    classes: list[str] | None,
    count: int,
    watch: Watcher | None = None,
) -> Pictures:
    """Samples images of a class.

    Args:
        draw: from labels (count,) to images (count, height, width, channels) in uint8, in stages, of which the last
            are the answer.
        name: of the class; empty for an unconditional generator.
        classes: all class names, or None for an unconditional generator.
        count: number of images.
        watch: is shown the images of each stage.

    Raises:
        InputError: there is no such class.
        UsageError: the count is below 1.
    """
    if name not in (classes or [""]):
        known = f"one of {', '.join(classes)}" if classes else "nothing: this model was trained without classes"
        raise InputError(f"{name!r} is not a class of the data: name {known}")
    if count < 1:
        raise UsageError(f"--count must be at least 1, not {count}")
    for images in draw(np.full(count, classes.index(name) if classes else 0)):
        pictures = Pictures([Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image) for image in images])
        if watch:
            watch(pictures)
    return pictures
