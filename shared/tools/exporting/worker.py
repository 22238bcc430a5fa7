"""Exports a finished run, in a process of the backend that writes the format, and checks what was written."""

import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shared.backends.exporting import (
    ExportError,
    Tensor,
    by_keras,
    positional,
    write_litert,
    write_onnx,
    write_saved_model,
    write_stablehlo,
)
from shared.backends.runtime import machine_name
from shared.data.places import file_hash
from shared.errors import UsageError
from shared.tools.exporting.contents import exported_of
from shared.tools.exporting.formats import FORMATS, Request
from shared.tools.exporting.quantization import quantize
from shared.tools.exporting.runtimes import caller
from shared.tools.predict import open_predictor
from shared.training.exports import Exported, GraphCall
from shared.training.saving import first_line, read_model_in_float32

TOLERANCE = 1e-4
"""The largest difference to the model in Keras of an exported file that is kept."""


def write_graphs(format_name: str, exported: Exported, folder: Path, out: Path) -> dict[str, Path]:
    """Writes the graphs to a folder, named after `out`; returns the path of each.

    Raises:
        ExportError: a graph cannot be written in this format.
    """
    if format_name == "saved_model":
        write_saved_model(exported.graphs, exported.model, folder / out.name)
        return {graph.name: folder / out.name for graph in exported.graphs}
    paths = {}
    for graph in exported.graphs:
        name = out.name if len(exported.graphs) == 1 else f"{out.stem}-{graph.name}{out.suffix}"
        paths[graph.name] = folder / name
        match format_name:
            case "onnx":
                write_onnx(graph, exported.model, folder / name)
            case "litert":
                write_litert(graph, exported.model, folder / name)
            case "stablehlo":
                write_stablehlo(graph, folder / name)
    return paths


def check_sizes(exported: Exported) -> list[dict[str, int]]:
    """Sizes of the axes that vary, twice: two batch sizes, and two lengths of each other axis, no two equal."""
    names = dict.fromkeys(name for graph in (exported.raw, *exported.graphs) for name in graph.names())
    lengths = [name for name in names if name != "batch"]
    return [
        {"batch": batch} | {name: first + index for index, name in enumerate(lengths)}
        for batch, first in ((1, 4), (3, 11))
    ]


def compare(exported: Exported, call: GraphCall) -> float:
    """The largest difference of exported graphs to `model(x, training=False)`."""
    rng, differences = np.random.default_rng(0), []
    for sizes in check_sizes(exported):
        inputs = exported.inputs(sizes, rng)
        differences.append(exported.difference(exported.expected(inputs), exported.computed(call, inputs)))
    return max(differences)


def milliseconds(exported: Exported, call: GraphCall, repeats: int = 5) -> dict[str, float]:
    """Processor time of one input, by the exported graphs, by `model(x)` and by `predict`: the median.

    The three run in turn, and once before. On JAX `model(x)` is compiled, see `by_keras`.
    """
    inputs = exported.inputs(check_sizes(exported)[0], np.random.default_rng(0))
    given = {name: inputs[name] for name in exported.raw.inputs}
    names = isinstance(exported.model.input, dict)
    taken = given if names else keras.tree.pack_sequence_as(exported.model.input, list(given.values()))
    model = by_keras(positional(exported.raw), [exported.model])
    programs = {
        "exported": lambda: exported.computed(call, inputs),
        "model(x)": lambda: model(*given.values()),
        "predict": lambda: exported.model.predict(taken, verbose=0),
    }
    times = {name: [] for name in programs}
    for _ in range(repeats + 1):
        for name, program in programs.items():
            began = time.process_time()
            program()
            times[name].append(1000 * (time.process_time() - began))
    return {name: round(float(np.median(spent[1:])), 3) for name, spent in times.items()}


def described_tensors(tensors: dict[str, Tensor], about: dict[str, Any]) -> dict[str, Any]:
    """Inputs or outputs of a graph, for model.json."""
    found = {}
    for name, tensor in tensors.items():
        values = about.get(name, {})
        facts = {"shape": list(tensor.shape), "dtype": tensor.dtype}
        found[name] = facts | (values if isinstance(values, dict) else {"values": values})
    return found


def description(request: Request, exported: Exported, paths: dict[str, Path]) -> dict[str, Any]:
    """What model.json says of the graphs and their use."""
    graphs = {
        graph.name: {
            "file": paths[graph.name].name,
            "inputs": described_tensors(graph.inputs, exported.about),
            "outputs": described_tensors(graph.outputs, exported.about),
        }
        for graph in exported.graphs
    }
    kind = {"format": request.format, "int8": request.int8, "raw": request.raw}
    files = {"files": {name: f"{request.out.stem}-{path.name}" for name, path in exported.files.items()}}
    return {"task": exported.task, **kind, "graphs": graphs} | (files if exported.files else {}) | exported.usage


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return (
        sum(each.stat().st_size for each in path.rglob("*") if each.is_file()) if path.is_dir() else path.stat().st_size
    )


