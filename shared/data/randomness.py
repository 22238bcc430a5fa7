"""Random streams of NumPy on the host: the same on every backend, in every process and after a resume."""

import numpy as np

RANDOM_PURPOSES = ("order", "window", "batch", "step", "noise", "labels", "tokens")
"""Purposes of random streams. Append new ones at the end, since the index of a purpose seeds its stream.

"order": shuffling, by (epoch,) or (pass over the data,); "window": offset of text windows, by (epoch,); "batch":
augmentation and noise of a batch, by (epoch, batch); "step": the backend's random numbers in a training step, by
(epoch, batch); "noise": noise of generated images, by (batch,) or (); "labels": labels of generated images; "tokens":
sampling of text.
"""


def random_stream(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """Random stream for one purpose at one position of a run, independent of all others.

    Not `default_rng([seed, *position])`: trailing zeros of such a list change nothing, so that different positions and
    purposes would share a stream.

    Args:
        seed: of the run.
        purpose: one of `RANDOM_PURPOSES`.
        position: such as epoch and batch.
    """
    key = (RANDOM_PURPOSES.index(purpose), *position)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
