"""Models on disk, readable on every backend."""

import json
import re
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import keras

from shared.backends.initializers import HOST_INITIALIZERS
from shared.backends.runtime import without_tensorflow
from shared.errors import UsageError
from shared.files import check_archive, replacing


def save_model(model: keras.Model, path: Path) -> None:
    """Writes a .keras file that `keras.saving.load_model` reads on every backend, and trains on.

    Keras on PyTorch writes the names of optimizer classes that no other backend has, and initializers that draw on the
    host are this project's: both become Keras's public ones.
    """
    with replacing(path) as unfinished:
        with without_tensorflow():
            model.save(unfinished)
        with zipfile.ZipFile(unfinished) as archive:
            members = {info: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(unfinished, "w") as archive:
            for info, content in members.items():
                if info.filename == "config.json":
                    content = json.dumps(with_public_classes(json.loads(content)))
                archive.writestr(info, content)


def with_public_classes(config: Any) -> Any:
    """The configuration with each optimizer of one backend, and each initializer, replaced by its public parent."""
    if isinstance(config, list):
        return [with_public_classes(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: with_public_classes(value) for key, value in config.items()}
    name = str(config.get("class_name"))
    if str(config.get("module")).startswith("keras.") and hasattr(keras.optimizers, name):
        config |= {"module": "keras.optimizers", "registered_name": None}
    elif name in {kind.__name__ for kind in HOST_INITIALIZERS}:
        config |= {"module": "keras.initializers", "registered_name": None}
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
    there, here = (f"{len(names)} classes ({some_names(names)})" for names in (before, classes))
    both = f"{path} has {there}, these data have {here}"
    if len(before) != len(classes):
        raise UsageError(f"--initial-weights {both}: take data of the same classes, or leave the option out")
    print(f"WARNING: --initial-weights {both}", file=sys.stderr)


def some_names(names: list[str], most: int = 10) -> str:
    """Names, the first of many."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def read_model(path: Path, **arguments: Any) -> keras.Model:
    """Reads a .keras file, as `keras.saving.load_model` does, whose `arguments` these are.

    Raises:
        ValueError: the file is missing or damaged, or Keras cannot read it.
    """
    check_archive(path)
    try:
        return keras.saving.load_model(path, **arguments)
    except Exception as error:  # noqa: BLE001 - of a model of other code, or another Keras, it can be nearly anything
        raise ValueError(first_line(error)) from None


def first_line(error: Exception) -> str:
    """The first line of what an exception says, or what it is called."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Sets the weights of a model, and not the state of its optimizer, from a .weights.h5 or .keras file.

    Raises:
        UsageError: the file cannot be read, or its weights do not fit the model.
    """
    optimizer = getattr(model, "optimizer", None)  # there is none before `compile`
    optimizer_variables = optimizer.variables if optimizer else []
    optimizer_state = [keras.ops.convert_to_numpy(variable.value) for variable in optimizer_variables]
    try:
        if path.suffix == ".keras":
            check_archive(path)
        with warnings.catch_warnings(action="ignore"):  # about an optimizer that does not fit
            model.load_weights(path)
    except Exception as error:  # noqa: BLE001 - a damaged HDF5 file can make h5py and Keras raise nearly anything
        reason = first_line(error)
        shapes = r"name=([\w/]+).*?variable\.shape=\(([\d, ]*)\), Received: value\.shape=\D*([\d, ]*)"
        if misfit := re.search(shapes, str(error), re.DOTALL):
            layer, here, there = misfit.groups()
            reason = f"its layer {layer} has weights of shape ({there}), that of this model of shape ({here})"
        raise UsageError(f"--initial-weights {path} cannot be used: {reason}") from None
    for variable, value in zip(optimizer_variables, optimizer_state, strict=True):
        variable.assign(value)
