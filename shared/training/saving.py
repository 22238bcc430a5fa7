"""Models on disk, readable on every backend."""

import json
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from shared.backends.runtime import without_tensorflow
from shared.errors import UsageError
from shared.files import replacing


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a .keras file that `keras.saving.load_model` reads on every backend, and trains on.

    Keras on PyTorch writes the names of optimizer classes that no other backend has; they are put right here.
    """
    with replacing(path) as unfinished:
        with without_tensorflow():
            model.save(unfinished)
        with zipfile.ZipFile(unfinished) as archive:
            members = {info: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(unfinished, "w") as archive:
            for info, content in members.items():
                if info.filename == "config.json":
                    content = json.dumps(with_public_optimizers(json.loads(content)))
                archive.writestr(info, content)


def with_public_optimizers(config: Any) -> Any:
    """The configuration with each optimizer class of one backend replaced by its public parent."""
    if isinstance(config, list):
        return [with_public_optimizers(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: with_public_optimizers(value) for key, value in config.items()}
    if str(config.get("module")).startswith("keras.") and hasattr(keras.optimizers, str(config.get("class_name"))):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config


def check_initial_classes(path: Path | None, classes: list[str]) -> None:
    """Compares the classes of a run with those of the run whose `--initial-weights` it starts from.

    They are known where the result of that run lies beside the weights. Other names of as many classes are only said:
    the last layer then learns anew what its outputs mean.

    Raises:
        UsageError: there are more or fewer classes.
    """
    try:
        before = json.loads((path.parent / "result.json").read_text(encoding="utf-8"))["classes"] if path else None
    except (OSError, ValueError, KeyError, TypeError):
        return
    if before in (None, classes):
        return
    both = f"{path} has {len(before)} classes ({some_names(before)}), these data have {len(classes)} ({some_names(classes)})"
    if len(before) != len(classes):
        raise UsageError(f"--initial-weights {both}: take data of the same classes, or leave the option out")
    print(f"WARNING: --initial-weights {both}", file=sys.stderr)


def some_names(names: list[str], most: int = 10) -> str:
    """Names, the first of many."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Sets the weights of a model, and not the state of its optimizer, from a .weights.h5 or .keras file.

    Raises:
        UsageError: the file cannot be read, or its weights do not fit the model.
    """
    optimizer = getattr(model, "optimizer", None)  # there is none before `compile`
    optimizer_variables = optimizer.variables if optimizer else []
    optimizer_state = [keras.ops.convert_to_numpy(variable.value) for variable in optimizer_variables]
    try:
        with warnings.catch_warnings(action="ignore"):  # about an optimizer that does not fit
            model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        shapes = r"name=([\w/]+).*?variable\.shape=\(([\d, ]*)\), Received: value\.shape=\D*([\d, ]*)"
        if misfit := re.search(shapes, str(error), re.DOTALL):
            layer, here, there = misfit.groups()
            reason = f"its layer {layer} has weights of shape ({there}), that of this model of shape ({here})"
        raise UsageError(f"--initial-weights {path} cannot be used: {reason}") from None
    for variable, value in zip(optimizer_variables, optimizer_state, strict=True):
        variable.assign(value)
