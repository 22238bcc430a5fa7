"""Generated text as files, and how quickly it is generated."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras

from shared.files import replacing


def timed_text(pieces: Iterator[str]) -> tuple[str, float | None]:
    """A generated text, and pieces per second, without the first two, which compile; None if there are no others."""
    first = [*itertools.islice(pieces, 2)]
    start = time.perf_counter()
    others = list(pieces)
    seconds = time.perf_counter() - start
    return "".join([*first, *others]), round(len(others) / seconds, 1) if others else None


def save_text(path: Path, text: str) -> None:
    """Writes a text to a file; the folder is made."""
    path.parent.mkdir(exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8", errors="replace")


class EpochSamples(keras.callbacks.Callback):
    """Writes a sample after each epoch, to samples/epoch-NNN.txt.

    Args:
        directory: of the run.
        sample: gives the pieces of a text that the model generates.
    """

    def __init__(self, directory: Path, sample: Callable[[], Iterator[str]]):
        super().__init__()
        self.directory = directory
        self.sample = sample

    def on_epoch_end(self, epoch, logs=None):
        save_text(self.directory / "samples" / f"epoch-{epoch + 1:03}.txt", "".join(self.sample()))
