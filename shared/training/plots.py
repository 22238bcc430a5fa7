"""Figures of a run, made without pyplot's global state."""

import numpy as np
from matplotlib.figure import Figure


def plot_curves(history: list[dict[str, float]], names: list[str]) -> Figure:
    """Curves over the epochs, one panel a name, training and validation in each.

    Args:
        history: one dictionary an epoch, with the keys "epoch", name and "val_" + name.
        names: what to draw, such as "loss".
    """
    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names))), names, strict=True):
        epochs = [row["epoch"] for row in history]
        axes.plot(epochs, [row[name] for row in history], "o-", markersize=3, label="training")
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
