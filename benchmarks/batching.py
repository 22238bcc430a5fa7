"""Whether one call on a batch is quicker than a call for each input, for the models that `recipes serve` answers by.

Prints the processor time per input by batch size, of the graphs that `recipes export` writes: in ONNX Runtime, from the
files beside the run, and compiled by Keras on the running backend. A graph that writes text is called for each token.
The two engines are measured in turn, and the least of the times counts: other work on the machine disturbs that least.
One core is what there is for a request on a busy server, so pin the program to one.

    KERAS_BACKEND=jax taskset -c 0 python benchmarks/batching.py RUN
    KERAS_BACKEND=jax taskset -c 0 python benchmarks/batching.py RUN results/batching/cnn_cifar10-jax.json   recorded
"""

import json
import sys
import time
from pathlib import Path

import keras
import numpy as np

from shared.backends.compiling import compiled_inference
from shared.backends.exporting import positional
from shared.backends.runtime import backend_version, machine_name
from shared.tools.exporting.contents import exported_of
from shared.tools.exporting.runtimes import onnx_caller
from shared.tools.predict import open_predictor
from shared.tools.serving.engines import exported_folder
from shared.training.exports import Exported, GraphCall, arrays
from shared.training.options import source_commit

BATCHES = (1, 2, 4, 8)
TOKENS = 8
"""Length of each text. In a batch they are as long as each other, which favours it: others would be padded."""


def graphs_by_onnx(exported: Exported, directory: Path) -> GraphCall:
    """The exported files of a run, on one core."""
    folder = exported_folder(directory)
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    calls = {each.name: onnx_caller(folder / facts["graphs"][each.name]["file"], each) for each in exported.graphs}
    return lambda name, inputs: calls[name](inputs)


def graphs_by_keras(exported: Exported) -> GraphCall:
    """The graphs of a run on the running backend, compiled."""
    programs = {each.name: compiled_inference(positional(each), [exported.model]) for each in exported.graphs}
    names = {each.name: list(each.inputs) for each in exported.graphs}
    return lambda name, inputs: arrays(programs[name](*[inputs[each] for each in names[name]]))


def milliseconds(exported: Exported, engines: dict[str, GraphCall], batch: int, repeats: int) -> dict[str, float]:
    """The least processor time per input of a batch, by engine."""
    lengths = [name for name in exported.raw.names() if name != "batch"]
    inputs = exported.inputs({"batch": batch} | dict.fromkeys(lengths, TOKENS), np.random.default_rng(0))
    least = dict.fromkeys(engines, float("inf"))
    for index in range(repeats + 2):  # the first two compile
        for name, call in engines.items():
            began = time.process_time()
            exported.computed(call, inputs)
            if index >= 2:
                least[name] = min(least[name], 1000 * (time.process_time() - began) / batch)
    return least


def main(directory: Path, out: Path | None, repeats: int = 30) -> None:
    run, predict = open_predictor(directory)
    exported = exported_of(run, predict)
    engines = {"onnx": graphs_by_onnx(exported, directory), "keras": graphs_by_keras(exported)}
    rows = {batch: milliseconds(exported, engines, batch, repeats) for batch in BATCHES}
    print(f"{run.recipe}: milliseconds of processor time per input")
    for batch, times in rows.items():
        print(f"batch of {batch}  " + "  ".join(f"{name} {least:8.3f}" for name, least in times.items()))
    if out:
        facts = {"recipe": run.recipe, "preset": run.result["preset"], "parameters": run.model.count_params()}
        facts |= {"backend": keras.config.backend(), "version": backend_version(), "keras": keras.__version__}
        facts |= {"machine": machine_name(), "commit": source_commit(), "milliseconds": {}}
        for name in engines:
            facts["milliseconds"][name] = {str(batch): round(rows[batch][name], 3) for batch in BATCHES}
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
