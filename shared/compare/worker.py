"""One job of a comparison, in a process of its own: `python -m shared.compare.worker JOB.json`.

The recipe itself runs, unchanged; only its `Run` is one of those below. So whatever a recipe does before `fit` and
after it is measured as it is, and no recipe has anything to register.
"""

import contextlib
import functools
import importlib
import json
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import keras
import numpy as np
import psutil

from shared.backends.runtime import backend_version, device_name, machine_name, peak_device_memory, peak_memory
from shared.compare.job import Job
from shared.compare.layers import layer_arrays
from shared.data.batches import SeededBatches
from shared.errors import UsageError
from shared.files import replacing
from shared.training.checkpoint import assign_variables, read_variables
from shared.training.options import Options, launch, source_commit
from shared.training.run import Run
from shared.training.saving import load_initial_weights

REORDERINGS = 2
"""How many times the first steps are trained again with the examples of each batch in another order, which changes
nothing but rounding."""

NOISE = ("rate", "stddev", "dropout", "recurrent_dropout")
"""What layers call the strength of the noise that they add, which each backend draws differently."""


def seconds_since_start() -> float:
    """Time since this process was started, in seconds."""
    return time.time() - psutil.Process().create_time()


def silence(model: keras.Model) -> None:
    """Turns off dropout and other noise inside a model, before it is traced."""
    for layer in model._flatten_layers():
        for name in NOISE:
            passed_on = isinstance(getattr(type(layer), name, None), property)  # as LSTM does with its cell's
            if isinstance(getattr(layer, name, None), float) and not passed_on:
                setattr(layer, name, 0.0)


class Answered(Exception):
    """Raised to end a recipe when the worker has what it wants."""


class JobRun(Run):
    """A run of a recipe, with something else in place of its training.

    Args:
        job: what is asked.
        module: the recipe's.
    """

    def __init__(self, job: Job, module: ModuleType, recipe: str, config: Options):
        if config.resume:
            raise UsageError("--resume does not go with a comparison, which starts runs of its own")
        super().__init__(recipe, config)
        self.job = job
        by_hand = runpy.run_path(job.native) if job.native else {}
        self.native = by_hand.get("Trainer")
        for name in by_hand.get("REPLACED", ()):
            setattr(module, name, by_hand[name])

    def fit(self, model: keras.Model, batches: SeededBatches, phase: str = "", **arguments: Any) -> None:
        if not phase:
            self.fit_main(model, batches, **arguments)
        elif isinstance(self, PreparingRun | MeasuredRun):  # the others take the weights that the first of these left
            super().fit(model, batches, phase=phase, **arguments)

    def trainer_by_hand(self, model: keras.Model, batches: SeededBatches) -> Any | None:
        """The benchmark's trainer, with the weights of the model; None where the job is Keras's."""
        return self.native(self.config, model, self.config.epochs * len(batches)) if self.native else None

    def answer(self, **facts: Any) -> None:
        """Writes answer.json."""
        facts |= {"version": backend_version(), "device": device_name(), "keras": keras.__version__}
        with replacing(Path(self.job.directory) / "answer.json") as path:
            path.write_text(json.dumps(facts))


class PreparingRun(JobRun):
    """Writes the weights that every backend will start from."""

    def fit_main(self, model: keras.Model, batches: SeededBatches, **arguments: Any) -> NoReturn:
        if self.config.initial_weights:
            load_initial_weights(model, self.config.initial_weights)
        model.save_weights(self.directory / "initial.weights.h5")
        self.answer(
            parameters=model.count_params(),
            tolerance=self.config.agreement_tolerance,
            precision=self.config.precision,
            machine=machine_name(),
            commit=source_commit(),
            preset=self.config.preset,
            batch_size=batches.batch_size,
            batches_per_epoch=batches.batches_per_epoch,
            epochs=self.config.epochs,
        )
        raise Answered


class AgreeingRun(JobRun):
    """Trains the first steps without noise and notes the loss of each; then anew, the examples in other orders."""

    def fit_main(self, model: keras.Model, batches: SeededBatches, **arguments: Any) -> NoReturn:
        silence(model)
        load_initial_weights(model, self.config.initial_weights)
        if trainer := self.trainer_by_hand(model, batches):
            self.answer(losses=self.losses(trainer.train_on_batch, batches))
            raise Answered

        def train_on_batch(*batch: Any) -> Any:
            model.reset_metrics()  # else the loss would be the mean of all steps so far
            return model.train_on_batch(*batch, return_dict=True)["loss"]

        model.optimizer.build(model.trainable_variables)
        start = {name: value for name, value in read_variables(model).items() if not name.startswith("metrics")}
        losses = self.losses(train_on_batch, batches)
        reordered = []
        for seed in range(REORDERINGS):
            assign_variables(model, start)
            reordered.append(self.losses(train_on_batch, batches, seed))
        self.answer(losses=losses, reordered=reordered)
        raise Answered

    def losses(self, train_on_batch: Callable, batches: SeededBatches, seed: int | None = None) -> list[float]:
        """The loss of each of the first steps, the examples of each batch in an order that the seed gives."""
        found = []
        for step in range(self.job.steps):
            batches.epoch, index = divmod(step, len(batches))
            batch = batches[index]
            if seed is not None:
                order = np.random.default_rng(seed).permutation(len(keras.tree.flatten(batch)[0]))
                batch = keras.tree.map_structure(lambda x, order=order: x[order], batch)
            found.append(float(train_on_batch(*batch)))
        return found


