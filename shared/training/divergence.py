"""Detection of divergence: a NaN or infinite loss or weight."""

import math
from typing import Any, NoReturn

import keras
import numpy as np

from shared.errors import UsageError
from shared.training.batches import SeededBatches
from shared.training.checkpoint import CheckpointStore, training_variables


class Diverged(UsageError):
    """A loss or a weight became NaN or infinite."""


class DivergenceCheck(keras.callbacks.Callback):
    """Ends a run that diverged (NaN or infinite loss) before a checkpoint is saved.

    Unlike `keras.callbacks.TerminateOnNaN` it does not synchronize with the device: a loss is read after the next step,
    or before a checkpoint.

    Args:
        batches: the training data.
        store: the checkpoints, the last of which the error names.
        remedy: what to try.
    """

    def __init__(self, batches: SeededBatches, store: CheckpointStore, remedy: str):
        super().__init__()
        self.batches = batches
        self.store = store
        self.remedy = remedy
        self.unread: tuple[int, int, dict[str, Any]] = (0, 0, {})
        """Epoch, batch and logs of the last step."""

    def on_train_batch_end(self, batch, logs=None):
        self.check_losses()  # of the previous step; reading those of this one would synchronize with the device
        self.unread = (self.batches.epoch, self.batches.first + batch, logs)

    def check_losses(self) -> None:
        """Ends the run if a loss of the last step is NaN or infinite.

        Raises:
            Diverged: a loss is.
        """
        for name, value in sorted(self.unread[2].items()):
            if name.endswith("loss") and not math.isfinite(float(value)):
                self.fail(f"{name} is {float(value)}")

    def check_weights(self, state: keras.Model | dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Ends the run if a trainable weight is NaN or infinite.

        Args:
            state: training state, as for `training_variables`.
            arrays: values of its variables.

        Raises:
            Diverged: a weight is.
        """
        for name, variable in training_variables(state).items():
            if variable.trainable and not np.isfinite(arrays[name]).all():
                self.fail(f"the weight {variable.path} is not finite")

    def fail(self, what: str) -> NoReturn:
        """Ends the run with an error that names the last good checkpoint and a remedy."""
        epoch, batch, _ = self.unread
        good = self.store.paths()[-1:]
        kept = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
        raise Diverged(f"{what} after step {batch + 1} of epoch {epoch + 1}; {kept}: {self.remedy}")
