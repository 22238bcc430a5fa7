"""One run of a recipe: its directory, training that can be stopped and resumed, its result."""

import dataclasses
import datetime
import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import backend_version, device_name, matmul_precision, peak_memory, prepare_backend
from shared.data.batches import SeededBatches
from shared.errors import TargetMissed, UsageError
from shared.files import remove_unfinished, replacing
from shared.training.averages import AveragedWeights, averages_weights
from shared.training.checkpoint import CheckpointStore, assign_variables
from shared.training.custom import check_state, models_together, train_epochs
from shared.training.options import Options, read_config, write_config
from shared.training.recorder import Recorder
from shared.training.saving import load_initial_weights, read_model, save_model

# What may differ between a run and its continuation, because it changes nothing in the result.
FREE_ON_RESUME = ("out", "resume", "data_dir", "checkpoint_seconds", "target")


class Run:
    """Prepares the backend and opens the directory of a run.

    Args:
        recipe: name of the recipe.
        config: its options.

    Raises:
        UsageError: the directory cannot be written, holds another run, or was started with other options.
    """

    def __init__(self, recipe: str, config: Options):
        self.recipe = recipe
        self.config = config
        self.directory = open_run_directory(recipe, config)
        self.changed_on_resume = changed_on_resume(self.directory, config)
        self.recorders: dict[str, Recorder] = {}
        prepare_backend(config.seed, config.precision)
        print(f"{recipe} on {keras.config.backend()} ({device_name()}), in {self.directory}")

    @property
    def history(self) -> list[dict[str, float]]:
        """The lines of history.csv so far, one an epoch."""
        return self.recorders[""].history

    def versions(self) -> dict[str, str]:
        """The versions that a result depends on."""
        return {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "keras": keras.__version__,
            keras.config.backend(): backend_version(),
        }

    def resume_command(self) -> str:
        """The command that goes on with this run."""
        words = ["python", *sys.argv[:1], "--out", str(self.directory), "--resume"]
        return f"KERAS_BACKEND={keras.config.backend()} {shlex.join(words)}"

    def fit(
        self,
        model: keras.Model,
        batches: SeededBatches,
        data: str,
        phase: str = "",
        epochs: int | None = None,
        patience: int | None = None,
        **arguments: Any,
    ) -> None:
        """`model.fit` with checkpoints, `--resume`, `--initial-weights`, history.csv and a clean stop.

        Where the optimizer averages the weights (`use_ema`), the averages are validated, and the model ends with them.

        Args:
            model: compiled.
            batches: the training data.
            data: name and fingerprint of the data; a checkpoint made with others is refused.
            phase: name of a part of the training beside the main one, such as "head", with checkpoints and a
                history-PHASE.csv of its own.
            epochs: passes over the data; None for `--epochs`.
            patience: stop after so many epochs without a lower validation loss, and end with the weights that had the
                lowest; None for neither.
            arguments: passed on to `model.fit`, such as `validation_data` and `callbacks`.

        Raises:
            UsageError: there are checkpoints, but none that can be used; or a loss became NaN or infinite.
            Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
        """
        prepare_optimizer(model)
        averages = AveragedWeights(model) if averages_weights(model.optimizer) else None
        recorder = self.open_recorder(model, batches, data, phase, patience, averages)
        arguments = arguments | {
            "callbacks": [*([averages] if averages else []), *arguments.get("callbacks", []), recorder],
            "verbose": 1 if sys.stdout.isatty() else 2,
            "shuffle": False,  # Keras would shuffle the order of the batches, unseeded; within them they are shuffled
        }
        epochs = epochs or self.config.epochs
        epoch, first = recorder.restore() if self.config.resume else (0, 0)
        if self.config.initial_weights and not phase and (epoch, first) == (0, 0):
            load_initial_weights(model, self.config.initial_weights)
        with recorder.stopped_by_signals():
            if first:
                # Keras cannot enter an epoch in the middle: the rest of it is an epoch of a `fit` of its own.
                batches.first = first
                model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **arguments)
                batches.first = 0
                epoch += 1
                # The end of `fit` put the averages in place of the weights.
                assign_variables(model, recorder.arrays, recorder.averaged_statistics)
            if epoch < epochs and not recorder.out_of_patience():
                model.fit(batches, initial_epoch=epoch, epochs=epochs, **arguments)
            elif averages:
                averages.finish()
        if patience is not None:
            recorder.restore_best()

    def train(
        self,
        step: Callable[..., dict[str, Any]],
        batches: SeededBatches,
        state: dict[str, Any],
        data: str,
        phase: str = "",
        epochs: int | None = None,
        after_epoch: Callable[[int], dict[str, float] | None] | None = None,
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ) -> None:
        """What `fit` does, with a training step of one's own; see shared/training/custom.py.

        Args:
            step: takes the arrays of a batch and returns scalars by name, as `compiled_step` makes it. The last ones of
                an epoch go to history.csv, so return results of metrics, which are means over the epoch so far. Those
                whose name ends with "loss" must stay finite.
            batches: the training data.
            state: all that `step` changes, each by a name: built models and optimizers, metrics, seed generators and
                variables. Metrics begin anew with each epoch. `--initial-weights` is for the models.
            data: name and fingerprint of the data; a checkpoint made with others is refused.
            phase: as for `fit`.
            epochs: passes over the data; None for `--epochs`.
            after_epoch: called with the number of finished epochs; validates or draws, and returns what else shall go
                to history.csv.
            callbacks: told when an epoch begins and when a step has ended.

        Raises:
            UsageError: there are checkpoints, but none that can be used; something is not built; or a loss became NaN
                or infinite.
            Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
        """
        check_state(state)
        recorder = self.open_recorder(state, batches, data, phase)
        start = recorder.restore() if self.config.resume else (0, 0)
        if self.config.initial_weights and not phase and start == (0, 0):
            load_initial_weights(models_together(state), self.config.initial_weights)
        with recorder.stopped_by_signals():
            train_epochs(step, recorder, start, epochs or self.config.epochs, after_epoch, callbacks)

    def open_recorder(
        self,
        state: keras.Model | dict[str, Any],
        batches: SeededBatches,
        data: str,
        phase: str,
        patience: int | None = None,
        averages: AveragedWeights | None = None,
    ) -> Recorder:
        """Opens the checkpoints and the history of a training; see `fit`."""
        identity = {"recipe": self.recipe, "data": data, **self.versions()}
        store = CheckpointStore(self.directory / "checkpoint" / phase, identity)
        store.directory.mkdir(exist_ok=True)
        remove_unfinished(store.directory)
        precision = "" if self.config.precision == "float32" else ", --precision float32"
        self.recorders[phase] = Recorder(
            state,
            store,
            batches,
            self.directory / (f"history-{phase}.csv" if phase else "history.csv"),
            self.config.checkpoint_seconds,
            f"interrupted, and saved; go on with  {self.resume_command()}",
            f"try a --learning-rate below {self.config.learning_rate:g}{precision} or clipping, and another --out",
            patience,
            averages,
        )
        return self.recorders[phase]

    def finished_model(self) -> tuple[keras.Model, dict[str, Any]]:
        """The model that a finished run left in this directory, and its result.

        Raises:
            UsageError: the run has not finished, or its files are damaged.
        """
        try:
            result = json.loads((self.directory / "result.json").read_text(encoding="utf-8"))
            if not isinstance(result, dict) or "metrics" not in result:
                raise ValueError("result.json is damaged")
            return read_model(self.directory / "model.keras"), result
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.directory} holds no finished run ({error}): let it end first") from None

    def save_figure(self, name: str, figure: Any) -> None:
        """Writes a matplotlib figure to `name` in the run's directory."""
        with replacing(self.directory / name) as path:
            figure.savefig(path, dpi=120, bbox_inches="tight")

    def finish(
        self,
        model: keras.Model,
        data: str,
        metric: str,
        metrics: dict[str, float],
        higher_is_better: bool = True,
        **facts: Any,
    ) -> dict[str, float]:
        """Writes model.keras and result.json, prints the `result ` line and returns the metrics.

        Args:
            model: trained.
            data: name of the data set that was really used.
            metric: the headline metric, a key of `metrics`.
            metrics: measured on held-out data.
            higher_is_better: how `--target` is compared.
            facts: what else the result should say, such as which weights the training began with.

        Raises:
            TargetMissed: the headline metric is worse than `--target`.
        """
        save_model(model, self.directory / "model.keras")
        value, target = metrics[metric], self.config.target
        recorder = self.recorders[""]
        result = {
            "recipe": self.recipe,
            "backend": keras.config.backend(),
            "preset": self.config.preset,
            "data": data,
            "metric": metric,
            "value": value,
            "metrics": metrics,
            "epochs": self.config.epochs,
            "examples_per_second": recorder.examples_per_second(),
            "train_seconds": round(sum(each.train_seconds for each in self.recorders.values()), 1),
            "parameters": model.count_params(),
            "seed": self.config.seed,
            "precision": self.config.precision,
            "matmul_precision": matmul_precision(),
            "versions": self.versions(),
            "device": device_name(),
            "out": str(self.directory),
            "start_seconds": next(iter(self.recorders.values())).start_seconds,
            "data_share": recorder.data_share(),
            "peak_memory_bytes": peak_memory(),
            **facts,
        }
        if self.changed_on_resume:
            result["changed_on_resume"] = self.changed_on_resume
        with replacing(self.directory / "result.json") as path:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print("result " + json.dumps(result), flush=True)
        if target is not None and not (value >= target if higher_is_better else value <= target):
            raise TargetMissed(f"target missed: {metric} is {value:.6g}, the target {target:.6g}")
        return metrics


