"""Batches of images that are mixed with each other."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.data.images.datasets import LabelledImages
from shared.images.augment import cutmix, mixup
from shared.images.batches import ImageBatches


class MixedImageBatches(ImageBatches):
    """The batches of `ImageBatches`, augmented further, then mixed, images and labels.

    Args:
        data: the images.
        classes: number of classes.
        batch_size: examples per batch.
        seed: of shuffling and augmentation.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of CutMix; 0 for none.
        augment: what else is done to the images before they are mixed: takes and returns images, as in augment.py.
        options: keywords of `ImageBatches`.
    """

    def __init__(
        self,
        data: LabelledImages,
        classes: int,
        batch_size: int,
        seed: int,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
        **options: Any,
    ):
        super().__init__(data, classes, batch_size, seed, **options)
        self.mixup = mixup
        self.cutmix = cutmix
        self.augment = augment

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        images, targets = super().make_batch(index, rng)
        if self.augment:
            images = self.augment(images, rng)
        if self.mixup:
            images, targets = mixup(images, targets, self.mixup, rng)
        if self.cutmix:
            images, targets = cutmix(images, targets, self.cutmix, rng)
        return images, targets
