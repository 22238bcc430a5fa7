"""Prediction of an image classifier."""

import keras
from PIL import Image

from shared.data.images.files import fitted_pixels
from shared.images.metrics import softmax
from shared.training.predictors import Probabilities


def class_probabilities(model: keras.Model, image: Image.Image, classes: list[str]) -> Probabilities:
    """Class probabilities of an image of any size, which is resized and cropped to the model's input.

    Args:
        model: from pixels (batch, height, width, channels) in uint8 to logits (batch, classes).
        image: in RGB.
        classes: class names.
    """
    pixels = fitted_pixels(image, model.input_shape[1:])
    (row,) = softmax(model.predict(pixels[None], verbose=0))
    return Probabilities(dict(zip(classes, row.tolist(), strict=True)))
