"""Batches of augmented images and detection targets, drawn on the host."""

import numpy as np

from shared.data.detection.boxed_images import BoxedImage, BoxedImages, box_areas
from shared.detection.augment import flipped, random_affine, random_colour, random_mosaic
from shared.training.batches import SeededBatches


class DetectionBatches(SeededBatches):
    """Shuffled and augmented images with their boxes; the last, smaller batch of an epoch is dropped.

    Yields images (batch_size, size, size, 3) in uint8 and targets (batch_size, max_boxes, 5) in float32; see
    `detection_targets`.

    Args:
        data: the images.
        batch_size: examples per batch; at most the number of images.
        seed: of shuffling and augmentation.
        max_boxes: maximum number of boxes per image; the largest are kept.
        images_per_epoch: images per epoch, about; a pass over a larger set takes several epochs. None for all.
        mosaic: fraction of the images that are mosaics.
        mosaic_epochs: number of first epochs with mosaics; None for all.
        scale: random scale by a factor of up to 1 ± `scale`.
        shift: maximum random translation, as a fraction of the size.
        flip: random horizontal flip.
        colour: strength of the color jitter; 1 is about that of YOLOv8.
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
        number, position = divmod(self.epoch * self.batches_per_epoch + index, self.batches_per_pass)
        chosen = self.shuffled(len(self.data.labels), number)[position * self.batch_size :][: self.batch_size]
        images = [self.augmented(number, rng) for number in chosen]
        targets = [detection_targets(image.boxes, image.labels, self.max_boxes) for image in images]
        return np.stack([image.pixels for image in images]), np.stack(targets)

    def augmented(self, number: int, rng: np.random.Generator) -> BoxedImage:
        """Image `number` of the data, augmented."""
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
    """Detection targets: rows of class index, left, top, right, bottom; the index is -1 for padding.

    Of more than `max_boxes` boxes the largest are kept: an unlabelled small object harms training less than an
    unlabelled large one.

    Args:
        boxes: (boxes, 4), or (images, boxes, 4).
        labels: (boxes,), or (images, boxes); -1 for padding.
        max_boxes: rows per image.

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
