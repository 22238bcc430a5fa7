"""Checks of what is written out against what a library computes."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.gradients import value_and_grad
from shared.backends.steps import compiled_step


def gradient_error(
    loss: Callable[..., Any], gradients: Callable[..., Any], variables: Sequence[Any], batch: tuple
) -> float:
    """Largest difference of gradients from those of automatic differentiation, relative to the largest gradient.

    Args:
        loss: from the arrays of a batch to a scalar.
        gradients: from the arrays of a batch to a pair, of which the first are the gradients of the loss.
        variables: those to differentiate by, nested as the gradients are.
        batch: the arrays.
    """

    @compiled_step
    def compare(*batch: Any) -> list[Any]:
        _, automatic = value_and_grad(lambda: loss(*batch), keras.tree.flatten(variables))
        pairs = zip(keras.tree.flatten(gradients(*batch)[0]), automatic, strict=True)
        return [ops.max(ops.abs(own - other)) / ops.maximum(ops.max(ops.abs(other)), 1e-30) for own, other in pairs]

    return float(np.max([float(error) for error in compare(*batch)]))  # NaN, if one is
