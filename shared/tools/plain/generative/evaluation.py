"""Evaluation of an image generator."""

from collections.abc import Callable

import keras

from shared.data.images.datasets import ImageData, LabelledImages
from shared.generative.evaluation import labels_like_test
from shared.generative.metrics import frechet_distance
from shared.generative.plots import plot_samples
from shared.images.metrics import top_k_accuracy
from shared.training.run import Run


def evaluate_generator(
    run: Run,
    draw: Callable,
    network: keras.Model,
    data: ImageData,
    conditional: bool = True,
) -> tuple[LabelledImages, dict[str, float]]:
    """Images that `draw` makes for labels like those of the test images, and how far their features are from these."""
    labels = labels_like_test(data, run.config.samples, run.config.seed)
    samples = LabelledImages(draw(labels), labels)
    pictures = (samples.images, data.test.images)
    outputs, real = (network.predict(each, batch_size=100, verbose=0) for each in pictures)
    metrics = {"frechet": frechet_distance(outputs["features"], real["features"])}
    if conditional and "logits" in outputs:
        metrics["class_accuracy"] = top_k_accuracy(outputs["logits"], labels, 1)
    classes = data.classes if conditional else ["generated"] * len(data.classes)
    run.save_figure("samples.png", plot_samples(samples, classes))
    return samples, metrics
