"""Batches of augmented images with boxes and what is to be learned from them, drawn on the host."""

import numpy as np

from shared.data.detection.boxed_images import BoxedImage, BoxedImages, box_areas
from shared.detection.augment import flipped, random_affine, random_colour, random_mosaic
from shared.training.batches import SeededBatches


class DetectionBatches(SeededBatches):
    """Shuffled and augmented images with their boxes; the last, smaller batch of an epoch is left out.

    Yields images (batch_size, size, size, 3) in uint8 and targets (batch_size, max_boxes, 5) in float32; see
    `detection_targets`.

    Args:
        data: the images.
        batch_size: examples a batch; at most the number of images.
        seed: of shuffling and augmentation.
        max_boxes: rows of the targets; of more boxes in an augmented image the largest are kept.
        images_per_epoch: about how many images make an epoch, so that a pass over a larger set takes several; None for
            all of them.
        mosaic: share of the images that are joined with three others.
        mosaic_epochs: how many epochs have mosaics, so that the last ones train on whole images; None for all.
        scale: zoom by a factor of up to 1 ± `scale`.
        shift: by up to this share of the size.
        flip: mirror half of the images.
        colour: strength of changes of colour; 1 for about those of YOLOv8.
    """

    def __init__(
        self,
        data: BoxedImages,
        batch_size: int,
        seed: int,
        max_boxes: int,
        images_per_epoch: int | None = None,
        mosaic: float = 0,
        mosaic_epochs: int | None = None,
        scale: float = 0,
        shift: float = 0,
        flip: bool = False,
        colour: float = 0,
    ):
        super().__init__(seed)
        self.data = data
        self.batch_size = batch_size
        self.batches_per_pass = len(data.labels) // batch_size
        self.batches_per_epoch = self.batches_per_pass
        if images_per_epoch is not None:
            self.batches_per_epoch = min(self.batches_per_pass, -(-images_per_epoch // batch_size))
        self.max_boxes = max_boxes
        self.mosaic = mosaic
        self.mosaic_epochs = mosaic_epochs
        self.scale = scale
        self.shift = shift
        self.flip = flip
        self.colour = colour

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        number, place = divmod(self.epoch * self.batches_per_epoch + index, self.batches_per_pass)
        chosen = self.shuffled(len(self.data.labels), number)[place * self.batch_size :][: self.batch_size]
        images = [self.augmented(number, rng) for number in chosen]
        targets = [detection_targets(image.boxes, image.labels, self.max_boxes) for image in images]
        return np.stack([image.pixels for image in images]), np.stack(targets)

    def augmented(self, number: int, rng: np.random.Generator) -> BoxedImage:
        """An image of the data, changed at random."""
        has_mosaic = self.mosaic_epochs is None or self.epoch < self.mosaic_epochs
        if has_mosaic and rng.random() < self.mosaic:
            numbers = [number, *rng.integers(len(self.data.labels), size=3)]
            image = random_mosaic([self.data.one(each) for each in numbers], self.scale, self.shift, rng)
        else:
            image = random_affine(self.data.one(number), self.scale, self.shift, rng)
        if self.colour:
            image = image._replace(pixels=random_colour(image.pixels, self.colour, rng))
        return flipped(image) if self.flip and rng.random() < 0.5 else image


def detection_targets(boxes: np.ndarray, labels: np.ndarray, max_boxes: int) -> np.ndarray:
    """What a detector learns from: rows of class index, left, top, right, bottom; the index is -1 where no box is.

    Of more than `max_boxes` the largest are kept: missing a small object costs a detector less than being taught that
    a large one is not there.

    Args:
        boxes: (boxes, 4), or (images, boxes, 4).
        labels: (boxes,), or (images, boxes); -1 where no box is.
        max_boxes: rows an image.

    Returns:
        (max_boxes, 5), or (images, max_boxes, 5), in float32.
    """
    rows = np.concatenate([labels[..., None], boxes], axis=-1).astype(np.float32)
    if labels.shape[-1] > max_boxes:
        sizes = np.where(labels >= 0, box_areas(boxes), -1)
        largest = np.sort(np.argsort(-sizes, axis=-1, kind="stable")[..., :max_boxes], axis=-1)
        return np.take_along_axis(rows, largest[..., None], axis=-2)
    missing = np.zeros((*labels.shape[:-1], max_boxes - labels.shape[-1], 5), np.float32)
    missing[..., 0] = -1
    return np.concatenate([rows, missing], axis=-2)
