"""Decoding of a detector's outputs, and non-maximum suppression (NMS)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.data.detection.boxed_images import Letterboxed, unletterbox_boxes
from shared.detection.boxes import anchor_grid, boxes_around, intersection_over_union
from shared.training.predictors import Box, Boxes

BINS = 16
"""Bins of the distance distribution of each side of a box, one stride apart."""


class Detections(NamedTuple):
    """Detections in each image, by descending score; padding rows are zeros of class -1."""

    boxes: Any
    """(batch, most, 4): left, top, right, bottom in pixels."""
    scores: Any
    """(batch, most): 0 to 1."""
    labels: Any
    """(batch, most): class index, int32; -1 for padding."""


def boxes_in_picture(
    found: Detections, square: Letterboxed, picture_size: tuple[int, int], classes: list[str]
) -> Boxes:
    """Detections in one image, in its pixels.

    Args:
        found: detections of a batch of one letterboxed image, as NumPy arrays.
        square: the letterboxed image.
        picture_size: (width, height) of the original.
        classes: class names.
    """
    boxes, scores, labels = (each[0][found.labels[0] >= 0] for each in found)
    boxes = unletterbox_boxes(boxes, square.scale, square.offset, picture_size)
    rows = zip(labels, scores.tolist(), boxes.tolist(), strict=True)
    return Boxes([Box(classes[label], score, *box) for label, score, box in rows])


def split_outputs(outputs: Any, bins: int = BINS) -> tuple[Any, Any]:
    """Logits of sides (…, 4, bins) and of classes (…, classes) from outputs (batch, anchors, 4 · bins + classes)."""
    sides = ops.reshape(outputs[..., : 4 * bins], (-1, outputs.shape[1], 4, bins))
    return sides, outputs[..., 4 * bins :]


def expected_distances(sides: Any, strides: Any) -> Any:
    """Expected distance of each distribution, in pixels.

    Args:
        sides: (batch, anchors, 4, bins), logits.
        strides: (anchors,), pixels per bin.

    Returns:
        (batch, anchors, 4).
    """
    bins = ops.arange(sides.shape[-1], dtype=sides.dtype)
    return ops.sum(ops.softmax(sides, axis=-1) * bins, axis=-1) * strides[:, None]


def decode_outputs(outputs: Any, image_size: int, bins: int = BINS) -> tuple[Any, Any]:
    """Boxes of all anchors, clipped to the image, and their class scores.

    Args:
        outputs: (batch, anchors, 4 · bins + classes), logits.
        image_size: height and width of the images, in pixels.
        bins: number of bins per side.

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
    """Non-maximum suppression (NMS) per class, equal to the greedy algorithm.

    The result is the fixed point of "a box stays if no box of higher score that stays overlaps it", iterated from "all
    stay"; the number of iterations is the length of the longest chain of overlapping boxes.

    Args:
        boxes: (batch, anchors, 4).
        scores: (batch, anchors, classes), 0 to 1; each score is a candidate.
        confidence: confidence threshold.
        overlap: IoU threshold.
        most: maximum number of detections per image.
        candidates: maximum number of candidates per image, by score.
    """
    anchors, classes = scores.shape[1:]
    candidates = min(candidates, anchors * classes)
    most = min(most, candidates)
    scores, indices = ops.top_k(ops.reshape(scores, (-1, anchors * classes)), candidates)
    labels = ops.cast(indices % classes, "int32")
    boxes = ops.take_along_axis(boxes, (indices // classes)[..., None], axis=1)

    same_class = labels[:, :, None] == labels[:, None]
    overlapping = intersection_over_union(boxes[:, :, None], boxes[:, None]) > overlap
    order = ops.arange(candidates, dtype="float32")
    later = order[:, None] < order
    # (batch, candidates, candidates): 1 where a row, if it stays, suppresses a column.
    suppresses = ops.cast(ops.logical_and(ops.logical_and(same_class, overlapping), later), "float32")

    likely = ops.cast(scores > confidence, "float32")

    def decide(stay, _):
        suppressed = ops.matmul(stay[:, None], suppresses)[:, 0] > 0
        return ops.where(suppressed, 0.0, likely), stay

    stay, _ = ops.while_loop(
        lambda stay, before: ops.any(stay != before),
        decide,
        (likely, ops.zeros_like(likely) - 1),
        maximum_iterations=candidates + 1,
    )
    rank, indices = ops.top_k(stay * (candidates - order), most)
    found = rank > 0
    return Detections(
        boxes=ops.where(found[..., None], ops.take_along_axis(boxes, indices[..., None], axis=1), 0.0),
        scores=ops.where(found, ops.take_along_axis(scores, indices, axis=1), 0.0),
        labels=ops.where(found, ops.take_along_axis(labels, indices, axis=1), -1),
    )


def compiled_detector(model: keras.Model) -> Callable:
    """A trained detector with decoding and NMS, compiled once for all thresholds.

    Args:
        model: from pixels (batch, size, size, 3) in uint8 to outputs, see `decode_outputs`.

    Returns:
        A function of pixels, confidence threshold and IoU threshold to Detections, as NumPy arrays.
    """

    def detect(pixels: Any, confidence: Any, overlap: Any) -> Detections:
        boxes, scores = decode_outputs(model(pixels, training=False), model.input_shape[1])
        return suppress_overlapping(boxes, scores, confidence, overlap)

    program = compiled_inference(detect, [model])

    def detections(pixels: np.ndarray, confidence: float, overlap: float) -> Detections:
        found = program(pixels, np.float32(confidence), np.float32(overlap))
        return Detections(*map(ops.convert_to_numpy, found))

    return detections
