"""The callbacks of a run: seeding, divergence check, timing, history.csv, early stopping, checkpoints."""

from pathlib import Path
from typing import Any

import keras

from shared.training.averages import AveragedWeights
from shared.training.batches import SeededBatches, SeededSteps
from shared.training.best_weights import BestWeights
from shared.training.checkpoint import CheckpointStore
from shared.training.checkpointing import Checkpointing
from shared.training.divergence import DivergenceCheck
from shared.training.history import EpochHistory
from shared.training.stopping import StopRequest
from shared.training.timing import StepTimer


class Recorder:
    """The callbacks of a run, in the order in which they must be called.

    Args:
        state: training state, as for `training_variables`.
        store: the checkpoints.
        batches: the training data.
        history_path: path of history.csv.
        checkpoint_seconds: time between checkpoints within an epoch.
        stop_message: message after a stop.
        remedy: what to try after divergence.
        patience: early stopping: epochs without a lower validation loss; None: never.
        averages: exponential moving average (EMA) of the weights, which is validated and saved as best weights, if any.
    """

    def __init__(
        self,
        state: keras.Model | dict[str, Any],
        store: CheckpointStore,
        batches: SeededBatches,
        history_path: Path,
        checkpoint_seconds: float,
        stop_message: str,
        remedy: str,
        patience: int | None = None,
        averages: AveragedWeights | None = None,
    ):
        self.state = state
        self.batches = batches
        self.stop = StopRequest()
        self.timer = StepTimer(batches)
        self.epochs = EpochHistory(history_path)
        self.best = (
            None
            if patience is None
            else BestWeights(state, store, history=self.epochs, patience=patience, averages=averages)
        )
        divergence = DivergenceCheck(batches, store, remedy)
        self.checkpoints = Checkpointing(
            state=state,
            store=store,
            batches=batches,
            history=self.epochs,
            divergence=divergence,
            stop=self.stop,
            seconds=checkpoint_seconds,
            stop_message=stop_message,
            averages=averages.averages if averages else (),
        )
        steps, best = SeededSteps(batches), [self.best] if self.best else []
        self.callbacks = [steps, divergence, self.timer, self.epochs, *best, self.checkpoints]

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of history.csv so far, one per epoch."""
        return self.epochs.rows
