"""How far the same experiment differs from one backend to another. NumPy only."""

import json
from pathlib import Path
from typing import Any

import numpy as np

LAYER_TOLERANCE = 1e-4
"""Largest difference of one layer, forward or back, that is taken for rounding. In batch normalization TensorFlow, and
PyTorch's fused kernel, add the numbers of a batch one after the other, which is off by up to 3e-5, and by 2e-4 where a
channel has 200,000 of them; JAX is off by 1e-6."""

ROUNDING_FACTOR = 10
"""How many times farther than one of them from itself, the examples of its batches in another order, backends may be
from each other."""


def loss_agreement(
    losses: dict[str, list[float]], tolerance: float, reordered: dict[str, list[list[float]]]
) -> dict[str, Any]:
    """Lays loss curves over each other.

    Training amplifies rounding: with batch normalization and a high learning rate up to tenfold every two or three
    steps. How far a backend parts from itself when nothing but the order of its sums is changed shows by how much, so
    that curves which part for no other reason are told from those that do.

    Args:
        losses: for each backend the loss of each step, from the same weights and batches.
        tolerance: largest relative difference at which the curves are taken to agree.
        reordered: for each backend some such curves, or none, with the examples of each batch in other orders.

    Returns:
        The relative difference of each step, (highest − lowest) / mean, and that of the backend which parts farthest
        from itself; the largest of each, and the step of the largest difference; the step at which they begin to drift,
        the first above a tenth of the tolerance, or None; and the verdict: "yes" within the tolerance, "rounding" above
        it only after the first step and at each within `ROUNDING_FACTOR` times as far as one has parted from itself by
        then, "no", or None where there are fewer than two curves. Steps count from 1.
    """
    found = {"tolerance": tolerance, "differences": [], "reordered": [], "largest": None, "agrees": None}
    if len(losses) < 2:
        return found
    curves = np.array(list(losses.values()), dtype=np.float64)
    differences = relative_spread(curves)
    pairs = [(losses[name], curve) for name in losses for curve in reordered.get(name) or [losses[name]]]
    apart = np.max([relative_spread(np.array(pair)) for pair in pairs], axis=0)
    allowed = np.maximum(tolerance, ROUNDING_FACTOR * np.maximum.accumulate(apart))
    allowed[0] = tolerance  # of the same weights, before training has amplified anything
    drifting = np.flatnonzero(~(differences <= tolerance / 10))
    largest = int(np.argmax(np.where(np.isnan(differences), np.inf, differences)))
    within = "yes" if (differences <= tolerance).all() else "rounding" if (differences <= allowed).all() else "no"
    return found | {
        "differences": differences.tolist(),
        "reordered": apart.tolist(),
        "largest": float(differences[largest]),
        "largest_reordered": float(apart.max()),
        "step": largest + 1,
        "drift": int(drifting[0]) + 1 if len(drifting) else None,
        "agrees": within,
    }


def relative_spread(curves: np.ndarray) -> np.ndarray:
    """(highest − lowest) / mean of each column, shape (steps,); 0 where all are 0.

    Args:
        curves: (backends, steps).
    """
    scale = np.abs(curves).mean(axis=0)
    return np.ptp(curves, axis=0) / np.where(scale > 0, scale, 1)


def relative_difference(array: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference of two arrays over the largest entry of the reference; NaN or another shape: infinite."""
    if array.shape != reference.shape:
        return float("inf")
    if not array.size:
        return 0.0
    scale = np.abs(reference.astype(np.float64)).max()
    difference = np.abs(array.astype(np.float64) - reference).max() / (scale if scale > 0 else 1)
    return float(difference) if np.isfinite(difference) else float("inf")


def compare_layers(directories: dict[str, Path]) -> list[dict[str, Any]]:
    """Compares the layers.npz of several backends with that of the first.

    Returns:
        For each layer and further backend: the largest difference of its output in the model, where differences of
        earlier layers add up; of its output by itself, from the same inputs; of a gradient by itself, and which; and
        whether those by themselves are below `LAYER_TOLERANCE`.
    """
    (first, directory), *others = directories.items()
    with np.load(directory / "layers.npz", allow_pickle=False) as archive:
        reference = dict(archive)
    kinds = json.loads(str(reference.pop("kinds")))
    rows = []
    for name, directory in others:
        with np.load(directory / "layers.npz", allow_pickle=False) as archive:
            for key, kind in kinds.items():
                found: dict[str, tuple[float, str]] = {}
                for group in ("in place", "forward", "gradient"):
                    differences = [
                        (relative_difference(archive[entry], reference[entry]), entry.rpartition("|")[2])
                        for entry in archive.files
                        if entry.startswith(f"{key}|{group}|") and entry in reference
                    ]
                    found[group] = max(differences, default=(0.0, ""))
                rows.append({
                    "layer": key.partition(" ")[2],
                    "kind": kind,
                    "backend": name,
                    "reference": first,
                    "in_place": found["in place"][0],
                    "forward": found["forward"][0],
                    "gradient": found["gradient"][0],
                    "gradient_of": found["gradient"][1].partition(" ")[2],
                    "agrees": max(found["forward"][0], found["gradient"][0]) <= LAYER_TOLERANCE,
                })  # fmt: skip
    return rows
