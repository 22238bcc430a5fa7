"""Resuming: training stopped anywhere ends with the same weights as an uninterrupted run."""

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass

import keras
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow, numbers, refused_in_one_line

from recipes.cnn_cifar10 import Config as ClassifierConfig
from recipes.cnn_cifar10 import build_model, build_optimizer
from shared.backends.choice import installed_backends
from shared.backends.optimizers import prepare_optimizer
from shared.backends.runtime import matmul_precision, prepare_backend, seed_step
from shared.data.images.datasets import ImageData, LabelledImages
from shared.data.randomness import random_stream
from shared.errors import Interrupted, TargetMissed, UsageError
from shared.tools.records import record_run
from shared.training import directory, options
from shared.training.batches import SeededBatches
from shared.training.options import Options, parse_options
from shared.training.predictors import FinishedRun
from shared.training.run import Run
from shared.training.saving import save_model


@dataclass(kw_only=True)
class Config(Options):
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 0.05
    optimizer: str = "sgd"


class Points(SeededBatches):
    """Seeded noise in, a linear function of it out."""

    batch_size = 8
    batches_per_epoch = 5

    def make_batch(self, index, rng):
        x = rng.normal(size=(8, 4)).astype("float32")
        return x, x.sum(axis=1, keepdims=True)


def make_model(config):
    """A model with everything that a checkpoint must hold: dropout, moving statistics, momentum, schedule, averages."""
    schedule = keras.optimizers.schedules.CosineDecay(config.learning_rate, 15)
    if config.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(schedule, momentum=0.9, use_ema=True, ema_momentum=0.8)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01, use_ema=True, ema_momentum=0.8)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.3),  # without a seed, as in recipes
            layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse", metrics=["mae"])
    return model


def held_out_points():
    x = np.random.default_rng(9).normal(size=(16, 4)).astype("float32")
    return x, x.sum(axis=1, keepdims=True)


