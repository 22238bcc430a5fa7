"""Training steps, compiled."""

from collections.abc import Callable
from typing import Any

import keras

from shared.backends.compiling import as_tensors
from shared.backends.gradients import StepScope


def compiled_step(function: Callable[..., Any], jit_compile: bool | None = None) -> Callable[..., Any]:
    """Compiles a function from tensors to tensors that trains: it changes weights, optimizers and metrics."""
    match keras.config.backend():
        case "jax":
            import jax

            variables: list[keras.Variable] = []

            @jax.jit
            def program(values, arguments):
                with StepScope(zip(variables, values, strict=True)) as scope:
                    results = function(*arguments)
                return results, [scope.get_current_value(variable) for variable in variables]

            def step(*arguments):
                if not variables:  # those that the function uses are found by running it on shapes alone
                    with StepScope() as scope:
                        jax.eval_shape(function, *arguments)
                    variables.extend((scope.looked_up | scope.assigned).values())
                results, values = program([variable.value for variable in variables], arguments)
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
                return results

            return step
        case "torch":
            import torch

            return torch.no_grad()(lambda *arguments: function(*as_tensors(arguments)))
        case "tensorflow":
            import tensorflow as tf

            program = tf.function(function, autograph=False, jit_compile=jit_compile)
            return lambda *arguments: program(*as_tensors(arguments))
