"""Evaluation of a generator of images: makes some, measures them against real ones, and shows them."""

import sys
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
    """Labels (count,) to make images of, each class as frequent as in the test images."""
    return np.resize(random_stream(seed, "labels").permutation(data.test.labels), count)


def evaluated_images(
    network: EvaluationNetwork,
    data: ImageData,
    samples: LabelledImages,
    untrained: LabelledImages,
    conditional: bool = True,
) -> dict[str, float]:
    """Every measure of generated images against the test images.

    Args:
        network: in whose features they are compared.
        data: the real images.
        samples: generated images, each with the class that it should be of.
        untrained: the same from an untrained generator.
        conditional: whether these classes were asked for.

    Returns:
        Those of `generation_metrics`, and "class_accuracy", the top-1 accuracy of the network on them, where the
        classes were asked for and it is a classifier of them; the same names with "_floor", measured on as many
        training images, and with "_ceiling", on `untrained`; and "times_nearer", how many times nearer "frechet" is to
        its floor than the ceiling is. "memorizing" is the distance of a sample in pixels to the nearest training image
        over that of a test image, medians; far below 1 if training images are repeated.
    """
    real = neighbourhood(network.outputs(data.test.images)["features"])
    metrics = {}
    for suffix, (images, labels) in {
        "": samples,
        "_floor": data.train.first(len(samples.labels)),
        "_ceiling": untrained,
    }.items():
        outputs = network.outputs(images)
        found = generation_metrics(outputs["features"], real)
        if conditional and "logits" in outputs:
            found["class_accuracy"] = top_k_accuracy(outputs["logits"], labels, 1)
        metrics |= {name + suffix: value for name, value in found.items()}
    floor = metrics["frechet_floor"]
    ceiling = metrics["frechet_ceiling"] - floor
    metrics["times_nearer"] = ceiling / max(metrics["frechet"] - floor, 1e-3 * abs(ceiling))
    ours, theirs = (
        np.median(nearest(images[:500], data.train.images, 1).distances)
        for images in (samples.images, data.test.images)
    )
    metrics["memorizing"] = float(ours / max(theirs, 1e-9))
    return metrics


def measured_generator(
    run: Run,
    model: keras.Model,
    draw: Callable[[np.ndarray], np.ndarray],
    network: EvaluationNetwork,
    data: ImageData,
    untrained: list[np.ndarray],
    conditional: bool = True,
) -> tuple[LabelledImages, dict[str, float]]:
    """Makes images with a trained model, draws samples.png and neighbours.png, and measures.

    Args:
        run: of `GenerativeOptions`.
        model: that makes the images.
        draw: makes an image, in uint8, for each of the labels that it is given, with the weights that the model has.
        network: in whose features they are compared with real ones.
        data: the real ones.
        untrained: weights of the model before training.
        conditional: whether images show what their label asks for.

    Returns:
        The images, and the metrics of `evaluated_images`.
    """
    print(
        f"measuring {run.config.samples:,} generated images in the features of {network.facts['judge']}: "
        "compare only numbers of the same network",
        file=sys.stderr,
    )
    labels = labels_like_test(data, run.config.samples, run.config.seed)
    trained = copied_weights(model)
    model.set_weights(untrained)
    ceiling = LabelledImages(draw(labels), labels)
    model.set_weights(trained)
    samples = LabelledImages(draw(labels), labels)
    metrics = evaluated_images(network, data, samples, ceiling, conditional)
    if conditional:
        sheet = plot_samples(samples, data.classes)
    else:
        shown = samples.images[: min(len(labels), 120) // 10 * 10]
        sheet = plot_rows(shown.reshape(-1, 10, *shown.shape[1:]), "generated, of no class in particular")
    near = nearest(samples.images[:10], data.train.images, 7).places
    run.save_figure("samples.png", sheet)
    run.save_figure("neighbours.png", plot_neighbours(samples.images[:10], data.train.images, near))
    return samples, metrics
