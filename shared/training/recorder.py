"""What happens beside training: the place in the data, checkpoints, history.csv, a clean stop, timing."""

import contextlib
import csv
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import psutil

from shared.backends.runtime import seed_step, synchronize_state
from shared.data.randomness import random_stream
from shared.errors import Interrupted, UsageError
from shared.files import replacing
from shared.training.averages import AveragedWeights
from shared.training.batches import SeededBatches
from shared.training.checkpoint import (
    Checkpoint,
    CheckpointStore,
    assign_variables,
    read_archive,
    read_variables,
    training_variables,
)


class Recorder(keras.callbacks.Callback):
    """Tells the data which epoch it is, saves checkpoints, writes history.csv, measures, and stops when asked.

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
        super().__init__()
        self.state = state
        self.store = store
        self.batches = batches
        self.history_path = history_path
        self.checkpoint_seconds = checkpoint_seconds
        self.stop_message = stop_message
        self.remedy = remedy
        self.patience = patience
        self.averages = averages
        self.averaged_statistics = averages.averages if averages else ()
        self.stopping = False
        self.unread: tuple[int, int, dict[str, Any]] = (0, 0, {})
        """Epoch, batch and results of the last step."""
        self.history: list[dict[str, float]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.train_seconds = 0.0
        """Wall-clock time of training and validation up to the last checkpoint, earlier parts of the run included."""
        self.saved = time.monotonic()
        self.start_seconds: float | None = None
        self.timed_batches = 0
        self.timed_seconds = 0.0
        self.timing_since: float | None = None

    def restore(self) -> tuple[int, int]:
        """Sets what is trained to the newest checkpoint that can be used.

        Returns:
            The epoch to go on with and the first batch of it that is still to be trained on; (0, 0) without checkpoint.
        """
        variables = training_variables(self.state, self.averaged_statistics)
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        checkpoint = self.store.load({name: shape for name, shape in shapes.items() if not name.startswith("metrics")})
        if checkpoint is None:
            print("no checkpoint yet: starting from the beginning")
            return 0, 0
        facts = checkpoint.facts
        self.history = facts["history"]
        self.train_seconds = facts["train_seconds"]
        if facts["batch"] and isinstance(self.state, keras.Model):
            self.state.test_on_batch(*self.batches[0])  # makes Keras create the variables of the metrics
        known = {name: array for name, array in checkpoint.arrays.items() if name in shapes}
        assign_variables(self.state, known, self.averaged_statistics)
        self.arrays = checkpoint.arrays
        print(f"going on at epoch {facts['epoch'] + 1}, batch {facts['batch'] + 1}")
        return facts["epoch"], facts["batch"]

    def save(self, epoch: int, batch: int) -> None:
        """Saves a checkpoint from which training goes on with `batch` of `epoch`, and history.csv.

        A failure, such as a full disk, is said and not raised: there may be room again before the next one.

        Raises:
            Interrupted: a stop was asked for.
            UsageError: a loss or a weight is not a finite number; nothing is saved.
        """
        self.check_losses()
        now = time.monotonic()
        self.train_seconds += now - self.saved
        self.saved = now
        if isinstance(self.state, keras.Model):
            synchronize_state(self.state)
        self.arrays = read_variables(self.state, self.averaged_statistics)
        for name, variable in training_variables(self.state).items():
            if variable.trainable and not np.isfinite(self.arrays[name]).all():
                self.stop_diverged(f"the weight {variable.path} is not finite")
        facts = {"epoch": epoch, "batch": batch, "history": self.history, "train_seconds": self.train_seconds}
        message = self.stop_message
        try:
            self.write_history()
            self.store.save(epoch * self.batches.batches_per_epoch + batch, Checkpoint(self.arrays, facts))
        except OSError as error:
            earlier = self.store.paths()[-1:]
            kept = f"the earlier {earlier[0]} is untouched" if earlier else "there is no earlier one"
            message = f"no checkpoint written ({error.strerror}); {kept}"
            print(f"WARNING: {message}", file=sys.stderr)
        if self.stopping:
            raise Interrupted(message)

    def check_losses(self) -> None:
        """Ends the run where a loss of the last step was NaN or infinite.

        Raises:
            UsageError: it was.
        """
        for name, value in sorted(self.unread[2].items()):
            if name.endswith("loss") and not math.isfinite(float(value)):
                self.stop_diverged(f"{name} is {float(value)}")

    def stop_diverged(self, what: str) -> NoReturn:
        """Ends the run with what went wrong in the last step, the last good checkpoint and what to try."""
        epoch, batch, _ = self.unread
        good = self.store.paths()[-1:]
        kept = f"the last good checkpoint is {good[0]}" if good else "there is no checkpoint yet"
        raise UsageError(f"{what} after step {batch + 1} of epoch {epoch + 1}; {kept}: {self.remedy}")

    def write_history(self) -> None:
        """Writes history.csv, a line for each finished epoch."""
        if self.history:
            with replacing(self.history_path) as path, open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.history[0])
                writer.writeheader()
                writer.writerows(self.history)

    def on_epoch_begin(self, epoch, logs=None):
        self.batches.epoch = epoch
        if self.batches.first:  # Keras has just reset the metrics, which go on in the middle of an epoch
            assign_variables(self.state, {k: v for k, v in self.arrays.items() if k.startswith("metrics")})
        if self.start_seconds is not None:
            self.timing_since = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        seed_step(random_stream(self.batches.seed, "step", self.batches.epoch, self.batches.first + batch))

    def on_train_batch_end(self, batch, logs=None):
        self.check_losses()  # of the step before: for those of this one it would wait, and the device then for it
        self.unread = (self.batches.epoch, self.batches.first + batch, logs)
        if self.start_seconds is None:
            for value in logs.values():
                float(value)  # waits for the device
            self.start_seconds = time.time() - psutil.Process().create_time()
            self.timing_since = time.monotonic()
            self.batches.seconds = 0.0
        else:
            self.timed_batches += 1
        trained = self.batches.first + batch + 1
        if trained == self.batches.batches_per_epoch:
            return  # the end of the epoch saves, after validation
        if self.stopping or time.monotonic() - self.saved >= self.checkpoint_seconds:
            self.save(self.batches.epoch, trained)

    def on_test_begin(self, logs=None):
        self.pause_timing()

    def on_epoch_end(self, epoch, logs=None):
        self.pause_timing()
        self.history.append({"epoch": epoch + 1, **logs})
        if self.patience is not None:
            self.keep_best()
        self.save(epoch + 1, 0)

    def best_epoch(self) -> int:
        """The index in `history` of the epoch with the lowest validation loss, the first of several."""
        losses = [row["val_loss"] for row in self.history]
        return min(range(len(losses)), key=lambda i: losses[i] if np.isfinite(losses[i]) else np.inf)

    def out_of_patience(self) -> bool:
        """Whether the validation loss has not fallen for `patience` epochs."""
        if self.patience is None or not self.history:
            return False
        return len(self.history) - 1 - self.best_epoch() >= self.patience

    def keep_best(self) -> None:
        """Saves the weights after the best epoch so far, before its checkpoint, which counts on them."""
        if self.best_epoch() == len(self.history) - 1:
            synchronize_state(self.model)
            with self.averages.in_place() if self.averages else contextlib.nullcontext():
                variables = read_variables(self.state)
            weights = {name: value for name, value in variables.items() if name.startswith("model/")}
            with replacing(self.store.directory / "best.npz") as path:
                np.savez(path, **weights)
        self.model.stop_training |= self.out_of_patience()

    def restore_best(self) -> None:
        """Sets the model to the weights after the best epoch.

        Raises:
            UsageError: the file that holds them is damaged.
        """
        path = self.store.directory / "best.npz"
        try:
            weights = read_archive(path)
            names = {name for name in training_variables(self.state) if name.startswith("model/")}
            if weights.keys() != names:
                raise ValueError("it does not hold all weights")
            assign_variables(self.state, weights)
        except (OSError, ValueError, KeyError) as error:
            raise UsageError(f"{path} is damaged ({error}): start anew with another --out") from None
        print(f"the best weights are those of epoch {self.best_epoch() + 1}")

    def pause_timing(self) -> None:
        """Ends the time counted as training, at validation or the end of the epoch."""
        if self.timing_since is not None:
            self.timed_seconds += time.monotonic() - self.timing_since
            self.timing_since = None

    def examples_per_second(self) -> float | None:
        """Training examples a second, first step and validation left out; None if nothing was timed."""
        if not self.timed_batches:
            return None
        return round(self.timed_batches * self.batches.batch_size / self.timed_seconds, 1)

    def data_share(self) -> float | None:
        """Share of the training time spent making batches, 0 to 1; None if nothing was timed."""
        return round(self.batches.seconds / self.timed_seconds, 4) if self.timed_batches else None

    @contextlib.contextmanager
    def stopped_by_signals(self) -> Iterator[None]:
        """Lets the first Ctrl-C or SIGTERM stop training after the current step, and the second at once."""

        def stop(number, frame):
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            print("stopping after this step, to save; once more to stop at once", file=sys.stderr)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
