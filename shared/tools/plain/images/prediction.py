"""Classes of single images."""

from collections.abc import Callable

import keras
import numpy as np
from PIL import Image, ImageOps

from shared.images.metrics import softmax
from shared.training.predictors import Picture, Probabilities


def image_classifier(model: keras.Model, classes: list[str]) -> Callable[[Picture], Probabilities]:
    """Function from an image of any size to class probabilities; it resizes and crops to the model's input."""
    height, width, channels = model.input_shape[1:]

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        cut = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR).convert("RGB" if channels == 3 else "L")
        (row,) = softmax(model.predict(np.asarray(cut).reshape(1, height, width, channels), verbose=0))
        return Probabilities(dict(zip(classes, row.tolist(), strict=True)))

    return classify
