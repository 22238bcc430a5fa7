"""ConvNeXt (Liu et al. 2022, arXiv:2201.03545), for small images."""

import keras
from keras import layers

from shared.images.backbones.variant import Variant
from shared.layers.convolution import Convolution, DepthwiseConvolution


@keras.saving.register_keras_serializable("keras_recipes")
class LayerScale(layers.Layer):
    """Layer scale (Touvron et al. 2021, arXiv:2103.17239): a learned factor for each channel.

    Args:
        initial: the factors before training; small ones make a residual block begin as the identity.

    Input and output: (batch, …, channels).
    """

    def __init__(self, initial=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.initial = initial

    def build(self, input_shape):
        constant = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=constant, name="gamma")

    def call(self, inputs):
        return inputs * self.gamma

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"initial": self.initial}


def convnext(
    x: keras.KerasTensor, classes: int, depths: tuple[int, ...], widths: tuple[int, ...], patch: int = 2
) -> keras.KerasTensor:
    """Patches, and four stages of residual blocks after the manner of Transformers; stochastic depth is left out.

    Input: (batch, height, width, channels). Output: logits (batch, classes) in float32.

    Args:
        x: images.
        classes: number of classes.
        depths: number of blocks of each stage.
        widths: channels of each stage.
        patch: height and width of a patch, in pixels; 4 for ImageNet.
    """
    for stage, (depth, filters) in enumerate(zip(depths, widths, strict=True)):
        if stage == 0:
            x = layer_normalized(Convolution(filters, patch, patch, use_bias=True)(x))
        else:
            x = Convolution(filters, 2, 2, use_bias=True)(layer_normalized(x))
        for _ in range(depth):
            x = convnext_block(x)
    x = layer_normalized(layers.GlobalAveragePooling2D()(x))
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def convnext_block(x: keras.KerasTensor) -> keras.KerasTensor:
    """x + f(x): a depthwise convolution over 7×7 pixels, layer normalization, and two layers with GELU between."""
    channels = x.shape[-1]
    branch = layer_normalized(DepthwiseConvolution(7, use_bias=True)(x))
    branch = Convolution(4 * channels, 1, use_bias=True, activation="gelu")(branch)
    branch = Convolution(channels, 1, use_bias=True)(branch)
    return layers.Add()([x, LayerScale()(branch)])


def layer_normalized(x: keras.KerasTensor) -> keras.KerasTensor:
    """Layer normalization over the channels (Ba et al. 2016, arXiv:1607.06450)."""
    return layers.LayerNormalization(epsilon=1e-6)(x)


CONVNEXTS = {
    "convnext_atto": Variant(
        convnext,
        {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)},
        "huggingface/pytorch-image-models, 3.70 M with 1,000 classes",
        3.38,
    ),
    "convnext_tiny": Variant(
        convnext,
        {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
        "arXiv:2201.03545, 28.59 M with 1,000 classes",
        27.83,
    ),
}
