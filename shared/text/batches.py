"""Windows of a text for a language model."""

import numpy as np

from shared.data.randomness import random_stream
from shared.training.batches import SeededBatches


class TextBatches(SeededBatches):
    """Windows of a text in random order, cut anew in each epoch, with the characters that follow as targets.

    Yields codes (batch_size, window) and the same one character on, both in int32. What does not fill a batch is left
    out.

    Args:
        codes: (characters,), at least window × (batch_size + 1) of them.
        window: characters a window.
        batch_size: windows a batch.
        seed: of where the text is cut, and of the order.
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
    """A text cut into windows (windows, window), and the characters that follow each; the rest is left out."""
    windows = (len(codes) - 1) // window
    inputs, targets = (codes[i : i + windows * window].astype(np.int32).reshape(windows, window) for i in (0, 1))
    return inputs, targets
