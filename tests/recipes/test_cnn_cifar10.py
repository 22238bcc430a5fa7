"""The image classifier as people run it: as a script, in a process of its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow
from PIL import Image

import recipes.cnn_cifar10  # noqa: F401 - registers what saved models name
from shared.training.saving import read_model

SCRIPT = PROJECT / "recipes" / "cnn_cifar10.py"
TINY = ("--preset", "smoke", "--data", "mnist5k", "--epochs", "2", "--train-examples", "1000")


def test_the_recorded_model_still_loads_and_gives_the_same_outputs():
    """Whatever moves within `shared`: a saved model names its layers by their registered names."""
    model = read_model(PROJECT / "results/judges/fashion_mnist.keras")
    rising = np.tile(np.arange(28, dtype="uint8")[:, None] * 9, (1, 28))[None, ..., None]
    logits = [0.5350, 0.0608, -0.5893, -0.2392, -1.3046, 0.0484, -1.9204, -0.3891, 3.7761, -0.1296]
    np.testing.assert_allclose(model.predict(rising, verbose=0)[0], logits, atol=2e-4)


def result_of(process):
    line = process.stdout.splitlines()[-1]
    assert line.startswith("result ")
    return json.loads(line.removeprefix("result "))


@pytest.mark.slow
def test_smoke_on_real_photographs(run_recipe, real_data, tmp_path):
    process = run_recipe("cnn_cifar10", "--preset", "smoke", "--out", "run", check=0)
    result = result_of(process)
    assert result == json.loads((tmp_path / "run/result.json").read_text())
    assert result["data"] == "cifar10"
    assert result["backend"] == keras.config.backend()
    assert result["metric"] == "top1"
    assert result["value"] == result["metrics"]["top1"] >= 0.3
    assert result["metrics"]["top5"] >= 0.75
    fields = "recipe backend preset data metric value metrics epochs examples_per_second train_seconds parameters seed"
    assert set(result) >= {*fields.split(), "versions", "device", "out"}
    assert (result["precision"], result["matmul_precision"]) == ("float32", "float32")
    assert "WARNING: no cifar10" not in process.stderr

    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {
        *("checkpoint", "config.json", "history.csv", "result.json", "model.keras"),
        *("curves.png", "confusion.png", "mistakes.png"),
    }
    for name in ("curves.png", "confusion.png", "mistakes.png"):
        with Image.open(tmp_path / "run" / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert min(pixels.shape) > 300
        assert pixels.std() > 10
    with open(tmp_path / "run/history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["epochs"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])

    model = keras.saving.load_model(tmp_path / "run/model.keras")
    assert model.count_params() == result["parameters"]


@pytest.mark.in_turn
def test_offline_trains_on_the_bundled_digits_and_says_so(run_recipe, offline):
    options = ("--optimizer", "adamw", "--learning-rate", "0.002", "--precision", "mixed_bfloat16", "--cutout", "6")
    process = run_recipe("cnn_cifar10", "--preset", "smoke", "--epochs", "2", *options, "--target", "0.9999", check=1)
    assert "WARNING: no cifar10, training on the bundled mnist5k instead" in process.stderr
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("target missed: top1 is 0.")
    result = result_of(process)
    assert result["data"] == "mnist5k"
    assert 0.5 <= result["value"] < 0.9999


IMPORTS = """
import sys
import recipes.cnn_cifar10 as recipe
recipe.main(recipe.Run(recipe.Config.for_preset("smoke", data="mnist5k", epochs=1, train_examples=200, widths=(4,))))
print("imported", *sorted({"tensorflow", "torch"} & set(sys.modules)))
"""


def test_only_the_chosen_backend_is_imported(run_python):
    process = run_python("-c", IMPORTS, check=0, PYTHONPATH=str(PROJECT))
    allowed = {
        "jax": [],
        "torch": ["torch"],
        "tensorflow": ["tensorflow"],
    }
    assert process.stdout.splitlines()[-1].split() == ["imported", *allowed[keras.config.backend()]]


def test_nothing_is_imported_for_features_of_keras_that_are_not_used(run_python):
    names = "{'IPython', 'pandas', 'sklearn', 'scipy.stats', 'jax', 'torch', 'tensorflow'} & set(sys.modules)"
    code = f"import sys, recipes.cnn_cifar10; print(*{names}); import pandas, sklearn"
    process = run_python("-c", code, check=0, PYTHONPATH=str(PROJECT))
    assert process.stdout.split() == [keras.config.backend()]


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_step(directory, step, process):
    deadline = time.monotonic() + 300
    while not (steps := sorted(directory.glob("step-*.npz"))) or int(steps[-1].stem.removeprefix("step-")) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def weights(path):
    return keras.saving.load_model(path).get_weights()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final weights of a run that nobody stopped."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    process = start(directory, *TINY, "--ema", "0.9", "--out", "run")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    return weights(directory / "run/model.keras")


@pytest.mark.once
@pytest.mark.parametrize("step", all_but_one_slow([3, 17, 31], 17))
def test_killed_and_resumed_ends_with_the_same_bits(tmp_path, run_recipe, uninterrupted, step):
    process = start(tmp_path, *TINY, "--ema", "0.9", "--out", "run", "--checkpoint-seconds", "0")
    wait_for_step(tmp_path / "run/checkpoint", step, process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "run/model.keras").exists()
    (tmp_path / "run/checkpoint/.unfinished-1-step-000000099.npz").write_bytes(b"torn")
    again = run_recipe("cnn_cifar10", *TINY, "--ema", "0.9", "--out", "run", "--resume", check=0)
    assert "resuming at epoch" in again.stdout
    for a, b in zip(weights(tmp_path / "run/model.keras"), uninterrupted, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not list((tmp_path / "run").rglob(".unfinished*"))


@pytest.mark.in_turn
def test_killed_before_the_first_checkpoint(tmp_path, run_recipe):
    process = start(tmp_path, *TINY, "--out", "run")
    while not (tmp_path / "run/config.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    again = run_recipe("cnn_cifar10", "--out", "run", "--resume", "--target", "0.05", check=0)
    assert "starting from the beginning" in again.stdout
    assert result_of(again)["preset"] == "smoke"


@pytest.mark.in_turn
def test_stopped_politely_saves_and_says_how_to_go_on(tmp_path, run_python):
    process = start(tmp_path, *TINY, "--out", "run", "--checkpoint-seconds", "0")
    wait_for_step(tmp_path / "run/checkpoint", 5, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("interrupted")]  # TensorFlow may log after it
    said, _, command = line.partition("  ")
    assert said == "interrupted, and saved; go on with"
    command = command.split()
    assert command[0] == f"KERAS_BACKEND={keras.config.backend()}"
    again = run_python(*command[2:], check=0)
    assert "resuming at epoch" in again.stdout
