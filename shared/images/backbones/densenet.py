"""DenseNet (Huang et al. 2016, arXiv:1608.06993) with bottlenecks and compression, DenseNet-BC, for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import BEARPAW, KUANGLIU, Variant, classified, normalized
from shared.layers.convolution import Convolution


def densenet(x: keras.KerasTensor, classes: int, depths: tuple[int, ...], growth: int) -> keras.KerasTensor:
    """Stages in which every layer sees the outputs of all layers before it, with halved channels in between.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        depths: number of layers of each stage, each of a 1×1 and a 3×3 convolution.
        growth: growth rate: channels that a layer adds.
    """
    x = Convolution(2 * growth, 3, kernel_initializer="he_normal")(x)
    for stage, depth in enumerate(depths):
        x = dense_stage(compressed(x) if stage > 0 else x, depth, growth)
    return classified(normalized(x), classes)


def dense_stage(x: keras.KerasTensor, depth: int, growth: int) -> keras.KerasTensor:
    """Layers that each add `growth` channels: a 1×1 convolution to four times as many and a 3×3 one, pre-activated."""
    for _ in range(depth):
        added = Convolution(4 * growth, 1, kernel_initializer="he_normal")(normalized(x))
        added = Convolution(growth, 3, kernel_initializer="he_normal")(normalized(added))
        x = layers.Concatenate()([x, added])
    return x


def compressed(x: keras.KerasTensor) -> keras.KerasTensor:
    """Transition: half of the channels, by a pre-activated 1×1 convolution, and half of the height and width."""
    x = Convolution(x.shape[-1] // 2, 1, kernel_initializer="he_normal")(normalized(x))
    return layers.AveragePooling2D(2)(x)


DENSENETS = {
    "densenet_bc100": Variant(densenet, {"depths": (16, 16, 16), "growth": 12}, BEARPAW, 0.77, top1=95.46),
    "densenet121": Variant(
        densenet, {"depths": (6, 12, 24, 16), "growth": 32}, f"{KUANGLIU}, its parameters counted", 6.96, top1=95.04
    ),
}