def open_run_directory(recipe: str, config: Options) -> Path:
    """Makes the directory of a run, or opens it again with `--resume`, and writes config.json; see `Run`."""
    if config.resume and config.out is None:
        raise UsageError("--resume needs --out, the directory of the run to go on with")
    directory = config.out
    if directory is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        directory = Path("runs") / f"{recipe}-{keras.config.backend()}-{now}"
    try:
        going_on = config.resume and (directory / "config.json").exists()
        if going_on:
            check_same_run(directory, recipe, config)
        elif foreign := [path for path in directory.rglob("*") if path.is_file() and path.name != "config.json"]:
            remedy = "there is no run to go on with" if config.resume else "add --resume to go on with the run in it"
            raise UsageError(f"{directory} holds {foreign[0].name} already: {remedy}, or take another --out")
        for folder in (directory, directory / "checkpoint"):
            folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder)
        if not going_on:
            write_config(directory, recipe, config)
    except OSError as error:
        raise UsageError(f"cannot write to {directory} ({error.strerror}): take another --out") from None
    return directory


def check_same_run(directory: Path, recipe: str, config: Options) -> None:
    """Refuses to go on with a run of another recipe, on another backend or with other options."""
    started_recipe, started_backend, started = read_config(directory, type(config))
    if started_recipe != recipe:
        raise UsageError(f"{directory} is a run of {started_recipe}, not of {recipe}: take another --out")
    if started_backend != keras.config.backend():
        raise UsageError(f"{directory} was started on {started_backend}: set KERAS_BACKEND={started_backend}")
    for field in dataclasses.fields(config):
        here, there = getattr(config, field.name), getattr(started, field.name)
        if field.name not in (*FREE_ON_RESUME, *config.free_on_resume) and here != there:
            option = field.name.replace("_", "-")
            raise UsageError(
                f"{directory} was started with --{option} {there}, not {here}: leave the option out, "
                "or start another run with another --out"
            )


def changed_on_resume(directory: Path, config: Options) -> dict[str, str]:
    """The options of the recipe's own that are not those which the run in `directory` was started with."""
    *_, started = read_config(directory, type(config))
    values = {name: getattr(config, name) for name in config.free_on_resume}
    return {name: str(value) for name, value in values.items() if value != getattr(started, name)}
