"""Functions of Keras models compiled by the running backend, without gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np


def compiled_inference(function: Callable, models: Sequence[keras.layers.Layer] = ()) -> Callable:
    """Compiles a function that uses models, for what `predict` cannot do: search, sampling, steps with a state.

    JAX and TensorFlow compile a program for each combination of shapes and dtypes, which inside the function are
    known: keep these few. PyTorch runs the function as it is.

    Args:
        function: from tensors to tensors, both in any nested structure, None included. It runs the models with
            training=False, and sees the values that their variables have at each call; what it assigns to variables
            may be lost.
        models: all models and layers that the function uses, built.

    Returns:
        A function that takes the same arguments, also as NumPy arrays, numbers and variables, and gives the
        backend's tensors, which stay as they are when variables change.
    """
    match keras.config.backend():
        case "jax":
            import jax

            # Passed as arguments: closed over, their values would become constants of the program.
            variables = list({id(variable): variable for model in models for variable in model.variables}.values())

            @jax.jit
            def program(values, arguments):
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                    return function(*arguments)

            return lambda *arguments: program([variable.value for variable in variables], as_tensors(arguments))
        case "torch":
            import torch

            def run(*arguments):
                with torch.no_grad():
                    return keras.tree.map_structure(own_tensor, function(*as_tensors(arguments)))

            return run
        case "tensorflow":
            import tensorflow as tf

            program = tf.function(function)
            return lambda *arguments: program(*as_tensors(arguments))


def as_tensors(structure: Any) -> Any:
    """A nested structure with tensors in place of arrays, numbers and variables.

    Floats of 64 bits become smaller, as in `fit`. What is the value of a variable is copied where it would change with
    the variable.
    """

    def tensor(x: Any) -> Any:
        if x is None:
            return None
        double = getattr(x, "dtype", None) == np.float64
        return own_tensor(keras.ops.convert_to_tensor(x, dtype=keras.config.floatx() if double else None))

    return keras.tree.map_structure(tensor, structure)


def own_tensor(x: Any) -> Any:
    """A copy of what is the value of a variable on PyTorch or TensorFlow, where it is changed in place; else `x`."""
    match keras.config.backend():
        case "torch":
            import torch

            return x.detach().clone() if isinstance(x, torch.nn.Parameter) else x
        case "tensorflow":
            import tensorflow as tf

            return tf.convert_to_tensor(x) if isinstance(x, tf.Variable) else x
    return x
