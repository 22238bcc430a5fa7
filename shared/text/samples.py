"""Generated text as files, and how quickly it is generated."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras

from shared.files import replacing


def timed_text(pieces: Iterator[str]) -> tuple[str, float | None]:
    """A generated text, and pieces per second, without the first, which compiles; None if there are fewer than two."""
    text, count = next(pieces, ""), 0
    start = time.perf_counter()
    for count, piece in enumerate(pieces, 1):  # noqa: B007 - the last number counts
        text += piece
    return text, round(count / (time.perf_counter() - start), 1) if count else None


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
