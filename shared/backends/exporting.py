"""Graphs in formats that run without Keras: ONNX, LiteRT, SavedModel, StableHLO."""

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from shared.backends.compiling import compiled_inference

OPSET = 18
"""Version of the operators of ONNX, the latest that TensorFlow's converter writes."""


class Tensor(NamedTuple):
    """An input or output of a graph."""

    shape: tuple[int | str, ...]
    """Sizes of the axes; for one that varies its name, such as "batch", or "tokens - 1" where it may be empty."""
    dtype: str = "float32"
    below: int = 2
    """Integers are from 0 to below this; for the inputs of a check."""

    def names(self) -> dict[int, str]:
        """The names of the axes that vary, by index, without what is subtracted."""
        return {index: axis.partition(" ")[0] for index, axis in enumerate(self.shape) if isinstance(axis, str)}

    def sized(self, sizes: dict[str, Any]) -> tuple[Any, ...]:
        """The shape, with sizes in place of names."""
        sizes = {index: sizes[name] for index, name in self.names().items()}
        sizes |= {index: sizes[index] - 1 for index in sizes if self.shape[index].endswith(" - 1")}
        return tuple(sizes.get(index, size) for index, size in enumerate(self.shape))

    def example(self, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
        """Random numbers of this shape and dtype."""
        if self.dtype.startswith("float"):
            return rng.standard_normal(self.sized(sizes), np.float32)
        return rng.integers(0, self.below, self.sized(sizes)).astype(self.dtype)


class Graph(NamedTuple):
    """A function to be exported."""

    name: str
    function: Callable
    """Takes the inputs by name, runs models with training=False, and returns a dictionary of the outputs."""
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def names(self) -> list[str]:
        """The names of the axes of inputs that vary."""
        return list(dict.fromkeys(name for tensor in self.inputs.values() for name in tensor.names().values()))


class ExportError(Exception):
    """A graph cannot be written in a format; the message is one line that says why."""


def by_keras(function: Callable, models: list[keras.Model]) -> Callable:
    """A function that uses models as Keras runs it, with training=False, but not operation by operation on JAX.

    Each operation of a shape is compiled there, which takes a minute for a large model.
    """
    return compiled_inference(function, models) if keras.config.backend() == "jax" else function


def write_saved_model(graphs: list[Graph], model: keras.Model, path: Path) -> None:
    """Writes a SavedModel with an endpoint for each graph. On TensorFlow."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    for graph in graphs:
        archive.add_endpoint(graph.name, positional(graph), tensor_specs(graph))
    archive.write_out(path, verbose=False)


def saved_model_caller(path: Path, graph: Graph) -> Callable:
    """A graph of a SavedModel, as a function of arrays by name to arrays by name."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = getattr(loaded, graph.name)(*[tf.constant(inputs[name]) for name in graph.inputs])
        return {name: np.asarray(outputs[name]) for name in graph.outputs}

    return call


def write_litert(graph: Graph, model: keras.Model, path: Path) -> None:
    """Writes a .tflite file. On TensorFlow.

    Raises:
        ExportError: the graph has operations that LiteRT lacks.
    """
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        write_saved_model([graph], model, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[graph.name])
        try:
            path.write_bytes(converter.convert())
        except Exception as error:  # noqa: BLE001 - of kinds of its own
            missing = sorted(set(re.findall(r"\btf\.([A-Z]\w+)", str(error))))
            needs = f"it needs operations of TensorFlow that LiteRT lacks: {', '.join(missing)}"
            raise ExportError(needs if missing else str(error).strip().splitlines()[0]) from None


def write_stablehlo(graph: Graph, path: Path) -> None:
    """Writes a program for `jax.export.deserialize`. On JAX."""
    import jax

    names = graph.names()
    symbols = dict(zip(names, jax.export.symbolic_shape(", ".join(names)), strict=True))
    arguments = [jax.ShapeDtypeStruct(each.sized(symbols), each.dtype) for each in graph.inputs.values()]
    path.write_bytes(jax.export.export(jax.jit(positional(graph)))(*arguments).serialize())


def stablehlo_caller(path: Path, graph: Graph) -> Callable:
    """A program of StableHLO, as a function of arrays by name to arrays by name."""
    import jax

    program = jax.export.deserialize(bytearray(path.read_bytes()))

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = program.call(*[inputs[name] for name in graph.inputs])
        return {name: np.asarray(outputs[name]) for name in graph.outputs}

    return call


def write_onnx(graph: Graph, model: keras.Model, path: Path) -> None:
    """Writes an .onnx file. On TensorFlow or PyTorch.

    Raises:
        ExportError: the graph has operations that ONNX lacks.
    """
    import onnx

    try:
        program = onnx_of_tensorflow(graph) if keras.config.backend() == "tensorflow" else onnx_of_torch(graph, model)
    except Exception as error:
        if keras.config.backend() == "torch":  # whose exporter explains itself on pages
            remedy = 'TensorFlow\'s may (pip install -e ".[tensorflow]"), or try --raw'
            raise ExportError(f"PyTorch's exporter cannot write it: {remedy}") from error
        raise ExportError(f"tf2onnx says {(str(error).strip() or type(error).__name__).splitlines()[0]}") from error
    foreign = sorted({node.op_type for node in program.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        raise ExportError(f"ONNX has no {', '.join(foreign)}")
    for tensors, values in ((graph.inputs, program.graph.input), (graph.outputs, program.graph.output)):
        if [value.name for value in values] != list(tensors):
            raise ExportError(f"the converter wrote {[value.name for value in values]}, not {list(tensors)}")
        for value in values:
            value.CopyFrom(typed_value(value.name, tensors[value.name]))
    program.producer_name = "keras-recipes"
    onnx.checker.check_model(program)
    onnx.save(program, path)


def typed_value(name: str, tensor: Tensor) -> Any:
    """An input or output of an ONNX graph."""
    import onnx

    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype)), tensor.shape
    )


