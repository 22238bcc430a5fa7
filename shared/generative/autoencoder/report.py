"""What a trained autoencoder is worth: metrics of its latents and images, and figures."""

from typing import Any

import numpy as np

from shared.data.images.datasets import ImageData
from shared.data.randomness import random_stream
from shared.generative.autoencoder.coding import ImageCoder, LatentSampler
from shared.generative.autoencoder.evaluation import (
    codebook_perplexity,
    image_metrics,
    linear_probe,
    principal_axes,
    squared_error,
    variational_bounds,
    warn_if_posterior_collapsed,
)
from shared.generative.autoencoder.plots import plot_code_use, plot_divergences, plot_latent_map
from shared.generative.evaluation_networks import EvaluationNetwork
from shared.generative.pixels import scaled_pixels, shown_image
from shared.generative.plots import plot_rows
from shared.training.run import Run

PROBED = 20_000
"""Training images of the linear probe."""


TRAVERSED = 8
"""Directions of the latent traversal."""


def evaluate_autoencoder(
    run: Run, coder: ImageCoder, data: ImageData, network: EvaluationNetwork, corruption: float = 0.0
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measures an autoencoder on the test images, and writes its figures.

    Args:
        run: with a config of `GenerativeOptions`, and "importance_samples" and "codes".
        coder: of the trained autoencoder.
        data: the images.
        network: evaluation network whose features are compared.
        corruption: standard deviation of the noise on the images to reconstruct, of pixels from -1 to 1.

    Returns:
        The metrics: "reconstruction_mse", of the images without the noise; "linear_top1" of a linear probe, where there
        are classes; those of `image_metrics`; of a variational autoencoder those of `variational_bounds`, with a
        codebook "codebook_perplexity". And what else a result should say.
    """
    config, metrics, facts = run.config, {}, {}
    train, test = data.train.first(PROBED), data.test
    rng = random_stream(config.seed, "noise", 2)
    noise = np.float32(corruption) * rng.standard_normal(test.images.shape, np.float32) if corruption else None
    latents, test_latents = coder.latents(train.images), coder.latents(test.images)
    reconstructions = coder.images(coder.latents(test.images, noise) if corruption else test_latents)
    metrics["reconstruction_mse"] = squared_error(reconstructions, test.images)
    if len(data.classes) > 1:
        metrics["linear_top1"] = linear_probe(flat(latents), train.labels, flat(test_latents), test.labels)
    samples = LatentSampler(coder, config.seed, None if coder.kind == "variational" else latents)(config.samples)
    metrics |= image_metrics(network, test.images, samples, reconstructions)

    if coder.kind == "vector_quantized":
        indices = coder.indices(test.images)
        metrics["codebook_perplexity"] = codebook_perplexity(indices, config.codes)
        run.save_figure("codebook.png", plot_code_use(indices, config.codes, metrics["codebook_perplexity"]))
    else:
        directions, reach = principal_axes(latents, TRAVERSED)
        if coder.kind == "variational":
            found, by_unit = variational_bounds(
                coder.encoder, coder.decoder, test.images, config.importance_samples, config.sample_batch, config.seed
            )
            metrics |= found
            facts["posterior_collapsed"] = warn_if_posterior_collapsed(found["active_units"], len(by_unit))
            run.save_figure("divergences.png", plot_divergences(by_unit))
            directions = np.eye(len(by_unit))[np.argsort(-by_unit)[:TRAVERSED]]
            reach = np.ones(len(directions))
        rows = coder.along(test_latents[0], directions * reach[:, None], np.linspace(-3, 3, 11))
        run.save_figure("traversal.png", plot_rows(rows, "latent traversal, from -3 to 3 standard deviations"))
    noisy = shown_image(scaled_pixels(test.images[:30]) + noise[:30]) if corruption else None
    show_images(run, samples, {"image": test.images, "noisy": noisy, "reconstruction": reconstructions})
    show_latents(run, coder, test_latents, test.labels, data.classes)
    return metrics, facts


def show_latents(
    run: Run, coder: ImageCoder, latents: np.ndarray, labels: np.ndarray, classes: list[str], most: int = 2000
) -> None:
    """Writes latents.png and interpolation.png.

    Args:
        run: whose figures they are.
        coder: of the latents.
        latents: of images; vectors of a grid are averaged for the map.
        labels: of the images.
        classes: class names.
        most: number of images in the map.
    """
    pooled = latents[:most].reshape(len(latents[:most]), -1, latents.shape[-1]).mean(axis=1)
    run.save_figure("latents.png", plot_latent_map(pooled, labels[:most], classes))
    pairs = min(8, len(latents) // 2)
    rows = coder.between(latents[: 2 * pairs], stages=11)
    run.save_figure("interpolation.png", plot_rows(rows, "latent interpolation between test images"))


def flat(latents: np.ndarray) -> np.ndarray:
    """Latents (examples, …) as (examples, size)."""
    return latents.reshape(len(latents), -1)


def show_images(run: Run, samples: np.ndarray, rows: dict[str, np.ndarray | None]) -> None:
    """Writes samples.png and reconstructions.png.

    Args:
        run: whose figures they are.
        samples: at least 20 images.
        rows: images of the same examples, by what they are; None: not shown.
    """
    count = min(len(samples), 100) // 10 * 10
    run.save_figure("samples.png", plot_rows(samples[:count].reshape(-1, 10, *samples.shape[1:]), "generated images"))
    shown = {name: images for name, images in rows.items() if images is not None}
    columns = min(len(shown["image"]), 30) // 10 * 10
    groups = [images[start : start + 10] for start in range(0, columns, 10) for images in shown.values()]
    run.save_figure("reconstructions.png", plot_rows(np.stack(groups), f"{', '.join(shown)}, row by row"))
