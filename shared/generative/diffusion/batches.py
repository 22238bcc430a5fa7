"""Batches of noisy images, drawn on the host: the same on every backend, in every process and after a resume."""

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.generative.diffusion.schedule import Prediction, cosine_rates, noisy_image, training_target, training_times
from shared.generative.pixels import scaled_pixels
from shared.images.augment import random_flip
from shared.training.batches import SeededBatches


def noisy_examples(
    data: LabelledImages, prediction: Prediction, rng: np.random.Generator, no_label: int, label_dropout: float = 0.0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Training examples of a diffusion model: images with noise added, and prediction targets.

    The times are `training_times` of evenly spaced quantiles with a common random offset, so that the loss of a batch
    varies less than with independent times (Kingma et al. 2021, arXiv:2107.00630, appendix I.1).

    Args:
        data: the images, in random order.
        prediction: prediction target.
        rng: of times, noise and label dropout.
        no_label: the null label of classifier-free guidance.
        label_dropout: label dropout rate.

    Returns:
        Inputs "image" (examples, height, width, channels), "time" (examples,) and "label" (examples,), and targets
        (examples, height, width, channels); labels in int32, all else in float32. Images are -1 to 1 before noise.
    """
    image = scaled_pixels(data.images)
    time = training_times((rng.random() + np.arange(len(image)) / len(image)) % 1)
    noise = rng.standard_normal(image.shape, np.float32)
    rates = cosine_rates(time.astype(np.float32).reshape(-1, 1, 1, 1))
    inputs = {
        "image": noisy_image(image, noise, rates).astype(np.float32),
        "time": time.astype(np.float32),
        "label": np.where(rng.random(len(image)) < label_dropout, no_label, data.labels).astype(np.int32),
    }
    return inputs, training_target(prediction, image, noise, rates).astype(np.float32)


class NoisyImageBatches(SeededBatches):
    """Batches of `noisy_examples`, shuffled; the last, smaller batch of an epoch is dropped.

    Args:
        data: the images.
        prediction: prediction target.
        classes: number of classes, which is also the null label.
        batch_size: examples per batch; at most the number of images.
        seed: of the order, noise and augmentation.
        label_dropout: label dropout rate.
        flip: random horizontal flip.
    """

    def __init__(
        self,
        data: LabelledImages,
        prediction: Prediction,
        classes: int,
        batch_size: int,
        seed: int,
        label_dropout: float = 0.0,
        flip: bool = False,
    ):
        super().__init__(seed)
        self.data = data
        self.prediction = prediction
        self.classes = classes
        self.batch_size = batch_size
        self.batches_per_epoch = len(data.labels) // batch_size
        self.label_dropout = label_dropout
        self.flip = flip

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
        chosen = self.shuffled(len(self.data.labels), self.epoch)[index * self.batch_size :][: self.batch_size]
        images = self.data.images[chosen]
        if self.flip:
            images = random_flip(images, rng)
        batch = LabelledImages(images, self.data.labels[chosen])
        return noisy_examples(batch, self.prediction, rng, no_label=self.classes, label_dropout=self.label_dropout)
