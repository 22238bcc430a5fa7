"""Loss surface along two directions."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from shared.backends.compiling import compiled_inference
from shared.backends.gradients import substituted


def loss_surface(
    loss: Callable[..., Any], batch: tuple, model: keras.Model, seed: int, steps: int = 25, reach: float = 1.0
) -> np.ndarray:
    """Losses (steps, steps) around the weights, along two random directions (Li et al. 2018, arXiv:1712.09913).

    A network stays the same where the weights into a unit grow and those after it shrink. So that surfaces can be
    compared, a direction has the norm of the weights into each unit; biases stay as they are.

    Args:
        loss: from the arrays of a batch to a scalar.
        batch: the arrays.
        model: whose kernels are varied.
        seed: of the directions.
        steps: along each direction; an odd number has the weights themselves among them.
        reach: the steps go from −reach to reach.
    """
    rng = np.random.default_rng(seed)
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    first, second = ([random_direction(kernel, rng) for kernel in kernels] for _ in range(2))

    def loss_at(alpha: Any, beta: Any, *batch: Any) -> Any:
        moved = [keras.ops.add(W, alpha * d + beta * e) for W, d, e in zip(kernels, first, second, strict=True)]
        with substituted(kernels, moved):
            return loss(*batch)

    program = compiled_inference(loss_at, [model])
    places = np.linspace(-reach, reach, steps, dtype="float32")
    return np.array([[float(program(alpha, beta, *batch)) for alpha in places] for beta in places])


def random_direction(kernel: keras.Variable, rng: np.random.Generator) -> Any:
    """A random direction whose entries for each unit, along the last axis, have the norm of its weights."""
    values = keras.ops.convert_to_numpy(kernel)
    direction, axes = rng.normal(size=values.shape), tuple(range(values.ndim - 1))
    scale = np.linalg.norm(values, axis=axes) / np.linalg.norm(direction, axis=axes)
    return keras.ops.convert_to_tensor((scale * direction).astype("float32"))
