"""Measures of a detector, by COCO's own protocol."""

from typing import NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core.mask import iou

from shared.data.detection.boxed_images import BoxedImages
from shared.detection.decoding import Detections

RECALLS = np.linspace(0, 1, 101)
"""Where COCO's protocol reads the precision."""


class DetectionMetrics(NamedTuple):
    """How well a detector finds what is there."""

    values: dict[str, float]
    """map: mean average precision over the IoU thresholds 0.50, 0.55, … 0.95, and over the classes. map50: at 0.50
    alone. ap50_CLASS: of one class at 0.50. A class without a true box has none, and is left out of the means."""
    precision: np.ndarray
    """(classes, 101): the highest precision at each of `RECALLS` or above, at IoU 0.50; NaN without a true box."""


class EvaluationWithDifficult(COCOeval_faster):
    """COCO's evaluation, which knows of crowds, for sets that have difficult objects as well.

    Both are ignored, however often they are found. But how far a detection overlaps a crowd is a fraction of its own
    area, for there is more in the crowd to be found; a difficult object is one, and overlaps by the IoU.
    """

    def computeIoU(self, imgId, catId):
        sets = self.gt_dataset, self.dt_dataset
        truth, found = (each.get_instances([imgId], [catId], True)[0][0] for each in sets)
        if not truth or not found:
            return []
        found = sorted(found, key=lambda entry: -entry["score"])[: self.params.maxDets[-1]]
        crowds = [entry["crowd"] for entry in truth]
        return iou([entry["bbox"] for entry in found], [entry["bbox"] for entry in truth], crowds)


def detection_metrics(truth: BoxedImages, found: Detections, classes: list[str]) -> DetectionMetrics:
    """Average precision after https://cocodataset.org/#detection-eval: up to 100 detections of a class in an image.

    Detections that overlap a crowd, or a difficult object, count neither as true nor as false.

    Args:
        truth: the images, with their boxes.
        found: the detections in each, as NumPy arrays.
        classes: names of the classes.
    """
    there = [
        {"iscrowd": ignored, "crowd": crowd, **entry}
        for labels, ignored, crowd in ((truth.labels, 0, 0), (truth.difficult, 1, 0), (truth.crowds, 1, 1))
        if labels is not None
        for entry in box_entries(truth.boxes, labels)
    ]
    reference = COCO()
    reference.dataset = {
        "images": [{"id": image} for image in range(len(truth.labels))],
        "categories": [{"id": index, "name": name} for index, name in enumerate(classes)],
        "annotations": [
            # Numbered from 1, because the protocol takes number 0 for none.
            {"id": number, "area": entry["bbox"][2] * entry["bbox"][3], **entry}
            for number, entry in enumerate(there, 1)
        ],
    }
    reference.createIndex()
    results = [
        {"score": float(score), **entry}
        for entry, score in zip(box_entries(found.boxes, found.labels), found.scores[found.labels >= 0], strict=True)
    ]
    evaluation = EvaluationWithDifficult(reference, reference.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (thresholds, recalls, classes), -1 without a true box
    precision = np.where(precision < 0, np.nan, precision)
    present = np.isin(np.arange(len(classes)), truth.labels)
    values = {"map": average(precision[:, :, present]), "map50": average(precision[0][:, present])}
    values |= {f"ap50_{classes[index]}": average(precision[0, :, index]) for index in np.flatnonzero(present)}
    return DetectionMetrics(values, precision[0].T)


def box_entries(boxes: np.ndarray, labels: np.ndarray) -> list[dict]:
    """Boxes (images, most, 4) as COCO writes them: image, class, and (left, top, width, height)."""
    images, places = np.nonzero(labels >= 0)
    chosen = boxes[images, places].astype(np.float64)
    chosen[:, 2:] -= chosen[:, :2]
    return [
        {"image_id": int(image), "category_id": int(label), "bbox": box.tolist()}
        for image, label, box in zip(images, labels[images, places], chosen, strict=True)
    ]


def average(values: np.ndarray) -> float:
    """The mean; 0 of nothing."""
    return float(values.mean()) if values.size else 0.0
