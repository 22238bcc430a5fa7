"""Step times and training speed."""

import os
import time

import keras
import psutil

from shared.training.batches import SeededBatches


def seconds_since_start() -> float:
    """Time since this process was started, in seconds."""
    return time.time() - psutil.Process().create_time()


def processor_seconds() -> float:
    """Processor time of this process so far, all its threads and finished children included, in seconds."""
    return sum(os.times()[:4])


class StepTimer(keras.callbacks.Callback):
    """Step times in seconds, including batch preparation, excluding validation and the end of the epoch.

    Args:
        batches: the training data.
        wait: whether to synchronize with the device after each step, so that each time is exact. Otherwise only after
            the first; the last step of an epoch then includes the device's remaining work.
    """

    def __init__(self, batches: SeededBatches, wait: bool = False):
        super().__init__()
        self.batches = batches
        self.wait = wait
        self.start_seconds: float | None = None
        """From the start of the process to the end of the first step."""
        self.start_processor_seconds: float | None = None
        """The same in processor time, which what else the machine does hardly changes."""
        self.step_seconds: list[float] = []
        """The first step, which compiles, and the others."""
        self.step_processor_seconds: list[float] = []
        """The same in processor time."""
        self.since: float | None = None
        self.processor_since = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.since, self.processor_since = time.perf_counter(), processor_seconds()

    def on_train_batch_end(self, batch, logs=None):
        first = not self.step_seconds
        if self.wait or first:
            float(next(iter(logs.values())))  # waits for the device
        self.step_seconds.append(time.perf_counter() - self.since)
        self.step_processor_seconds.append(processor_seconds() - self.processor_since)
        if first:
            self.start_seconds = seconds_since_start()
            self.start_processor_seconds = processor_seconds()
            self.batches.seconds = 0.0
        self.since, self.processor_since = time.perf_counter(), processor_seconds()

    def on_test_begin(self, logs=None):
        self.pause()

    def on_epoch_end(self, epoch, logs=None):
        self.pause()

    def pause(self) -> None:
        """Ends the time counted as training, until the next epoch begins."""
        if self.since is not None and self.step_seconds:
            self.step_seconds[-1] += time.perf_counter() - self.since
            self.step_processor_seconds[-1] += processor_seconds() - self.processor_since
        self.since = None

    def examples_per_second(self) -> float | None:
        """Training examples per second, without the first step; None if there was no other."""
        others = self.step_seconds[1:]
        return self.batches.batch_size * len(others) / sum(others) if others else None

    def processor_seconds_per_step(self) -> float | None:
        """Processor time of a step in seconds, of all threads, without the first; None if there was no other."""
        others = self.step_processor_seconds[1:]
        return sum(others) / len(others) if others else None

    def data_fraction(self) -> float | None:
        """Fraction of the training time spent preparing batches, as for `examples_per_second`."""
        others = self.step_seconds[1:]
        return self.batches.seconds / sum(others) if others else None
