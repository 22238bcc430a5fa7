"""What a convolution costs in training on each backend: forward, and its gradients by inputs and kernel.

Of each shape are measured the convolution of these recipes, that of Keras, and the product of matrices of as many
multiply-adds, which is what the processor could do: each at its quickest, in processor time. On one core:

    export OMP_NUM_THREADS=1
    KERAS_BACKEND=jax taskset -c 0 python benchmarks/convolutions.py             billions of multiply-adds a second
    KERAS_BACKEND=jax taskset -c 0 python benchmarks/convolutions.py jax.json    also written to a file, as in results/
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from shared.backends.convolution import convolution
from shared.backends.gradients import value_and_grad
from shared.backends.runtime import backend_version, machine_name, prepare_backend
from shared.backends.steps import compiled_step
from shared.training.options import source_commit

SHAPES = {
    "first of a network: 3×3, 3 to 32 channels, 32 pixels": (64, 32, 3, 32, 3, 1),
    "3×3, 32 channels, 32 pixels": (64, 32, 32, 32, 3, 1),
    "3×3, 64 channels, 16 pixels": (64, 16, 64, 64, 3, 1),
    "3×3, 128 channels, 8 pixels": (64, 8, 128, 128, 3, 1),
    "3×3, 32 channels, 80 pixels": (8, 80, 32, 32, 3, 1),
    "with strides: 3×3, 32 to 64 channels, 32 pixels": (64, 32, 32, 64, 3, 2),
    "1×1, 128 channels, 16 pixels": (64, 16, 128, 128, 1, 1),
}
"""Examples, pixels, channels, filters, size of the kernel and stride, by name."""


def keras_convolution(inputs, kernel, stride: int):
    """The convolution of Keras."""
    return keras.ops.conv(inputs, kernel, stride, padding="same")


def product(inputs, kernel, stride: int):
    """A product of matrices, of inputs (rows, entries)."""
    return keras.ops.matmul(inputs, keras.ops.reshape(kernel, (-1, kernel.shape[-1])))


WAYS = {"convolution": convolution, "of Keras": keras_convolution, "product of matrices": product}


def training_step(way: Callable, shape: tuple[int, ...]) -> tuple[Callable, int]:
    """A function that computes outputs and gradients, and how many multiply-adds that takes."""
    examples, pixels, channels, filters, size, stride = shape
    outputs = examples * (-(-pixels // stride)) ** 2
    extent = (outputs, size * size * channels) if way is product else (examples, pixels, pixels, channels)
    rng = np.random.default_rng(0)
    inputs = keras.Variable(rng.normal(size=extent).astype("float32"))
    kernel = keras.Variable(rng.normal(size=(size, size, channels, filters)).astype("float32"))
    weights = rng.normal(size=keras.ops.shape(way(inputs, kernel, stride))).astype("float32")

    @compiled_step
    def step(weights):
        return value_and_grad(lambda: keras.ops.sum(way(inputs, kernel, stride) * weights), [inputs, kernel])

    weights = keras.ops.convert_to_tensor(weights)
    return lambda: float(step(weights)[0]), 3 * outputs * math.prod(kernel.shape)


def multiply_adds_per_second(shape: tuple[int, ...], seconds: float) -> dict[str, float]:
    """What each way does, measured in turns for a time."""
    steps = {name: training_step(way, shape) for name, way in WAYS.items()}
    found = {name: [] for name in steps}
    end = time.monotonic() + seconds
    while len(found["convolution"]) < 4 or time.monotonic() < end:
        for name, (step, _) in steps.items():
            start = time.process_time()
            step()
            found[name].append(time.process_time() - start)
    return {name: count / min(found[name]) for name, (_, count) in steps.items()}


def main(path: Path | None, seconds: float = 6) -> None:
    prepare_backend(0, "float32")
    found = {}
    for name, shape in SHAPES.items():
        found[name] = {way: round(rate / 1e9, 2) for way, rate in multiply_adds_per_second(shape, seconds).items()}
        print(name, *(f"{way} {rate:.1f}" for way, rate in found[name].items()), sep=", ")
    if path:
        facts = {"backend": keras.config.backend(), "version": backend_version(), "keras": keras.__version__}
        facts |= {"machine": machine_name(), "commit": source_commit(), "billions_per_second": found}
        path.write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
