"""What happens beside a training: its place in the data, checkpoints, history.csv, a clean stop, timing."""

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
    """The callbacks of a run, in the order in which they must be told.

    Args:
        state: what is trained, as for `training_variables`.
        store: where checkpoints go.
        batches: the training data.
        history_path: the history.csv to write, a line an epoch.
        checkpoint_seconds: time between checkpoints within an epoch.
        stop_message: what to say after a stop.
        remedy: what to try where a loss is not a number.
        patience: stop after so many epochs without a lower validation loss; None: never.
        averages: of the model's weights, which are validated, so also kept as the best; None where there are none.
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
        """The lines of history.csv so far, one an epoch."""
        return self.epochs.rows
