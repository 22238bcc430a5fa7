"""Images with masks, of any sizes."""

from typing import NamedTuple

from shared.data.segmentation.segmented_images import SegmentedImages


class SegmentationData(NamedTuple):
    """Images with masks, split for training, for choices, and for the final measurement."""

    name: str
    classes: list[str]
    train: SegmentedImages
    validation: SegmentedImages
    test: SegmentedImages
    objects: bool
    upright: bool

    @property
    def channels(self) -> int:
        return self.train.pixels[0].shape[-1]
