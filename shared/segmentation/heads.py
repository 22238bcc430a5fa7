"""Heads of segmentation networks besides the U-Net's decoder: from features at several resolutions to those of pixels.

Both make features of one resolution out of an encoder's and look at them at several scales. Their papers keep the
encoder's last features at that resolution by dilating its convolutions; here features of lower resolutions are enlarged
and joined to them, which any encoder allows.
"""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

from shared.layers.normalization import BatchNormalization
from shared.layers.residual import ConvolutionBlock

ATROUS_RATES = (2, 4, 6)
"""A third of the paper's, whose features have 33 pixels a side instead of 8 to 16."""

PYRAMID_BINS = (1, 2, 3, 6)


def joined_levels(levels: list[keras.KerasTensor], first: int) -> keras.KerasTensor:
    """Features at a resolution, with those of all lower ones enlarged to it.

    Args:
        levels: features (batch, height / 2**i, width / 2**i, channels) for i from 0 on.
        first: i of the result.
    """
    enlarged = [enlarge(level, 2**number) for number, level in enumerate(levels[first + 1 :], start=1)]
    return layers.Concatenate()([levels[first], *enlarged]) if enlarged else levels[first]


def enlarge(x: keras.KerasTensor, times: int, **kwargs) -> keras.KerasTensor:
    """Features or logits (batch, height, width, channels) of `times` the height and width, interpolated bilinearly."""
    return layers.UpSampling2D(times, interpolation="bilinear", **kwargs)(x)


@keras.saving.register_keras_serializable("keras_recipes")
class PartAverages(layers.Layer):
    """Adaptive average pooling: averages over bins × bins parts, which overlap where the size is no multiple of bins.

    Part i is from floor(i · size / bins) to ceil((i + 1) · size / bins). Keras's own layer fails on TensorFlow.

    Args:
        bins: parts in each direction.

    Input: (batch, height, width, channels). Output: (batch, bins, bins, channels).
    """

    def __init__(self, bins, **kwargs):
        super().__init__(**kwargs)
        self.bins = bins

    def weights_of(self, size: int) -> np.ndarray:
        """What each place counts in the average of each part, (bins, size)."""
        places, parts = np.arange(size), np.arange(self.bins)[:, None]
        inside = (places >= parts * size // self.bins) & (places < -((parts + 1) * -size // self.bins))
        return (inside / inside.sum(axis=1, keepdims=True)).astype("float32")

    def call(self, inputs):
        rows, columns = (ops.cast(self.weights_of(size), inputs.dtype) for size in inputs.shape[1:3])
        return ops.einsum("jw,biwc->bijc", columns, ops.einsum("ih,bhwc->biwc", rows, inputs))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.bins, self.bins, input_shape[-1])

    def get_config(self):
        return super().get_config() | {"bins": self.bins}


def pooled_features(x: keras.KerasTensor, bins: int, filters: int) -> keras.KerasTensor:
    """Averages over bins × bins parts of an image, convolved, and enlarged to its size again."""
    _, height, width, _ = x.shape
    pooled = ConvolutionBlock(filters, 1)(PartAverages(bins)(x))
    return layers.Resizing(height, width, interpolation="bilinear")(pooled)


def deeplab_head(levels: list[keras.KerasTensor], filters: int) -> keras.KerasTensor:
    """DeepLabV3+ (Chen et al. 2018, arXiv:1802.02611): atrous spatial pyramid pooling (ASPP), and a small decoder.

    Args:
        levels: features (batch, height / 2**i, width / 2**i, channels) for i from 0 to at least 4.
        filters: channels of the features.

    Returns:
        (batch, height / 4, width / 4, filters).
    """
    x = joined_levels(levels, 4)
    branches = [ConvolutionBlock(filters, 1)(x), pooled_features(x, 1, filters)]
    for rate in ATROUS_RATES:
        atrous = layers.Conv2D(filters, 3, padding="same", dilation_rate=rate, use_bias=False)(x)
        branches.append(layers.ReLU()(BatchNormalization(momentum=0.9)(atrous)))
    x = ConvolutionBlock(filters, 1)(layers.Concatenate()(branches))
    x = layers.Concatenate()([enlarge(x, 4), ConvolutionBlock(max(1, filters // 5), 1)(levels[2])])
    return ConvolutionBlock(filters)(ConvolutionBlock(filters)(x))


def pyramid_head(levels: list[keras.KerasTensor], filters: int) -> keras.KerasTensor:
    """PSPNet (Zhao et al. 2017, arXiv:1612.01105): pyramid pooling, averages over ever smaller parts of the image.

    Args:
        levels: features (batch, height / 2**i, width / 2**i, channels) for i from 0 to at least 3.
        filters: channels of the features.

    Returns:
        (batch, height / 8, width / 8, filters).
    """
    x = ConvolutionBlock(filters)(joined_levels(levels, 3))
    pyramid = [pooled_features(x, bins, max(1, filters // len(PYRAMID_BINS))) for bins in PYRAMID_BINS]
    return ConvolutionBlock(filters)(layers.Concatenate()([x, *pyramid]))


HEADS: dict[str, Callable[[list[keras.KerasTensor], int], keras.KerasTensor]] = {
    "deeplabv3plus": deeplab_head,
    "pspnet": pyramid_head,
}
