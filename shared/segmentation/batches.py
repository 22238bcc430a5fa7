"""Batches of augmented crops with the class of each pixel, drawn on the host: the same on every backend."""

import numpy as np

from shared.data.segmentation.segmented_images import UNLABELLED, SegmentedImages
from shared.segmentation.augment import centre_crop, random_brightness, random_crop_and_scale, random_orientation
from shared.segmentation.instances import border_targets
from shared.training.batches import SeededBatches


def class_targets(mask: np.ndarray, objects: bool) -> np.ndarray:
    """The class of each pixel, in int32, -1 where it is unlabelled.

    Args:
        mask: (height, width), of classes or of objects.
        objects: whether it numbers objects, of which the classes are background, interior and border.
    """
    targets = border_targets(mask) if objects else mask.astype(np.int32)
    return np.where(mask == UNLABELLED, -1, targets).astype(np.int32)


def centre_crops(images: SegmentedImages, size: int, objects: bool) -> tuple[np.ndarray, np.ndarray]:
    """The middle of each image, (images, size, size, channels) in uint8, and its classes, (images, size, size)."""
    crops = [centre_crop(*pair, size) for pair in zip(images.pixels, images.masks, strict=True)]
    return np.stack([pixels for pixels, _ in crops]), np.stack([class_targets(mask, objects) for _, mask in crops])


class SegmentationBatches(SeededBatches):
    """Shuffled random crops; the last, smaller batch of an epoch is dropped.

    Yields images (batch_size, size, size, channels) in uint8 and classes (batch_size, size, size) in int32, -1 where a
    pixel is unlabelled.

    Args:
        data: the images.
        batch_size: examples per batch.
        seed: of shuffling and augmentation.
        size: height and width of the crops, in pixels.
        crops: crops of each image in an epoch.
        objects: whether masks number objects, instead of classes.
        scale: random scale, by a factor of up to this.
        turn: random quarter turns, besides horizontal flips.
        brightness: strength of random brightness.
    """

    def __init__(
        self,
        data: SegmentedImages,
        batch_size: int,
        seed: int,
        size: int,
        crops: int = 1,
        objects: bool = False,
        scale: float = 1.0,
        turn: bool = False,
        brightness: float = 0.0,
    ):
        super().__init__(seed)
        self.data = data
        self.batch_size = batch_size
        self.crops = crops
        self.batches_per_epoch = crops * len(data.masks) // batch_size
        self.size = size
        self.objects = objects
        self.scale = scale
        self.turn = turn
        self.brightness = brightness

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        examples = len(self.data.masks)
        order = self.shuffled(self.crops * examples, self.epoch) % examples
        images, targets = [], []
        for place in order[index * self.batch_size :][: self.batch_size]:
            pixels, mask = self.data.pixels[place], self.data.masks[place]
            pixels, mask = random_crop_and_scale(pixels, mask, self.size, self.scale, rng)
            pixels, mask = random_orientation(pixels, mask, self.turn, rng)
            images.append(random_brightness(pixels, self.brightness, rng))
            targets.append(class_targets(mask, self.objects))
        return np.stack(images), np.stack(targets)
