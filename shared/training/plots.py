"""Figures of a run, made without pyplot's global state."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.data.boxes import BoxedImages
from shared.detection.decoding import Detections


def plot_curves(history: list[dict[str, float]], names: list[str]) -> Figure:
    """Curves over the epochs, one panel a name, training and, where there is one, validation in each.

    Args:
        history: one dictionary an epoch, with the keys "epoch", name and, or not, "val_" + name.
        names: what to draw, such as "loss".
    """
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        epochs = [row["epoch"] for row in history]
        axes.plot(epochs, [row[name] for row in history], "o-", markersize=3, label="training")
        if any(f"val_{name}" in row for row in history):
            axes.plot(epochs, [row[f"val_{name}"] for row in history], "o-", markersize=3, label="validation")
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def plot_confusion(matrix: np.ndarray, classes: list[str]) -> Figure:
    """A confusion matrix, each row in percent of its true class.

    Args:
        matrix: (classes, classes) counts, true class first.
        classes: their names.
    """
    percent = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 2 + 0.5 * len(classes)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=100)
    axes.set(xlabel="predicted", ylabel="true", title="percent of each true class")
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for (row, column), value in np.ndenumerate(percent):
            if value >= 0.5:
                color = "white" if value > 50 else "black"
                axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color=color)
    return figure


def plot_mistakes(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> Figure:
    """A sheet of the forty mistakes that the model was surest of, worst first.

    Args:
        images: (examples, height, width, channels), uint8.
        labels: (examples,), true classes.
        probabilities: (examples, classes).
        classes: their names.
    """
    predicted = probabilities.argmax(axis=1)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-confidence[wrong])][:40]
    figure = Figure(figsize=(12, 9), layout="constrained")
    for axes, index in zip(figure.subplots(5, 8).flat, [*wrong, *[None] * (40 - len(wrong))], strict=True):
        axes.axis("off")
        if index is not None:
            axes.imshow(images[index].squeeze(), cmap="gray")
            true, guess = classes[labels[index]], classes[predicted[index]]
            axes.set_title(f"{guess} {confidence[index]:.0%}\nis {true}", fontsize=8)
    return figure


def plot_predictions(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> Figure:
    """A sheet of the first images, the three likeliest classes of each below it, wrong guesses in red.

    Args:
        images: (examples, height, width, channels), uint8.
        labels: (examples,), true classes.
        probabilities: (examples, classes).
        classes: their names.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    for index, axes in enumerate(figure.subplots(4, 6).flat):
        axes.axis("off")
        if index < len(images):
            axes.imshow(images[index].squeeze(), cmap="gray")
            likeliest = probabilities[index].argsort()[::-1][:3]
            lines = [f"{classes[guess]} {probabilities[index, guess]:.0%}" for guess in likeliest]
            color = "black" if likeliest[0] == labels[index] else "firebrick"
            axes.set_title("\n".join([f"is {classes[labels[index]]}", *lines]), fontsize=8, color=color)
    return figure


def plot_heatmaps(images: np.ndarray, maps: np.ndarray, titles: list[str]) -> Figure:
    """Images, each beside itself with a map laid over it.

    Args:
        images: (examples, height, width, channels), uint8.
        maps: (examples, rows, columns), 0 to 1.
        titles: one an image.
    """
    columns = 4
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3 * columns, 1.8 * rows), layout="constrained")
    places = figure.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for index, (left, right) in enumerate(places):
        for axes in (left, right):
            axes.axis("off")
            if index < len(images):
                axes.imshow(images[index].squeeze(), cmap="gray")
        if index < len(images):
            height, width = images[index].shape[:2]
            frame = (-0.5, width - 0.5, height - 0.5, -0.5)
            right.imshow(
                maps[index], cmap="inferno", alpha=0.55, extent=frame, interpolation="bilinear", vmin=0, vmax=1
            )
            left.set_title(titles[index], fontsize=8)
    return figure


def draw_boxes(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: np.ndarray,
    classes: list[str],
    scores: np.ndarray | None = None,
    font_size: float = 6,
) -> None:
    """Draws an image with boxes around objects, each class in a colour of its own.

    Args:
        axes: where to draw.
        image: (height, width, 3), uint8.
        boxes: (boxes, 4): left, top, right, bottom in pixels.
        labels: (boxes,), index of the class; -1 where there is no box.
        classes: their names.
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
        side = "bottom" if top > height / 20 else "top"  # above the picture no one would see it
        axes.text(left, top, name, fontsize=font_size, color="white", bbox=frame, va=side, clip_on=True)
    axes.set(xlim=(0, width), ylim=(height, 0))


def plot_detections(truth: BoxedImages, found: Detections, classes: list[str], count: int = 8) -> Figure:
    """The first images with their true boxes, each beside itself with what was found.

    Args:
        truth: the images, with their boxes.
        found: the detections to draw, as NumPy arrays.
        classes: names of the classes.
        count: how many images.
    """
    count = min(count, len(truth.images))
    figure = Figure(figsize=(12, 3.1 * -(-count // 2)), layout="constrained")
    places = figure.subplots(-(-count // 2), 4, squeeze=False).reshape(-1, 2)
    for index, (left, right) in enumerate(places):
        left.axis("off")
        right.axis("off")
        if index < count:
            draw_boxes(left, truth.images[index], truth.boxes[index], truth.labels[index], classes)
            draw_boxes(
                right, truth.images[index], found.boxes[index], found.labels[index], classes, found.scores[index]
            )
    for axes, title in zip(places[:2].flat, ["true", "found"] * 2, strict=False):
        axes.set_title(title)
    return figure


def plot_precision_recall(recalls: np.ndarray, precision: np.ndarray, classes: list[str]) -> Figure:
    """A curve of precision over recall for each class, with its average precision.

    Args:
        recalls: (points,), 0 to 1.
        precision: (classes, points); NaN for a class that cannot be measured, which is left out.
        classes: names of the classes.
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
    """A picture with boxes drawn on it, pixel for pixel; see `draw_boxes`."""
    height, width = picture.shape[:2]
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_boxes(axes, picture, boxes, labels, classes, scores, font_size=max(6, max(height, width) / 90))
    return figure
