"""Step time of `compiled_step`, relative to `train_on_batch` and, on JAX, to a step in plain JAX.

All train the same small network, whose step time is mostly overhead. They alternate, so that noise affects all alike,
and wait for the loss of each step, as `train_on_batch` does.

    KERAS_BACKEND=jax python benchmarks/custom_step.py             milliseconds per step
    KERAS_BACKEND=jax python benchmarks/custom_step.py jax.json    also writes them to a file, as in results/custom_step
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
from keras import layers

from shared.backends.gradients import minimize
from shared.backends.runtime import backend_version, machine_name
from shared.backends.steps import compiled_step
from shared.training.options import source_commit

BATCH, FEATURES, CLASSES = 64, 64, 10

loss_of = keras.losses.CategoricalCrossentropy(from_logits=True)


def build_model() -> keras.Model:
    hidden = [layer for _ in range(2) for layer in (layers.Dense(256, "relu"), layers.BatchNormalization())]
    return keras.Sequential([keras.Input((FEATURES,)), *hidden, layers.Dense(CLASSES)])


def of_keras() -> Callable[..., float]:
    """Keras's own step."""
    model = build_model()
    model.compile(keras.optimizers.Adam(), loss_of)
    return model.train_on_batch


def of_ours() -> Callable[..., float]:
    """The same with `compiled_step`, its metric included."""
    model, optimizer, mean = build_model(), keras.optimizers.Adam(), keras.metrics.Mean()
    optimizer.build(model.trainable_variables)

    @compiled_step
    def step(x, y):
        mean.update_state(minimize(optimizer, lambda: loss_of(y, model(x, training=True)), model.trainable_variables))
        return mean.result()

    return lambda x, y: float(step(x, y))


def of_plain_jax() -> Callable[..., float]:
    """The same in plain JAX around Keras's stateless functions, without a metric."""
    import jax

    model, optimizer = build_model(), keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    def loss(trainable, others, x, y):
        outputs, others = model.stateless_call(trainable, others, x, training=True)
        return loss_of(y, outputs), others

    def step(state, x, y):
        trainable, others, moments = state
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(trainable, others, x, y)
        trainable, moments = optimizer.stateless_apply(moments, gradients, trainable)
        return (trainable, others, moments), value

    program = jax.jit(step, donate_argnums=0)
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = tuple([variable.value.copy() for variable in group] for group in groups)

    def run(x, y):
        nonlocal state
        state, value = program(state, x, y)
        return float(value)

    return run


def milliseconds(rounds: int = 50, steps: int = 40) -> dict[str, float]:
    """Median step time of each variant, over alternating rounds of steps."""
    ways = {"compiled_step": of_ours(), "train_on_batch": of_keras()}
    if keras.config.backend() == "jax":
        ways["plain JAX"] = of_plain_jax()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    y = np.eye(CLASSES, dtype="float32")[rng.integers(0, CLASSES, BATCH)]
    found = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, step in ways.items():
            start = time.perf_counter()
            for _ in range(steps):
                step(x, y)
            found[name].append(1000 * (time.perf_counter() - start) / steps)
    return {name: float(np.median(times[1:])) for name, times in found.items()}  # the first round compiles


def main(path: Path | None) -> None:
    found = milliseconds()
    for name, value in found.items():
        print(f"{name:15} {value:.3f} ms; compiled_step takes {found['compiled_step'] / value:.2f} times that")
    if path:
        facts = {"backend": keras.config.backend(), "version": backend_version(), "keras": keras.__version__}
        facts |= {"machine": machine_name(), "commit": source_commit(), "milliseconds": found}
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
