"""Each layer of a model by itself, forward and back, on inputs that are the same on every backend."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from shared.backends.gradients import value_and_grad

EXAMPLES = 16
"""Of the first batch; enough to find a layer that differs, and small enough to keep every layer's inputs."""


class Call(NamedTuple):
    """How a layer was called in the model: its arguments and outputs, tensors as NumPy arrays."""

    layer: keras.layers.Layer
    function: Callable
    arguments: Any
    outputs: Any


def to_arrays(structure: Any) -> Any:
    """A nested structure with NumPy arrays in place of tensors."""
    return keras.tree.map_structure(lambda x: keras.ops.convert_to_numpy(x) if keras.ops.is_tensor(x) else x, structure)


def recorded_calls(model: keras.Model, inputs: Any) -> tuple[dict[str, Call], dict[str, str]]:
    """Runs a model once, as in training, and notes the first call of each layer inside it, by "place name".

    Layers that run inside a loop of the backend's, such as the cell of an LSTM, have no values to note there; they are
    compared as part of the layer around them.

    Returns:
        The calls, and of each other layer that computes something, by "place name" too, why it has none.
    """
    calls, missing, originals = {}, {}, {}

    def recording(key: str, layer: keras.layers.Layer, function: Callable) -> Callable:
        def call(*args, **kwargs):
            outputs = function(*args, **kwargs)
            if key not in calls:
                missing[key] = "runs inside a loop of the backend, as part of the layer around it"
                with contextlib.suppress(Exception):  # each backend has its own for a value that is not there yet
                    calls[key] = Call(layer, function, to_arrays((args, kwargs)), to_arrays(outputs))
                    del missing[key]
            return outputs

        return call

    layers = {layer_key(i, layer): layer for i, layer in enumerate(model._flatten_layers(include_self=False))}
    for key, layer in layers.items():
        originals[layer] = layer.call
        layer.call = recording(key, layer, layer.call)
        if not isinstance(layer, keras.layers.InputLayer):
            missing[key] = "is not called in training"
    model(inputs, training=True)
    for layer in layers.values():
        layer.call = originals[layer]
    return dict(sorted(calls.items())), missing


def layer_key(index: int, layer: keras.layers.Layer) -> str:
    """ "place name" of a layer in its model."""
    return f"{index:03} {layer.name}"


def replayed(call: Call, arguments: Any, seed: int) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Runs a layer on given arguments, forward and back.

    What is differentiated is the sum of the outputs, each times a number drawn from a normal distribution.

    Returns:
        The outputs, and the gradient by each floating-point input and trainable variable.
    """
    flat = keras.tree.flatten(arguments)
    inputs = {
        index: keras.Variable(value, name=f"input_{index}")
        for index, value in enumerate(flat)
        if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating)
    }
    weights = call.layer.trainable_variables
    kept = []

    def forward() -> list[Any]:
        values = [
            inputs[i].value if i in inputs else keras.ops.convert_to_tensor(x) if isinstance(x, np.ndarray) else x
            for i, x in enumerate(flat)
        ]
        args, kwargs = keras.tree.pack_sequence_as(arguments, values)
        return [x for x in keras.tree.flatten(call.function(*args, **kwargs)) if keras.ops.is_tensor(x)]

    def weighted_sum() -> Any:
        rng = np.random.default_rng(seed)
        total = 0.0
        for output in forward():
            if "float" in keras.backend.standardize_dtype(output.dtype):
                factors = keras.ops.convert_to_tensor(rng.normal(size=output.shape).astype("float32"))
                total = total + keras.ops.sum(keras.ops.cast(output, "float32") * factors)
        return total

    with keras.StatelessScope():
        kept = [keras.ops.convert_to_numpy(output) for output in forward()]
    variables = [*inputs.values(), *weights]
    if not variables or not any(np.issubdtype(x.dtype, np.floating) for x in kept):
        return kept, {}
    with keras.StatelessScope():
        _, gradients = value_and_grad(weighted_sum, variables)
    names = [f"input {index}" for index in inputs] + [weight.path.rpartition("/")[2] for weight in weights]
    found = {}
    for number, (name, gradient, variable) in enumerate(zip(names, gradients, variables, strict=True)):
        array = np.zeros(variable.shape) if gradient is None else keras.ops.convert_to_numpy(gradient)
        found[f"{number:02} {name}"] = array
    return kept, found


def layer_arrays(model: keras.Model, batch: tuple, directory: Path, reference: Path | None) -> None:
    """Writes layers.npz: for each layer its inputs and outputs in the model, and its outputs and gradients by itself;
    for those that have none, the reason.

    Args:
        model: with the same weights on every backend.
        batch: (inputs, targets, …); the first examples are used.
        directory: where the file goes.
        reference: directory of the backend whose inputs each layer is given by itself; None for the model's own.
    """
    inputs = keras.tree.map_structure(lambda x: keras.ops.convert_to_tensor(x[:EXAMPLES]), batch[0])
    calls, missing = recorded_calls(model, inputs)
    layers = enumerate(model._flatten_layers(include_self=False))
    kinds = {layer_key(index, layer): type(layer).__name__ for index, layer in layers}
    arrays = {}
    given = np.load(reference / "layers.npz", allow_pickle=False) if reference else {}
    for number, (key, call) in enumerate(calls.items()):
        flat = keras.tree.flatten(call.arguments)
        shared_inputs = [
            given.get(f"{key}|argument|{i}", x) if isinstance(x, np.ndarray) else x for i, x in enumerate(flat)
        ]
        outputs, gradients = replayed(call, keras.tree.pack_sequence_as(call.arguments, shared_inputs), number)
        groups = {
            "argument": {i: x for i, x in enumerate(flat) if isinstance(x, np.ndarray)},
            "in place": {i: x for i, x in enumerate(keras.tree.flatten(call.outputs)) if isinstance(x, np.ndarray)},
            "forward": dict(enumerate(outputs)),
            "gradient": gradients,
        }
        for group, members in groups.items():
            arrays |= {f"{key}|{group}|{name}": array for name, array in members.items()}
    facts = {"kinds": {key: kinds[key] for key in sorted({*calls, *missing})}, "missing": missing}
    np.savez(directory / "layers.npz", facts=np.array(json.dumps(facts)), **arrays)
