"""Detection metrics by COCO's protocol."""

from collections.abc import Callable

from faster_coco_eval import COCO, COCOeval_faster

from shared.data.detection.boxed_images import BoxedImages
from shared.detection.metrics import box_entries


def evaluation_of(reference: COCO, found: COCO, kind: str, print_function: Callable) -> COCOeval_faster:
    """COCO's evaluation of detections."""
    return COCOeval_faster(reference, found, kind, print_function=print_function)


def true_entries(truth: BoxedImages) -> list[dict]:
    """The true boxes as COCO annotations."""
    return box_entries(truth.boxes, truth.labels)
