"""Evaluation of an autoencoder: its bounds, its latents, its codebook, and its images."""

import sys

import keras
import numpy as np
from keras import ops
from scipy.optimize import fmin_l_bfgs_b

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.generative.autoencoder.likelihood import (
    bits_per_dimension,
    gaussian_divergence,
    importance_weighted_bound,
    log_importance_weights,
    negative_log_likelihood,
    split_parameters,
)
from shared.generative.evaluation_networks import EvaluationNetwork
from shared.generative.metrics import frechet_distance, generation_metrics, neighbourhood
from shared.generative.pixels import scaled_pixels
from shared.images.metrics import softmax, top_k_accuracy

ACTIVE_VARIANCE = 0.01
"""A latent unit is active where the variance of its posterior mean over the images is above this (Burda et al. 2015,
arXiv:1509.00519, section 5.2)."""


def variational_bounds(
    encoder: keras.Model, decoder: keras.Model, images: np.ndarray, samples: int, batch_size: int, seed: int
) -> tuple[dict[str, float], np.ndarray]:
    """The evidence lower bound (ELBO) of a variational autoencoder with its two terms, and a tighter bound.

    Args:
        encoder: from images to means and logarithms of variances (batch, 2 · latent).
        decoder: from latents to the parameters of `discretized_logistic`.
        images: (examples, height, width, channels) in uint8.
        samples: latents drawn for each image.
        batch_size: images per batch.
        seed: of the latents.

    Returns:
        "elbo_nats" an image, which is -("reconstruction_nats" + "kl_nats"), whatever β was; the importance-weighted
        bound "iwae_nats" of so many samples; "bits_per_dim" and "iwae_bits_per_dim" of the two; "active_units" of the
        latent. And the divergence of each latent unit in nats, (latent,).
    """

    def measure(image, noise):
        mean, log_variance = split_parameters(encoder(image, training=False))
        latent = mean + ops.exp(0.5 * log_variance) * noise
        nats = negative_log_likelihood(image, decoder(latent, training=False))
        weights = log_importance_weights(-nats, log_variance, noise, latent)
        return nats, weights, gaussian_divergence(mean, log_variance), mean

    program = compiled_inference(measure, [encoder, decoder])
    found = []
    for number in range(-(-len(images) // batch_size)):
        part = scaled_pixels(images[number * batch_size :][:batch_size])
        padded = np.resize(part, (batch_size, *part.shape[1:]))
        rng = random_stream(seed, "noise", 1, number)
        size = encoder.output_shape[-1] // 2
        noise = rng.standard_normal((samples, batch_size, size), np.float32)
        results = [[ops.convert_to_numpy(each)[: len(part)] for each in program(padded, one)] for one in noise]
        found.append([np.stack(each) for each in zip(*results, strict=True)])
    joined = (np.concatenate(each, axis=1).astype(np.float64) for each in zip(*found, strict=True))
    nats, weights, divergence, mean = joined
    reconstruction, by_unit = float(nats.mean()), divergence[0].mean(axis=0)
    elbo, iwae = -reconstruction - float(by_unit.sum()), float(importance_weighted_bound(weights).mean())
    return {
        "elbo_nats": elbo,
        "reconstruction_nats": reconstruction,
        "kl_nats": float(by_unit.sum()),
        "iwae_nats": iwae,
        "bits_per_dim": bits_per_dimension(-elbo, images.shape[1:]),
        "iwae_bits_per_dim": bits_per_dimension(-iwae, images.shape[1:]),
        "active_units": int(np.sum(mean[0].var(axis=0) > ACTIVE_VARIANCE)),
    }, by_unit


def warn_if_posterior_collapsed(active: int, units: int) -> bool:
    """Whether a posterior has collapsed to the prior in nine of ten latent units; if so, prints a warning to stderr.

    Its mean is then nearly the same for every image there: the decoder learns nothing from these units.

    Args:
        active: number of active units; see `ACTIVE_VARIANCE`.
        units: size of the latent.
    """
    print(f"{active} of {units} latent units are active", file=sys.stderr)
    if 10 * active > units:
        return False
    print(f"WARNING: posterior collapse: {active} of {units} latent units are active: "
          "try a lower --beta, a smaller --latent or more --epochs", file=sys.stderr)  # fmt: skip
    return True


def codebook_perplexity(indices: np.ndarray, codes: int) -> float:
    """Perplexity of the use of a codebook: exp of the entropy of the frequencies, from 1 to the number of codes.

    Args:
        indices: of the codes in use, of any shape.
        codes: size of the codebook.
    """
    frequencies = np.bincount(indices.ravel(), minlength=codes) / indices.size
    used = frequencies[frequencies > 0]
    return float(np.exp(-np.sum(used * np.log(used))))


def linear_probe(
    features: np.ndarray, labels: np.ndarray, test_features: np.ndarray, test_labels: np.ndarray, penalty: float = 1e-4
) -> float:
    """Linear probe: top-1 accuracy of a softmax regression on features that are kept as they are.

    Args:
        features: to train on, (examples, size); they are standardized first.
        labels: their classes.
        test_features: to measure on.
        test_labels: their classes.
        penalty: weight of half the sum of the squared weights.
    """
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, test = ((each - mean) / deviation for each in (features, test_features))
    one_hot = np.eye(max(labels.max(), test_labels.max()) + 1, dtype=x.dtype)[labels]
    shape = x.shape[1] + 1, one_hot.shape[1]

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = np.split(values.reshape(shape).astype(x.dtype), [-1])
        probabilities = softmax(x @ weights + bias)
        nats = -np.log(np.maximum(np.sum(probabilities * one_hot, axis=1), 1e-12)).mean(dtype=np.float64)
        error = (probabilities - one_hot) / len(x)
        gradient = np.concatenate([x.T @ error + penalty * weights, error.sum(axis=0, keepdims=True)])
        return nats + penalty * np.sum(np.square(weights)) / 2, gradient.ravel().astype(np.float64)

    values, _, _ = fmin_l_bfgs_b(loss, np.zeros(shape).ravel(), maxiter=200)
    weights, bias = np.split(values.reshape(shape).astype(x.dtype), [-1])
    return top_k_accuracy(test @ weights + bias, test_labels, 1)


def image_metrics(
    network: EvaluationNetwork, real: np.ndarray, samples: np.ndarray, reconstructions: np.ndarray
) -> dict[str, float]:
    """Metrics of sampled and of reconstructed images against the test images.

    Args:
        network: evaluation network whose features are compared.
        real: the test images.
        samples: decoded from random latents.
        reconstructions: of the test images.

    Returns:
        Those of `generation_metrics` of the samples, and "frechet_reconstruction".
    """
    print(
        f"evaluating {len(samples):,} generated images in the features of {network.facts['judge']}: "
        "compare only numbers of the same network",
        file=sys.stderr,
    )
    features = network.outputs(real)["features"]
    metrics = generation_metrics(network.outputs(samples)["features"], neighbourhood(features))
    metrics["frechet_reconstruction"] = frechet_distance(network.outputs(reconstructions)["features"], features)
    return metrics


def squared_error(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared error of images in uint8, of pixels from 0 to 1."""
    return float(np.mean(np.square(first / np.float32(255) - second / np.float32(255)), dtype=np.float64))


def principal_axes(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Principal components: axes (count, size), by falling deviation along them, and these deviations (count,).

    Args:
        features: (examples, size), more examples than `count`.
        count: number of axes; fewer where the size is smaller.
    """
    centred = features - features.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    # The sign of an axis is arbitrary: its largest entry is made positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, None], axis=1)
    return (axes * np.sign(largest))[:count], lengths[:count] / np.sqrt(len(features))
