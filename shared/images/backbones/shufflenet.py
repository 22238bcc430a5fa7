"""ShuffleNetV2 (Ma et al. 2018, arXiv:1807.11164), for small images."""

import keras
from keras import layers, ops

from shared.images.backbones.variant import CHENYAOFO, Variant, classified, convolved, normalized
from shared.layers.convolution import DepthwiseConvolution


@keras.saving.register_keras_serializable("keras_recipes")
class ChannelShuffle(layers.Layer):
    """Channel shuffle: interleaves the halves of the channels, so that what passed one branch reaches both next.

    Input and output: (batch, height, width, channels), an even number of channels.
    """

    def call(self, inputs):
        height, width, channels = inputs.shape[1:]
        halves = ops.reshape(inputs, (-1, height, width, 2, channels // 2))
        return ops.reshape(ops.swapaxes(halves, 3, 4), (-1, height, width, channels))

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable("keras_recipes")
class ChannelSplit(layers.Layer):
    """Channel split: the first and the second half of the channels.

    Input: (batch, height, width, channels), an even number of channels. Output: two of (batch, height, width,
    channels / 2).
    """

    def call(self, inputs):
        half = inputs.shape[-1] // 2
        return inputs[..., :half], inputs[..., half:]

    def compute_output_shape(self, input_shape):
        return [(*input_shape[:-1], input_shape[-1] // 2)] * 2


def shufflenet_v2(x: keras.KerasTensor, classes: int, widths: tuple[int, ...]) -> keras.KerasTensor:
    """Stages of 4, 8 and 4 units, which leave half of the channels as they are.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        widths: channels of each stage, and of the last convolution.
    """
    *widths, last = widths
    x = convolved(x, 24)
    for channels, repeats in zip(widths, (4, 8, 4), strict=True):
        for index in range(repeats):
            x = shuffle_unit(x, channels, strides=2 if index == 0 else 1)
    return classified(convolved(x, last, 1), classes)


def shuffle_unit(x: keras.KerasTensor, channels: int, strides: int) -> keras.KerasTensor:
    """Two branches of half of the channels each: filtered, and as it is, or with a stride filtered too.

    Ma et al. 2018, figure 3 (c) and (d).
    """
    if strides == 1:
        kept, branch = ChannelSplit()(x)
    else:
        kept, branch = normalized(DepthwiseConvolution(3, strides)(x), None), x
        kept = convolved(kept, channels // 2, 1)
    branch = convolved(branch, channels // 2, 1)
    branch = normalized(DepthwiseConvolution(3, strides)(branch), None)
    branch = convolved(branch, channels // 2, 1)
    return ChannelShuffle()(layers.Concatenate()([kept, branch]))


SHUFFLENETS = {
    "shufflenet_v2_x0_5": Variant(shufflenet_v2, {"widths": (48, 96, 192, 1024)}, CHENYAOFO, 0.35, 10.90, 90.13),
    "shufflenet_v2": Variant(shufflenet_v2, {"widths": (116, 232, 464, 1024)}, CHENYAOFO, 1.26, 45.00, 92.98),
    "shufflenet_v2_x1_5": Variant(shufflenet_v2, {"widths": (176, 352, 704, 1024)}, CHENYAOFO, 2.49, 94.26, 93.55),
    "shufflenet_v2_x2": Variant(shufflenet_v2, {"widths": (244, 488, 976, 2048)}, CHENYAOFO, 5.37, 187.81, 93.81),
}
