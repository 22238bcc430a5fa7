"""ResNet (He et al. 2015, arXiv:1512.03385) and pre-activation ResNet (2016, arXiv:1603.05027), for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import BEARPAW, CHENYAOFO, Variant, classified, convolved, normalized
from shared.layers.convolution import Convolution

TINY = "MLPerf Tiny, arXiv:2106.07597"


def resnet(x: keras.KerasTensor, classes: int, depth: int, preactivation: bool = False) -> keras.KerasTensor:
    """Three stages of 16, 32 and 64 channels, each of (depth − 2) / 6 residual blocks of two convolutions.

    Where the shape changes, the shortcut is a 1×1 convolution.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        depth: number of layers on the longest path with weights, 6 n + 2.
        preactivation: batch normalization and ReLU before each convolution instead of after it, so that nothing but
            sums lies on the path from block to block.
    """
    block = preactivation_block if preactivation else postactivation_block
    x = Convolution(16, 3, kernel_initializer="he_normal")(x) if preactivation else convolved(x, 16)
    for filters in (16, 32, 64):
        for index in range((depth - 2) // 6):
            x = block(x, filters, strides=2 if index == 0 and filters > 16 else 1)
    return classified(normalized(x) if preactivation else x, classes)


def postactivation_block(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    """relu(x + f(x)), with two convolutions in f (He et al. 2015, figure 2)."""
    branch = convolved(convolved(x, filters, strides=strides), filters, activation=None)
    if strides > 1:
        x = convolved(x, filters, 1, strides, activation=None)
    return layers.Activation("relu")(layers.Add()([x, branch]))


def preactivation_block(x: keras.KerasTensor, filters: int, strides: int) -> keras.KerasTensor:
    """x + f(x), with two pre-activated convolutions in f (He et al. 2016, figure 4e)."""
    before = normalized(x)
    branch = convolved(before, filters, strides=strides)
    branch = Convolution(filters, 3, kernel_initializer="he_normal")(branch)
    if strides > 1:
        x = Convolution(filters, 1, strides, kernel_initializer="he_normal")(before)
    return layers.Add()([x, branch])


RESNETS = {
    "resnet8": Variant(resnet, {"depth": 8}, TINY, 0.0787, 12.5),
    "resnet20": Variant(resnet, {"depth": 20}, CHENYAOFO, 0.27, 40.81, 92.60),
    "resnet32": Variant(resnet, {"depth": 32}, CHENYAOFO, 0.47, 69.12, 93.53),
    "resnet44": Variant(resnet, {"depth": 44}, CHENYAOFO, 0.66, 97.44, 94.01),
    "resnet56": Variant(resnet, {"depth": 56}, CHENYAOFO, 0.86, 125.75, 94.37),
    "resnet110": Variant(resnet, {"depth": 110}, BEARPAW, 1.70, top1=93.89),
    "preact_resnet20": Variant(
        resnet, {"depth": 20, "preactivation": True}, f"parameters as ResNet-20 of {CHENYAOFO}", 0.27
    ),
    "preact_resnet110": Variant(resnet, {"depth": 110, "preactivation": True}, BEARPAW, 1.70, top1=95.06),
}
