"""Batches for a generator and a critic, all that is random drawn on the host: the same on every backend, in every
process and after a resume."""

from typing import ClassVar, NamedTuple

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.generative.pixels import scaled_pixels
from shared.images.augment import random_flip
from shared.training.batches import SeededBatches


class AdversarialBatch(NamedTuple):
    """What one training step is given, in which the critic takes one step or several, and then the generator one."""

    images: np.ndarray
    """Real ones, (critic steps, batch, height, width, channels), float32, −1 to 1."""
    labels: np.ndarray
    """The class of each, (critic steps, batch), int32; generated images are asked for of the same classes."""
    noise: np.ndarray
    """(critic steps + 1, batch, latent), float32, normal of deviation 1; the last is for the generator's own step."""
    shares: np.ndarray | None
    """(critic steps, batch), float32, evenly from 0 to 1, to mix real and generated images where the critic's slope is
    penalized; None in a step without penalty."""


class AdversarialBatches(SeededBatches):
    """Shuffled images with noise; the last, smaller batch of an epoch is left out.

    Args:
        data: the images.
        batch_size: real images for each step of the critic.
        seed: of all that is drawn.
        latent: numbers that an image is generated from.
        critic_steps: steps of the critic for one of the generator, each on images of its own.
        conditional: whether the labels are told; if not, they are all 0.
        penalty_every: which step has a penalty: each so manieth; 0 for none.
        flip: mirror half of the images.
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
        shares = rng.random(self.parts, np.float32)
        number = self.epoch * self.batches_per_epoch + index
        return AdversarialBatch(
            scaled_pixels(images).reshape(*self.parts, *images.shape[1:]),
            labels.reshape(self.parts).astype(np.int32),
            noise,
            shares if self.penalty_every and number % self.penalty_every == 0 else None,
        )
