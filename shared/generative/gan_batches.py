"""Batches for adversarial training. Random numbers are drawn on the host: the same on every backend, in every process
and after a resume."""

from typing import ClassVar, NamedTuple

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.generative.pixels import scaled_pixels
from shared.images.augment import random_flip
from shared.training.batches import SeededBatches


class AdversarialBatch(NamedTuple):
    """Inputs of one training step: one or more critic steps, then one generator step."""

    images: np.ndarray
    """Real images, (critic steps, batch, height, width, channels), float32, −1 to 1."""
    labels: np.ndarray
    """Their classes, (critic steps, batch), int32; the generator is conditioned on the same."""
    noise: np.ndarray
    """(critic steps + 1, batch, latent), float32, standard normal; the last is for the generator step."""
    epsilon: np.ndarray | None
    """Interpolation coefficients of the gradient penalty, 0 to 1; None in a step without. (critic steps, batch),
    float32, uniform: 0 is a generated image, 1 a real one."""


class AdversarialBatches(SeededBatches):
    """Shuffled images with noise; the last, smaller batch of an epoch is left out.

    Args:
        data: the images.
        batch_size: real images per critic step.
        seed: of the order, noise and augmentation.
        latent: size of the noise vector.
        critic_steps: critic steps per generator step, each on other images.
        conditional: whether to pass the labels; if not, they are all 0.
        penalty_every: lazy regularization: a penalty every N steps; 0 for none.
        flip: random horizontal flip.
    """

    example_axis: ClassVar[int] = 1

    def __init__(
        self,
        data: LabelledImages,
        batch_size: int,
        seed: int,
        latent: int,
        critic_steps: int = 1,
        conditional: bool = True,
        penalty_every: int = 0,
        flip: bool = False,
    ):
        super().__init__(seed)
        self.data = data
        self.parts = (critic_steps, batch_size)
        self.batch_size = critic_steps * batch_size
        self.batches_per_epoch = len(data.labels) // self.batch_size
        self.latent = latent
        self.conditional = conditional
        self.penalty_every = penalty_every
        self.flip = flip

    def make_batch(self, index: int, rng: np.random.Generator) -> AdversarialBatch:
        chosen = self.shuffled(len(self.data.labels), self.epoch)[index * self.batch_size :][: self.batch_size]
        images = self.data.images[chosen]
        if self.flip:
            images = random_flip(images, rng)
        labels = self.data.labels[chosen] * self.conditional
        critic_steps, batch_size = self.parts
        noise = rng.standard_normal((critic_steps + 1, batch_size, self.latent), np.float32)
        epsilon = rng.random(self.parts, np.float32)
        number = self.epoch * self.batches_per_epoch + index
        return AdversarialBatch(
            scaled_pixels(images).reshape(*self.parts, *images.shape[1:]),
            labels.reshape(self.parts).astype(np.int32),
            noise,
            epsilon if self.penalty_every and number % self.penalty_every == 0 else None,
        )
