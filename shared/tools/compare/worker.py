"""One job of a comparison, in a process of its own: `python -m shared.tools.compare.worker JOB.json`.

The recipe itself runs, unchanged; only its `Run` is one of those below. So whatever a recipe does before `fit` and
after it is measured as it is, and no recipe has anything to register.
"""

import contextlib
import functools
import importlib
import json
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import keras
import numpy as np

from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import (
    backend_version,
    device_name,
    forget_peak_memory,
    machine_name,
    peak_device_memory,
    peak_memory,
)
from shared.errors import UsageError
from shared.files import replacing
from shared.tools.compare.course import initial_course, training_course
from shared.tools.compare.job import Job, end_with_parent
from shared.tools.compare.layers import layer_arrays
from shared.training.batches import SeededBatches
from shared.training.checkpoint import assign_variables, read_variables
from shared.training.custom import models_together, reset_metrics
from shared.training.options import Options, source_commit
from shared.training.run import Run, launch
from shared.training.saving import load_initial_weights
from shared.training.timing import StepTimer, seconds_since_start

REORDERINGS = 3
"""How many times the first steps are trained again with the examples of each batch in another order and from weights
that are `nudged`, which changes nothing but rounding."""


NOISE = ("rate", "stddev", "dropout", "recurrent_dropout")
"""What layers call the strength of the noise that they add, which each backend draws differently."""


def silence(model: keras.Model) -> None:
    """Turns off dropout and other noise inside a model, before it is traced."""
    for layer in model._flatten_layers():
        for name in NOISE:
            passed_on = isinstance(getattr(type(layer), name, None), property)  # as LSTM does with its cell's
            if isinstance(getattr(layer, name, None), float) and not passed_on:
                setattr(layer, name, 0.0)


def reordered(batch: tuple, axis: int, seed: int) -> tuple:
    """A batch with its examples, which lie along `axis` of each array, in an order that the seed gives."""
    order = np.random.default_rng(seed).permutation(keras.tree.flatten(batch)[0].shape[axis])
    return keras.tree.map_structure(lambda x: x if x is None else np.take(x, order, axis), batch)


