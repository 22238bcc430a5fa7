"""Figures of a run, made without pyplot's global state."""

import numpy as np
from matplotlib.figure import Figure


def plot_curves(history: list[dict[str, float]], names: list[str]) -> Figure:
    """Learning curves over the epochs, one panel per name, with training and, if any, validation values.

    Args:
        history: one dictionary per epoch, with the keys "epoch", each name and, optionally, "val_" + name.
        names: losses and metrics, such as "loss".
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
