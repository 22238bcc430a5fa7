"""Gradients, on whichever backend runs."""

from collections.abc import Callable
from typing import Any

import keras


def value_and_grad(loss_fn: Callable[[], Any], variables: list[keras.Variable]) -> tuple[Any, list[Any]]:
    """The value of a function of Keras variables, and its gradients.

    Whatever else the function changes, such as moving averages or the state of seed generators, is as it was
    afterwards.

    Args:
        loss_fn: takes nothing, computes from the values of variables, and returns a scalar tensor.
        variables: those to differentiate by, of a floating type.

    Returns:
        The scalar, and a tensor of the shape of each variable; None where the value does not depend on it, or, on JAX,
        zeros.
    """
    match keras.config.backend():
        case "jax":
            import jax

            def loss_of(values):
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                    return loss_fn()

            return jax.value_and_grad(loss_of)([variable.value for variable in variables])
        case "torch":
            import torch

            with keras.StatelessScope():
                loss = loss_fn()
            return loss, list(torch.autograd.grad(loss, [variable.value for variable in variables], allow_unused=True))
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape, keras.StatelessScope():
                loss = loss_fn()
            return loss, tape.gradient(loss, [variable.value for variable in variables])
