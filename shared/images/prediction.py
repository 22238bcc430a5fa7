"""Prediction of an image classifier."""

from collections.abc import Callable

import keras

from shared.backends.compiling import compiled_model
from shared.data.images.files import fitted_pixels
from shared.images.metrics import softmax
from shared.training.predictors import Picture, Probabilities


def image_classifier(model: keras.Model, classes: list[str]) -> Callable[[Picture], Probabilities]:
    """Function from an image of any size to class probabilities; it resizes and crops to the model's input.

    Args:
        model: from pixels (batch, height, width, channels) in uint8 to logits (batch, classes).
        classes: class names.
    """
    logits = compiled_model(model)

    def classify(image: Picture) -> Probabilities:
        """Classifies an image."""
        pixels = fitted_pixels(image, model.input_shape[1:])
        (row,) = softmax(logits(pixels[None]))
        return Probabilities(dict(zip(classes, row.tolist(), strict=True)))

    return classify
