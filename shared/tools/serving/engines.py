"""Engines: how a finished run is opened for serving.

An engine is a function from the directory of a run to a `Served`. The worker's thread calls it, and what it gives.
"""

import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from shared.backends.runtime import backend_version
from shared.data.places import file_hash
from shared.errors import UsageError
from shared.tools.exporting.contents import exported_of
from shared.tools.exporting.runtimes import onnx_caller
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


def onnx_engine(directory: Path) -> Served:
    """A run through the model that `recipes export` wrote beside it, in ONNX Runtime.

    The running backend still does what is beside the network, such as choosing tokens.

    Raises:
        UsageError: there is no such model of this run, or it is not enough for predictions.
    """
    run, predict = open_predictor(directory)
    try:
        return served_by_graphs(run, predict)
    except ExportMissing as error:
        raise UsageError(f"{error}: run  recipes export {directory}  or leave --engine out") from None


def preferred_engine(directory: Path) -> Served:
    """A run through its exported model, if there is one, or else its Keras model.

    Raises:
        UsageError: it is not the directory of a finished run of a recipe of this checkout.
    """
    run, predict = open_predictor(directory)
    try:
        return served_by_graphs(run, predict)
    except ExportMissing as error:
        if exported_folder(directory).exists():
            print(f"WARNING: {error}: served by Keras instead", file=sys.stderr)
        return served_predictor(run, predict)


ENGINES = {"auto": preferred_engine, "onnx": onnx_engine, "keras": keras_engine}


def usable_cores() -> int:
    """Cores that this process may use.

    Left to itself, ONNX Runtime takes all of the machine, and ties threads to those that were taken from the process.
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ExportMissing(Exception):
    """A run cannot be served by an exported model; the message says why."""


def exported_folder(directory: Path) -> Path:
    """Where `recipes export` puts the ONNX model of a run."""
    return directory / "export" / "onnx"


def served_by_graphs(run: FinishedRun, predict: Callable) -> Served:
    """What is served of a run and its predictor, with the exported graphs in place of the model.

    Raises:
        ExportMissing: there are none of this model, or the predictor needs more.
    """
    folder = exported_folder(run.directory)
    try:
        facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ExportMissing(f"{folder} holds no exported model") from None
    if importlib.util.find_spec("onnxruntime") is None:
        raise ExportMissing("onnxruntime is not installed")
    exported = exported_of(run, predict)
    if exported.predictor_by is None:
        raise ExportMissing(f"{run.recipe} exports its model alone, not all of its prediction")
    expected = {graph.name: [*graph.inputs] for graph in exported.graphs}
    found = {name: [*graph["inputs"]] for name, graph in facts["graphs"].items()}
    if facts.get("model_sha256") != file_hash(run.directory / "model.keras") or facts["raw"] or found != expected:
        raise ExportMissing(f"{folder} is of another model, of other code, or raw")
    files = {name: folder / graph["file"] for name, graph in facts["graphs"].items()}
    calls = {graph.name: onnx_caller(files[graph.name], graph, threads=usable_cores()) for graph in exported.graphs}

    def call(name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return calls[name](inputs)

    served = served_predictor(run, predict)
    version = {"onnxruntime": importlib.metadata.version("onnxruntime")}
    return served._replace(predict=exported.predictor_by(call), engine="onnx", versions=served.versions | version)


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
