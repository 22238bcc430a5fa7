"""The course of a training, in so few numbers that they can be kept and laid over another's: losses and updates."""

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np

SKETCH = 16
"""Numbers that stand for an update."""


def sketch(arrays: list[np.ndarray]) -> np.ndarray:
    """A random projection of arrays, shape (SKETCH,): sums of their entries, each with a random but fixed sign.

    The norm of a sketch, or of the difference of two, is near that of the arrays (AMS sketch; N. Alon, Y. Matias,
    M. Szegedy, "The space complexity of approximating the frequency moments", 1996).
    """
    entries = np.concatenate([array.ravel() for array in arrays]).astype(np.float64)
    entries *= np.random.default_rng(0).integers(0, 2, entries.size, "int8") * 2 - 1
    return np.bincount(np.arange(entries.size) % SKETCH, entries, SKETCH)


def length(arrays: list[np.ndarray]) -> float:
    """The norm of all entries of arrays together."""
    return float(np.sqrt(sum(np.square(array, dtype=np.float64).sum() for array in arrays)))


def variable_groups(state: keras.Model | dict[str, Any]) -> dict[str, list[keras.Variable]]:
    """The floating-point variables that training changes, metrics left out, by what they are.

    Args:
        state: as for `training_variables`.

    Returns:
        Of each model its "weights" and its "moving statistics", which are not trained; of each optimizer its slots,
        such as "optimizer momentum"; the other variables by their own names. The names begin with that of the model
        or optimizer where the state is a dictionary.
    """
    parts = {"": state, "optimizer": state.optimizer} if isinstance(state, keras.Model) else state
    groups: dict[str, list[keras.Variable]] = {}
    for name, part in parts.items():
        if isinstance(part, keras.metrics.Metric | keras.random.SeedGenerator):
            continue
        for variable in [part] if isinstance(part, keras.Variable) else part.variables:
            kind = ""
            if isinstance(part, keras.optimizers.Optimizer):
                kind = variable.path.rpartition("_")[2]
            elif isinstance(part, keras.layers.Layer):
                kind = "weights" if variable.trainable else "moving statistics"
            if "float" in keras.backend.standardize_dtype(variable.dtype):
                groups.setdefault(f"{name} {kind}".strip(), []).append(variable)
    return groups


def read_groups(state: keras.Model | dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """The values of `variable_groups`, as NumPy arrays of their own."""
    return {
        group: [np.array(keras.ops.convert_to_numpy(variable.value)) for variable in variables]
        for group, variables in variable_groups(state).items()
    }


def initial_course(model: keras.Model) -> dict[str, dict[str, list]]:
    """The weights that a backend draws for a model, as `training_course` has its series, to compare initializers."""
    arrays = [array for group in read_groups({"": model}).values() for array in group]
    return {"initial weights": {"steps": [0], "values": [sketch(arrays).tolist()], "sizes": [length(arrays)]}}


def training_course(
    loss_on: Callable[..., float], batches: Iterable[tuple], state: keras.Model | dict[str, Any]
) -> dict[str, dict[str, list]]:
    """Trains on batches, and notes the loss of each, and how far the variables have moved after 1, 2, 4, 8, … of them.

    Args:
        loss_on: trains on the arrays of a batch and returns the loss.
        batches: as many as there shall be steps.
        state: as for `training_variables`.

    Returns:
        "loss", and each of `variable_groups`: `steps`, which count from 1; `values`, for each of them the loss, or the
        norm of the update since the start, to which what rounding does at a few kinks adds next to nothing; and
        `sizes`, the norm of what was rounded to give them.
    """
    course = {}
    start = read_groups(state)
    for step, batch in enumerate(batches, 1):
        loss = float(loss_on(*batch))
        found = {"loss": ([loss], abs(loss))}
        if step & (step - 1) == 0:
            for group, arrays in read_groups(state).items():
                update = [array - before for array, before in zip(arrays, start[group], strict=True)]
                found[group] = [length(update)], length(arrays)
        for name, (values, size) in found.items():
            series = course.setdefault(name, {"steps": [], "values": [], "sizes": []})
            for key, value in (("steps", step), ("values", values), ("sizes", size)):
                series[key].append(value)
    return course
