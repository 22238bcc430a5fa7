"""The exported graph of an image classifier."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.exporting import Graph, Tensor
from shared.data.images.datasets import ImageData
from shared.data.images.files import fitted_pixels
from shared.errors import UsageError
from shared.images.metrics import softmax, top_k_accuracy
from shared.training.exports import Exported, GraphCall, model_graph
from shared.training.predictors import Picture, Probabilities

CALIBRATION = 200
"""Training images from which quantization takes the ranges of activations."""


@dataclass
class ExportedClassifier(Exported):
    """A classifier that outputs probabilities.

    Args:
        load: loads the data of the run, if anything does.
    """

    load: Callable[[], ImageData] | None = None

    @functools.cached_property
    def data(self) -> ImageData:
        """The data of the run.

        Raises:
            UsageError: they are not there, or cannot be loaded.
        """
        if self.load is None:
            raise UsageError("--int8 needs the data of the run, and its Config has no method load")
        return self.load()

    def calibration(self) -> dict[str, np.ndarray]:
        images = self.data.train.images
        return {"image": images[np.linspace(0, len(images) - 1, min(CALIBRATION, len(images))).astype(int)]}

    def metric(self, call: GraphCall) -> float:
        """The top-1 accuracy on the test images."""
        images, labels = self.data.test
        parts = np.array_split(images, -(-len(images) // 100))
        found = [self.computed(call, {"image": part})["probabilities"] for part in parts]
        return top_k_accuracy(np.concatenate(found), labels, 1)

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": softmax(super().expected(inputs)["logits"])}


def exported_classifier(model: keras.Model, classes: list[str], load: Callable[[], ImageData] | None) -> Exported:
    """The graph of `class_probabilities`, but for the resizing.

    Args:
        model: see there.
        classes: class names.
        load: loads the data of the run, for quantization; None if nothing does.
    """
    raw = model_graph(model, "image", "logits")

    def classify(image: Any) -> dict[str, Any]:
        return {"probabilities": ops.softmax(raw.function(image=image)["logits"])}

    def predictor_by(call: GraphCall) -> Callable:
        def classify_picture(image: Picture) -> Probabilities:
            (row,) = call("model", {"image": fitted_pixels(image, model.input_shape[1:])[None]})["probabilities"]
            return Probabilities(dict(zip(classes, row.tolist(), strict=True)))

        return classify_picture

    height, width, channels = model.input_shape[1:]
    about = {
        "image": {
            "values": "0 to 255",
            "colours": ["red", "green", "blue"] if channels == 3 else "grey: 0.299 red + 0.587 green + 0.114 blue",
            "resizing": f"scaled to fill {width} by {height} pixels with its aspect ratio kept, bilinear with "
            "antialiasing, and cropped around the middle: Pillow's ImageOps.fit",
        },
        "logits": "softmax of them is the probability of each class",
        "probabilities": "of each class, adding up to 1",
    }
    graph = Graph("model", classify, raw.inputs, {"probabilities": Tensor(("batch", len(classes)))})
    return ExportedClassifier(
        model, "image classification", raw, [graph], about, {"classes": classes}, predictor_by=predictor_by, load=load
    )
