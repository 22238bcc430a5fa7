"""history.csv: losses and metrics of each epoch."""

import csv
from pathlib import Path

import keras

from shared.files import replacing


class EpochHistory(keras.callbacks.Callback):
    """Losses and metrics of each finished epoch, and their file.

    Unlike `keras.callbacks.CSVLogger` it does not append: the file is rewritten with each checkpoint, so that an epoch
    repeated after a crash is not in it twice.

    Args:
        path: of the file, such as history.csv.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.rows: list[dict[str, float]] = []

    def on_epoch_end(self, epoch, logs=None):
        self.rows.append({"epoch": epoch + 1, **logs})

    def write(self) -> None:
        """Writes the file, one line per epoch; nothing before the end of the first epoch.

        Raises:
            OSError: it could not be written; the earlier one is untouched.
        """
        if self.rows:
            with replacing(self.path) as path, open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self.rows[0])
                writer.writeheader()
                writer.writerows(self.rows)
