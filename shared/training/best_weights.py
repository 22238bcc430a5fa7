"""Early stopping across resumes."""

import contextlib

import keras
import numpy as np

from shared.backends.runtime import synchronize_state
from shared.errors import UsageError
from shared.files import replacing
from shared.training.averages import AveragedWeights
from shared.training.checkpoint import (
    CheckpointStore,
    assign_variables,
    read_archive,
    read_variables,
    training_variables,
)
from shared.training.history import EpochHistory


class BestWeights(keras.callbacks.Callback):
    """Early stopping by the validation loss, with the best weights saved on disk.

    Unlike `keras.callbacks.EarlyStopping` it uses the history of the whole run, also after a resume.

    Args:
        trained: the model.
        store: the checkpoints, beside which the weights are saved as best.npz.
        history: with "val_loss" in each row; its callback must be called first.
        patience: epochs without a lower validation loss before stopping.
        averages: exponential moving average (EMA) of the weights, which is validated and saved instead, if any.
    """

    def __init__(
        self,
        trained: keras.Model,
        store: CheckpointStore,
        history: EpochHistory,
        patience: int,
        averages: AveragedWeights | None = None,
    ):
        super().__init__()
        self.trained = trained
        self.path = store.directory / "best.npz"
        self.history = history
        self.patience = patience
        self.averages = averages

    def best_epoch(self) -> int:
        """Index of the epoch with the lowest validation loss, the first of equal ones."""
        losses = [row["val_loss"] for row in self.history.rows]
        return min(range(len(losses)), key=lambda i: losses[i] if np.isfinite(losses[i]) else np.inf)

    def out_of_patience(self) -> bool:
        """Whether the validation loss has not fallen for `patience` epochs."""
        epochs = len(self.history.rows)
        return epochs > 0 and epochs - 1 - self.best_epoch() >= self.patience

    def on_epoch_end(self, epoch, logs=None):
        if self.best_epoch() == len(self.history.rows) - 1:
            self.save()
        self.model.stop_training |= self.out_of_patience()

    def save(self) -> None:
        """Saves the weights, or their averages."""
        synchronize_state(self.trained)
        with self.averages.in_place() if self.averages else contextlib.nullcontext():
            variables = read_variables(self.trained)
        weights = {name: value for name, value in variables.items() if name.startswith("model/")}
        with replacing(self.path) as path:
            np.savez(path, **weights)

    def restore(self) -> None:
        """Restores the weights of the best epoch.

        Raises:
            UsageError: their file is damaged.
        """
        try:
            weights = read_archive(self.path)
            names = {name for name in training_variables(self.trained) if name.startswith("model/")}
            if weights.keys() != names:
                raise ValueError("it does not hold all weights")
            assign_variables(self.trained, weights)
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{self.path} is damaged ({error}): start anew with another --out") from None
        print(f"the best weights are those of epoch {self.best_epoch() + 1}")
