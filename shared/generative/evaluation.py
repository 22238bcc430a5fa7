"""Evaluation of an image generator: metrics of its samples against real images, and figures."""

import sys
import time
from collections.abc import Callable

import keras
import numpy as np

from shared.backends.runtime import copied_weights
from shared.data.images.datasets import ImageData, LabelledImages
from shared.data.randomness import random_stream
from shared.generative.evaluation_networks import EvaluationNetwork
from shared.generative.metrics import generation_metrics, nearest, neighbourhood
from shared.generative.plots import plot_neighbours, plot_rows, plot_samples
from shared.images.metrics import top_k_accuracy
from shared.training.run import Run


def labels_like_test(data: ImageData, count: int, seed: int) -> np.ndarray:
    """Labels (count,) to sample images for, with the class frequencies of the test images."""
    return np.resize(random_stream(seed, "labels").permutation(data.test.labels), count)


def evaluation_metrics(
    network: EvaluationNetwork,
    data: ImageData,
    samples: LabelledImages,
    untrained: LabelledImages,
    conditional: bool = True,
) -> dict[str, float]:
    """Metrics of generated images against the test images.

    Args:
        network: evaluation network whose features are compared.
        data: the real images.
        samples: generated images with the labels that they were conditioned on.
        untrained: the same from the untrained generator.
        conditional: whether the generator is class-conditional.

    Returns:
        The metrics of `generation_metrics`, and "class_accuracy", the network's top-1 accuracy on the samples, where
        the generator is conditional and the network an evaluation classifier. The same names with "_real": measured on
        as many training images; with "_untrained": on `untrained`. "frechet_gap_ratio": (untrained − real) /
        (trained − real) of the Fréchet distance. "nearest_neighbour_distance_ratio": median distance in pixels from a
        sample to its nearest training image, over that from a test image; far below 1 if training images are copied.
    """
    real = neighbourhood(network.outputs(data.test.images)["features"])
    metrics = {}
    for suffix, (images, labels) in {
        "": samples,
        "_real": data.train.first(len(samples.labels)),
        "_untrained": untrained,
    }.items():
        outputs = network.outputs(images)
        found = generation_metrics(outputs["features"], real)
        if conditional and "logits" in outputs:
            found["class_accuracy"] = top_k_accuracy(outputs["logits"], labels, 1)
        metrics |= {name + suffix: value for name, value in found.items()}
    untrained_gap = metrics["frechet_untrained"] - metrics["frechet_real"]
    trained_gap = metrics["frechet"] - metrics["frechet_real"]
    metrics["frechet_gap_ratio"] = untrained_gap / max(trained_gap, 1e-3 * abs(untrained_gap))
    sample_distance, test_distance = (
        np.median(nearest(images[:500], data.train.images, 1).distances)
        for images in (samples.images, data.test.images)
    )
    metrics["nearest_neighbour_distance_ratio"] = float(sample_distance / max(test_distance, 1e-9))
    return metrics


def evaluate_generator(
    run: Run,
    draw: Callable[[np.ndarray], np.ndarray],
    network: EvaluationNetwork,
    data: ImageData,
    conditional: bool = True,
    *,
    model: keras.Model,
    untrained: list[np.ndarray],
) -> tuple[LabelledImages, dict[str, float]]:
    """Samples images from a trained model, writes samples.png and neighbours.png, and computes the metrics.

    The images of the untrained model, a fifth as many, are sampled first, which compiles; how quickly those of the
    trained one then are is a fact of the run, "generated_images_per_second".

    Args:
        run: with a config of `GenerativeOptions`.
        draw: samples images in uint8, one for each label, with the model's current weights.
        network: evaluation network whose features are compared.
        data: the real images.
        conditional: whether the generator is class-conditional.
        model: the generator.
        untrained: weights of the model before training.

    Returns:
        The images, and the metrics of `evaluation_metrics`.
    """
    print(
        f"evaluating {run.config.samples:,} generated images in the features of {network.facts['judge']}: "
        "compare only numbers of the same network",
        file=sys.stderr,
    )
    labels = labels_like_test(data, run.config.samples, run.config.seed)
    trained = copied_weights(model)
    model.set_weights(untrained)
    few = labels[: max(100, len(labels) // 5)]
    untrained_samples = LabelledImages(draw(few), few)
    model.set_weights(trained)
    began = time.perf_counter()
    samples = LabelledImages(draw(labels), labels)
    run.facts["generated_images_per_second"] = round(len(labels) / (time.perf_counter() - began), 1)
    metrics = evaluation_metrics(network, data, samples, untrained_samples, conditional)
    if conditional:
        sheet = plot_samples(samples, data.classes)
    else:
        shown = samples.images[: min(len(labels), 120) // 10 * 10]
        sheet = plot_rows(shown.reshape(-1, 10, *shown.shape[1:]), "generated images, unconditional")
    near = nearest(samples.images[:10], data.train.images, 7).indices
    run.save_figure("samples.png", sheet)
    run.save_figure("neighbours.png", plot_neighbours(samples.images[:10], data.train.images, near))
    return samples, metrics
