"""Detection metrics by COCO's protocol."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core.mask import iou

from shared.data.detection.boxed_images import BoxedImages
from shared.detection.decoding import Detections

RECALLS = np.linspace(0, 1, 101)
"""Recall thresholds of COCO's protocol."""


class DetectionMetrics(NamedTuple):
    """Average precision of a detector."""

    values: dict[str, float]
    """map: mean average precision (mAP) over the IoU thresholds 0.50, 0.55, … 0.95 and the classes. map50: at 0.50
    alone. ap50_CLASS: of one class at 0.50. Classes without a true box are left out."""
    precision: np.ndarray
    """(classes, 101): interpolated precision at each of `RECALLS`, at IoU 0.50; NaN without a true box."""


class EvaluationWithDifficult(COCOeval_faster):
    """COCO's evaluation, extended from crowds to difficult objects.

    Both are ignored, however often they are detected. The overlap with a crowd is a fraction of the detection's area,
    since a crowd holds several objects; the overlap with a difficult object is the IoU.
    """

    def computeIoU(self, imgId, catId):
        sets = self.gt_dataset, self.dt_dataset
        truth, found = (each.get_instances([imgId], [catId], True)[0][0] for each in sets)
        if not truth or not found:
            return []
        found = sorted(found, key=lambda entry: -entry["score"])[: self.params.maxDets[-1]]
        crowds = [entry["crowd"] for entry in truth]
        return iou([entry["bbox"] for entry in found], [entry["bbox"] for entry in truth], crowds)


def evaluation_of(reference: COCO, found: COCO, kind: str, print_function: Callable) -> COCOeval_faster:
    """COCO's evaluation of detections."""
    return EvaluationWithDifficult(reference, found, kind, print_function=print_function)


def true_entries(truth: BoxedImages) -> list[dict]:
    """The true boxes as COCO annotations, those to ignore after the others."""
    return [
        {"iscrowd": ignored, "crowd": crowd, **entry}
        for labels, ignored, crowd in ((truth.labels, 0, 0), (truth.difficult, 1, 0), (truth.crowds, 1, 1))
        if labels is not None
        for entry in box_entries(truth.boxes, labels)
    ]


def detection_metrics(truth: BoxedImages, found: Detections, classes: list[str]) -> DetectionMetrics:
    """Average precision (https://cocodataset.org/#detection-eval), with up to 100 detections per class and image.

    Detections that overlap a crowd or a difficult object count neither as true nor as false positives.

    Args:
        truth: the images with their boxes.
        found: the detections, as NumPy arrays.
        classes: class names.
    """
    reference = COCO()
    reference.dataset = {
        "images": [{"id": image} for image in range(len(truth.labels))],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
        "annotations": [
            # Numbered from 1, because the protocol takes number 0 for none.
            {"id": number, "iscrowd": 0, "area": entry["bbox"][2] * entry["bbox"][3], **entry}
            for number, entry in enumerate(true_entries(truth), 1)
        ],
    }
    reference.createIndex()
    results = [
        {"score": float(score), **entry}
        for entry, score in zip(box_entries(found.boxes, found.labels), found.scores[found.labels >= 0], strict=True)
    ]
    evaluation = evaluation_of(reference, reference.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (thresholds, recalls, classes), -1 without a true box
    precision = np.where(precision < 0, np.nan, precision)
    present = np.isin(np.arange(len(classes)), truth.labels)
    values = {"map": average(precision[:, :, present]), "map50": average(precision[0][:, present])}
    values |= {f"ap50_{classes[index]}": average(precision[0, :, index]) for index in np.flatnonzero(present)}
    return DetectionMetrics(values, precision[0].T)


def box_entries(boxes: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Boxes (images, most, 4) as COCO annotations: image, class, and (left, top, width, height)."""
    images, rows = np.nonzero(labels >= 0)
    chosen = boxes[images, rows].astype(np.float64)
    chosen[:, 2:] -= chosen[:, :2]
    return [
        {"image_id": int(image), "category_id": int(label), "bbox": box.tolist()}
        for image, label, box in zip(images, labels[images, rows], chosen, strict=True)
    ]


def average(values: np.ndarray) -> float:
    """The mean; 0 if empty."""
    return float(values.mean()) if values.size else 0.0
