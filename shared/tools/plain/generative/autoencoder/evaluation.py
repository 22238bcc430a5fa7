"""Evaluation of an autoencoder."""

import keras
import numpy as np

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
