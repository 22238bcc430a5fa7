"""The runtimes of exported files: each file as a function of arrays by name to arrays by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from shared.backends.exporting import Graph, saved_model_caller, stablehlo_caller


def caller(format_name: str, path: Path, graph: Graph) -> Callable:
    """An exported file in the runtime that it is for."""
    if format_name == "saved_model":
        return saved_model_caller(path, graph)
    if format_name == "stablehlo":
        return stablehlo_caller(path, graph)
    return litert_caller(path, graph) if format_name == "litert" else onnx_caller(path, graph)


def onnx_caller(path: Path, graph: Graph, threads: int = 1) -> Callable:
    """An .onnx file in ONNX Runtime, with so many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = session.run(list(graph.outputs), {name: inputs[name] for name in graph.inputs})
        return dict(zip(graph.outputs, outputs, strict=True))

    return call


def litert_caller(path: Path, graph: Graph) -> Callable:
    """A .tflite file in LiteRT, on one core."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)

    def call(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = interpreter.get_signature_runner(graph.name)(**{name: inputs[name] for name in graph.inputs})
        return {name: outputs[name] for name in graph.outputs}

    return call
