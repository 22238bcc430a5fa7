"""Gradients of Keras models, and steps of optimizers."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops


class StepScope(keras.StatelessScope):
    """Inside it, variables have the values that they are given here, and what is assigned to them stays here."""

    def __init__(self, state_mapping: Iterable[tuple[keras.Variable, Any]] = ()):
        super().__init__(state_mapping)
        self.looked_up: dict[int, keras.Variable] = {}
        """Variables that were read here and have no value here."""
        self.assigned: dict[int, keras.Variable] = {}
        """Variables that were assigned here."""

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None:
            self.looked_up[id(variable)] = variable
            if self.original_scope is not None:
                value = self.original_scope.get_current_value(variable)
        return variable._value if value is None else value

    def add_update(self, update):
        self.assigned[id(update[0])] = update[0]
        super().add_update(update)


def value_and_grad(loss_fn: Callable[..., Any], variables: Sequence[Any]) -> tuple[Any, list[Any]]:
    """The value of a loss, and its gradients by variables, or by tensors, which are its arguments."""
    values = [x.value if isinstance(x, keras.Variable) else ops.convert_to_tensor(x) for x in variables]
    by_tensors = not isinstance(variables[0], keras.Variable)
    match keras.config.backend():
        case "jax":
            import jax

            def run(values):
                nonlocal scope
                with StepScope(() if by_tensors else zip(variables, values, strict=True)) as scope:
                    loss = loss_fn(*values) if by_tensors else loss_fn()
                return loss, [scope.get_current_value(variable) for variable in scope.assigned.values()]

            scope = None
            (loss, assigned), gradients = jax.value_and_grad(run, has_aux=True)(values)
            for variable, value in zip(scope.assigned.values(), assigned, strict=True):
                variable.assign(value)
        case "torch":
            import torch

            with torch.enable_grad():
                values = [x if x.requires_grad else x.detach().requires_grad_() for x in values]
                loss = loss_fn(*values) if by_tensors else loss_fn()
                gradients = torch.autograd.grad(loss, values, create_graph=by_tensors, allow_unused=True)
            loss = loss.detach()
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(values)
                loss = loss_fn(*values) if by_tensors else loss_fn()
            gradients = [None if x is None else tf.convert_to_tensor(x) for x in tape.gradient(loss, values)]
    return loss, list(gradients)


def minimize(optimizer: keras.Optimizer, loss_fn: Callable[[], Any], variables: Sequence[keras.Variable]) -> Any:
    """Takes one step of an optimizer down the gradient of a loss, and returns this."""
    loss, gradients = value_and_grad(loss_fn, variables)
    optimizer.apply(gradients, variables)
    return loss