def nudged(variables: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Variables of which each number in float32 is the next larger or the next smaller one, zeros left as they are.

    The order of the examples alone changes no rounding within one of them, which is all there is where nothing joins
    examples before the loss, as batch normalization does.
    """
    rng, ends = np.random.default_rng(seed), np.array([-np.inf, np.inf], "float32")

    def neighbours(value: np.ndarray) -> np.ndarray:
        return np.where(value == 0, value, np.nextafter(value, rng.choice(ends, value.shape)))

    return {name: neighbours(each) if each.dtype == np.float32 else each for name, each in variables.items()}


class Answered(Exception):
    """Raised to end a recipe when the worker has what it wants."""


@dataclass
class Training:
    """What a recipe trains, be it by `fit` or by a step of its own."""

    model: keras.Model
    """All models together."""
    state: keras.Model | dict[str, Any]
    """As for `training_variables`."""
    batches: SeededBatches
    loss_on: Callable[..., float]
    """Trains on one batch and gives the loss, which for a step of its own is the sum of all its losses."""
    run: Callable[..., None]
    """Trains to the end, with `callbacks`."""


class JobRun(Run):
    """A run of a recipe, with something else in place of its training.

    Args:
        job: what is asked.
        module: the recipe's.
    """

    def __init__(self, job: Job, module: ModuleType, config: Options):
        if config.resume:
            raise UsageError("--resume does not go with a comparison, which starts runs of its own")
        super().__init__(config)
        self.job = job
        native = runpy.run_path(job.native) if job.native else {}
        self.native = native.get("Trainer")
        self.replaced = native.get("REPLACED", ())
        for name in self.replaced:
            setattr(module, name, native[name])

    def fit(self, model: keras.Model, batches: SeededBatches, phase: str = "", **arguments: Any) -> None:
        def loss_on(*batch: Any) -> float:
            model.reset_metrics()  # else the loss would be the mean of all steps so far
            return float(model.train_on_batch(*batch, return_dict=True)["loss"])

        def run(callbacks: list[keras.callbacks.Callback]) -> None:
            callbacks = [*callbacks, *arguments.get("callbacks", [])]
            Run.fit(self, model, batches, phase=phase, **arguments | {"callbacks": callbacks})

        self.train_main(Training(model, state=model, batches=batches, loss_on=loss_on, run=run), phase)

    def train(self, step: Callable, batches: SeededBatches, state: dict, phase: str = "", **arguments: Any) -> None:
        def loss_on(*batch: Any) -> float:
            reset_metrics(state)
            return sum(float(value) for name, value in step(*batch).items() if name.endswith("loss"))

        run = functools.partial(Run.train, self, step, batches, state, phase=phase, **arguments)
        self.train_main(Training(models_together(state), state=state, batches=batches, loss_on=loss_on, run=run), phase)

    def train_main(self, training: Training, phase: str) -> None:
        """Does what the job asks with the main training; the others only prepare it, or come after it."""
        if not phase:
            self.work_on(training)
        elif isinstance(self, MeasuredRun):  # rounding in another phase would give each backend another start
            training.run(callbacks=[])

    def start(self, training: Training) -> None:
        """Gives the models the weights of `--initial-weights`, as a run does, where that is given."""
        if self.config.initial_weights:
            load_initial_weights(training.model, self.config.initial_weights)

    def work_on(self, training: Training) -> None:
        """What the job asks."""
        raise NotImplementedError

    def native_trainer(self, training: Training) -> Any | None:
        """The benchmark's trainer, with the weights of the models; None where the job is Keras's."""
        if not self.native:
            return None
        return self.native(self.config, training.state, self.config.epochs * len(training.batches))

    def answer(self, **facts: Any) -> None:
        """Writes answer.json."""
        facts |= {"version": backend_version(), "device": device_name(), "keras": keras.__version__}
        with replacing(Path(self.job.directory) / "answer.json") as path:
            path.write_text(json.dumps(facts), encoding="utf-8")


class PreparingRun(JobRun):
    """Checks the options, and says what they mean."""

    def work_on(self, training: Training) -> NoReturn:
        self.start(training)
        self.answer(
            parameters=training.model.count_params(),
            precision=self.config.precision,
            machine=machine_name(),
            commit=source_commit(),
            preset=self.config.preset,
            batch_size=training.batches.batch_size,
            batches_per_epoch=training.batches.batches_per_epoch,
            epochs=self.config.epochs,
        )
        raise Answered


class AgreeingRun(JobRun):
    """Trains the first steps without noise and notes their course; then anew, rounded otherwise."""

    def work_on(self, training: Training) -> NoReturn:
        silence(training.model)
        drawn = initial_course(training.model)
        self.start(training)
        if isinstance(training.state, keras.Model) and not self.native:
            prepare_optimizer(training.state)
        variables = read_variables(training.state)
        start = {name: value for name, value in variables.items() if not name.startswith("metrics")}
        courses = []
        for order in (None, *range(REORDERINGS)):
            assign_variables(training.state, start if order is None else nudged(start, order))
            batches = self.batches(training, order)
            if self.native:  # which keeps its own variables: the losses
                courses.append(training_course(self.native_trainer(training).train_on_batch, batches, {}))
            else:
                courses.append(training_course(training.loss_on, batches, training.state))
        if not self.native:
            courses[0] |= drawn
        self.answer(course=courses[0], reordered=courses[1:])
        raise Answered

    def batches(self, training: Training, order: int | None) -> Iterator[tuple]:
        """The batches of the first steps, the examples of each in an order that a seed gives; None: as they are."""
        batches = training.batches
        for step in range(self.job.steps):
            batches.epoch, index = divmod(step, len(batches))
            yield batches[index] if order is None else reordered(batches[index], batches.example_axis, order)


class LayersRun(JobRun):
    """Runs each layer forward and back, by itself, on the inputs that the reference backend saw."""

    def work_on(self, training: Training) -> NoReturn:
        if isinstance(training.state, dict):
            raise UsageError(f"--layers is for recipes that train one model by fit: leave it out for {self.recipe}")
        silence(training.model)
        self.start(training)
        reference = self.job.reference and Path(self.job.reference)
        layer_arrays(training.model, training.batches[0], Path(self.job.directory), reference)
        self.answer()
        raise Answered


def measured_steps(timer: StepTimer) -> dict[str, float]:
    """The first step, which compiles, and the others, in seconds."""
    first, *others = timer.step_seconds
    return {
        "first_step_seconds": first,
        "median_step_seconds": float(np.median(others)),
        "slow_step_seconds": float(np.percentile(others, 95)),
        "examples_per_second": timer.examples_per_second(),
        "data_fraction": timer.data_fraction(),
    }


class StepMemory(keras.callbacks.Callback):
    """Peak of the main memory that the training steps take, those of the first epoch: before validation, whose batches
    a native baseline does without.
    """

    def __init__(self):
        super().__init__()
        self.held = forget_peak_memory()
        self.bytes: int | None = None
        """Above what was held before; None where the system does not tell."""
        self.watching = self.held is not None

    def on_train_batch_end(self, batch, logs=None):
        if self.watching:
            self.bytes = peak_memory() - self.held

    def on_test_begin(self, logs=None):
        self.watching = False

    def on_epoch_end(self, epoch, logs=None):
        self.watching = False


GENERATION_SPEEDS = ("generated_tokens_per_second", "generated_images_per_second")
"""Facts of a result that are compared with those of the native baseline."""


class MeasuredRun(JobRun):
    """Notes how long each part of a run takes; everything else is as without it."""

    def __init__(self, job: Job, module: ModuleType, config: Options):
        super().__init__(job, module, config)
        self.opened = seconds_since_start()
        self.set_up = 0.0
        self.peak = 0

    @property
    def history(self) -> list[dict[str, float]]:
        return [] if self.native else super().history

    def work_on(self, training: Training) -> None:
        self.set_up = seconds_since_start()
        self.timer = StepTimer(training.batches, wait=True)
        self.peak, self.memory = peak_memory(), StepMemory()
        if self.native:
            self.train_natively(training)
        else:
            training.run(callbacks=[self.timer, self.memory])

    def train_natively(self, training: Training) -> None:
        """Trains with the benchmark on the same batches, then gives the weights to the Keras models."""
        self.start(training)
        trainer, batches = self.native_trainer(training), training.batches
        for epoch in range(self.config.epochs):
            batches.epoch = epoch
            self.timer.on_epoch_begin(epoch)
            for index in range(len(batches)):
                self.timer.on_train_batch_end(index, {"loss": trainer.train_on_batch(*batches[index])})
                self.memory.on_train_batch_end(index)
            self.memory.on_epoch_end(epoch)
            print(f"epoch {epoch + 1}/{self.config.epochs}", flush=True)
        training.model.set_weights(trainer.weights())

    def finish(self, model: keras.Model, data: str, metric: str, metrics: dict[str, float], **arguments: Any) -> dict:
        measured = {**measured_steps(self.timer), "value": metrics[metric]}
        if self.memory.bytes is not None:
            measured["training_memory_bytes"] = self.memory.bytes
        if self.replaced or not self.native:  # else a native baseline writes and samples as the recipe does, by Keras
            facts = self.facts | arguments
            measured |= {name: facts[name] for name in GENERATION_SPEEDS if facts.get(name)}
        if self.native:  # Keras and its model are in the process too, so the rest would not be of the framework alone
            self.answer(data=data, metric=metric, measured=measured)
            return metrics
        measured |= {
            "import_seconds": self.opened,
            "setup_seconds": self.set_up - self.opened,
            "start_processor_seconds": self.timer.start_processor_seconds,
            "peak_memory_bytes": max(self.peak, peak_memory()),
            "peak_device_memory_bytes": peak_device_memory(),
        }
        try:
            return super().finish(model, data, metric, metrics, **arguments)
        finally:
            measured["model_bytes"] = (self.directory / "model.keras").stat().st_size
            self.answer(data=data, metric=metric, measured=measured)


RUNS = {
    "prepare": PreparingRun,
    "agree": AgreeingRun,
    "layers": LayersRun,
    "measure": MeasuredRun,
}


def run_job(job: Job) -> NoReturn:
    """Runs the recipe of a job as from its command line; exit codes are those of a recipe."""
    module = importlib.import_module(f"recipes.{job.recipe}")

    def main(run: JobRun) -> None:
        with contextlib.suppress(Answered):
            module.main(run)

    sys.argv = [f"recipes/{job.recipe}.py", *job.options]
    launch(main, module.Config, functools.partial(RUNS[job.task], job, module))


if __name__ == "__main__":
    end_with_parent()
    run_job(Job(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
