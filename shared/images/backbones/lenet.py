"""LeNet-5 (LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition")."""

import keras
from keras import layers

from shared.images.backbones.variant import KUANGLIU, Variant
from shared.layers.resampling import MaxPooling


def lenet(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """LeNet-5 with ReLU and max pooling in place of tanh and trained subsampling; every map sees all maps below.

    Input: (batch, height, width, channels), at least 16 pixels a side. Output: logits (batch, classes) in float32.
    """
    for filters in (6, 16):
        x = layers.Conv2D(filters, 5, activation="relu", kernel_initializer="he_normal")(x)
        x = MaxPooling()(x)
    x = layers.Flatten()(x)
    for units in (120, 84):
        x = layers.Dense(units, "relu", kernel_initializer="he_normal")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)


LENETS = {"lenet5": Variant(lenet, {}, f"{KUANGLIU}, its parameters counted", 0.062, least=16)}
