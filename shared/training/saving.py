"""Saving and loading of models, on every backend."""

import json
import re
import sys
import tempfile
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
    """Writes a .keras file that `keras.saving.load_model` reads on every backend, for prediction and training.

    Keras on PyTorch writes optimizer classes that no other backend has, and host initializers belong to this project:
    both are replaced by Keras's public classes. Keras writes what `jit_compile="auto"` means on the running backend,
    which elsewhere is another choice: torch.compile on PyTorch, no compilation on JAX. "auto" is written instead.
    """
    with replacing(path) as unfinished:
        with without_tensorflow():
            model.save(unfinished)
        with zipfile.ZipFile(unfinished) as archive:
            members = {info: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(unfinished, "w") as archive:
            for info, content in members.items():
                if info.filename == "config.json":
                    config = with_public_classes(json.loads(content))
                    if "jit_compile" in (config.get("compile_config") or {}):
                        config["compile_config"]["jit_compile"] = "auto"
                    content = json.dumps(config)
                archive.writestr(info, content)


def with_public_classes(config: Any) -> Any:
    """The configuration with backend-specific optimizers and host initializers replaced by their public parents."""
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
    """Compares the classes of the data with those of the run that `--initial-weights` comes from.

    They are read from the result.json beside the weights, if any. Different names of as many classes only cause a
    warning: the last layer then has to relearn its outputs.

    Raises:
        UsageError: the number of classes differs.
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
    """The first `most` names, separated by commas."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def read_model(path: Path, **arguments: Any) -> keras.Model:
    """Reads a .keras file by `keras.saving.load_model`, which gets the `arguments`.

    Raises:
        ValueError: the file is missing or damaged, or Keras cannot read it.
    """
    check_archive(path)
    try:
        return keras.saving.load_model(path, **arguments)
    except Exception as error:  # noqa: BLE001 - of a model of other code, or another Keras, it can be nearly anything
        raise ValueError(first_line(error)) from None


def read_model_in_float32(path: Path) -> keras.Model:
    """Reads a .keras file of a model of mixed precision as one that computes in float32, with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "model.keras"
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
            for info in archive.infolist():
                content = archive.read(info)
                if info.filename == "config.json":
                    content = re.sub(rb'"mixed_b?float16"', b'"float32"', content)
                written.writestr(info, content)
        return read_model(copy, compile=False)


def first_line(error: Exception) -> str:
    """First line of an exception's message, or its class name."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def load_initial_weights(model: keras.Model, path: Path) -> None:
    """Loads the weights of a model, without the optimizer state, from a .weights.h5 or .keras file.

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
