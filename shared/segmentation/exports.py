"""The exported graph of a segmentation model: the class probabilities of a tile."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.exporting import Graph, Tensor
from shared.data.images.files import channel_pixels
from shared.segmentation.prediction import mask_of, predict_in_tiles
from shared.training.exports import Exported, GraphCall, model_graph
from shared.training.predictors import Mask, Picture


class ExportedSegmenter(Exported):
    """A model that outputs the class probabilities of each pixel."""

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"probabilities": ops.convert_to_numpy(ops.softmax(super().expected(inputs)["logits"]))}


def exported_segmenter(
    model: keras.Model, classes: list[str], objects: bool, overlap: float, smallest: int
) -> Exported:
    """The class probabilities of a tile; images of any size are the program's, see `predict_in_tiles`.

    Args:
        model: from pixels (batch, size, size, channels) in uint8 to logits of each pixel.
        classes: class names.
        objects: whether the model predicts background, interior and border, see `separate_objects`.
        overlap: default of the overlap of tiles.
        smallest: default of the smallest object.
    """
    raw, (size, _, channels) = model_graph(model, "image", "logits"), model.input_shape[1:]

    def segment(image: Any) -> dict[str, Any]:
        return {"probabilities": ops.softmax(raw.function(image=image)["logits"])}

    def predictor_by(call: GraphCall) -> Callable:
        def probabilities_of(tile: np.ndarray) -> np.ndarray:
            return call("model", {"image": tile[None]})["probabilities"][0]

        def segment_picture(image: Picture, overlap: float, smallest: int) -> Mask:
            found = predict_in_tiles(probabilities_of, channel_pixels(image, channels), size, overlap)
            return mask_of(found, objects, smallest)

        return segment_picture

    about = {
        "image": {
            "values": "0 to 255",
            "colours": ["red", "green", "blue"] if channels == 3 else "grey: 0.299 red + 0.587 green + 0.114 blue",
            "resizing": f"none: images are cut into tiles of {size} by {size} pixels, smaller ones mirrored at their "
            "edges; where tiles overlap, weights fall from the middle of a tile to its edges",
        },
        "logits": "softmax of them is the probability of each class",
        "probabilities": "of background, interior and border of objects" if objects else "of each class",
    }
    usage = {"classes": classes, "objects": objects, "overlap": overlap, "smallest": smallest}
    graph = Graph("model", segment, raw.inputs, {"probabilities": Tensor(("batch", *model.output_shape[1:]))})
    task = "instance segmentation" if objects else "semantic segmentation"
    return ExportedSegmenter(model, task, raw, [graph], about, usage, predictor_by=predictor_by)
