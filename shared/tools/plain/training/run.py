"""A run: its directory, training with Keras's callbacks, its result."""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tyro
from matplotlib.figure import Figure

from shared.errors import UsageError
from shared.training.batches import SeededBatches
from shared.training.options import Options


class Run:
    """A directory for all that a training leaves: checkpoints, history.csv, figures, the model and its result."""

    def __init__(self, config: Options, recipe: str | None = None):
        self.config = config
        self.directory = config.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.histories: dict[str, list[dict[str, float]]] = {}  # by phase of the training, the results of each epoch
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)

    @property
    def history(self) -> list[dict[str, float]]:
        return self.histories[""]

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
        """`model.fit` with a backup after each epoch, from which the same command with the same --out goes on."""
        print(f"training on {data}, in {self.directory}")
        if self.config.initial_weights and not phase:
            model.load_weights(self.config.initial_weights)
        history = self.directory / f"history{phase and '-' + phase}.csv"
        backup = self.directory / f"backup{phase and '-' + phase}"
        callbacks = [
            *arguments.pop("callbacks", []),
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: setattr(batches, "epoch", epoch)),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.CSVLogger(history, append=backup.exists()),
            keras.callbacks.BackupAndRestore(backup, double_checkpoint=True),
        ]
        use_ema = getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema
        if use_ema:
            callbacks.append(keras.callbacks.SwapEMAWeights())  # the averages are validated, and kept at the end
        if patience:
            callbacks.append(keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True))
        model.fit(batches, epochs=epochs or self.config.epochs, shuffle=False, callbacks=callbacks, **arguments)
        if use_ema:  # on JAX, weights and averages are the same arrays now, which a later evaluation would delete
            for variable in model.trainable_variables:
                variable.assign(keras.ops.copy(variable))
        table = np.atleast_1d(np.genfromtxt(history, delimiter=",", names=True))
        self.histories[phase] = [dict(zip(table.dtype.names, row, strict=True)) for row in table]

    def train(
        self,
        step: Callable,
        batches: SeededBatches,
        state: dict[str, Any],
        data: str,
        phase: str = "",
        epochs: int | None = None,
        after_epoch: Callable | None = None,
    ) -> None:
        """Calls a training step on every batch, and saves the weights of the models after each epoch."""
        if self.config.precision == "mixed_float16":
            raise UsageError("this training does not scale its losses, as float16 needs: take mixed_bfloat16")
        models = {name: part for name, part in state.items() if isinstance(part, keras.Model)}
        metrics = [part for part in state.values() if isinstance(part, keras.metrics.Metric)]
        rows = self.histories[phase] = []
        count = epochs or self.config.epochs
        print(f"training on {data}, in {self.directory}")
        if self.config.initial_weights:
            next(iter(models.values())).load_weights(self.config.initial_weights)
        for epoch in range(count):
            print(f"Epoch {epoch + 1}/{count}")
            bar, batches.epoch = keras.utils.Progbar(len(batches)), epoch
            for metric in metrics:
                metric.reset_state()
            for index in range(len(batches)):
                results = step(*batches[index])
                bar.update(index + 1)
            row = {"epoch": epoch} | {name: float(value) for name, value in results.items()}
            row |= (after_epoch and after_epoch(epoch + 1)) or {}
            rows.append(row)
            table = [",".join(map(str, each)) for each in (row, *(each.values() for each in rows))]
            (self.directory / "history.csv").write_text("\n".join(table) + "\n", encoding="utf-8")
            for name, model in models.items():
                model.save_weights(self.directory / f"{name}.weights.h5")

    def save_figure(self, name: str, figure: Figure) -> None:
        figure.savefig(self.directory / name, dpi=120, bbox_inches="tight")

    def finish(
        self,
        model: keras.Model,
        data: str,
        metric: str,
        metrics: dict[str, float],
        higher_is_better: bool = True,
        **facts: Any,
    ) -> dict:
        """Saves the model and its result, and returns the metrics."""
        model.save(self.directory / "model.keras")
        result = {"data": data, "metrics": metrics, "options": asdict(self.config), **facts}
        (self.directory / "result.json").write_text(json.dumps(result, indent=1, default=str), encoding="utf-8")
        print(f"{metric} {metrics[metric]:.4g}, the {'higher' if higher_is_better else 'lower'} the better")
        return metrics


def launch(main: Callable[[Run], Any], config_class: type[Options]) -> None:
    """Runs `main` with the options of the command line; those that it leaves out are the preset's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", default="small")
    preset = parser.parse_known_args()[0].preset
    main(Run(tyro.cli(config_class, default=config_class.for_preset(preset))))
