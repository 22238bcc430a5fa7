"""Figures of image classification."""

import numpy as np
from matplotlib.figure import Figure


def plot_confusion(matrix: np.ndarray, classes: list[str]) -> Figure:
    """Confusion matrix, each row in percent of its true class.

    Args:
        matrix: (classes, classes) counts, true class first.
        classes: class names.
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
    """The forty misclassified images of highest confidence.

    Args:
        images: (examples, height, width, channels), uint8.
        labels: (examples,), true classes.
        probabilities: (examples, classes).
        classes: class names.
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
            true, prediction = classes[labels[index]], classes[predicted[index]]
            axes.set_title(f"{prediction} {confidence[index]:.0%}\ntrue: {true}", fontsize=8)
    return figure


def plot_predictions(images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> Figure:
    """The first images with their top-3 predictions; misclassified ones in red.

    Args:
        images: (examples, height, width, channels), uint8.
        labels: (examples,), true classes.
        probabilities: (examples, classes).
        classes: class names.
    """
    figure = Figure(figsize=(12, 9), layout="constrained")
    for index, axes in enumerate(figure.subplots(4, 6).flat):
        axes.axis("off")
        if index < len(images):
            axes.imshow(images[index].squeeze(), cmap="gray")
            top3 = probabilities[index].argsort()[::-1][:3]
            lines = [f"{classes[each]} {probabilities[index, each]:.0%}" for each in top3]
            color = "black" if top3[0] == labels[index] else "firebrick"
            axes.set_title("\n".join([f"true: {classes[labels[index]]}", *lines]), fontsize=8, color=color)
    return figure


def plot_heatmaps(images: np.ndarray, maps: np.ndarray, titles: list[str]) -> Figure:
    """Images, each with a copy overlaid by its heatmap.

    Args:
        images: (examples, height, width, channels), uint8.
        maps: (examples, rows, columns), 0 to 1.
        titles: one per image.
    """
    columns = 4
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3 * columns, 1.8 * rows), layout="constrained")
    pairs = figure.subplots(rows, 2 * columns, squeeze=False).reshape(-1, 2)
    for index, (left, right) in enumerate(pairs):
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
