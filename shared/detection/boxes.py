"""Anchors, and IoU and CIoU of boxes (left, top, right, bottom) in pixels."""

import math
from typing import Any

import numpy as np
from keras import ops

STRIDES = (8, 16, 32)
"""Stride of each level of the feature pyramid, in pixels."""


LEAST_AREA = 1e-7
"""Keeps divisions finite for empty boxes."""


def anchor_grid(image_size: int) -> tuple[Any, Any]:
    """Anchors of a square image, finest level first, row by row.

    Args:
        image_size: height and width in pixels, a multiple of the largest stride.

    Returns:
        Anchor points (anchors, 2), x and y in pixels, at the centre of each cell, and their strides (anchors,).
    """
    points, strides = [], []
    for stride in STRIDES:
        middles = (np.arange(image_size // stride) + 0.5) * stride
        points.append(np.stack(np.meshgrid(middles, middles), axis=-1).reshape(-1, 2))
        strides.append(np.full(len(points[-1]), stride))
    points, strides = (np.concatenate(each).astype("float32") for each in (points, strides))
    return ops.convert_to_tensor(points), ops.convert_to_tensor(strides)


def boxes_around(points: Any, distances: Any) -> Any:
    """Boxes (…, 4) from points (…, 2) and the distances (…, 4) from there to the left, top, right and bottom."""
    return ops.concatenate([points - distances[..., :2], points + distances[..., 2:]], axis=-1)


def distances_to(boxes: Any, points: Any) -> Any:
    """The distances (…, 4) from points (…, 2) to the sides of boxes (…, 4), negative where a point is outside."""
    return ops.concatenate([points - boxes[..., :2], boxes[..., 2:] - points], axis=-1)


def intersection_over_union(first: Any, second: Any) -> Any:
    """IoU of boxes, 0 to 1.

    Args:
        first: (…, 4).
        second: (…, 4), of a shape that broadcasts with the first.

    Returns:
        (…): the area of the intersection divided by that of the union; 0 where both are empty.
    """
    left, top, right, bottom = (first[..., side] for side in range(4))
    other_left, other_top, other_right, other_bottom = (second[..., side] for side in range(4))
    width = ops.relu(ops.minimum(right, other_right) - ops.maximum(left, other_left))
    height = ops.relu(ops.minimum(bottom, other_bottom) - ops.maximum(top, other_top))
    intersection = width * height
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    return intersection / (areas - intersection + LEAST_AREA)


def complete_iou(first: Any, second: Any) -> Any:
    """CIoU, complete IoU: the IoU less penalties for centre distance and aspect ratio (-1.5 to 1).

    Zheng et al. 2019, "Distance-IoU Loss", arXiv:1911.08287, section 3.3: IoU - d²/c² - αv, with d the distance of the
    centres, c the diagonal of the smallest enclosing box, v = 4/π² (arctan w/h - arctan w'/h')² and
    α = v / (1 - IoU + v), which has no gradient.

    Args:
        first: (…, 4).
        second: (…, 4), of a shape that broadcasts with the first.

    Returns:
        (…).
    """
    overlap = intersection_over_union(first, second)
    left, top, right, bottom = (first[..., side] for side in range(4))
    other_left, other_top, other_right, other_bottom = (second[..., side] for side in range(4))
    apart = (left + right - other_left - other_right) ** 2 + (top + bottom - other_top - other_bottom) ** 2
    around_width = ops.maximum(right, other_right) - ops.minimum(left, other_left)
    around_height = ops.maximum(bottom, other_bottom) - ops.minimum(top, other_top)
    distance = apart / 4 / (around_width**2 + around_height**2 + LEAST_AREA)

    angle = ops.arctan((right - left) / (bottom - top + LEAST_AREA))
    other_angle = ops.arctan((other_right - other_left) / (other_bottom - other_top + LEAST_AREA))
    shape = 4 / math.pi**2 * (angle - other_angle) ** 2
    weight = ops.stop_gradient(shape / (ops.relu(1 - overlap) + shape + LEAST_AREA))
    return overlap - distance - weight * shape
