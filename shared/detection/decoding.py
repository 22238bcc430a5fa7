"""From the outputs of a detector to boxes, each object once."""

from typing import Any, NamedTuple

import keras
from keras import layers, ops

from shared.data.detection.boxed_images import Letterboxed, unletterbox_boxes
from shared.detection.boxes import anchor_grid, boxes_around, intersection_over_union
from shared.training.predictors import Box, Boxes

BINS = 16
"""Bins of the distribution of the distance to each side of a box, one stride apart."""


class Detections(NamedTuple):
    """What was found in each image, the likeliest first; rows without a detection are zeros of class -1."""

    boxes: Any
    """(batch, most, 4): left, top, right, bottom in pixels."""
    scores: Any
    """(batch, most): 0 to 1."""
    labels: Any
    """(batch, most): index of the class, int32; -1 where there is no detection."""


def boxes_in_picture(
    found: Detections, square: Letterboxed, picture_size: tuple[int, int], classes: list[str]
) -> Boxes:
    """The detections in one picture, in its pixels.

    Args:
        found: of a batch of one, the picture letterboxed, as NumPy arrays.
        square: the letterboxed picture.
        picture_size: its (width, height).
        classes: names of the classes.
    """
    boxes, scores, labels = (each[0][found.labels[0] >= 0] for each in found)
    boxes = unletterbox_boxes(boxes, square.scale, square.offset, picture_size)
    rows = zip(labels, scores.tolist(), boxes.tolist(), strict=True)
    return Boxes([Box(classes[label], score, *box) for label, score, box in rows])


def split_outputs(outputs: Any, bins: int = BINS) -> tuple[Any, Any]:
    """Outputs (batch, anchors, 4 · bins + classes) as logits of sides (…, 4, bins) and of classes (…, classes)."""
    sides = ops.reshape(outputs[..., : 4 * bins], (-1, outputs.shape[1], 4, bins))
    return sides, outputs[..., 4 * bins :]


def expected_distances(sides: Any, strides: Any) -> Any:
    """The mean of each distribution, in pixels.

    Args:
        sides: (batch, anchors, 4, bins), logits.
        strides: (anchors,), pixels a bin.

    Returns:
        (batch, anchors, 4).
    """
    bins = ops.arange(sides.shape[-1], dtype=sides.dtype)
    return ops.sum(ops.softmax(sides, axis=-1) * bins, axis=-1) * strides[:, None]


def decode_outputs(outputs: Any, image_size: int, bins: int = BINS) -> tuple[Any, Any]:
    """The box of each anchor, inside the image, and its score for each class.

    Args:
        outputs: (batch, anchors, 4 · bins + classes), logits.
        image_size: height and width of the images, in pixels.
        bins: number of bins of the distribution of each side.

    Returns:
        Boxes (batch, anchors, 4) in pixels, and scores (batch, anchors, classes), 0 to 1.
    """
    points, strides = anchor_grid(image_size)
    sides, logits = split_outputs(outputs, bins)
    boxes = boxes_around(points, expected_distances(sides, strides))
    return ops.clip(boxes, 0, image_size), ops.sigmoid(logits)


def suppress_overlapping(
    boxes: Any, scores: Any, confidence: float, overlap: float, most: int = 300, candidates: int = 1000
) -> Detections:
    """Non-maximum suppression, class by class: the likeliest box stays, those that overlap it go, and so on.

    Exactly the greedy rule. It is the one fixed point of "a box stays if no likelier one that stays overlaps it", which
    is reached from "all stay" in as many rounds as the longest chain of boxes that decide over each other.

    Args:
        boxes: (batch, anchors, 4).
        scores: (batch, anchors, classes), 0 to 1; each score above `confidence` is a box to decide on.
        confidence: the lowest score that counts.
        overlap: boxes of a class with a higher IoU are taken for the same object.
        most: how many detections an image can have.
        candidates: how many boxes an image are decided on, those of highest score.
    """
    anchors, classes = scores.shape[1:]
    candidates = min(candidates, anchors * classes)
    most = min(most, candidates)
    scores, places = ops.top_k(ops.reshape(scores, (-1, anchors * classes)), candidates)
    labels = ops.cast(places % classes, "int32")
    boxes = ops.take_along_axis(boxes, (places // classes)[..., None], axis=1)

    alike = labels[:, :, None] == labels[:, None]
    near = intersection_over_union(boxes[:, :, None], boxes[:, None]) > overlap
    order = ops.arange(candidates, dtype="float32")
    later = order[:, None] < order
    # (batch, candidates, candidates): 1 where a row, if it stays, drives out a column.
    drives_out = ops.cast(ops.logical_and(ops.logical_and(alike, near), later), "float32")

    likely = ops.cast(scores > confidence, "float32")

    def decide(stay, _):
        driven_out = ops.matmul(stay[:, None], drives_out)[:, 0] > 0
        return ops.where(driven_out, 0.0, likely), stay

    stay, _ = ops.while_loop(
        lambda stay, before: ops.any(stay != before),
        decide,
        (likely, ops.zeros_like(likely) - 1),
        maximum_iterations=candidates + 1,
    )
    rank, places = ops.top_k(stay * (candidates - order), most)
    found = rank > 0
    return Detections(
        boxes=ops.where(found[..., None], ops.take_along_axis(boxes, places[..., None], axis=1), 0.0),
        scores=ops.where(found, ops.take_along_axis(scores, places, axis=1), 0.0),
        labels=ops.where(found, ops.take_along_axis(labels, places, axis=1), -1),
    )


@keras.saving.register_keras_serializable("keras_recipes")
class DetectionDecoder(layers.Layer):
    """The outputs of a detector as `Detections`; put behind a trained one, to predict.

    Args:
        image_size: height and width of the images, in pixels.
        confidence: the lowest score that counts; near 0 to measure a detector by its precision and recall.
        overlap: boxes of a class with a higher IoU are taken for the same object.
        most: how many detections an image can have.
        bins: number of bins of the distribution of each side.

    Input: (batch, anchors, 4 · bins + classes). Output: Detections of (batch, most, …).
    """

    def __init__(self, image_size, confidence=0.001, overlap=0.7, most=300, bins=BINS, dtype="float32", **kwargs):
        super().__init__(dtype=dtype, **kwargs)
        self.image_size = image_size
        self.confidence = confidence
        self.overlap = overlap
        self.most = most
        self.bins = bins

    def call(self, inputs):
        boxes, scores = decode_outputs(inputs, self.image_size, self.bins)
        return suppress_overlapping(boxes, scores, confidence=self.confidence, overlap=self.overlap, most=self.most)

    def compute_output_spec(self, inputs):
        batch, anchors, channels = inputs.shape
        most = min(self.most, anchors * (channels - 4 * self.bins))
        return Detections(
            boxes=keras.KerasTensor((batch, most, 4), self.compute_dtype),
            scores=keras.KerasTensor((batch, most), self.compute_dtype),
            labels=keras.KerasTensor((batch, most), "int32"),
        )

    def get_config(self):
        return super().get_config() | {
            "image_size": self.image_size,
            "confidence": self.confidence,
            "overlap": self.overlap,
            "most": self.most,
            "bins": self.bins,
        }
