"""Evaluation networks: classifiers whose features compare generated images with real ones."""

import contextlib
import importlib
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from shared.data.images.datasets import ImageData
from shared.generative.options import GenerativeOptions


class EvaluationNetwork(NamedTuple):
    """A trained network, from pixels to "features" and, where it classifies the data, "logits"."""

    model: keras.Model
    facts: dict[str, str]

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Features, and logits of a classifier, of images (examples, height, width, channels) in uint8."""
        return self.model.predict(images, batch_size=100, verbose=0)


def evaluation_network(config: GenerativeOptions, data: ImageData) -> EvaluationNetwork:
    """The classifier in the file --judge, or a network trained on ImageNet: only numbers of the same compare."""
    if config.judge:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("cnn_cifar10")  # for the layers of its models, where it lies beside this file
        model = keras.saving.load_model(config.judge, compile=False)
        (*_, dense) = (layer for layer in model.layers if isinstance(layer, layers.Dense))
        outputs = {"features": dense.input, "logits": model.outputs[0]}
        return EvaluationNetwork(keras.Model(model.inputs, outputs), {"judge": str(config.judge)})
    pixels = keras.Input(data.test.images.shape[1:])
    x = layers.Concatenate()([pixels] * 3) if pixels.shape[-1] == 1 else pixels
    network = keras.applications.EfficientNetV2B0(include_top=False, input_shape=(96, 96, 3), pooling="avg")
    features = network(layers.Resizing(96, 96, antialias=True)(x, training=False), training=False)
    return EvaluationNetwork(keras.Model(pixels, {"features": features}), {"judge": network.name})
