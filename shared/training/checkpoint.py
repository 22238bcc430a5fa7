"""Checkpoints: the whole training state in one file, written atomically.

A checkpoint is a NumPy .npz archive (a zip, with a checksum for each member) without pickles.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from shared.errors import UsageError
from shared.files import check_archive, replacing

CHECKPOINT_FORMAT = "keras-recipes checkpoint 2"


class Checkpoint(NamedTuple):
    """Variables of model, optimizer and metrics, and JSON facts such as epoch and batch."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def training_variables(
    state: keras.Model | dict[str, Any], averages: Sequence[keras.Variable] = ()
) -> dict[str, keras.Variable]:
    """All variables that training changes, by names that do not depend on layer names.

    Args:
        state: a compiled model: its weights, moving statistics and seed generators, the optimizer's variables, and the
            metrics; or models, optimizers, metrics, seed generators and variables, each by a name.
        averages: of the model's statistics, see `AveragedWeights`.
    """
    if isinstance(state, keras.Model):
        groups = {"model": state.variables, "optimizer": state.optimizer.variables, "metrics": state.metrics_variables}
    else:
        groups = {}
        for name, part in state.items():
            if isinstance(part, keras.Variable):
                groups[name] = [part]
            elif isinstance(part, keras.random.SeedGenerator):
                groups[name] = [part.state]
            else:
                groups[f"metrics/{name}" if isinstance(part, keras.metrics.Metric) else name] = part.variables
    groups["averages"] = averages
    return {f"{group}/{i:04}": variable for group, variables in groups.items() for i, variable in enumerate(variables)}


def read_variables(
    state: keras.Model | dict[str, Any], averages: Sequence[keras.Variable] = ()
) -> dict[str, np.ndarray]:
    """Values of `training_variables`, as NumPy arrays."""
    variables = training_variables(state, averages)
    return {name: keras.ops.convert_to_numpy(variable.value) for name, variable in variables.items()}


def assign_variables(
    state: keras.Model | dict[str, Any], arrays: dict[str, np.ndarray], averages: Sequence[keras.Variable] = ()
) -> None:
    """Assigns `arrays` to the `training_variables` of the same names."""
    variables = training_variables(state, averages)
    for name, array in arrays.items():
        variables[name].assign(array)


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """The arrays in an .npz file.

    Raises:
        ValueError: it is missing or damaged, or holds anything but arrays.
    """
    check_archive(path)
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


class CheckpointStore:
    """The newest checkpoints of one run.

    Args:
        directory: of the checkpoints.
        identity: facts that a checkpoint must share with the run that resumes from it, such as recipe and versions.
        keep: number of checkpoints to keep.
    """

    def __init__(self, directory: Path, identity: dict[str, str], keep: int = 2):
        self.directory = directory
        self.identity = {"format": CHECKPOINT_FORMAT} | identity
        self.keep = keep

    def paths(self) -> list[Path]:
        """The checkpoint files, oldest first."""
        return sorted(self.directory.glob("step-*.npz"))

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Writes a checkpoint, then removes the oldest beyond `keep`.

        Raises:
            OSError: it could not be written; the earlier ones are unchanged.
        """
        facts = json.dumps({"identity": self.identity, "facts": checkpoint.facts, "names": list(checkpoint.arrays)})
        with replacing(self.directory / f"step-{step:09}.npz") as path:
            np.savez(path, facts=np.array(facts), **checkpoint.arrays)
        for path in self.paths()[: -self.keep]:
            path.unlink()

    def load(self, shapes: dict[str, tuple[int, ...]]) -> Checkpoint | None:
        """The newest usable checkpoint; None if there is no checkpoint.

        Each unusable one is printed to stdout, with the reason.

        Args:
            shapes: the required arrays, without those of metrics.

        Raises:
            UsageError: there are checkpoints, but none is usable.
        """
        paths = self.paths()
        for path in reversed(paths):
            try:
                return self.read(path, shapes)
            except ValueError as reason:
                print(f"refused {path}: {reason}")
        if paths:
            raise UsageError(f"none of the checkpoints in {self.directory} can be used: start anew with another --out")
        return None

    def read(self, path: Path, shapes: dict[str, tuple[int, ...]]) -> Checkpoint:
        """Reads one checkpoint.

        Raises:
            ValueError: it is damaged, or belongs to another run.
        """
        try:
            arrays = read_archive(path)
            stored = json.loads(str(arrays.pop("facts")))
            identity, facts = stored["identity"], stored["facts"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"damaged or not a checkpoint ({error})") from None
        for name, expected in self.identity.items():
            if identity.get(name) != expected:
                raise ValueError(f"its {name} is {identity.get(name)}, here it is {expected}")
        if list(arrays) != stored["names"]:
            raise ValueError("damaged: it does not hold all that was saved")
        if {name: array.shape for name, array in arrays.items() if not name.startswith("metrics/")} != shapes:
            raise ValueError("it holds the variables of another model")
        return Checkpoint(arrays, facts)
