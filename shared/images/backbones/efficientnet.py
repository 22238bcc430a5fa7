"""EfficientNet (Tan and Le 2019, arXiv:1905.11946), for small images."""

import keras

from shared.images.backbones.efficientnet_lite import LITE0_STAGES
from shared.images.backbones.mobilenet import inverted_residual
from shared.images.backbones.variant import Variant, classified, convolved


def efficientnet(x: keras.KerasTensor, classes: int, stem_strides: int = 1) -> keras.KerasTensor:
    """EfficientNet-B0: inverted residual blocks with squeeze and excitation and Swish.

    Stochastic depth is left out.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        stem_strides: stride of the first convolution; 2 for ImageNet.
    """
    x = convolved(x, 32, strides=stem_strides, activation="swish")
    for repeats, kernel_size, strides, expansion, filters in LITE0_STAGES:
        for index in range(repeats):
            x = inverted_residual(
                x, filters, kernel_size, strides if index == 0 else 1, expansion, "swish", squeeze=0.25
            )
    return classified(convolved(x, 1280, 1, activation="swish"), classes, dropout=0.2)


EFFICIENTNETS = {
    "efficientnet_b0": Variant(efficientnet, {}, "arXiv:1905.11946, 5.29 M with 1,000 classes", 4.02),
}
