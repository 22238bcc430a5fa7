"""What a trained autoencoder is worth."""

from typing import Any

import keras
import numpy as np

from shared.data.images.datasets import ImageData
from shared.data.randomness import random_stream
from shared.generative.autoencoder.coding import ImageCoder, LatentSampler
from shared.generative.autoencoder.evaluation import (
    codebook_perplexity,
    image_metrics,
    linear_probe,
    squared_error,
    variational_bounds,
)
from shared.generative.autoencoder.plots import plot_latent_map
from shared.generative.autoencoder.report import show_images
from shared.generative.pixels import scaled_pixels, shown_image
from shared.training.run import Run


def evaluate_autoencoder(
    run: Run, coder: ImageCoder, data: ImageData, network: keras.Model, corruption: float = 0.0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures an autoencoder on the test images, and writes its figures."""
    config, metrics, test = run.config, {}, data.test
    rng = random_stream(config.seed, "noise", 2)
    noise = np.float32(corruption) * rng.standard_normal(test.images.shape, np.float32) if corruption else None
    latents, test_latents = coder.latents(data.train.images), coder.latents(test.images)
    reconstructions = coder.images(coder.latents(test.images, noise) if corruption else test_latents)
    metrics["reconstruction_mse"] = squared_error(reconstructions, test.images)
    if len(data.classes) > 1:
        metrics["linear_top1"] = linear_probe(latents, data.train.labels, test_latents, test.labels)
    samples = LatentSampler(coder, config.seed, None if coder.kind == "variational" else latents)(config.samples)
    metrics |= image_metrics(network, test.images, samples, reconstructions)
    if coder.kind == "vector_quantized":
        metrics["codebook_perplexity"] = codebook_perplexity(coder.indices(test.images), config.codes)
    if coder.kind == "variational":
        bounds, _ = variational_bounds(
            coder.encoder, coder.decoder, test.images, config.importance_samples, config.sample_batch, config.seed
        )
        metrics |= bounds
    noisy = shown_image(scaled_pixels(test.images[:30]) + noise[:30]) if corruption else None
    show_images(run, samples, {"image": test.images, "noisy": noisy, "reconstruction": reconstructions})
    pooled = test_latents[:2000].reshape(len(test_latents[:2000]), -1, test_latents.shape[-1]).mean(axis=1)
    run.save_figure("latents.png", plot_latent_map(pooled, test.labels[:2000], data.classes))
    return metrics, {}