def onnx_of_tensorflow(graph: Graph) -> Any:
    """A graph on TensorFlow as an ONNX model."""
    import tensorflow as tf

    with numpy_1_names():
        from tf2onnx import logging, optimizer, tf_loader, tfonnx

        logging.set_level(logging.ERROR)
        function = tf.function(positional(graph), tensor_specs(graph), autograph=False).get_concrete_function()
        # Without the constants that it captured, which tf2onnx's own functions would make inputs.
        inputs = {each.name: name for each, name in zip(function.inputs, graph.inputs, strict=False)}
        outputs = {function.structured_outputs[name].name: name for name in graph.outputs}
        frozen = tf_loader.from_function(function, list(inputs), list(outputs))
        with tf.Graph().as_default() as program:
            tf.import_graph_def(frozen, name="")
            converted = tfonnx.process_tf_graph(
                program, opset=OPSET, input_names=list(inputs), output_names=list(outputs),
                tensors_to_rename=inputs | outputs, custom_op_handlers={"Erfc": (erfc_of_erf, [])},
            )  # fmt: skip
        return optimizer.optimize_graph(converted).make_model(graph.name)


def erfc_of_erf(context: Any, node: Any, name: str, arguments: list) -> None:
    """erfc x = 1 − erf x, for tf2onnx: ONNX has no erfc, of which TensorFlow makes the exact GELU."""
    one = context.make_const(f"{name}_one", np.ones((), np.float32))
    erf = context.make_node("Erf", node.input, name=f"{name}_erf")
    shape, kind = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    context.remove_node(name)
    context.make_node(
        "Sub", [one.output[0], erf.output[0]], name=name, outputs=node.output, shapes=[shape], dtypes=[kind]
    )


def onnx_of_torch(graph: Graph, model: keras.Model) -> Any:
    """A graph on PyTorch as an ONNX model."""
    import torch

    class Program(torch.nn.Module):
        """The graph, and the model that holds its weights."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *inputs):
            outputs = graph.function(**dict(zip(graph.inputs, inputs, strict=True)))
            return tuple(outputs[name] for name in graph.outputs)

    sizes = {name: 5 + index for index, name in enumerate(graph.names())}
    dimensions = {name: torch.export.Dim(name) for name in sizes}
    rng = np.random.default_rng(0)
    examples = tuple(torch.tensor(each.example(sizes, rng)) for each in graph.inputs.values())
    shapes = tuple(
        {index: size for index, size in enumerate(each.sized(dimensions)) if index in each.names()}
        for each in graph.inputs.values()
    )
    with torch.no_grad():
        program = torch.onnx.export(
            Program().eval(), examples, dynamo=True, dynamic_shapes=(shapes,), input_names=list(graph.inputs),
            output_names=list(graph.outputs), opset_version=OPSET, verbose=False,
        )  # fmt: skip
    return program.model_proto


@contextlib.contextmanager
def numpy_1_names() -> Iterator[None]:
    """Names that NumPy 2 dropped and tf2onnx 1.17 uses."""
    names = {"product": np.prod}
    for name, value in names.items():
        setattr(np, name, value)
    try:
        yield
    finally:
        for name in names:
            delattr(np, name)


def positional(graph: Graph) -> Callable:
    """The function of a graph, of its inputs in order."""
    return lambda *arguments: graph.function(**dict(zip(graph.inputs, arguments, strict=True)))


def tensor_specs(graph: Graph) -> list[Any]:
    """The inputs of a graph for TensorFlow."""
    import tensorflow as tf

    return [
        tf.TensorSpec([None if isinstance(axis, str) else axis for axis in each.shape], each.dtype, name)
        for name, each in graph.inputs.items()
    ]
