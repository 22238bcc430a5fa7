"""Images of a class."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from shared.training.predictors import ClassName, Pictures


def pictures_of_class(draw: Callable, name: ClassName, classes: list[str] | None, count: int) -> Pictures:
    """Images of a class by its name; `draw` makes images for labels, in stages, of which the last counts."""
    *_, images = draw(np.full(count, classes.index(name) if classes else 0))
    return Pictures([Image.fromarray(image.squeeze()) for image in images])
