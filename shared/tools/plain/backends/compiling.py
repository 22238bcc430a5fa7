"""Functions of models, compiled."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


def compiled_model(model: keras.Model) -> Callable:
    """A model's predictions for the arrays of one batch."""
    return model.predict_on_batch


def compiled_inference(function: Callable, models: Sequence[keras.layers.Layer] = ()) -> Callable:
    """Compiles a function from tensors to tensors that runs models, without gradients."""
    match keras.config.backend():
        case "jax":
            import jax

            variables = [variable for model in models for variable in model.variables]

            @jax.jit
            def program(values, arguments):
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                    return function(*arguments)

            return lambda *arguments: program([variable.value for variable in variables], arguments)
        case "torch":
            import torch

            compiled = torch.no_grad()(function)
        case "tensorflow":
            import tensorflow as tf

            compiled = tf.function(function)
    return lambda *arguments: compiled(*as_tensors(arguments))


def compiled_loop(step: Callable, models: Sequence[keras.layers.Layer] = ()) -> Callable:
    """Compiles a loop of steps, each from its index, the state, a tuple, and the arguments to the new state."""

    def loop(first: Any, last: Any, state: tuple, *arguments: Any) -> tuple:
        return keras.ops.fori_loop(first, last, lambda index, state: step(index, state, *arguments), state)

    return compiled_inference(loop, models)


def as_tensors(structure: Any) -> Any:
    """A nested structure of arrays and numbers with tensors in their place."""
    return keras.tree.map_structure(lambda x: None if x is None else keras.ops.convert_to_tensor(x), structure)
