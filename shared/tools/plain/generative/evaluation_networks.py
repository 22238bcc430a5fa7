"""Evaluation networks: classifiers whose features compare generated images with real ones."""

import contextlib
import importlib

import keras
from keras import layers

from shared.data.images.datasets import ImageData
from shared.generative.options import GenerativeOptions


def evaluation_network(config: GenerativeOptions, data: ImageData) -> keras.Model:
    """The classifier in the file --judge, or a network trained on ImageNet: only numbers of the same compare.

    Input: pixels. Output: "features" and, where it classifies the data, "logits".
    """
    if config.judge:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("cnn_cifar10")  # for the layers of its models, where it lies beside this file
        model = keras.saving.load_model(config.judge, compile=False)
        (*_, dense) = (layer for layer in model.layers if isinstance(layer, layers.Dense))
        outputs = {"features": dense.input, "logits": model.outputs[0]}
        return keras.Model(model.inputs, outputs, name=config.judge.stem)
    pixels = keras.Input(data.test.images.shape[1:])
    x = layers.Concatenate()([pixels] * 3) if pixels.shape[-1] == 1 else pixels
    network = keras.applications.EfficientNetV2B0(include_top=False, input_shape=(96, 96, 3), pooling="avg")
    features = network(layers.Resizing(96, 96, antialias=True)(x, training=False), training=False)
    return keras.Model(pixels, {"features": features}, name=network.name)
