"""What a finished run exports: its graphs, and what a program must know to run them without Keras.

A predictor says it in an attribute, a function without arguments, which `recipes export` calls:

    detect.exported = lambda: exported_detector(run)

Classifiers of images need none. A recipe without it exports its model as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from shared.backends.exporting import Graph, Tensor, by_keras, positional
from shared.errors import UsageError

GraphCall = Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]]
"""Runs an exported graph: from its name and its inputs to its outputs."""


@dataclass
class Exported:
    """The graphs of a finished run.

    Args:
        model: holds all weights.
        task: what the graphs do, in a few words.
        raw: the model as it is, to which the graphs are compared.
        graphs: to export; empty for `raw` alone.
        about: what values an input takes and what an output means, by its name, for model.json.
        usage: all else that a program must know, for model.json.
        files: that a program needs beside the graphs, by what model.json calls them.
        predictor_by: from a function that runs the graphs to one that answers as the recipe's predictor does, given all
            of its options; None where there is none.
    """

    model: keras.Model
    task: str
    raw: Graph
    graphs: list[Graph] = field(default_factory=list)
    about: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    predictor_by: Callable[[GraphCall], Callable] | None = None

    def __post_init__(self):
        self.graphs = self.graphs or [self.raw]

    def model_alone(self) -> "Exported":
        """The model as it is, without what comes before and after it."""
        return Exported(self.model, self.task, self.raw, [], self.about, self.usage, self.files)

    def inputs(self, sizes: dict[str, int], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Inputs to compare on, with axes of these sizes."""
        return {name: tensor.example(sizes, rng) for name, tensor in self.raw.inputs.items()}

    def expected(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by `model(x, training=False)`."""
        return self.model_outputs(inputs)

    def model_outputs(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs of the model as it is, by Keras."""
        return arrays(by_keras(positional(self.raw), [self.model])(*inputs.values()))

    def computed(self, call: GraphCall, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by the exported graphs."""
        return call(self.graphs[0].name, inputs)

    def calibration(self) -> dict[str, np.ndarray]:
        """Training examples, as inputs of the graph, from which quantization takes the ranges of activations.

        Raises:
            UsageError: there is no quantization of such models.
        """
        raise UsageError(f"--int8 is for image classification, not for {self.task}: leave it out")

    def metric(self, call: GraphCall) -> float:
        """The metric of the graph on held-out data, 0 to 1, which quantization must not lower much."""
        raise NotImplementedError

    def difference(self, expected: dict[str, np.ndarray], computed: dict[str, np.ndarray]) -> float:
        """The largest difference between the two."""
        return max(largest_difference(expected[name], computed[name]) for name in expected)


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """The largest absolute difference of two arrays; infinite where their shapes differ or a number is NaN."""
    if first.shape != second.shape:
        return float("inf")
    difference = np.abs(first.astype(np.float64) - second).max(initial=0.0)
    return float("inf") if np.isnan(difference) else float(difference)


def arrays(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    """Tensors of the running backend as arrays."""
    return {name: keras.ops.convert_to_numpy(tensor) for name, tensor in tensors.items()}


def model_graph(model: keras.Model, inputs: str = "inputs", outputs: str = "outputs", below: int = 2) -> Graph:
    """A model as it is.

    Args:
        model: whose axes may vary.
        inputs: the name of its input, where it does not take a dictionary; several are numbered.
        outputs: the name of its output, where it does not give a dictionary; several are numbered.
        below: ids that it takes are below this.
    """
    taken, given = named_tensors(model.input, inputs), named_tensors(model.output, outputs)

    def tensor(name: str, spec: Any) -> Tensor:
        lengths = (f"{name}_length" if size is None else size for size in spec.shape[1:])
        return Tensor(("batch", *lengths), spec.dtype, 256 if spec.dtype == "uint8" else below)

    def function(**values: Any) -> dict[str, Any]:
        if not isinstance(model.input, dict):
            values = keras.tree.pack_sequence_as(model.input, [values[name] for name in taken])
        return named_tensors(model(values, training=False), outputs)

    return Graph("model", function, *({name: tensor(name, each[name]) for name in each} for each in (taken, given)))


def named_tensors(structure: Any, name: str) -> dict[str, Any]:
    """A dictionary as it is; another structure of tensors by one name, or by several numbered."""
    if isinstance(structure, dict):
        return structure
    tensors = keras.tree.flatten(structure)
    return {name: tensors[0]} if len(tensors) == 1 else {f"{name}_{i}": each for i, each in enumerate(tensors)}


def exported_model(model: keras.Model) -> Exported:
    """A model as it is, of which nothing else is known."""
    dimensions = [layer.input_dim for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    return Exported(model, "the model as it was trained", model_graph(model, below=min(dimensions, default=2)))


def stacked_caches(caches: list[tuple[Any, Any]]) -> Any:
    """Keys and values (batch, heads, tokens, depth) of each block as one tensor (batch, 2 · blocks, heads, …)."""
    return ops.stack([each for pair in caches for each in pair], axis=1)


def split_caches(state: Any) -> list[tuple[Any, Any]]:
    """Keys and values of each block, see `stacked_caches`."""
    parts = ops.unstack(state, state.shape[1], axis=1)
    return list(zip(parts[::2], parts[1::2], strict=True))


def with_room(state: Any) -> tuple[Any, list[tuple[Any, Any]]]:
    """The position after the tokens of a state, and its caches with room for an entry there."""
    return ops.shape(state)[3], split_caches(ops.pad(state, ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0))))
