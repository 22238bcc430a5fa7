"""Pretrained backbones by name."""

import keras

from shared.errors import UsageError
from shared.images.backbones.efficientnet_lite import efficientnet_lite0, load_imagenet_weights

PACKAGED = "efficientnet_lite0"


@keras.saving.register_keras_serializable("keras_recipes")
class ImageNetPixels(keras.layers.Layer):
    """Preprocessing of a network of keras.applications, from pixels in 0..255.

    Args:
        family: module of keras.applications, such as "resnet50".

    Input and output: (batch, height, width, 3).
    """

    def __init__(self, family, **kwargs):
        super().__init__(**kwargs)
        self.family = family

    def call(self, inputs):
        return getattr(keras.applications, self.family).preprocess_input(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"family": self.family}


def application_names() -> dict[str, str]:
    """Networks of keras.applications: lower-case name to class name."""
    return {name.lower(): name for name in dir(keras.applications) if name[0].isupper()}


def load_backbone(name: str, image_size: int, pretrained: bool = True) -> tuple[keras.Model, str]:
    """Backbone: a network without its classifier.

    Args:
        name: "efficientnet_lite0", or a network of keras.applications in lower case.
        image_size: height and width of its input.
        pretrained: with ImageNet weights, from the package or downloaded by Keras, which checks their hash; otherwise
            with random weights, and a batch normalization momentum suited to short training.

    Returns:
        A model from pixels in 0..255, (batch, height, width, 3), to features (batch, height, width, channels), and the
        name of its weights.

    Raises:
        UsageError: there is no such network, it cannot take images of this size, or its weights cannot be loaded.
    """
    shape = (image_size, image_size, 3)
    if name == PACKAGED:
        model = efficientnet_lite0(shape)
        if pretrained:
            load_imagenet_weights(model)
            return model, f"{PACKAGED}-imagenet"
        return with_quick_averages(model), "random"
    known = application_names()
    if name not in known:
        raise UsageError(f"--backbone {name} is not one of {PACKAGED}, {', '.join(sorted(known))}")
    build = getattr(keras.applications, known[name])
    try:
        network = build(include_top=False, weights="imagenet" if pretrained else None, input_shape=shape)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"--backbone {name} does not take images of {image_size} pixels: {reason}") from None
    except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception when a download fails
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the weights of {name} cannot be downloaded ({reason}): take {PACKAGED}") from None
    inputs = keras.Input(shape)
    family = build.__module__.rpartition(".")[2]
    model = keras.Model(inputs, network(ImageNetPixels(family)(inputs)), name=name)
    return (model, f"{name}-imagenet") if pretrained else (with_quick_averages(model), "random")


def with_quick_averages(model: keras.Model) -> keras.Model:
    """The model, with a batch normalization momentum of at most 0.9."""
    for layer in single_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = min(layer.momentum, 0.9)
    return model


def single_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Layers of a model from bottom to top, with nested models and blocks flattened."""
    return [part for layer in model.layers for part in (single_layers(layer) if hasattr(layer, "layers") else [layer])]
