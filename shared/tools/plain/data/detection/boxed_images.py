"""Images with boxes around objects."""

from typing import NamedTuple

from shared.data.detection.boxed_images import BoxedImages


class DetectionData(NamedTuple):
    """Images with boxes, split for training, for choices, and for the final measurement."""

    name: str
    classes: list[str]
    train: BoxedImages
    validation: BoxedImages
    test: BoxedImages
    mirrored: bool
