"""Losses of a detector."""

from typing import Any

import keras
from keras import ops

from shared.backends.shapes import used_rows
from shared.detection.assignment import assign_boxes
from shared.detection.boxes import anchor_grid, boxes_around, complete_iou, distances_to
from shared.detection.decoding import BINS, expected_distances, split_outputs


def distribution_focal_loss(logits: Any, distances: Any) -> Any:
    """Distribution focal loss, DFL (Li et al. 2020, "Generalized Focal Loss", arXiv:2006.04388, equation 6).

    The cross-entropy of the two bins around each distance, weighted linearly by nearness.

    Args:
        logits: (…, bins), for the distances 0, 1, … bins - 1.
        distances: (…), at least 0 and at most bins - 1.

    Returns:
        (…).
    """
    bins = ops.arange(logits.shape[-1], dtype=logits.dtype)
    nearness = ops.relu(1 - ops.abs(distances[..., None] - bins))
    return -ops.sum(nearness * ops.log_softmax(logits, axis=-1), axis=-1)


@keras.saving.register_keras_serializable("keras_recipes")
class DetectionLoss(keras.losses.Loss):
    """Detection loss of YOLOv8: CIoU and distribution focal loss of the boxes, binary cross-entropy of the classes.

    Each sum over anchors is divided by the sum of the target scores of the whole batch, so that the loss depends
    neither on the batch size nor on the number of boxes.

    Args:
        image_size: height and width of the images, in pixels.
        bins: number of bins per side of a box.
        box_gain: weight of 1 - CIoU.
        class_gain: weight of the binary cross-entropy.
        distribution_gain: weight of the distribution focal loss.

    Inputs: targets (batch, most, 5), class index or -1 for padding, left, top, right, bottom in pixels; and outputs
    (batch, anchors, 4 · bins + classes), logits. Output: (batch,).
    """

    def __init__(
        self,
        image_size: int,
        bins: int = BINS,
        box_gain: float = 7.5,
        class_gain: float = 0.5,
        distribution_gain: float = 1.5,
        name: str = "detection_loss",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self.image_size = image_size
        self.bins = bins
        self.box_gain = box_gain
        self.class_gain = class_gain
        self.distribution_gain = distribution_gain

    def call(self, y_true, y_pred):
        y_true = used_rows(y_true)
        points, strides = anchor_grid(self.image_size)
        sides, logits = split_outputs(y_pred, self.bins)
        boxes = boxes_around(points, expected_distances(sides, strides))
        # No gradient flows through the targets.
        predicted = ops.stop_gradient(ops.sigmoid(logits)), ops.stop_gradient(boxes)
        target_boxes, target_scores = assign_boxes(*predicted, points, y_true)

        weights = ops.sum(target_scores, axis=-1)  # (batch, anchors), 0 for the background
        overlap_loss = ops.sum((1 - complete_iou(boxes, target_boxes)) * weights, axis=-1)
        distances = ops.clip(distances_to(target_boxes, points) / strides[:, None], 0, self.bins - 1.01)
        distribution_loss = ops.sum(ops.mean(distribution_focal_loss(sides, distances), axis=-1) * weights, axis=-1)
        class_loss = ops.sum(ops.binary_crossentropy(target_scores, logits, from_logits=True), axis=(1, 2))
        losses = (
            self.box_gain * overlap_loss + self.class_gain * class_loss + self.distribution_gain * distribution_loss
        )
        batch = ops.cast(ops.shape(y_pred)[0], losses.dtype)
        return losses * batch / ops.maximum(ops.sum(weights), 1.0)

    def get_config(self):
        return super().get_config() | {
            "image_size": self.image_size,
            "bins": self.bins,
            "box_gain": self.box_gain,
            "class_gain": self.class_gain,
            "distribution_gain": self.distribution_gain,
        }
