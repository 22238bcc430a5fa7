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


def plot_attention_heads(weights: list[np.ndarray], tokens: list[str]) -> Figure:
    """Self-attention maps, a row of panels per block, a panel per head; queries from top to bottom.

    Args:
        weights: for each block (heads, tokens, tokens), 0 to 1.
        tokens: as text.
    """
    figure = Figure(figsize=(3 * len(weights[0]), 3 * len(weights)), layout="constrained")
    rotation = 90 if any(len(token) > 1 for token in tokens) else 0  # subwords would lie on each other
    for block, (row, heads) in enumerate(
        zip(figure.subplots(len(weights), len(weights[0]), squeeze=False), weights, strict=True)
    ):
        for head, (axes, attention) in enumerate(zip(row, heads, strict=True)):
            axes.imshow(attention, cmap="Greys", vmin=0)
            axes.set_title(f"block {block + 1}, head {head + 1}", fontsize=8)
            axes.set_xticks(range(len(tokens)), map(drawable, tokens), fontsize=5, rotation=rotation)
            axes.set_yticks(range(len(tokens)), map(drawable, tokens), fontsize=5)
    return figure


def plot_loss_against_tokens(history: list[dict[str, float]], tokens_per_epoch: int) -> Figure:
    """Training and validation loss against the number of tokens read, on a logarithmic axis.

    Args:
        history: one dictionary per epoch, with "epoch", "loss" and "val_loss".
        tokens_per_epoch: tokens of a pass over the training text.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    tokens = [row["epoch"] * tokens_per_epoch for row in history]
    for name, label in (("loss", "training"), ("val_loss", "validation")):
        axes.plot(tokens, [row[name] for row in history], "o-", markersize=3, label=label)
    axes.set(xlabel="tokens read", ylabel="nats per token", xscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def drawable(token: str) -> str:
    """A token that matplotlib's default font can draw: Latin letters, and no `$`, which would begin a formula."""
    return "".join(each if each.isprintable() and ord(each) < 0x250 and each != "$" else "·" for each in token)
