"""Label assignment: the target box of each anchor."""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

from shared.detection.boxes import STRIDES, intersection_over_union

LEAST_ALIGNMENT = 1e-30


class Assignment(NamedTuple):
    """Targets of each anchor."""

    boxes: Any
    """(batch, anchors, 4) in pixels; meaningless where all scores are 0."""
    scores: Any
    """(batch, anchors, classes): normalized alignment at the class of the box; 0 elsewhere."""


def assign_boxes(
    scores: Any, boxes: Any, points: Any, targets: Any, candidates: int = 10, alpha: float = 0.5, beta: float = 6.0
) -> Assignment:
    """Task-aligned assignment (Feng et al. 2021, "TOOD", arXiv:2108.07755, section 3.2, with YOLOv8's exponents).

    The alignment of an anchor with a true box is s^alpha · u^beta, with s the predicted score of the box's class and u
    the IoU of the predicted box. Each true box is assigned the best-aligned anchors inside it; an anchor assigned to
    several boxes keeps the one of highest IoU. Target scores are alignments, scaled so that the highest of each box
    equals its highest IoU.

    u is the IoU, as in the paper, not the CIoU of YOLOv8, which is often negative early in training: a small box could
    then never be assigned an anchor.

    Indices are never out of range, and ties are broken alike on every backend.

    Args:
        scores: (batch, anchors, classes), predicted probabilities.
        boxes: (batch, anchors, 4), predicted, in pixels.
        points: (anchors, 2), in pixels.
        targets: (batch, most, 5): class index, or -1 where there is no box, left, top, right, bottom in pixels.
        candidates: anchors per true box; more where alignments are equal.
        alpha: exponent of the score.
        beta: exponent of the overlap.

    Returns:
        The targets of each anchor; stop gradients at them.
    """
    labels, truth = targets[..., 0], targets[..., 1:]
    classes = ops.arange(scores.shape[-1], dtype=labels.dtype)
    one_hot = ops.cast(labels[..., None] == classes, scores.dtype)  # (batch, most, classes), 0 where no box is

    # From here on (batch, most, anchors).
    overlaps = intersection_over_union(truth[:, :, None], boxes[:, None])
    likely = ops.matmul(one_hot, ops.transpose(scores**alpha, (0, 2, 1)))
    alignment = ops.where(inside(points, truth), likely * overlaps**beta, 0.0)
    taken = ops.logical_and(alignment >= nth_largest(alignment, candidates), alignment > 0)

    owner = ops.argmax(ops.where(taken, overlaps, 0.0), axis=1)  # (batch, anchors), the first box where there is none
    owned = ops.logical_and(taken, ops.arange(truth.shape[1], dtype=owner.dtype)[None, :, None] == owner[:, None])
    alignment = ops.where(owned, alignment, 0.0)
    best_alignment = ops.max(alignment, axis=2, keepdims=True)
    best_overlap = ops.max(ops.where(owned, overlaps, 0.0), axis=2, keepdims=True)
    fit = ops.max(alignment / ops.maximum(best_alignment, LEAST_ALIGNMENT) * best_overlap, axis=1)  # (batch, anchors)
    return Assignment(
        boxes=ops.take_along_axis(truth, owner[..., None], axis=1),
        scores=ops.take_along_axis(one_hot, owner[..., None], axis=1) * fit[..., None],
    )


def nth_largest(values: Any, n: int) -> Any:
    """The n-th largest distinct value of (…, values) along the last axis: (…, 1); -inf where there are fewer.

    Not top_k, for which XLA sorts all values, which on a CPU is slower than the network.
    """
    for _ in range(n - 1):
        values = ops.where(values < ops.max(values, axis=-1, keepdims=True), values, -np.inf)
    return ops.max(values, axis=-1, keepdims=True)


def inside(points: Any, boxes: Any) -> Any:
    """Whether points (anchors, 2) lie in boxes (batch, most, 4): (batch, most, anchors).

    Boxes narrower than the finest stride are widened to it, so that each contains an anchor.
    """
    within = True
    for low, high, axis in ((0, 2, 0), (1, 3, 1)):
        middle = (boxes[..., low] + boxes[..., high]) / 2
        reach = ops.maximum((boxes[..., high] - boxes[..., low]) / 2, STRIDES[0] / 2)
        within = ops.logical_and(within, ops.abs(points[:, axis] - middle[..., None]) <= reach[..., None])
    return within
