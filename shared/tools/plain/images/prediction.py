"""Classes of single images."""

import keras
import numpy as np
from PIL import Image, ImageOps

from shared.images.metrics import softmax
from shared.training.predictors import Probabilities


def class_probabilities(model: keras.Model, image: Image.Image, classes: list[str]) -> Probabilities:
    """The probability of each class for an image of any size, which is scaled and cut to what the model takes."""
    height, width, channels = model.input_shape[1:]
    cut = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR).convert("RGB" if channels == 3 else "L")
    (row,) = softmax(model.predict(np.asarray(cut).reshape(1, height, width, channels), verbose=0))
    return Probabilities(dict(zip(classes, row.tolist(), strict=True)))
