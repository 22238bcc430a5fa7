"""Transfer learning as people run it: as a script, in a process of its own."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line
from PIL import Image

from recipes.transfer_learning import Config, build_model, compile_model, train_head, unfreeze
from shared.backends.steps import compiled_step
from shared.data.images.datasets import ImageData, LabelledImages
from shared.errors import UsageError
from shared.images.backbones.pretrained import load_backbone
from shared.tools.predict import predict_from
from shared.training.run import Run

SCRIPT = PROJECT / "recipes" / "transfer_learning.py"
TINY = ("--preset", "smoke", "--data", "mnist5k", "--per-class", "10", "--test-examples", "100", "--image-size", "32",
        "--epochs", "1", "--scratch-epochs", "0")  # fmt: skip


def result_of(process):
    return json.loads(process.stdout.splitlines()[-1].removeprefix("result "))


@pytest.mark.slow
@pytest.mark.in_turn
def test_smoke_on_real_photographs(run_recipe, real_data, tmp_path, monkeypatch, capsys):
    process = run_recipe("transfer_learning", "--preset", "smoke", "--out", "run", check=0)
    result = result_of(process)
    assert result["data"] == "cifar10"
    assert result["weights"] == "efficientnet_lite0-imagenet"
    assert set(result["metrics"]) == {"top1", "head_top1", "scratch_top1"}
    assert result["metrics"]["head_top1"] > 0.3
    assert result["value"] == result["metrics"]["top1"] > result["metrics"]["scratch_top1"] + 0.15
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "result.json", "model.keras"),
        *("history.csv", "history-head.csv", "history-scratch.csv"),
        *("curves.png", "curves-head.png", "predictions.png", "evidence.png"),
    }

    Image.new("RGB", (300, 200), "navy").save(tmp_path / "blue.png")
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with refused_in_one_line("torn.jpg cannot be read as an image"):
        predict_from(tmp_path / "run", ["torn.jpg", "blue.png"])
    guesses = capsys.readouterr().out.strip().removeprefix("blue.png: ").split(", ")
    assert len(guesses) == 3
    assert all(guess.rpartition(" ")[0] in result["classes"] for guess in guesses)


@pytest.mark.in_turn
@pytest.mark.parametrize("name", ["efficientnet_lite0", "mobilenetv2"])
def test_the_upper_half_learns_but_no_batch_normalization(name):
    backbone, _ = load_backbone(name, 32, pretrained=False)
    unfreeze(backbone, 0.5)
    learning = {weight.path for weight in backbone.trainable_weights}
    kernels = [weight.path for weight in backbone.weights if weight.path.endswith("kernel")]
    assert learning & set(kernels) == set(kernels[-len(learning) :])
    assert len(kernels) / 3 < len(learning) < len(kernels) * 2 / 3
    assert not [path for path in learning if path.endswith(("gamma", "beta"))]
    before = backbone.get_weights()
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    compiled_step(lambda: backbone(images, training=True))()
    assert all(np.array_equal(*pair) for pair in zip(before, backbone.get_weights(), strict=True))


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the native baseline is in PyTorch")
def test_the_native_baseline_trains_as_keras_does():
    trainer_class = runpy.run_path(str(PROJECT / "benchmarks/transfer_learning_torch.py"))["Trainer"]
    config = Config.for_preset("smoke", image_size=32, dropout=0.0)
    keras.utils.set_random_seed(0)
    backbone, _ = load_backbone("efficientnet_lite0", 32, pretrained=True)  # at random nothing comes through it
    images = np.random.default_rng(0).integers(0, 256, (8, 24, 24, 3), "uint8")
    labels = np.eye(4, dtype="float32")[np.arange(8) % 4]
    data = SimpleNamespace(train=LabelledImages(images, labels), classes=range(4))
    model = build_model(config, data, backbone)
    unfreeze(backbone, 0.5)
    compile_model(model, config.learning_rate, 10)
    trainer, initial = trainer_class(config, model, 10), [weight.copy() for weight in model.get_weights()]
    for _ in range(4):
        model.reset_metrics()
        theirs, _ = model.train_on_batch(images, labels)
        np.testing.assert_allclose(float(trainer.train_on_batch(images, labels)), theirs, rtol=1e-4)
    for start, ours, theirs, weight in zip(initial, trainer.weights(), model.get_weights(), model.weights, strict=True):
        learned = np.linalg.norm(theirs - start)
        assert (learned > 0) == weight.trainable, weight.path
        assert np.linalg.norm(ours - theirs) <= 0.02 * learned, weight.path


def weights(path):
    return keras.saving.load_model(path).get_weights()


@pytest.mark.slow
@pytest.mark.in_turn
def test_killed_while_fine_tuning_and_resumed_ends_with_the_same_bits(tmp_path, run_recipe):
    run_recipe("transfer_learning", *TINY, "--out", "whole", check=0)
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *TINY, "--out", "run", "--checkpoint-seconds", "0"],
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list((tmp_path / "run/checkpoint").glob("step-*.npz")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = run_recipe("transfer_learning", "--out", "run", "--resume", check=0)
    whole = json.loads((tmp_path / "whole/result.json").read_text())
    assert result_of(again)["metrics"] == whole["metrics"]
    for a, b in zip(weights(tmp_path / "run/model.keras"), weights(tmp_path / "whole/model.keras"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.in_turn
def test_each_precision_has_features_of_its_own_in_float32(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_RECIPES_CACHE", str(tmp_path / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 1), np.uint8)
    images = LabelledImages(pixels, np.arange(12) % 3)
    data = ImageData("noise", list("abc"), images, images, images, [128.0], [74.0], False, "0")
    options = {"image_size": 32, "head_epochs": 1, "batch_size": 4}
    backbone = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3, strides=8, dtype="float32")])
    kept = {}
    for precision in ("mixed_bfloat16", "float32"):
        config = Config.for_preset("smoke", out=tmp_path / precision, precision=precision, **options)
        run = Run(config)  # sets the precision of the layers that are made from here on
        try:
            in_precision = keras.Sequential([*backbone.layers, keras.layers.Identity()])
            train_head(run, build_model(config, data, in_precision), data, "random")
        finally:
            keras.config.set_dtype_policy("float32")
        (kept[precision],) = {path for path in (tmp_path / "cache/features").iterdir()} - set(kept.values())
    exact, rounded = (np.load(kept[precision] / "train.npy") for precision in ("float32", "mixed_bfloat16"))
    assert exact.dtype == rounded.dtype == np.float32
    assert 0 < np.abs(exact - rounded).max() < 0.01 * np.abs(exact).max()


@pytest.mark.once
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 16}, "--image-size must be at least 32"),
        ({"per_class": 1}, "--per-class must be at least 2"),
        ({"unfreeze": 1.5}, "--unfreeze must be between 0 and 1"),
        ({"patience": 0}, "--patience must be at least 1"),
    ],
)
def test_options(changes, message):
    with pytest.raises(UsageError, match=message):
        Config.for_preset("smoke", **changes)
