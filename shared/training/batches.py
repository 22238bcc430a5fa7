"""Batches for `fit`, the same on every backend, in every process and after a resume."""

import time
from typing import ClassVar

import keras
import numpy as np

from shared.backends.runtime import seed_step
from shared.data.randomness import random_stream


class SeededBatches(keras.utils.PyDataset):
    """Deterministic batches: batch k of epoch e depends on (seed, e, k) alone.

    Subclasses define `batches_per_epoch`, `batch_size` and `make_batch`. `SeededSteps` sets `epoch` before each epoch;
    `first` is set by the caller of `fit` to resume in the middle of an epoch.

    Args:
        seed: of all random numbers.
    """

    example_axis: ClassVar[int] = 0
    """The axis of the examples in every array of a batch."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed
        self.epoch = 0
        self.first = 0
        self.seconds = 0.0
        """Time spent preparing batches so far, in seconds."""
        self.order: tuple[tuple[int, int] | None, np.ndarray | None] = (None, None)

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple:
        """Batch `index` of the current epoch as (inputs, targets); random numbers come from `rng`."""
        raise NotImplementedError

    @property
    def num_batches(self) -> int:
        return self.batches_per_epoch - self.first

    def __len__(self) -> int:
        return self.num_batches

    def __getitem__(self, index: int) -> tuple:
        start = time.perf_counter()
        index += self.first
        batch = self.make_batch(index, random_stream(self.seed, "batch", self.epoch, index))
        self.seconds += time.perf_counter() - start
        return batch

    def shuffled(self, examples: int, number: int) -> np.ndarray:
        """Permutation of the examples for pass `number` over them, cached for the next batch."""
        if self.order[0] != (examples, number):
            self.order = ((examples, number), random_stream(self.seed, "order", number).permutation(examples))
        return self.order[1]


class SeededSteps(keras.callbacks.Callback):
    """Sets the epoch of the batches, and seeds each training step by epoch and batch.

    Args:
        batches: the training data.
    """

    def __init__(self, batches: SeededBatches):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        seed_step(random_stream(self.batches.seed, "step", self.batches.epoch, self.batches.first + batch))


class ArrayBatches(SeededBatches):
    """Shuffled batches of arrays; the last, smaller batch of an epoch is dropped.

    Args:
        inputs: (examples, …), or several such arrays, by name.
        targets: (examples, …).
        batch_size: examples per batch; at most the number of examples.
        seed: of shuffling.
    """

    def __init__(self, inputs: np.ndarray | dict[str, np.ndarray], targets: np.ndarray, batch_size: int, seed: int):
        super().__init__(seed)
        self.inputs = inputs
        self.targets = targets
        self.batch_size = batch_size
        self.batches_per_epoch = len(targets) // batch_size

    def make_batch(self, index: int, rng: np.random.Generator) -> tuple:
        chosen = self.shuffled(len(self.targets), self.epoch)[index * self.batch_size :][: self.batch_size]
        return keras.tree.map_structure(lambda array: array[chosen], (self.inputs, self.targets))
