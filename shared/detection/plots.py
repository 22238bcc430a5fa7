"""Figures of detections."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from shared.data.detection.boxed_images import BoxedImages
from shared.detection.decoding import Detections
from shared.files import replacing
from shared.training.predictors import Box, Boxes


def draw_boxes(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    scores: np.ndarray | None = None,
    font_size: float = 6,
) -> None:
    """Draws an image with bounding boxes, one color per class.

    Args:
        axes: where to draw.
        image: (height, width, 3), uint8.
        boxes: (boxes, 4): left, top, right, bottom in pixels.
        labels: (boxes,), class index; -1 for padding.
        classes: class names.
        scores: (boxes,), written beside the names.
        font_size: height of the names, in points.
    """
    height, width = image.shape[:2]
    axes.axis("off")
    axes.imshow(image, extent=(0, width, height, 0))
    for index in np.flatnonzero(labels >= 0):
        left, top, right, bottom = boxes[index]
        color = f"C{labels[index] % 10}"
        axes.plot(
            [left, right, right, left, left], [top, top, bottom, bottom, top], color=color, linewidth=font_size / 5
        )
        name = classes[labels[index]] + ("" if scores is None else f" {scores[index]:.2f}")
        frame = {"facecolor": color, "alpha": 0.7, "pad": 0.5, "linewidth": 0}
        side = "bottom" if top > height / 20 else "top"  # above the image it would be clipped
        axes.text(left, top, name, fontsize=font_size, color="white", bbox=frame, va=side, clip_on=True)
    axes.set(xlim=(0, width), ylim=(height, 0))


def plot_detections(truth: BoxedImages, found: Detections, classes: list[str], count: int = 8) -> Figure:
    """The first images with their true boxes, each beside its detections.

    Args:
        truth: the images with their boxes.
        found: the detections to draw, as NumPy arrays.
        classes: class names.
        count: number of images.
    """
    count = min(count, len(truth.images))
    figure = Figure(figsize=(12, 3.1 * -(-count // 2)), layout="constrained")
    pairs = figure.subplots(-(-count // 2), 4, squeeze=False).reshape(-1, 2)
    for index, (left, right) in enumerate(pairs):
        left.axis("off")
        right.axis("off")
        if index < count:
            image, true_boxes, true_labels = (each[index] for each in truth[:3])
            boxes, scores, labels = (each[index] for each in found)
            draw_boxes(left, image, boxes=true_boxes, labels=true_labels, classes=classes)
            draw_boxes(right, image, boxes=boxes, labels=labels, classes=classes, scores=scores)
    for axes, title in zip(pairs[:2].flat, ["ground truth", "detections"] * 2, strict=False):
        axes.set_title(title)
    return figure


def plot_precision_recall(recalls: np.ndarray, precision: np.ndarray, classes: list[str]) -> Figure:
    """Precision-recall curve of each class, with its average precision.

    Args:
        recalls: (points,), 0 to 1.
        precision: (classes, points); NaN for a class without a true box, which is left out.
        classes: class names.
    """
    figure = Figure(figsize=(5, 4.5), layout="constrained")
    axes = figure.subplots()
    for index in np.flatnonzero(~np.isnan(precision).any(axis=1)):
        axes.plot(
            recalls, precision[index], color=f"C{index % 10}", label=f"{classes[index]} {precision[index].mean():.3f}"
        )
    axes.set(xlabel="recall", ylabel="precision at IoU 0.50", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if len(axes.lines) <= 20:
        axes.legend(title="average precision", fontsize=8)
    return figure


def annotated_picture(
    picture: np.ndarray, boxes: np.ndarray, labels: np.ndarray, classes: list[str], scores: np.ndarray
) -> Figure:
    """An image with boxes drawn on it, pixel for pixel; see `draw_boxes`."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_boxes(
        axes, picture, boxes=boxes, labels=labels, classes=classes, scores=scores,
        font_size=max(6, max(height, width) / 90),
    )  # fmt: skip
    return figure


def draw_objects(path: Path, picture: Image.Image, found: Boxes, classes: list[str]) -> None:
    """Writes a copy of an image with its detections drawn.

    Args:
        path: the PNG file to write.
        picture: the image.
        found: the detections, in its pixels.
        classes: all class names, which determine the colors.
    """
    boxes = np.array([box[2:] for box in found]).reshape(-1, 4)
    scores, labels = np.array([box.score for box in found]), np.array([classes.index(box.label) for box in found], int)
    with replacing(path) as unfinished:
        annotated_picture(np.asarray(picture), boxes=boxes, labels=labels, classes=classes, scores=scores).savefig(
            unfinished
        )


def box_facts(box: Box) -> dict[str, Any]:
    """A detection as JSON."""
    sides = [round(side, 1) for side in box[2:]]
    return {"class": box.label, "score": round(box.score, 4), "box": sides}


def draw_tracks(picture: Image.Image, found: Boxes, classes: list[str]) -> Image.Image:
    """A copy of a frame of a video with its objects drawn, in milliseconds.

    Args:
        picture: the frame.
        found: its objects.
        classes: all class names, which determine the colors.
    """
    drawn = picture.copy()
    pen, size = ImageDraw.Draw(drawn), max(10, round(max(picture.size) / 50))
    font = ImageFont.load_default(size)
    for label, score, *sides in found:
        left, top, right, bottom = (round(side) for side in sides)
        colour, name = to_hex(f"C{classes.index(label) % 10}"), f"{label} {score:.2f}"
        pen.rectangle((left, top, max(left, right), max(top, bottom)), outline=colour, width=max(2, size // 6))
        place = left, top - size - 4 if top > size + 4 else top
        pen.rectangle((*place, place[0] + round(pen.textlength(name, font)) + 5, place[1] + size + 3), fill=colour)
        pen.text((place[0] + 3, place[1]), name, "white", font)
    return drawn
