"""Evaluation of an autoencoder."""

import keras
import numpy as np
from keras import layers

from shared.generative.metrics import frechet_distance


def image_metrics(
    network: keras.Model, real: np.ndarray, samples: np.ndarray, reconstructions: np.ndarray
) -> dict[str, float]:
    """How far the features of sampled and of reconstructed images are from those of the test images."""
    parts = (real, samples, reconstructions)
    features, sampled, reconstructed = (network.predict(part, batch_size=100, verbose=0)["features"] for part in parts)
    return {
        "frechet": frechet_distance(sampled, features),
        "frechet_reconstruction": frechet_distance(reconstructed, features),
    }


def linear_probe(features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray) -> float:
    """Linear probe: top-1 accuracy of a linear classifier of features that are kept as they are."""
    x, test = (each.reshape(len(each), -1) for each in (features, test_features))
    scale = layers.Normalization()
    scale.adapt(x)
    model = keras.Sequential([scale, layers.Dense(int(labels.max()) + 1, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, labels, batch_size=100, epochs=max(10, 100_000 // len(x)), verbose=0)
    return model.evaluate(test, test_labels, verbose=0)[1]
