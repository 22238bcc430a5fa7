"""Batches for a language model."""

import numpy as np

from shared.data.randomness import random_stream
from shared.training.batches import SeededBatches


class TextBatches(SeededBatches):
    """Shuffled windows of a text with next-character targets, at a new random offset in each epoch.

    Yields codes (batch_size, window) and the same shifted by one character, both in int32. The last, smaller batch is
    dropped.

    Args:
        codes: (characters,), at least window × (batch_size + 1) of them.
        window: sequence length in characters.
        batch_size: windows per batch.
        seed: of offset and order.
    """

    def __init__(self, codes: np.ndarray, window: int, batch_size: int, seed: int):
        super().__init__(seed)
        self.codes = codes
        self.window = window
        self.batch_size = batch_size
        self.batches_per_epoch = (len(codes) - window) // window // batch_size

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        first = random_stream(self.seed, "window", self.epoch).integers(self.window)
        windows = (len(self.codes) - self.window) // self.window
        chosen = self.shuffled(windows, self.epoch)[index * self.batch_size :][: self.batch_size]
        starts = first + self.window * chosen
        codes = self.codes[starts[:, None] + np.arange(self.window + 1)].astype(np.int32)
        return codes[:, :-1], codes[:, 1:]


def consecutive_windows(codes: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive windows of a text, and next-character targets, (windows, window) each; the rest is dropped."""
    windows = (len(codes) - 1) // window
    inputs, targets = (codes[i : i + windows * window].astype(np.int32).reshape(windows, window) for i in (0, 1))
    return inputs, targets
