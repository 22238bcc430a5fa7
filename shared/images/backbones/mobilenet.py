"""MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import (
    CHENYAOFO,
    Variant,
    classified,
    convolved,
    normalized,
    rounded_to_eight,
)
from shared.layers.convolution import DepthwiseConvolution

MOBILENET_STAGES = (
    (1, 1, 1, 16), (2, 1, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320),
)  # fmt: skip
"""Repeats, stride, expansion and channels of each stage; for ImageNet, the second has stride 2."""


def mobilenet_v2(
    x: keras.KerasTensor,
    classes: int,
    width: float = 1.0,
    stages: tuple[tuple[int, ...], ...] = MOBILENET_STAGES,
    stem_strides: int = 1,
) -> keras.KerasTensor:
    """Inverted residual blocks, whose filters work on expanded channels one by one.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        width: width multiplier.
        stages: repeats, stride, expansion and channels of each stage.
        stem_strides: stride of the first convolution.
    """
    x = convolved(x, rounded_to_eight(32 * width), strides=stem_strides, activation="relu6")
    for repeats, strides, expansion, channels in stages:
        for index in range(repeats):
            x = inverted_residual(x, rounded_to_eight(channels * width), 3, strides if index == 0 else 1, expansion)
    x = convolved(x, rounded_to_eight(1280 * max(1.0, width)), 1, activation="relu6")
    return classified(x, classes, dropout=0.2)


def inverted_residual(
    x: keras.KerasTensor,
    filters: int,
    kernel_size: int,
    strides: int,
    expansion: int,
    activation: str = "relu6",
    squeeze: float = 0.0,
) -> keras.KerasTensor:
    """Inverted residual block, or MBConv: 1×1 expansion, depthwise convolution, 1×1 projection; plus x where it fits.

    Args:
        x: (batch, height, width, channels).
        filters: number of output channels.
        kernel_size: height and width of the depthwise filters, in pixels.
        strides: stride, in pixels.
        expansion: ratio of hidden to input channels; 1 omits the expansion.
        activation: after expansion and filters; the projection has none.
        squeeze: squeeze and excitation (Hu et al. 2017, arXiv:1709.01507) before the projection: its hidden units per
            input channel; 0 for none.
    """
    channels = x.shape[-1]
    hidden = convolved(x, expansion * channels, 1, activation=activation) if expansion > 1 else x
    hidden = normalized(DepthwiseConvolution(kernel_size, strides)(hidden), activation)
    if squeeze:
        weights = layers.GlobalAveragePooling2D(keepdims=True)(hidden)
        weights = layers.Dense(max(1, int(squeeze * channels)), activation)(weights)
        hidden = layers.Multiply()([hidden, layers.Dense(hidden.shape[-1], "sigmoid")(weights)])
    outputs = convolved(hidden, filters, 1, activation=None)
    return layers.Add()([x, outputs]) if strides == 1 and filters == channels else outputs


MOBILENETS = {
    "mobilenet_v2_x0_5": Variant(mobilenet_v2, {"width": 0.5}, CHENYAOFO, 0.70, 27.97, 92.88),
    "mobilenet_v2": Variant(mobilenet_v2, {}, CHENYAOFO, 2.24, 87.98, 93.79),
    "mobilenet_v2_x1_4": Variant(mobilenet_v2, {"width": 1.4}, CHENYAOFO, 4.33, 170.07, 94.22),
}
