"""Batches of an autoencoder, drawn on the host: the same on every backend, in every process and after a resume."""

import numpy as np

from shared.generative.pixels import scaled_pixels
from shared.images.augment import random_flip
from shared.training.batches import SeededBatches


def autoencoder_examples(
    images: np.ndarray, rng: np.random.Generator, noise: int = 0, uniform: bool = False, corruption: float = 0.0
) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray]:
    """Training examples of an autoencoder: inputs, and the images to reconstruct.

    Args:
        images: (examples, height, width, channels) in uint8.
        rng: of all noise.
        noise: random numbers for each image, which its latent layer takes; 0: none.
        uniform: whether they are uniform in 0 to 1, rather than standard normal.
        corruption: standard deviation of the Gaussian noise that is added to the inputs, of pixels from -1 to 1.

    Returns:
        Inputs of the shape of the images, or a dictionary of these as "image" and of "noise" (examples, noise); targets
        of the shape of the images, -1 to 1. All in float32.
    """
    image = target = scaled_pixels(images)
    if corruption:
        image = target + np.float32(corruption) * rng.standard_normal(target.shape, np.float32)
    if not noise:
        return image, target
    shape = len(images), noise
    numbers = rng.random(shape, np.float32) if uniform else rng.standard_normal(shape, np.float32)
    return {"image": image, "noise": numbers}, target


class AutoencoderBatches(SeededBatches):
    """Batches of `autoencoder_examples`, shuffled; the last, smaller batch of an epoch is dropped.

    Args:
        images: (examples, height, width, channels) in uint8.
        batch_size: examples per batch; at most the number of images.
        seed: of the order, noise and augmentation.
        flip: random horizontal flip.
        noise: see `autoencoder_examples`.
        uniform: see there.
        corruption: see there.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        seed: int,
        flip: bool = False,
        noise: int = 0,
        uniform: bool = False,
        corruption: float = 0.0,
    ):
        super().__init__(seed)
        self.images = images
        self.batch_size = batch_size
        self.batches_per_epoch = len(images) // batch_size
        self.flip = flip
        self.options = {"noise": noise, "uniform": uniform, "corruption": corruption}

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple:
        chosen = self.shuffled(len(self.images), self.epoch)[index * self.batch_size :][: self.batch_size]
        images = self.images[chosen]
        if self.flip:
            images = random_flip(images, rng)
        return autoencoder_examples(images, rng, **self.options)
