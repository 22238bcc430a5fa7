"""What a trained detector says of image files, for people and for programs."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from shared.files import replacing
from shared.training.plots import annotated_picture


def draw_objects(
    path: Path, picture: Image.Image, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, classes: list[str]
) -> dict[str, Any]:
    """Draws the objects that were found in a picture on a copy of it.

    Args:
        path: the PNG file to write.
        picture: it.
        boxes: (objects, 4): left, top, right, bottom in pixels of the picture.
        scores: (objects,), 0 to 1.
        labels: (objects,), index of the class.
        classes: their names.

    Returns:
        The same as JSON.
    """
    with replacing(path) as unfinished:
        annotated_picture(np.asarray(picture), boxes, labels, classes, scores).savefig(unfinished)
    objects = [
        {"class": classes[label], "score": round(float(score), 4), "box": [round(float(side), 1) for side in box]}
        for label, score, box in zip(labels, scores, boxes, strict=True)
    ]
    return {"drawn": str(path), "width": picture.width, "height": picture.height, "objects": objects}
