"""Finished runs."""

import json
from pathlib import Path

import keras

from shared.training.options import Options


class FinishedRun:
    """A finished run, to use its model: `predictor(FinishedRun(Path("runs/…"), Config))` gives a function."""

    def __init__(self, directory: Path, config_class: type[Options]):
        self.directory = directory
        self.result = json.loads((directory / "result.json").read_text(encoding="utf-8"))
        self.config = config_class(**self.result["options"])
        self.model = keras.saving.load_model(directory / "model.keras", compile=False)