class LayersRun(JobRun):
    """Runs each layer forward and back, by itself, on the inputs that the reference backend saw."""

    def fit_main(self, model: keras.Model, batches: SeededBatches, **arguments: Any) -> NoReturn:
        silence(model)
        load_initial_weights(model, self.config.initial_weights)
        layer_arrays(model, batches[0], Path(self.job.directory), self.job.reference and Path(self.job.reference))
        self.answer()
        raise Answered


class StepTimer(keras.callbacks.Callback):
    """Notes how long each training step takes, its batch included, waiting for the device each time."""

    def __init__(self, batches: SeededBatches):
        super().__init__()
        self.batches = batches
        self.step_seconds: list[float] = []
        self.since = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        self.since = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        float(next(iter(logs.values())))
        now = time.perf_counter()
        if not self.step_seconds:
            self.batches.seconds = 0.0  # the first step is told apart from the others
        self.step_seconds.append(now - self.since)
        self.since = now

    def measured(self) -> dict[str, float]:
        """The first step, which compiles, and the others, in seconds."""
        first, *others = self.step_seconds
        return {
            "first_step_seconds": first,
            "median_step_seconds": float(np.median(others)),
            "slow_step_seconds": float(np.percentile(others, 95)),
            "examples_per_second": self.batches.batch_size * len(others) / sum(others),
            "data_share": self.batches.seconds / sum(others),
        }


class MeasuredRun(JobRun):
    """Notes how long each part of a run takes; everything else is as without it."""

    def __init__(self, job: Job, module: ModuleType, recipe: str, config: Options):
        super().__init__(job, module, recipe, config)
        self.ready = seconds_since_start()
        self.model_begun: float | None = None
        self.model_built = 0.0
        build_model = module.build_model

        def noted_build_model(*arguments: Any, **keywords: Any) -> keras.Model:
            self.model_begun = self.model_begun or seconds_since_start()
            return build_model(*arguments, **keywords)

        module.build_model = noted_build_model

    @property
    def history(self) -> list[dict[str, float]]:
        return [] if self.native else super().history

    def fit_main(self, model: keras.Model, batches: SeededBatches, **arguments: Any) -> None:
        self.model_built = seconds_since_start()
        self.timer = StepTimer(batches)
        if self.native:
            self.fit_by_hand(model, batches)
        else:
            Run.fit(self, model, batches, **arguments | {"callbacks": [self.timer, *arguments.get("callbacks", [])]})

    def fit_by_hand(self, model: keras.Model, batches: SeededBatches) -> None:
        """Trains with the benchmark on the same batches, then gives the weights to the Keras model."""
        load_initial_weights(model, self.config.initial_weights)
        trainer = self.trainer_by_hand(model, batches)
        for epoch in range(self.config.epochs):
            batches.epoch = epoch
            self.timer.on_epoch_begin(epoch)
            for index in range(len(batches)):
                self.timer.on_train_batch_end(index, {"loss": trainer.train_on_batch(*batches[index])})
            print(f"epoch {epoch + 1}/{self.config.epochs}", flush=True)
        model.set_weights(trainer.weights())

    def finish(self, model: keras.Model, data: str, metric: str, metrics: dict[str, float], **arguments: Any) -> dict:
        measured = {**self.timer.measured(), "value": metrics[metric]}
        if speed := arguments.get("generated_tokens_per_second"):
            measured["generated_tokens_per_second"] = speed
        if self.native:  # Keras and its model are in the process too, so the rest would not be of the framework alone
            self.answer(data=data, metric=metric, measured=measured)
            return metrics
        measured |= {
            "import_seconds": self.ready,
            "data_seconds": self.model_begun - self.ready,
            "build_seconds": self.model_built - self.model_begun,
            "peak_memory_bytes": peak_memory(),
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
    module.Run = functools.partial(RUNS[job.task], job, module)

    def main(config: Options) -> None:
        with contextlib.suppress(Answered):
            module.main(config)

    sys.argv = [f"recipes/{job.recipe}.py", *job.options]
    launch(main, module.Config)


if __name__ == "__main__":
    run_job(Job(**json.loads(Path(sys.argv[1]).read_text())))
