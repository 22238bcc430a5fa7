"""AlexNet (Krizhevsky et al. 2012; in one column, Krizhevsky 2014, arXiv:1404.5997), for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import BEARPAW, Variant
from shared.layers.convolution import Convolution
from shared.layers.resampling import MaxPooling


def alexnet(x: keras.KerasTensor, classes: int) -> keras.KerasTensor:
    """Five convolutions without normalization, the first with large strides; a single dense layer, as is common here.

    Input: (batch, height, width, channels), at least 32 pixels a side. Output: logits (batch, classes) in float32.
    """
    for filters, kernel_size, strides, pool in (
        (64, 11, 4, True), (192, 5, 1, True), (384, 3, 1, False), (256, 3, 1, False), (256, 3, 1, True),
    ):  # fmt: skip
        x = Convolution(
            filters, kernel_size, strides, use_bias=True, activation="relu", kernel_initializer="he_normal"
        )(x)
        x = MaxPooling()(x) if pool else x
    return layers.Dense(classes, dtype="float32", name="logits")(layers.Flatten()(x))


ALEXNETS = {"alexnet": Variant(alexnet, {}, BEARPAW, 2.47, top1=77.22, least=32)}
