"""Functions of Keras models compiled by the running backend, without gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import keras


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
        A function that takes the same arguments, also as NumPy arrays and numbers, and gives the backend's tensors.
    """

    def tensors(structure: Any) -> Any:
        return keras.tree.map_structure(lambda x: None if x is None else keras.ops.convert_to_tensor(x), structure)

    match keras.config.backend():
        case "jax":
            import jax

            # Passed as arguments: closed over, their values would become constants of the program.
            variables = list({id(variable): variable for model in models for variable in model.variables}.values())

            @jax.jit
            def program(values, arguments):
                with keras.StatelessScope(state_mapping=zip(variables, values, strict=True)):
                    return function(*arguments)

            return lambda *arguments: program([variable.value for variable in variables], tensors(arguments))
        case "torch":
            import torch

            def run(*arguments):
                with torch.no_grad():
                    return function(*tensors(arguments))

            return run
        case "tensorflow":
            import tensorflow as tf

            program = tf.function(function)
            return lambda *arguments: program(*tensors(arguments))
