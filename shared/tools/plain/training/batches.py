"""Batches for `fit`."""

from typing import ClassVar

import keras
import numpy as np

from shared.data.randomness import random_stream


class SeededBatches(keras.utils.PyDataset):
    """A data set, batch k of whose epoch e depends on (seed, e, k) alone. Subclasses give `make_batch`."""

    example_axis: ClassVar[int] = 0

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed
        self.epoch = 0  # set at the beginning of each

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __getitem__(self, index: int) -> tuple:
        return self.make_batch(index, random_stream(self.seed, "batch", self.epoch, index))

    def shuffled(self, examples: int, number: int) -> np.ndarray:
        """A permutation of the examples, another one for each pass over them."""
        return random_stream(self.seed, "order", number).permutation(examples)
