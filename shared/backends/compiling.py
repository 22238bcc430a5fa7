"""Functions of Keras models compiled by the running backend, without gradients."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import optree

from shared.backends.recording import recorded_inference


def compiled_model(model: keras.Model) -> Callable:
    """A model compiled for inference: from arrays of one batch to arrays, as `predict` gives them, and quicker."""
    program = compiled_inference(lambda inputs: model(inputs, training=False), [model])
    return lambda inputs: keras.tree.map_structure(keras.ops.convert_to_numpy, program(inputs))


def compiled_inference(function: Callable, models: Sequence[keras.layers.Layer] = ()) -> Callable:
    """Compiles a function that uses models, for what `predict` cannot do: search, sampling, steps with a state.

    A program is made for each combination of shapes and dtypes, which inside the function are known: keep these few.
    PyTorch runs the function as it is when it first meets such a combination, records the operations when it meets it
    again, and from then on repeats these alone, without Keras. Where they depend on the values of tensors, as loops and
    Keras's random numbers do there, it always runs the function as it is.

    Args:
        function: from tensors to tensors, both in any nested structure, None included. It runs the models with
            training=False, and sees the values that their variables have at each call; what it assigns to variables
            may be lost.
        models: all models and layers that the function uses, built.

    Returns:
        A function that takes the same arguments, also as NumPy arrays, numbers and variables, and gives the
        backend's tensors, which stay as they are when variables change. PyTorch cannot differentiate what is computed
        from them (they are tensors of its inference mode): copy them first where that is wanted.
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
            return TorchInference(function)
        case "tensorflow":
            return TensorFlowInference(function)


def compiled_loop(step: Callable, models: Sequence[keras.layers.Layer] = ()) -> Callable:
    """Compiles a loop whose state keeps its shapes: one program on JAX and TensorFlow; on PyTorch, which records no
    loops, one of a single step, so that the steps go without Keras and free what they no longer need.

    Args:
        step: `step(index, state, *arguments)` returns the new state, a tuple of tensors.
        models: as for `compiled_inference`.

    Returns:
        A function of the first index, the one behind the last, the first state and the arguments to the last state.
    """
    if keras.config.backend() == "torch":
        program = compiled_inference(step, models)

        def loop(first: int, last: int, state: tuple, *arguments: Any) -> tuple:
            for index in range(first, last):
                state = program(np.int32(index), state, *arguments)
            return state

        return loop

    def program(first: Any, last: Any, state: tuple, *arguments: Any) -> tuple:
        return keras.ops.fori_loop(first, last, lambda index, state: step(index, state, *arguments), state)

    compiled = compiled_inference(program, models)
    return lambda first, last, *arguments: compiled(np.int32(first), np.int32(last), *arguments)


class TorchInference:
    """A function on PyTorch, recorded for each combination of shapes that is met twice.

    Args:
        function: as for `compiled_inference`.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.met: set[Any] = set()
        self.programs: dict[Any, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        import torch

        leaves, structure = optree.tree_flatten(arguments, none_is_leaf=True)
        # Tensors pass as they are: in a loop, all but a few of the arguments are what the call before gave.
        leaves = [each if type(each) is torch.Tensor else as_tensor(each) for each in leaves]
        layout = [None if each is None else (each.shape, each.stride(), each.dtype, each.device) for each in leaves]
        shapes = structure, *layout
        if (program := self.programs.get(shapes)) is None:
            with torch.no_grad():
                if shapes not in self.met:
                    self.met.add(shapes)
                    return self.run(*optree.tree_unflatten(structure, leaves))
                program = self.programs[shapes] = recorded_inference(self.run, leaves, structure)
        with torch.inference_mode():  # each operation has less to do than without gradients alone
            return program(*leaves)

    def run(self, *arguments: Any) -> Any:
        """Runs the function as it is."""
        return keras.tree.map_structure(own_tensor, self.function(*arguments))


class TensorFlowInference:
    """A function on TensorFlow, compiled for each combination of shapes and dtypes.

    Which one it is called for is looked up here: `tf.function` takes as long for it as a small model for a token.

    Args:
        function: as for `compiled_inference`.
    """

    def __init__(self, function: Callable):
        self.function = function
        self.programs: dict[Any, Callable] = {}

    def __call__(self, *arguments: Any) -> Any:
        import tensorflow as tf

        leaves, structure = optree.tree_flatten(arguments, none_is_leaf=True)
        leaves = [each if isinstance(each, tf.Tensor) else as_tensor(each) for each in leaves]
        layout = structure, *[None if each is None else (each.shape, each.dtype) for each in leaves]
        if (program := self.programs.get(layout)) is None:

            def function(*leaves: Any) -> Any:
                return self.function(*optree.tree_unflatten(structure, leaves))

            described = [None if each is None else tf.TensorSpec(each.shape, each.dtype) for each in leaves]
            program = self.programs[layout] = tf.function(function).get_concrete_function(*described)
        return program(*leaves)


def as_tensors(structure: Any) -> Any:
    """A nested structure with tensors in place of arrays, numbers and variables; see `as_tensor`."""
    return keras.tree.map_structure(as_tensor, structure)


def as_tensor(x: Any) -> Any:
    """A tensor of an array, a number or the value of a variable; None stays.

    Floats of 64 bits become smaller, as in `fit`. What is the value of a variable is copied where it would change with
    the variable.
    """
    if x is None:
        return None
    double = getattr(x, "dtype", None) == np.float64
    return own_tensor(keras.ops.convert_to_tensor(x, dtype=keras.config.floatx() if double else None))


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
