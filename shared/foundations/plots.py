"""Figures of what happens inside a network."""

from typing import Any

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from shared.foundations.perceptron import Perceptron

PAIR_COLORS = ("tab:blue", "tab:orange")


def plot_perceptron(
    perceptron: Perceptron, x: np.ndarray, t: np.ndarray, classes: tuple[str, str], features: tuple[str, str]
) -> Figure:
    """Perceptron: two classes in the plane of two features with the decision line, and the mistakes of each epoch.

    Args:
        perceptron: trained.
        x: (examples, 2), the features.
        t: (examples,), −1 for the first class and 1 for the second.
        classes: their names.
        features: their names.
    """
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for sign, name, color in zip((-1, 1), classes, PAIR_COLORS, strict=True):
        left.plot(*x[t == sign].T, ".", markersize=3, alpha=0.3, color=color, label=name)
    limits = [(values.min() - 0.02, values.max() + 0.02) for values in x.T]
    for epoch, line in enumerate(perceptron.lines):
        label = None if epoch else "line after each epoch"
        left.plot(*line_ends(*line, limits), color="gray", linewidth=0.7, alpha=0.5, label=label)
    best = line_ends(*perceptron.lines[perceptron.best], limits)
    left.plot(*best, color="black", linewidth=2, label=f"the best, after epoch {perceptron.best + 1}")
    left.set(xlabel=features[0], ylabel=features[1], xlim=limits[0], ylim=limits[1])
    left.set_title(f"w · x + b = 0: {max(perceptron.accuracies):.1%} on their side")
    left.legend(markerscale=3)
    right.bar(range(1, len(perceptron.mistakes) + 1), perceptron.mistakes, color="tab:gray")
    right.set(xlabel="epoch", title=f"mistakes among {len(x):,} training examples")
    right.xaxis.get_major_locator().set_params(integer=True)
    return figure


def line_ends(
    w: np.ndarray, b: float, limits: list[tuple[float, float]]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """The x and the y of two points of the line w · x + b = 0, outside of the limits or on them."""
    if abs(w[1]) > abs(w[0]) * 1e-9:
        return limits[0], tuple(-(w[0] * x + b) / w[1] for x in limits[0])
    return (-b / w[0] if w[0] else np.nan,) * 2, limits[1]


def plot_units(kernel: Any, image_shape: tuple[int, int, int]) -> Figure:
    """Weights of the first layer as images: what brightens a unit in red, what darkens it in blue.

    Args:
        kernel: (pixels and channels, units); the forty units of largest norm are drawn, channels averaged.
        image_shape: height, width, channels.
    """
    weights = keras.ops.convert_to_numpy(kernel)
    largest = np.argsort(-np.linalg.norm(weights, axis=0))[:40]
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    panels = list(figure.subplots(5, 8).flat)
    for axes in panels:
        axes.axis("off")
    for axes, unit in zip(panels, largest, strict=False):
        pixels = weights[:, unit].reshape(image_shape).mean(axis=-1)
        bound = np.abs(pixels).max() or 1
        axes.imshow(pixels, cmap="RdBu_r", vmin=-bound, vmax=bound)
    figure.suptitle("weights of the first layer (red: positive, blue: negative)")
    return figure


def plot_signals(signals: dict[str, tuple[list[Any], list[Any]]]) -> Figure:
    """Distribution of the activations in each layer, and size of the gradient of its weights, of several networks.

    Args:
        signals: by the name of the network, the activations and the gradients of the weights of each layer.
    """
    figure = Figure(figsize=(12, 4), layout="constrained")
    *panels, last = figure.subplots(1, len(signals) + 1)
    for (name, (activations, gradients)), axes, color in zip(signals.items(), panels, PAIR_COLORS, strict=False):
        draw_activations(axes, [keras.ops.convert_to_numpy(each) for each in activations], color)
        axes.set_title(name)
        sizes = [np.sqrt(np.mean(np.square(keras.ops.convert_to_numpy(gradient)))) for gradient in gradients]
        last.semilogy(range(1, len(sizes) + 1), sizes, "o-", color=color, label=name)
    last.set(xlabel="layer", title="gradient of the weights (root mean square)")
    last.grid(alpha=0.3)
    last.legend()
    return figure


def draw_activations(axes: Axes, activations: list[np.ndarray], color: str) -> None:
    """Box of the middle half of the activations in each layer, whiskers from the 1st to the 99th percentile."""
    values = [activation.ravel() for activation in activations]
    boxes = axes.boxplot(values, whis=(1, 99), showfliers=False, patch_artist=True, medianprops={"color": "black"})
    for box in boxes["boxes"]:
        box.set(facecolor=color, alpha=0.6)
    axes.set(xlabel="layer", ylabel="activation")
    axes.grid(alpha=0.3)


def plot_surface(losses: np.ndarray, reach: float = 1.0) -> Figure:
    """Loss surface around the trained weights, along two directions, as a relief and as a map.

    Args:
        losses: (steps, steps), the trained weights in the middle.
        reach: how far the steps go, from −reach to reach.
    """
    places = np.linspace(-reach, reach, len(losses))
    figure = Figure(figsize=(12, 5), layout="constrained")
    relief = figure.add_subplot(1, 2, 1, projection="3d")
    relief.plot_surface(*np.meshgrid(places, places), losses, cmap="viridis", rcount=len(losses), ccount=len(losses))
    ends = [-reach, 0, reach]
    relief.set(xlabel="first direction", ylabel="second direction", zlabel="loss", xticks=ends, yticks=ends)
    relief.set_box_aspect(None, zoom=0.85)
    flat = figure.add_subplot(1, 2, 2)
    levels = np.geomspace(losses.min(), losses.max() * 1.0001, 20) if losses.max() > losses.min() > 0 else 20
    contours = flat.contour(places, places, losses, levels=levels, cmap="viridis")
    flat.clabel(contours, fontsize=7, fmt="%.2f")
    flat.plot(0, 0, "r*", markersize=12, label="trained weights")
    flat.set(xlabel="first direction", ylabel="second direction", aspect="equal")
    flat.legend(loc="lower right")
    figure.suptitle("loss surface around the trained weights")
    return figure
