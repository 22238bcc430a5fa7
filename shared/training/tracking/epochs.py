"""Tracking of each epoch."""

import keras

from shared.training.history import EpochHistory
from shared.training.tracking.tracking import Tracking


class EpochTracking(keras.callbacks.Callback):
    """Sends the rows of history.csv to trackers.

    It is called after the checkpoint is saved, and sends what stands in the history, which a resume restores from
    there: a run that is killed at any moment has each epoch once.

    Args:
        tracking: the trackers.
        history: the rows.
        phase: of the training.
    """

    def __init__(self, tracking: Tracking, history: EpochHistory, phase: str):
        super().__init__()
        self.tracking = tracking
        self.history = history
        self.phase = phase

    def on_epoch_end(self, epoch, logs=None):
        self.tracking.epochs(self.phase, self.history.rows)
