"""One run of a recipe: its directory, training that can be stopped and resumed, its result; and its command."""

import errno
import json
import platform
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import backend_version, device_name, matmul_precision, peak_memory, prepare_backend
from shared.backends.steps import record_training
from shared.errors import TargetMissed, UsageError
from shared.files import remove_unfinished, replacing
from shared.training.averages import AveragedWeights, averages_weights
from shared.training.batches import SeededBatches
from shared.training.checkpoint import CheckpointStore
from shared.training.command_line import replace_what_cannot_be_shown
from shared.training.custom import check_state, models_together, train_epochs
from shared.training.directory import changed_on_resume, note_continuation, open_run_directory, take_directory
from shared.training.options import Options, parse_options
from shared.training.recorder import Recorder
from shared.training.saving import load_initial_weights, save_model
from shared.training.tracking.epochs import EpochTracking
from shared.training.tracking.tracker import require_trackers, trackers_named
from shared.training.tracking.tracking import Tracking


class Run:
    """Prepares the backend and opens the directory of a run.

    Args:
        config: the options.
        recipe: name of the recipe; None for that of the file which defines the options.

    Raises:
        UsageError: the directory cannot be written, holds another run or that of a process that trains now, or was
            started with other options; or a tracker is not installed.
    """

    def __init__(self, config: Options, recipe: str | None = None):
        self.recipe = recipe or Path(sys.modules[type(config).__module__].__file__).stem
        self.config = config
        trackers = trackers_named(config.track)
        require_trackers(trackers)
        self.made_directory = config.out is None or not config.out.exists()
        self.directory, self.lock = open_run_directory(self.recipe, config)
        self.continued: dict[str, list] = {}
        """By what code and to how many epochs, where the run was resumed; see `note_continuation`."""
        self.changed_on_resume = changed_on_resume(self.directory, config)
        self.recorders: dict[str, Recorder] = {}
        self.facts: dict[str, Any] = {}
        """What was measured beside the metrics and the result shall say, such as the speed of sampling."""
        self.tracking = Tracking(trackers, self.directory, config.track_model)
        prepare_backend(config.seed, config.precision)
        print(f"{self.recipe} on {keras.config.backend()} ({device_name()}), in {self.directory}")

    @property
    def history(self) -> list[dict[str, float]]:
        """The lines of history.csv so far, one an epoch."""
        return self.recorders[""].history

    @property
    def epoch(self) -> int:
        """The epoch that is trained, from 1, or was the last."""
        recorder = self.recorders.get("")
        return max(len(recorder.history), recorder.batches.epoch + 1) if recorder else 0

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
        recorder = self.open_recorder(model, batches, data, phase, patience=patience, averages=averages)
        arguments = arguments | {
            "callbacks": [*([averages] if averages else []), *arguments.get("callbacks", []), *recorder.callbacks],
            "verbose": arguments.get("verbose", 1 if sys.stdout.isatty() else 2),
            "shuffle": False,  # Keras would shuffle the order of the batches, unseeded; within them they are shuffled
        }
        epochs = epochs or self.config.epochs
        epoch, first = recorder.checkpoints.restore() if self.config.resume else (0, 0)
        if self.config.initial_weights and not phase and (epoch, first) == (0, 0):
            load_initial_weights(model, self.config.initial_weights)
        record_training(model, steps=(epochs - epoch) * len(batches) - first)
        with recorder.stop.by_signals(), self.tracking.closed_when_interrupted():
            if first:
                # Keras cannot enter an epoch in the middle: the rest of it is an epoch of a `fit` of its own.
                batches.first = first
                model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **arguments)
                batches.first = 0
                epoch += 1
                recorder.checkpoints.assign()  # the end of `fit` put the averages in place of the weights
            if epoch < epochs and not (recorder.best and recorder.best.out_of_patience()):
                model.fit(batches, initial_epoch=epoch, epochs=epochs, **arguments)
            elif averages:
                averages.finish()
        if recorder.best:
            recorder.best.restore()

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
            callbacks: told as by `fit`, but with results that are still on the device.

        Raises:
            UsageError: there are checkpoints, but none that can be used; something is not built; or a loss became NaN
                or infinite.
            Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
        """
        check_state(state)
        recorder = self.open_recorder(state, batches, data, phase)
        start = recorder.checkpoints.restore() if self.config.resume else (0, 0)
        if self.config.initial_weights and not phase and start == (0, 0):
            load_initial_weights(models_together(state), self.config.initial_weights)
        with recorder.stop.by_signals(), self.tracking.closed_when_interrupted():
            train_epochs(
                step, recorder, start, epochs=epochs or self.config.epochs, after_epoch=after_epoch, callbacks=callbacks
            )

    def discard(self) -> None:
        """Removes what was written to the directory, if the training has not begun, as where the data are refused."""
        if self.lock is None or self.recorders:
            return
        self.lock.release(force=True)
        if self.made_directory:
            shutil.rmtree(self.directory)
        else:
            shutil.rmtree(self.directory / "checkpoint")
            (self.directory / "config.json").unlink()

    def open_recorder(
        self,
        state: keras.Model | dict[str, Any],
        batches: SeededBatches,
        data: str,
        phase: str,
        patience: int | None = None,
        averages: AveragedWeights | None = None,
    ) -> Recorder:
        """Takes the directory, and opens the checkpoints and the history of a training; see `fit`."""
        if self.lock is None or not self.lock.is_locked:  # opened again, until now only to be read
            self.lock = take_directory(self.directory)
        if self.config.resume:
            self.continued = note_continuation(self.directory, self.config.epochs)
        identity = {"recipe": self.recipe, "data": data, **self.versions()}
        store = CheckpointStore(self.directory / "checkpoint" / phase, identity)
        store.directory.mkdir(exist_ok=True)
        remove_unfinished(store.directory)
        self.tracking.start()  # before the time of the training begins
        rate = f"{self.config.learning_rate:g}"
        precision = "" if self.config.precision == "float32" else ", --precision float32"
        self.recorders[phase] = Recorder(
            state=state,
            store=store,
            batches=batches,
            history_path=self.directory / (f"history-{phase}.csv" if phase else "history.csv"),
            checkpoint_seconds=self.config.checkpoint_seconds,
            stop_message=f"interrupted, and saved; go on with  {self.resume_command()}",
            remedy=f"try a --learning-rate below {rate}{precision} or clipping, and another --out",
            patience=patience,
            averages=averages,
        )
        if self.tracking.names:
            self.recorders[phase].callbacks.append(EpochTracking(self.tracking, self.recorders[phase].epochs, phase))
        return self.recorders[phase]

    def close(self, phase: str) -> None:
        """Forgets a training beside the main one, what came of it being kept elsewhere: its checkpoints and history."""
        self.recorders.pop(phase, None)
        shutil.rmtree(self.directory / "checkpoint" / phase, ignore_errors=True)
        (self.directory / f"history-{phase}.csv").unlink(missing_ok=True)

    def save_figure(self, name: str, figure: Any) -> None:
        """Writes a matplotlib figure to `name` in the run's directory, and sends it to the trackers."""
        with replacing(self.directory / name) as path:
            figure.savefig(path, dpi=120, bbox_inches="tight")
        self.tracking.figure(self.directory / name, self.epoch)

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
        timer = self.recorders[""].timer
        speed, fraction = timer.examples_per_second(), timer.data_fraction()
        step = timer.processor_seconds_per_step()
        first = next(iter(self.recorders.values())).timer
        result = {
            "recipe": self.recipe,
            "backend": keras.config.backend(),
            "preset": self.config.preset,
            "data": data,
            "metric": metric,
            "value": value,
            "metrics": metrics,
            "epochs": self.config.epochs,
            "examples_per_second": speed and round(speed, 1),
            "train_seconds": round(sum(each.checkpoints.train_seconds for each in self.recorders.values()), 1),
            "parameters": model.count_params(),
            "seed": self.config.seed,
            "precision": self.config.precision,
            "matmul_precision": matmul_precision(),
            "options": self.config.beside_preset(),
            "versions": self.versions(),
            "device": device_name(),
            "out": str(self.directory),
            "start_seconds": first.start_seconds,
            "start_processor_seconds": first.start_processor_seconds,
            "step_processor_seconds": step and round(step, 5),
            "data_fraction": fraction and round(fraction, 4),
            "peak_memory_bytes": peak_memory(),
            **self.facts,
            **facts,
        }
        if len(self.continued.get("commits", ())) > 1:
            result["commits"] = self.continued["commits"]
        if len(self.continued.get("epochs", ())) > 1:
            result["extended"] = self.continued["epochs"]
        if self.changed_on_resume:
            result["changed_on_resume"] = self.changed_on_resume
        with replacing(self.directory / "result.json") as path:
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        for phase, recorder in self.recorders.items():
            self.tracking.epochs(phase, recorder.history)  # also where a resume found nothing left to train
        self.tracking.finish(result)
        if self.lock:
            self.lock.release(force=True)
        print("result " + json.dumps(result), flush=True)
        if target is not None and not (value >= target if higher_is_better else value <= target):
            raise TargetMissed(f"target missed: {metric} is {value:.6g}, the target {target:.6g}")
        return metrics


def launch(
    main: Callable[[Run], Any], config_class: type[Options], open_run: Callable[[Options], Run] = Run
) -> NoReturn:
    """Runs a recipe from the command line and ends the process.

    Exit codes: 0 done, 1 `--target` not reached, 2 wrong use or input, 130 interrupted.

    Args:
        main: the recipe.
        config_class: its options.
        open_run: what makes a run of them.
    """

    def interrupt(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    replace_what_cannot_be_shown()
    code, message = 0, None
    try:
        run = open_run(parse_options(config_class))
        try:
            main(run)
        except UsageError:
            run.discard()
            raise
    except UsageError as error:
        code, message = 2, f"error: {error}"
    except TargetMissed as error:
        code, message = 1, str(error)
    except KeyboardInterrupt as error:
        code, message = 130, str(error) or "interrupted; what was saved before is untouched"
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            raise
        code, message = 2, f"error: {error}: make room or take another --out; what was saved before is untouched"
    sys.stdout.flush()
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)
