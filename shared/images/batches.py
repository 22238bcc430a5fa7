"""Batches of augmented images, drawn on the host: the same on every backend."""

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.images.augment import random_crop, random_cutout, random_flip
from shared.training.batches import SeededBatches


class ImageBatches(SeededBatches):
    """Shuffled and augmented images with one-hot labels; the last, smaller batch of an epoch is dropped.

    Yields images (batch_size, height, width, channels) in uint8 and labels (batch_size, classes) in float32.

    Args:
        data: the images.
        classes: number of classes.
        batch_size: examples per batch; at most the number of images.
        seed: of shuffling and augmentation.
        flip: random horizontal flip.
        crop: random crop: maximum shift in pixels; 0 for none.
        cutout: side of the cutout square in pixels; 0 for none.
        fill: value of the cutout square, one per channel.
    """

    def __init__(
        self,
        data: LabelledImages,
        classes: int,
        batch_size: int,
        seed: int,
        flip: bool = False,
        crop: int = 0,
        cutout: int = 0,
        fill: list[float] | float = 0,
    ):
        super().__init__(seed)
        self.data = data
        self.one_hot = np.eye(classes, dtype=np.float32)
        self.batch_size = batch_size
        self.batches_per_epoch = len(data.labels) // batch_size
        self.flip = flip
        self.crop = crop
        self.cutout = cutout
        self.fill = fill

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        chosen = self.shuffled(len(self.data.labels), self.epoch)[index * self.batch_size :][: self.batch_size]
        images = self.data.images[chosen]
        if self.crop:
            images = random_crop(images, self.crop, rng)
        if self.flip:
            images = random_flip(images, rng)
        if self.cutout:
            images = random_cutout(images, self.cutout, self.fill, rng)
        return images, self.one_hot[self.data.labels[chosen]]
