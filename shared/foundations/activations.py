"""Activation functions with their derivatives, both as functions of the pre-activation z."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from keras import ops

ActivationName = Literal["relu", "leaky_relu", "sigmoid", "tanh", "gelu", "swish"]


class ActivationFunction(NamedTuple):
    """An activation function f and its derivative f′, elementwise on tensors."""

    value: Callable[[Any], Any]
    derivative: Callable[[Any], Any]
    initializer: str
    """That of Keras with which the activations neither grow nor shrink from layer to layer."""


LEAK = 0.2
"""Slope of leaky ReLU below 0, as in `keras.activations.leaky_relu`."""


def sigmoid(z: Any) -> Any:
    """The logistic function 1 / (1 + e⁻ᶻ), by tanh, which does not overflow."""
    return 0.5 * (1 + ops.tanh(0.5 * z))


def normal_distribution(z: Any) -> Any:
    """Φ(z): how probable it is that a standard normal number is below z."""
    return 0.5 * (1 + ops.erf(z / math.sqrt(2)))


def normal_density(z: Any) -> Any:
    """φ(z) = Φ′(z), the bell curve."""
    return ops.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


# At 0, where ReLU and leaky ReLU have no derivative, both take the one from the left, as automatic differentiation does
# through `where`.
ACTIVATIONS: dict[str, ActivationFunction] = {
    "relu": ActivationFunction(
        lambda z: ops.where(z > 0, z, 0.0),
        lambda z: ops.where(z > 0, 1.0, 0.0),
        "he_normal",
    ),
    "leaky_relu": ActivationFunction(
        lambda z: ops.where(z > 0, z, LEAK * z),
        lambda z: ops.where(z > 0, 1.0, LEAK),
        "he_normal",
    ),
    "sigmoid": ActivationFunction(
        sigmoid,
        lambda z: sigmoid(z) * (1 - sigmoid(z)),  # at most 1/4, at 0
        "glorot_normal",
    ),
    "tanh": ActivationFunction(
        ops.tanh,
        lambda z: 1 - ops.tanh(z) ** 2,
        "glorot_normal",
    ),
    "gelu": ActivationFunction(
        lambda z: z * normal_distribution(z),
        lambda z: normal_distribution(z) + z * normal_density(z),
        "he_normal",
    ),
    "swish": ActivationFunction(
        lambda z: z * sigmoid(z),
        lambda z: sigmoid(z) * (1 + z * (1 - sigmoid(z))),
        "he_normal",
    ),
}
"""By the names that Keras has for them."""
