"""Evaluation networks."""

import contextlib
import importlib
from pathlib import Path

import keras
from keras import layers

from shared.data.images.datasets import ImageData
from shared.generative.evaluation_networks import EvaluationNetwork, in_float32


def evaluation_classifier(path: Path, data: ImageData) -> EvaluationNetwork:
    """A classifier of the data. Its features are the inputs of its last dense layer."""
    with contextlib.suppress(ModuleNotFoundError):
        importlib.import_module("cnn_cifar10")  # for the layers of its models, where it lies beside this file
    model = in_float32(keras.saving.load_model(path, compile=False))
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    outputs = {"features": dense[-1].input, "logits": model.outputs[0]}
    return EvaluationNetwork(keras.Model(model.inputs, outputs), {"judge": str(path)})
