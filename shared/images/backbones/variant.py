"""What a family of convolutional networks is made of: its variants, and blocks that several families have."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import layers

from shared.layers.convolution import Convolution
from shared.layers.normalization import BatchNormalization

CHENYAOFO = "chenyaofo/pytorch-cifar-models"
KUANGLIU = "kuangliu/pytorch-cifar"
BEARPAW = "bearpaw/pytorch-classification"


class Variant(NamedTuple):
    """A network of a family, and what is published of it."""

    network: Callable[..., keras.KerasTensor]
    """Builds it: from normalized images and the number of classes to logits."""
    settings: dict[str, Any]
    """Keywords of `network`."""
    source: str
    """Where the published numbers are from."""
    parameters: float
    """Published number of trainable parameters with 10 classes, in millions."""
    multiply_adds: float | None = None
    """Published multiply-adds of one image of 32×32 pixels with 3 channels, in millions."""
    top1: float | None = None
    """Published top-1 accuracy on CIFAR-10, in percent."""
    least: int = 8
    """The smallest height and width of images, in pixels."""


def normalized(x: keras.KerasTensor, activation: str | None = "relu") -> keras.KerasTensor:
    """Batch normalization, which keeps averages of few steps, and an activation function."""
    x = BatchNormalization(momentum=0.9)(x)
    return layers.Activation(activation)(x) if activation else x


def convolved(
    x: keras.KerasTensor, filters: int, kernel_size: int = 3, strides: int = 1, activation: str | None = "relu"
) -> keras.KerasTensor:
    """Convolution without bias, batch normalization, activation function."""
    return normalized(Convolution(filters, kernel_size, strides, kernel_initializer="he_normal")(x), activation)


def classified(x: keras.KerasTensor, classes: int, dropout: float = 0.0) -> keras.KerasTensor:
    """Global average pooling, dropout, and a dense layer to logits (batch, classes) in float32."""
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(dropout)(x) if dropout else x
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def rounded_to_eight(channels: float) -> int:
    """The nearest multiple of 8 that is not more than a tenth below; half of 8 and more are rounded up."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