def export(request: Request, timed: bool = True) -> int:
    """Writes a finished run in a format, beside what it is to be used with; returns the exit code.

    Nothing is written unless it computes what the model in Keras does.

    Raises:
        UsageError: the run has not finished, the format cannot hold it, or files cannot be written.
    """
    run, predict = open_predictor(request.directory)
    config = json.loads((request.directory / "config.json").read_text(encoding="utf-8"))
    names = ("preset", "data", "metric")
    origin = {"recipe": config["recipe"]} | {name: run.result[name] for name in names if name in run.result}
    origin["model_sha256"] = file_hash(request.directory / "model.keras")
    if run.config.precision != "float32":  # which few runtimes compute in
        run.model = read_model_in_float32(request.directory / "model.keras")
    exported = exported_of(run, predict)
    if request.raw:
        exported = exported.model_alone()
    try:
        request.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=request.out.parent) as folder:
            return write_checked(request, origin, exported, Path(folder), timed)
    except OSError as error:
        raise UsageError(f"cannot write {request.out} ({error.strerror or error}): name another --out") from None


def write_checked(request: Request, origin: dict[str, Any], exported: Exported, folder: Path, timed: bool) -> int:
    """Writes a run to a folder, checks it there, and moves it to where it belongs; returns the exit code."""
    try:
        paths = write_graphs(request.format, exported, folder, request.out)
    except ExportError as error:
        raise UsageError(f"{origin['recipe']} cannot be exported as {request.format}: {error}") from None
    callers: dict[str, Callable] = {}

    def call(name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return callers[name](inputs)

    runtime = FORMATS[request.format].runtime
    version = importlib.metadata.version(FORMATS[request.format].package)
    try:
        callers |= {graph.name: caller(request.format, paths[graph.name], graph) for graph in exported.graphs}
        difference = compare(exported, call)
    except Exception as error:  # noqa: BLE001 - a runtime can raise nearly anything
        print(f"error: it does not run in {runtime} {version}: {first_line(error)}: nothing is kept", file=sys.stderr)
        return 1
    print(f"largest difference to model(x, training=False) in {runtime} {version}: {difference:.1e}")
    if not difference <= TOLERANCE:
        print(f"error: above {TOLERANCE}: nothing is kept of {request.out}", file=sys.stderr)
        return 1
    checked = quantize_checked(request, exported, call, paths, callers) if request.int8 else {}
    if checked is None:
        return 1
    checked = {
        "runtime": f"{runtime} {version}",
        "largest_difference": compare(exported, call) if request.int8 else difference,
        "bytes": sum(size_of(path) for path in set(paths.values())),
        "backend": keras.config.backend(),
        "machine": machine_name(),
        **checked,
    }
    if timed:
        checked["milliseconds"] = spent = milliseconds(exported, call)
        shown = ", ".join(f"{value:.2f} by {name}" for name, value in list(spent.items())[1:])
        print(f"one input takes {spent['exported']:.2f} ms of processor time; {keras.config.backend()} takes {shown}")
    facts = origin | description(request, exported, paths) | {"checked": checked}
    (folder / f"{request.out.stem}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name, path in exported.files.items():
        shutil.copy(path, folder / facts["files"][name])
    for path in sorted(folder.iterdir()):
        place = request.out.parent / path.name
        if place.is_dir():
            shutil.rmtree(place)
        path.replace(place)
        print(f"{place}  {size_of(place):,} bytes")
    return 0


def quantize_checked(
    request: Request, exported: Exported, call: GraphCall, paths: dict[str, Path], callers: dict[str, Callable]
) -> dict[str, float] | None:
    """Quantizes the only graph in place; returns its metric before and after, None if too much is lost."""
    ((name, path),) = paths.items()
    examples = exported.calibration()
    before = exported.metric(call)
    quantize(path, examples)
    callers[name] = caller(request.format, path, exported.graphs[0])
    after = exported.metric(call)
    print(f"metric on held-out data: {before:.4f} before quantization, {after:.4f} after")
    lost = 100 * (before - after)
    if lost > request.most_loss:
        remedy = f"nothing is kept of {request.out}: allow it by --most-loss"
        print(f"error: {lost:.2f} percentage points are lost, more than {request.most_loss}: {remedy}", file=sys.stderr)
        return None
    return {"metric_before": before, "metric_after": after}


def main() -> None:
    """Runs an export request, given as JSON."""
    try:
        sys.exit(export(Request.from_json(sys.argv[1])))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
