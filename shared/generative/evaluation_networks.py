"""Evaluation networks: classifiers whose features compare generated images with real ones."""

from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from shared.backends.runtime import dtype_policy, without_tensorflow
from shared.data.images.datasets import ImageData
from shared.data.places import file_hash
from shared.errors import UsageError
from shared.generative.options import GenerativeOptions
from shared.images.backbones.pretrained import PACKAGED, load_backbone
from shared.layers.residual import ConvolutionBlock, ResidualBlock
from shared.training.saving import read_model

INPUT_SIZES = {PACKAGED: 96, "inceptionv3": 299}
"""Input size in pixels of each network trained on ImageNet; 224 for all others. EfficientNet-Lite0 runs below its own
size to save time."""


CLASSIFIER_LAYERS = {layer.__name__: layer for layer in (ConvolutionBlock, ResidualBlock)}
"""Layers that a classifier trained with cnn_cifar10 is made of: without them Keras cannot read its file."""


class EvaluationNetwork(NamedTuple):
    """A pretrained network that computes in float32, whatever the precision of the run.

    Distances are comparable only between features of the same network, on sets of the same size.
    """

    model: keras.Model
    """From pixels in 0..255, (batch, height, width, channels), to "features" (batch, features) and, where it is a
    classifier of the data, "logits" (batch, classes)."""
    facts: dict[str, str]
    """Its entries in a result: "judge", its name or path, and "judge_sha256", the hash of a file."""

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features, and logits of a classifier, of images (examples, height, width, channels) in uint8."""
        return self.model.predict(images, batch_size=100, verbose=0)


def evaluation_network(config: GenerativeOptions, data: ImageData) -> EvaluationNetwork:
    """The evaluation classifier in the file `--judge`, or else the network `--backbone`, trained on ImageNet.

    Build it after the model to be trained: it draws seeds too, which would change that model's initial weights.

    Raises:
        UsageError: it cannot be read or downloaded, or does not fit the images.
    """
    if config.judge:
        return evaluation_classifier(config.judge, data)
    return imagenet_network(config.backbone, data.test.images.shape[1:])


def evaluation_classifier(path: Path, data: ImageData) -> EvaluationNetwork:
    """Evaluation classifier from a file. Its features are the inputs of its last dense layer.

    Args:
        path: a .keras file, such as model.keras of the recipe cnn_cifar10.
        data: the data that it was trained to classify.

    Raises:
        UsageError: the file cannot be read, is not a classifier, or classifies images or classes of another data set.
    """
    try:
        model = in_float32(read_model(path, compile=False, custom_objects=CLASSIFIER_LAYERS))
        facts = {"judge": str(path), "judge_sha256": file_hash(path)}
        dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
        found = (model.input_shape[1:], model.output_shape[-1])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"--judge {path} cannot be used ({reason}): give the model.keras of cnn_cifar10") from None
    if not dense or found != (data.train.images.shape[1:], len(data.classes)):
        source = "PATH --image-size N" if data.name == "folder" else data.name
        remedy = f"train one with  recipes/cnn_cifar10.py --data {source}  or leave --judge out"
        raise UsageError(f"--judge {path} does not classify images like those of {data.name}: {remedy}")
    outputs = {"features": dense[-1].input, "logits": model.outputs[0]}
    return EvaluationNetwork(keras.Model(model.inputs, outputs), facts)


def in_float32(model: keras.Model) -> keras.Model:
    """A copy of the model that computes in float32."""

    def remade(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    with without_tensorflow():
        copy = keras.models.clone_model(model, clone_function=remade, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def imagenet_network(backbone: str, image_shape: tuple[int, int, int]) -> EvaluationNetwork:
    """Evaluation network trained on ImageNet. Its features are those before its classifier, averaged over the image.

    Images are resized to `INPUT_SIZES`. Distances by "inceptionv3" are not comparable with published FID values, which
    use the weights of another Inception and sets of other sizes.

    Args:
        backbone: see `load_backbone`.
        image_shape: (height, width, channels), with one channel or three.

    Raises:
        UsageError: there is no such network, or its weights cannot be downloaded.
    """
    size = INPUT_SIZES.get(backbone, 224)
    with dtype_policy("float32"):
        network, weights = load_backbone(backbone, size)
        pixels = keras.Input(image_shape)
        x = layers.Concatenate()([pixels] * 3) if image_shape[-1] == 1 else pixels
        # Left to itself, Keras 3.15's Resizing makes the layers behind it run as in training.
        x = network(layers.Resizing(size, size, antialias=True)(x, training=False))
        model = keras.Model(pixels, {"features": layers.GlobalAveragePooling2D()(x)})
    return EvaluationNetwork(model, {"judge": f"{weights} at {size} pixels"})
