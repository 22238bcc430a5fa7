"""Figures of an autoencoder."""

import numpy as np
from matplotlib.figure import Figure

from shared.generative.autoencoder.evaluation import principal_axes


def plot_latent_map(latents: np.ndarray, labels: np.ndarray, classes: list[str]) -> Figure:
    """The latents of images along their first two principal components, coloured by class.

    Args:
        latents: (examples, size).
        labels: (examples,).
        classes: class names; the first ten are named.
    """
    axes_of_map, _ = principal_axes(latents, 2)
    points = (latents - latents.mean(axis=0)) @ axes_of_map.T
    figure = Figure(figsize=(7, 6), layout="constrained")
    axes = figure.subplots()
    for label, name in enumerate(classes):
        chosen = points[labels == label]
        color = f"C{label % 10}"
        axes.scatter(chosen[:, 0], chosen[:, -1], s=6, alpha=0.6, color=color, label=name if label < 10 else None)
    axes.set(xlabel="first principal component", ylabel="second", title="latent map")
    if len(classes) > 1:
        axes.legend(markerscale=2, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def plot_divergences(by_unit: np.ndarray) -> Figure:
    """KL divergence of each latent unit, largest first.

    Args:
        by_unit: in nats, (latent,).
    """
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(by_unit)), np.sort(by_unit)[::-1])
    axes.set(xlabel="latent unit, by falling divergence", ylabel="nats", title="KL divergence of each latent unit")
    axes.grid(alpha=0.3)
    return figure


def plot_code_use(indices: np.ndarray, codes: int, perplexity: float) -> Figure:
    """Frequency of each code of a codebook, largest first.

    Args:
        indices: of the codes in use, of any shape.
        codes: size of the codebook.
        perplexity: of that use, for the title.
    """
    frequencies = np.sort(np.bincount(indices.ravel(), minlength=codes) / indices.size)[::-1]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(np.arange(codes), frequencies, step="mid", alpha=0.7)
    axes.axhline(1 / codes, color="gray", linestyle="--", label="all codes alike")
    title = f"codebook use: perplexity {perplexity:.0f} of {codes}"
    axes.set(xlabel="code, by falling use", ylabel="frequency", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
