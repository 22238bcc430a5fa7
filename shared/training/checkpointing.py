"""Saving of checkpoints during training, and resuming from one."""

import sys
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from shared.backends.runtime import synchronize_state
from shared.errors import Interrupted
from shared.training.batches import SeededBatches
from shared.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    assign_variables,
    read_variables,
    training_variables,
)
from shared.training.divergence import DivergenceCheck
from shared.training.history import EpochHistory
from shared.training.stopping import StopRequest


class Checkpointing(keras.callbacks.Callback):
    """Saves checkpoints at the end of each epoch, at intervals within it, and before a stop; resumes from the newest.

    Keras's `BackupAndRestore` loses the position within an epoch, the random state and the metrics so far.

    Args:
        state: training state, as for `training_variables`.
        store: the checkpoints.
        batches: the training data.
        history: saved with each checkpoint; its callback must be called first.
        divergence: prevents saving of NaN or infinite values.
        stop: request to end training after a checkpoint.
        seconds: time between checkpoints within an epoch.
        stop_message: message after a stop.
        averages: of the model's statistics, see `AveragedWeights`.
    """

    def __init__(
        self,
        state: keras.Model | dict[str, Any],
        store: CheckpointStore,
        batches: SeededBatches,
        history: EpochHistory,
        divergence: DivergenceCheck,
        stop: StopRequest,
        seconds: float,
        stop_message: str,
        averages: Sequence[keras.Variable] = (),
    ):
        super().__init__()
        self.state = state
        self.store = store
        self.batches = batches
        self.history = history
        self.divergence = divergence
        self.stop = stop
        self.seconds = seconds
        self.stop_message = stop_message
        self.averages = averages
        self.arrays: dict[str, np.ndarray] = {}
        """The arrays of the last checkpoint."""
        self.train_seconds = 0.0
        """Wall-clock time of training and validation up to the last checkpoint, before resumes too."""
        self.saved = time.monotonic()

    def restore(self) -> tuple[int, int]:
        """Restores the training state from the newest usable checkpoint.

        Returns:
            The epoch and the batch in it to resume at; (0, 0) without checkpoint.
        """
        variables = training_variables(self.state, self.averages)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        checkpoint = self.store.load({name: shape for name, shape in shapes.items() if not name.startswith("metrics")})
        if checkpoint is None:
            print("no checkpoint yet: starting from the beginning")
            return 0, 0
        facts = checkpoint.facts
        self.history.rows = facts["history"]
        self.train_seconds = facts["train_seconds"]
        missing = checkpoint.arrays.keys() - shapes
        if missing and facts["batch"] and isinstance(self.state, keras.Model):
            self.state.test_on_batch(*self.batches[0])  # makes Keras create the variables of the metrics
        known = {name: array for name, array in checkpoint.arrays.items() if name in shapes}
        assign_variables(self.state, known, self.averages)
        self.arrays = checkpoint.arrays
        print(f"resuming at epoch {facts['epoch'] + 1}, batch {facts['batch'] + 1}")
        return facts["epoch"], facts["batch"]

    def assign(self, prefix: str = "") -> None:
        """Restores the variables whose names begin with `prefix` from the last checkpoint."""
        arrays = {name: array for name, array in self.arrays.items() if name.startswith(prefix)}
        assign_variables(self.state, arrays, self.averages)

    def save(self, epoch: int, batch: int) -> None:
        """Saves history.csv and a checkpoint that resumes at `batch` of `epoch`.

        A failure, such as a full disk, only prints a warning: the next checkpoint may succeed.

        Raises:
            Interrupted: a stop was requested.
            UsageError: a loss or a weight is NaN or infinite; nothing is saved.
        """
        self.divergence.check_losses()
        now = time.monotonic()
        self.train_seconds += now - self.saved
        self.saved = now
        if isinstance(self.state, keras.Model):
            synchronize_state(self.state)
        self.arrays = read_variables(self.state, self.averages)
        self.divergence.check_weights(self.state, self.arrays)
        facts = {"epoch": epoch, "batch": batch, "history": self.history.rows, "train_seconds": self.train_seconds}
        message = self.stop_message
        try:
            self.history.write()
            self.store.save(epoch * self.batches.batches_per_epoch + batch, Checkpoint(self.arrays, facts))
        except OSError as error:
            earlier = self.store.paths()[-1:]
            kept = f"the earlier {earlier[0]} is untouched" if earlier else "there is no earlier one"
            message = f"no checkpoint written ({error.strerror}); {kept}"
            print(f"WARNING: {message}", file=sys.stderr)
        if self.stop.asked:
            raise Interrupted(message)

    def on_epoch_begin(self, epoch, logs=None):
        if self.batches.first:  # Keras has just reset the metrics, which continue in the middle of an epoch
            self.assign("metrics")

    def on_train_batch_end(self, batch, logs=None):
        trained = self.batches.first + batch + 1
        if trained == self.batches.batches_per_epoch:
            return  # the end of the epoch saves, after validation
        if self.stop.asked or time.monotonic() - self.saved >= self.seconds:
            self.save(self.batches.epoch, trained)

    def on_epoch_end(self, epoch, logs=None):
        self.save(epoch + 1, 0)
