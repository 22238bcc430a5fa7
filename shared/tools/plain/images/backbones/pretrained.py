"""Pretrained backbones by name."""

import keras

from shared.errors import UsageError
from shared.images.backbones.efficientnet_lite import efficientnet_lite0, load_imagenet_weights
from shared.images.backbones.pretrained import ImageNetPixels, with_quick_averages


def load_backbone(name: str, image_size: int, pretrained: bool = True) -> tuple[keras.Model, str]:
    """A network without its classifier, from pixels in 0..255 to features, and the name of its weights."""
    shape = (image_size, image_size, 3)
    networks = {each.lower(): each for each in dir(keras.applications) if each[0].isupper()}
    if name == "efficientnet_lite0":
        model = efficientnet_lite0(shape)
        if pretrained:
            load_imagenet_weights(model)
    elif name in networks:
        build, inputs = getattr(keras.applications, networks[name]), keras.Input(shape)
        network = build(include_top=False, weights="imagenet" if pretrained else None, input_shape=shape)
        model = keras.Model(inputs, network(ImageNetPixels(build.__module__.rpartition(".")[2])(inputs)), name=name)
    else:
        raise UsageError(f"--backbone {name} is not one of efficientnet_lite0, {', '.join(networks)}")
    return (model, f"{name}-imagenet") if pretrained else (with_quick_averages(model), "random")
