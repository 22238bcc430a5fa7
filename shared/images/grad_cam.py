"""Class activation maps (Grad-CAM)."""

import keras
import numpy as np

from shared.backends.gradients import value_and_grad


def class_activation_maps(model: keras.Model, images: np.ndarray, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Grad-CAM: class activation maps of the predicted class (Selvaraju et al. 2017, arXiv:1610.02391).

    Args:
        model: from images to logits (batch, classes), a chain of layers from `layer` on.
        images: (images, height, width, channels).
        layer: name of the first layer after the features, whose input is (batch, rows, columns, channels).

    Returns:
        The predicted class of each image, and maps (images, rows, columns), each from 0 to 1.
    """
    after = model.get_layer(layer)
    features = keras.Variable(keras.Model(model.input, after.input).predict(images, verbose=0))
    head = keras.Model(after.input, model.output)
    classes = keras.ops.convert_to_numpy(head(features.value, training=False)).argmax(axis=-1)
    chosen = keras.ops.one_hot(classes, model.output_shape[-1])
    _, (gradient,) = value_and_grad(lambda: keras.ops.sum(head(features.value, training=False) * chosen), [features])
    weights = keras.ops.convert_to_numpy(gradient).mean(axis=(1, 2), keepdims=True)
    maps = np.maximum((keras.ops.convert_to_numpy(features.value) * weights).sum(axis=-1), 0)
    return classes, maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
