"""Figures of text models."""

import numpy as np
from matplotlib.figure import Figure


def plot_attention(panels: list[tuple[np.ndarray, list[str], list[str]]]) -> Figure:
    """Attention maps of a decoder, one panel per sequence.

    Args:
        panels: for each sequence, attention (target tokens, source tokens), 0 to 1, the source tokens and the target
            tokens.
    """
    height = sum(1.2 + 0.2 * len(targets) for _, _, targets in panels)
    width = 2 + 0.25 * max((len(sources) for _, sources, _ in panels), default=1)
    figure = Figure(figsize=(max(4, width), max(2, height)), layout="constrained")
    ratios = [6 + len(targets) for _, _, targets in panels]
    rows = figure.subplots(len(panels), squeeze=False, height_ratios=ratios)[:, 0] if panels else []
    for axes, (attention, sources, targets) in zip(rows, panels, strict=True):
        axes.imshow(attention, cmap="Greys", aspect="auto", vmin=0)
        axes.set_xticks(range(len(sources)), map(drawable, sources), rotation=90, fontsize=8)
        axes.set_yticks(range(len(targets)), map(drawable, targets), fontsize=8)
    return figure


def drawable(token: str) -> str:
    """A token that matplotlib's default font can draw: Latin letters, and no `$`, which would begin a formula."""
    return "".join(each if each.isprintable() and ord(each) < 0x250 and each != "$" else "·" for each in token)
