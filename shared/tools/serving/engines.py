"""Engines: how a finished run is opened for serving.

An engine is a function from the directory of a run to a `Served`. The worker's thread calls it, and what it gives.
"""

import inspect
import platform
from collections.abc import Callable
from pathlib import Path

import keras

from shared.backends.runtime import backend_version
from shared.tools.predict import open_predictor, options_of
from shared.tools.project import recipe_path, task_of
from shared.tools.serving.interface import Served
from shared.training.predictors import FinishedRun, Picture, signature_of

RESULT_FACTS = ("data", "preset", "metric", "value", "metrics", "parameters", "epochs", "seed", "backend", "precision")
"""What of result.json anybody may know who may ask the model."""


def keras_engine(directory: Path) -> Served:
    """A run through its Keras model, on the running backend.

    Raises:
        UsageError: it is not the directory of a finished run of a recipe of this checkout.
    """
    return served_predictor(*open_predictor(directory))


def served_predictor(run: FinishedRun, predict: Callable) -> Served:
    """What is served of a finished run and its predictor."""
    signature = signature_of(predict)
    versions = {"python": platform.python_version(), "keras": keras.__version__}
    return Served(
        recipe=run.recipe,
        task=task_of(recipe_path(run.recipe)),
        predict=predict,
        input_name=next(iter(inspect.signature(predict).parameters)),
        takes=signature.takes,
        gives=signature.gives,
        options=options_of(run, signature),
        watcher=signature.watcher,
        classes=run.result.get("classes"),
        picture_shape=run.model.input_shape[1:] if signature.takes is Picture else None,
        result={name: run.result[name] for name in RESULT_FACTS if name in run.result},
        versions=versions | {keras.config.backend(): backend_version()},
    )
