"""Class activation maps."""

import keras
import numpy as np


def class_activation_maps(model: keras.Model, images: np.ndarray, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """The class of each image, and maps (images, rows, columns), 0 to 1, of what speaks for it (Zhou et al. 2016,
    arXiv:1512.04150): the features, averaged by `layer`, that the last dense layer weighs for that class."""
    features = keras.Model(model.input, model.get_layer(layer).input).predict(images, verbose=0)
    weights, biases = model.layers[-1].layers[-1].get_weights()
    classes = (features.mean(axis=(1, 2)) @ weights + biases).argmax(axis=-1)
    maps = np.maximum(np.einsum("nhwc,cn->nhw", features, weights[:, classes]), 0)
    return classes, maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