class Stopping(keras.callbacks.Callback):
    """A signal that arrives during a step, numbered from 1."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def train(config, stop_after=None, message="--resume"):
    """Runs `fit` as a recipe does; with `stop_after`, a signal arrives during that step."""
    run, model, batches = Run(config, "points"), make_model(config), Points(config.seed)
    callbacks = [Stopping(stop_after)] if stop_after else []
    with pytest.raises(Interrupted, match=message) if stop_after else contextlib.nullcontext():
        run.fit(model, batches, "points", validation_data=held_out_points(), callbacks=callbacks)
    return run, model


def test_a_finished_run_is_extended_to_more_epochs(tmp_path):
    """It ends with the bits of a run of so many from the start, as the learning rate does not depend on the epochs."""
    _, whole = train(Config(out=tmp_path / "whole", epochs=4))
    train(Config(out=tmp_path / "run", epochs=2))
    train(Config(out=tmp_path / "run", epochs=4, resume=True), stop_after=3)
    config = parse_options(Config, ["--out", str(tmp_path / "run"), "--resume"])
    assert config.epochs == 4
    run, longer = train(config)
    assert_same_bits(whole, longer)
    assert [line["epoch"] for line in run.history] == [1, 2, 3, 4]
    run.finish(longer, "points", "loss", {"loss": 1.0})
    assert json.loads((tmp_path / "run/result.json").read_text())["extended"] == [2, 4]
    with pytest.raises(UsageError, match="was started with --epochs 4, not 3"):
        train(Config(out=tmp_path / "run", epochs=3, resume=True))


def weights(model):
    return [keras.ops.convert_to_numpy(v.value) for v in [*model.variables, *model.optimizer.variables]]


def assert_same_bits(one, other):
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


class Codes(SeededBatches):
    """Rows of numbers below 5, most of them several times in a row."""

    batch_size = 4
    batches_per_epoch = 1

    def make_batch(self, index, rng):
        return rng.integers(5, size=(4, 6)), np.zeros((4, 3), "float32")


@pytest.mark.parametrize("scaled", [False, True])
def test_clipping_and_adam_see_whole_gradients_of_embeddings(tmp_path, scaled):
    model = keras.Sequential(
        [keras.Input((6,), dtype="int32"), keras.layers.Embedding(5, 3), keras.layers.GlobalAveragePooling1D()]
    )
    table = np.random.default_rng(1).normal(size=(5, 3)).astype("float32")
    model.set_weights([table])
    adam = keras.optimizers.Adam(global_clipnorm=0.1)
    model.compile(keras.optimizers.LossScaleOptimizer(adam) if scaled else adam, "mse")
    batches = Codes(0)
    Run(Config(out=tmp_path, epochs=1), "codes").fit(model, batches, "codes")

    counts = (batches[0][0][:, :, None] == np.arange(5)).sum(axis=1)
    gradient = counts.T @ (2 * (counts / 6) @ table / 12) / 6
    norm = np.linalg.norm(gradient)
    assert norm > 0.15  # so that it is clipped
    velocity = keras.ops.convert_to_numpy(adam._velocities[0].value)
    np.testing.assert_allclose(velocity, 0.001 * (gradient * 0.1 / norm) ** 2, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "stop_after"), [("sgd", 2), ("sgd", 5), ("adamw", 8), ("adamw", 14)])
def test_stopped_and_resumed_ends_with_the_same_bits(tmp_path, optimizer, stop_after):
    whole, expected = train(Config(out=tmp_path / "whole", optimizer=optimizer))
    train(Config(out=tmp_path / "parts", optimizer=optimizer), stop_after)
    keras.utils.set_random_seed(99)
    parts, actual = train(Config(out=tmp_path / "parts", optimizer=optimizer, resume=True))
    assert_same_bits(actual, expected)
    assert parts.history == whole.history
    assert (tmp_path / "parts/history.csv").read_text() == (tmp_path / "whole/history.csv").read_text()


def averaged_by_hand(config, epochs):
    """The model of `train`, its weights and statistics averaged on the host; the losses validated on the averages."""
    model, batches = make_model(config), Points(config.seed)
    prepare_optimizer(model)  # as `fit` does: Adam amplifies the rounding of a gradient that should be 0
    moving = [variable for variable in model.variables if variable.path.endswith(MOVING)]
    averages, raw, losses = None, None, []
    for epoch in range(epochs):
        batches.epoch = epoch
        for index in range(len(batches)):
            seed_step(random_stream(config.seed, "step", epoch, index))
            model.train_on_batch(*batches[index])
            raw = [np.array(numbers(variable)) for variable in moving]
            averages = averages or raw
            averages = [0.8 * average + 0.2 * value for average, value in zip(averages, raw, strict=True)]
        for variable, average in zip(moving, averages, strict=True):
            variable.assign(average)
        losses.append(model.evaluate(*held_out_points(), verbose=0, return_dict=True)["loss"])
        for variable, value in zip(moving, raw, strict=True):
            variable.assign(value)
    return averages, losses


MOVING = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_averages_of_weights_and_statistics_are_validated_and_what_is_left(tmp_path, optimizer):
    config = Config(out=tmp_path / "run", optimizer=optimizer)
    run, model = train(config)
    prepare_backend(config.seed, "float32")
    averages, losses = averaged_by_hand(config, 3)
    ours = [numbers(variable) for variable in model.variables if variable.path.endswith(MOVING)]
    for average, expected in zip(ours, averages, strict=True):
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose([row["val_loss"] for row in run.history], losses, rtol=1e-4)
    assert model.evaluate(*held_out_points(), verbose=0, return_dict=True)["loss"] == pytest.approx(losses[-1])


def test_patience_ends_with_the_averages_that_had_the_lowest_validation_loss(tmp_path):
    def fit(config):
        run, model = Run(config, "points"), make_model(config)
        run.fit(model, Points(config.seed), "points", patience=2, validation_data=held_out_points())
        return run, model

    run, model = fit(Config(out=tmp_path / "run", epochs=12, learning_rate=0.1))
    losses = [row["val_loss"] for row in run.history]
    assert min(losses) < losses[-1]
    left = model.evaluate(*held_out_points(), verbose=0, return_dict=True)["loss"]
    assert left == pytest.approx(min(losses), rel=1e-5)
    _, resumed = fit(Config(out=tmp_path / "run", resume=True, epochs=12, learning_rate=0.1))
    for ours, there in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, there)


@pytest.mark.in_turn
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_stopped_twice_with_mixed_precision(tmp_path, precision):
    options = {"precision": precision}
    try:
        _, expected = train(Config(out=tmp_path / "whole", **options))
        train(Config(out=tmp_path / "parts", **options), 3)
        train(Config(out=tmp_path / "parts", resume=True, **options), 4)
        _, actual = train(Config(out=tmp_path / "parts", resume=True, **options))
        assert_same_bits(actual, expected)
    finally:
        keras.config.set_dtype_policy("float32")


def allow_rounded_products():
    """What recent GPUs do by default, on each backend in some operations at least."""
    match keras.config.backend():
        case "jax":
            import jax

            jax.config.update("jax_default_matmul_precision", None)
        case "torch":
            import torch

            torch.backends.cudnn.allow_tf32 = True
        case "tensorflow":
            import tensorflow as tf

            tf.config.experimental.enable_tensor_float_32_execution(True)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_float32_numbers_are_multiplied_as_they_are(precision):
    allow_rounded_products()
    assert matmul_precision() == "lower"
    try:
        prepare_backend(0, precision)
    finally:
        keras.config.set_dtype_policy("float32")
    assert matmul_precision() == "float32"


def test_a_finished_run_is_not_trained_further(tmp_path):
    _, expected = train(Config(out=tmp_path / "run"))
    run, actual = train(Config(out=tmp_path / "run", resume=True))
    assert_same_bits(actual, expected)
    assert len(run.history) == 3


def test_a_checkpoint_of_other_data_is_refused(tmp_path):
    train(Config(out=tmp_path / "run"))
    config = Config(out=tmp_path / "run", resume=True)
    with pytest.raises(UsageError, match="can be used"):
        Run(config, "points").fit(make_model(config), Points(0), "other points")


@pytest.fixture
def disk(monkeypatch):
    """A disk that has room for as many checkpoints as `disk["room"]` says."""
    disk = {"room": 2}
    original = np.savez

    def savez(path, **arrays):
        if disk["room"] == 0:
            raise OSError(28, "No space left on device")
        disk["room"] -= 1
        original(path, **arrays)

    monkeypatch.setattr(np, "savez", savez)
    return disk


def test_a_full_disk_is_reported_and_training_continues(tmp_path, disk, capsys):
    _, actual = train(Config(out=tmp_path / "run", checkpoint_seconds=0))
    message = capsys.readouterr().err
    assert "WARNING: no checkpoint written (No space left on device); the earlier" in message
    kept = sorted(path.name for path in (tmp_path / "run/checkpoint").glob("*.npz"))
    assert kept == ["step-000000001.npz", "step-000000002.npz"]
    disk["room"] = 1000
    _, expected = train(Config(out=tmp_path / "whole"))
    assert_same_bits(actual, expected)
    _, resumed = train(Config(out=tmp_path / "run", resume=True))
    assert_same_bits(resumed, expected)


def test_stopped_on_a_full_disk_does_not_claim_to_have_saved(tmp_path, disk):
    disk["room"] = 0
    train(Config(out=tmp_path / "run"), 3, r"no checkpoint written \(No space left on device\)")


def test_history_has_a_line_an_epoch(tmp_path):
    run, _ = train(Config(out=tmp_path / "run"))
    with open(tmp_path / "run/history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert set(rows[0]) == {"epoch", "loss", "mae", "val_loss", "val_mae"}
    assert float(rows[2]["loss"]) == run.history[2]["loss"]


def test_initial_weights_make_runs_start_alike(tmp_path):
    source = make_model(Config())
    source.save_weights(tmp_path / "start.weights.h5")
    source.save(tmp_path / "start.keras")
    ends = []
    for name in ("start.weights.h5", "start.keras"):
        config = Config(out=tmp_path / f"run {name}", initial_weights=tmp_path / name, seed=3, epochs=1)
        ends.append(train(config)[1])
    for a, b in zip(ends[0].get_weights(), ends[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_initial_weights_that_do_not_fit(tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(tmp_path / "other.weights.h5")
    for name in ("other.weights.h5", "missing.weights.h5", "wrong.txt"):
        with pytest.raises(UsageError, match="--initial-weights") as caught:
            train(Config(out=tmp_path / f"run {name}", initial_weights=tmp_path / name))
        assert "\n" not in str(caught.value)


def test_target_either_way(tmp_path, capsys):
    run, model = train(Config(out=tmp_path / "run", target=0.5))
    assert run.finish(model, "points", "score", {"score": 0.6}) == {"score": 0.6}
    with pytest.raises(TargetMissed, match=r"score is 0\.4, the target 0\.5"):
        run.finish(model, "points", "score", {"score": 0.4})
    run.finish(model, "points", "error", {"error": 0.4}, higher_is_better=False)
    with pytest.raises(TargetMissed):
        run.finish(model, "points", "error", {"error": float("nan")}, higher_is_better=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last.removeprefix("result "))["metric"] == "error"


def test_saved_models_name_no_backend(tmp_path):
    run, model = train(Config(out=tmp_path / "run", optimizer="adamw"))
    run.finish(model, "points", "score", {"score": 1.0})
    with zipfile.ZipFile(tmp_path / "run/model.keras") as archive:
        assert archive.testzip() is None
        assert "keras.src" not in archive.read("config.json").decode()


WEIGHTS_TRAVEL = """
import sys
import keras, numpy as np
import recipes.cnn_cifar10
batch = np.load("batch.npz")
model = keras.saving.load_model("model.keras")
steps = int(model.optimizer.iterations)
outputs = model.predict_on_batch(batch["images"])
losses = [float(model.train_on_batch(batch["images"], batch["labels"])) for _ in range(3)]
np.savez("there.npz", outputs=outputs, losses=losses, steps=steps)
"""


def test_a_saved_model_is_compiled_as_the_backend_does_that_loads_it(tmp_path):
    model = make_model(Config())
    save_model(model, tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert json.loads(archive.read("config.json"))["compile_config"]["jit_compile"] == "auto"
    assert keras.saving.load_model(tmp_path / "model.keras").jit_compile == model.jit_compile


@pytest.mark.in_turn
@pytest.mark.parametrize("optimizer", all_but_one_slow(["sgd", "adamw"], "adamw"))
def test_weights_load_on_other_backends_and_training_continues(tmp_path, run_python, optimizer):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), np.uint8)
    shown = LabelledImages(pixels, np.arange(8) % 3)
    data = ImageData("noise", list("abc"), shown, shown, shown, [128.0], [74.0], False, "0")
    images, labels = shown.images, np.eye(3, dtype="float32")[shown.labels]
    np.savez(tmp_path / "batch.npz", images=images, labels=labels)
    config = ClassifierConfig.for_preset("smoke", widths=(8,), optimizer=optimizer, learning_rate=0.01, warmup=0)
    model = build_model(config, data)
    model.compile(build_optimizer(config, steps=20), keras.losses.CategoricalCrossentropy(from_logits=True))
    for _ in range(3):
        model.train_on_batch(images, labels)
    save_model(model, tmp_path / "model.keras")
    outputs = model.predict_on_batch(images)
    losses = [float(model.train_on_batch(images, labels)) for _ in range(3)]
    backends = installed_backends()  # all of them together pass the weights around in a circle
    backend = backends[(backends.index(keras.config.backend()) + 1) % len(backends)]
    run_python("-c", WEIGHTS_TRAVEL, check=0, KERAS_BACKEND=backend, PYTHONPATH=str(PROJECT))
    there = np.load(tmp_path / "there.npz")
    assert there["steps"] == 3
    np.testing.assert_allclose(there["outputs"], outputs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there["losses"], losses, rtol=1e-3)


def test_time_is_not_lost_by_a_resume(tmp_path):
    first, _ = train(Config(out=tmp_path / "run"), 8)
    time.sleep(0.01)
    second, _ = train(Config(out=tmp_path / "run", resume=True))
    assert second.recorders[""].checkpoints.train_seconds > first.recorders[""].checkpoints.train_seconds > 0


class Scripted(keras.callbacks.Callback):
    """Makes up the validation losses, and keeps the weights that are validated in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_test_begin(self, logs=None):
        if self.epoch == 1:
            self.kept = [np.array(weight) for weight in self.model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        logs["val_loss"] = [5.0, 3.0, float("nan"), 3.5, 1.0][epoch]


def test_a_phase_stops_without_progress_and_ends_with_the_best_weights(tmp_path):
    def head(config):
        run, model, scripted = Run(config, "points"), make_model(config), Scripted()
        x = np.ones((8, 4), "float32")
        run.fit(
            model, Points(config.seed), "points", phase="head", epochs=5, patience=2,
            validation_data=(x, x[:, :1]), callbacks=[scripted],
        )  # fmt: skip
        return run, model, scripted

    run, model, scripted = head(Config(out=tmp_path / "run"))
    assert [row["epoch"] for row in run.recorders["head"].history] == [1, 2, 3, 4]
    for ours, kept in zip(model.get_weights(), scripted.kept, strict=True):
        np.testing.assert_array_equal(ours, kept)
    assert len(list(csv.DictReader((tmp_path / "run/history-head.csv").open()))) == 4
    assert not (tmp_path / "run/history.csv").exists()

    again, resumed, _ = head(Config(out=tmp_path / "run", resume=True))
    assert len(again.recorders["head"].history) == 4
    for ours, kept in zip(resumed.get_weights(), scripted.kept, strict=True):
        np.testing.assert_array_equal(ours, kept)

    (tmp_path / "run/checkpoint/head/best.npz").write_bytes(b"torn")
    with pytest.raises(UsageError, match=r"best\.npz is damaged"):
        head(Config(out=tmp_path / "run", resume=True))
    np.savez(tmp_path / "run/checkpoint/head/best.npz")
    with pytest.raises(UsageError, match=r"best\.npz is damaged"):
        head(Config(out=tmp_path / "run", resume=True))


TAKES = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1] + "/checkpoint/.lock")
lock.acquire()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.mark.once
def test_a_directory_belongs_to_the_process_that_trains_in_it(tmp_path):
    train(Config(out=tmp_path / "run", epochs=1))[0].finish(make_model(Config()), "points", "score", {"score": 1.0})
    other = subprocess.Popen(
        [sys.executable, "-c", TAKES, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"taken\n"
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        (tmp_path / "run/.unfinished-1-model.keras").touch()  # the other process is writing it
        config = Config(out=tmp_path / "run", epochs=1, resume=True)
        with refused_in_one_line("another process trains in"):
            train(config)
        assert (tmp_path / "run/.unfinished-1-model.keras").exists()
        assert {path: path.read_bytes() for path in before} == before
        assert FinishedRun(tmp_path / "run", Config).result["value"] == 1.0  # reading is for everybody
    finally:
        other.kill()  # at which the system gives the lock back
        other.communicate()
    train(config)
    assert not (tmp_path / "run/.unfinished-1-model.keras").exists()


@pytest.mark.once
def test_a_new_run_is_not_started_in_a_directory_that_was_just_taken(tmp_path):
    (tmp_path / "run/checkpoint").mkdir(parents=True)
    other = subprocess.Popen(
        [sys.executable, "-c", TAKES, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        other.stdout.readline()
        with refused_in_one_line("another process trains in"):
            train(Config(out=tmp_path / "run"))
    finally:
        other.kill()
        other.communicate()


@pytest.mark.once
def test_runs_that_start_in_the_same_second_have_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [Run(Config(seed=seed), "points") for seed in range(3)]
    assert len({run.directory for run in runs}) == 3
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(run.directory.name for run in runs)


@pytest.mark.once
def test_a_run_that_other_code_went_on_with_says_so(tmp_path, monkeypatch, capsys):
    for module in (options, directory):
        monkeypatch.setattr(module, "source_commit", lambda: "aaaa")
    run, model = train(Config(out=tmp_path / "run", epochs=1))
    run.finish(model, "points", "score", {"score": 1.0})
    assert "commits" not in json.loads((tmp_path / "run/result.json").read_text())
    for commit in ("aaaa", "bbbb", "aaaa"):  # also where it ends with the code that it began with
        monkeypatch.setattr(directory, "source_commit", lambda commit=commit: commit)
        run, model = train(Config(out=tmp_path / "run", epochs=1, resume=True))
        assert ("the code is bbbb now, and was aaaa" in capsys.readouterr().err) == (commit == "bbbb")
    run.finish(model, "points", "score", {"score": 1.0})
    assert json.loads((tmp_path / "run/result.json").read_text())["commits"] == ["aaaa", "bbbb"]
    with refused_in_one_line("trained by the code of aaaa and of bbbb"):
        record_run(tmp_path / "run")


@pytest.mark.once
def test_options_beside_the_presets(tmp_path):
    assert Config().beside_preset() == {}
    config = Config(epochs=1, batch_size=8, seed=3, data="other", out=tmp_path, optimizer="adamw", target=0.5)
    assert config.beside_preset() == {"epochs": "1", "optimizer": "adamw"}


@pytest.mark.once
@pytest.mark.parametrize(
    "content", ["", "[]", '{"options": []}', '{"options": {}}', '{"options": {"what": 1}}', "\udcff"]
)
def test_a_damaged_config_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with refused_in_one_line("does not hold the options"):
        Run(Config(out=tmp_path, resume=True), "points")
