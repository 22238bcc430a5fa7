"""The exported graph of a detector: the network, decoding and non-maximum suppression."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from shared.backends.exporting import Graph, Tensor, by_keras, positional
from shared.data.detection.boxed_images import LETTERBOX_GREY, letterbox
from shared.detection.decoding import BINS, Detections, boxes_in_picture, decode_outputs, suppress_overlapping
from shared.training.exports import Exported, GraphCall, arrays, model_graph
from shared.training.predictors import Boxes, Picture


class ExportedDetector(Exported):
    """A detector that outputs `Detections`."""

    def inputs(self, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Images, and a confidence threshold that the scores of some boxes exceed, in a gap between scores."""
        inputs = super().inputs(sizes, rng)
        logits = self.model_outputs(inputs)["outputs"][..., 4 * BINS :]
        highest = 1 / (1 + np.exp(-np.sort(logits, axis=None)[::-1][20:60]))
        widest = np.argmax(highest[:-1] - highest[1:])
        threshold = highest[widest : widest + 2].mean()
        return inputs | {"confidence": np.array(threshold, np.float32), "overlap": np.array(0.5, np.float32)}

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return arrays(by_keras(positional(self.graphs[0]), [self.model])(*inputs.values()))

    def difference(self, expected: dict[str, np.ndarray], computed: dict[str, np.ndarray]) -> float:
        """The largest difference of a score, or of a box as a fraction of the image; detections are matched first.

        Rounding may exchange detections whose scores are nearly equal.
        """
        size, differences = self.model.input_shape[1], [0.0]
        for each in zip(*(zip(*found.values(), strict=True) for found in (expected, computed)), strict=True):
            first, second = (Detections(*(part[one[2] >= 0] for part in one)) for one in each)
            if len(first.labels) != len(second.labels):
                return float("inf")
            apart = np.maximum(
                np.abs(first.boxes[:, None] - second.boxes[None]).max(axis=-1) / size,
                np.abs(first.scores[:, None] - second.scores[None]),
            )
            apart = np.where(first.labels[:, None] == second.labels, apart, np.inf)
            differences += [*apart.min(axis=0, initial=np.inf), *apart.min(axis=1, initial=np.inf)]
        return float(max(differences))


def detections(outputs: Any, image_size: int, confidence: Any, overlap: Any) -> dict[str, Any]:
    """`Detections` by name, from the outputs of a network."""
    boxes, scores = decode_outputs(outputs, image_size)
    return suppress_overlapping(boxes, scores, confidence, overlap)._asdict()


def exported_detector(model: keras.Model, classes: list[str], confidence: float, overlap: float) -> Exported:
    """A trained detector with decoding and NMS, whose thresholds are inputs of the graph.

    Args:
        model: from images (batch, size, size, 3) in uint8 to outputs, see `decode_outputs`.
        classes: class names.
        confidence: default of the confidence threshold.
        overlap: default of the IoU threshold.
    """
    raw, size = model_graph(model, "image"), model.input_shape[1]

    def detect(image: Any, confidence: Any, overlap: Any) -> dict[str, Any]:
        return detections(raw.function(image=image)["outputs"], size, confidence, overlap)

    def predictor_by(call: GraphCall) -> Callable:
        def detect_objects(image: Picture, confidence: float, overlap: float) -> Boxes:
            square = letterbox(image, size)
            thresholds = {"confidence": np.array(confidence, np.float32), "overlap": np.array(overlap, np.float32)}
            found = call("model", {"image": square.pixels[None], **thresholds})
            return boxes_in_picture(Detections(**found), square, image.size, classes)

        return detect_objects

    most = min(300, model.output_shape[1] * len(classes))
    about = {
        "image": {
            "values": "0 to 255",
            "colours": ["red", "green", "blue"],
            "resizing": f"letterboxed: scaled to fit {size} by {size} pixels with its aspect ratio kept, bilinear with "
            f"antialiasing, and centred on grey ({LETTERBOX_GREY})",
        },
        "confidence": {"values": "score from which a box is a detection, 0 to 1", "default": confidence},
        "overlap": {"values": "IoU from which the box of lower score is suppressed, 0 to 1", "default": overlap},
        "boxes": "left, top, right, bottom in pixels of the letterboxed image, by descending score",
        "scores": "0 to 1",
        "labels": "index of the class; -1 where there is no further detection",
        "outputs": f"logits for each cell of grids with strides of 8, 16 and 32 pixels, row by row: {BINS} of the "
        "distance in strides from the centre of the cell to each side, left, top, right, bottom, then one for each "
        "class",
    }
    graph = Graph(
        "model",
        detect,
        raw.inputs | {"confidence": Tensor(()), "overlap": Tensor(())},
        {
            "boxes": Tensor(("batch", most, 4)),
            "scores": Tensor(("batch", most)),
            "labels": Tensor(("batch", most), "int32"),
        },
    )
    usage = {"classes": classes}
    return ExportedDetector(model, "object detection", raw, [graph], about, usage, predictor_by=predictor_by)
