"""The image classifier as people run it: as a script, in a process of its own."""

import csv
import json
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


@pytest.mark.in_turn
def test_nothing_is_imported_for_features_of_keras_that_are_not_used(run_python):
    names = "{'IPython', 'pandas', 'sklearn', 'scipy.stats', 'jax', 'torch', 'tensorflow'} & set(sys.modules)"
    code = f"import sys, recipes.cnn_cifar10; print(*{names}); import pandas, sklearn"
    process = run_python("-c", code, check=0, PYTHONPATH=str(PROJECT))
    assert process.stdout.split() == [keras.config.backend()]


def start(tmp_path, *arguments):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(happened, process):
    deadline = time.monotonic() + 300
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended_by(number, process):
    """The exit code and the output of a process that was sent a signal."""
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.in_turn
@pytest.mark.parametrize("step", all_but_one_slow([17, 8, 31], 17))
def test_killed_stopped_and_killed_again_a_run_that_is_resumed_ends_with_the_same_bits(tmp_path, run_recipe, step):
    options, checkpoints = (*TINY, "--ema", "0.9"), tmp_path / "run/checkpoint"

    def trained(steps):
        return any(int(path.stem.removeprefix("step-")) >= steps for path in checkpoints.glob("step-*.npz"))

    process = start(tmp_path, *options, "--out", "run", "--checkpoint-seconds", "0")
    wait_until((tmp_path / "run/config.json").exists, process)
    assert ended_by(signal.SIGKILL, process)[0] == -signal.SIGKILL
    assert list(checkpoints.glob("step-*.npz")) == []

    process = start(tmp_path, "--out", "run", "--resume")
    wait_until(lambda: trained(5), process)
    code, out, err = ended_by(signal.SIGINT, process)
    assert code == 130, out + err
    assert "starting from the beginning" in out
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("interrupted")]  # TensorFlow may log after it
    said, _, command = line.partition("  ")
    assert said == "interrupted, and saved; go on with"
    assert command == f"KERAS_BACKEND={keras.config.backend()} python {SCRIPT} --out run --resume"

    process = start(tmp_path, "--out", "run", "--resume")
    wait_until(lambda: trained(step), process)
    code, out, _ = ended_by(signal.SIGKILL, process)
    assert code == -signal.SIGKILL
    assert "resuming at epoch" in out
    assert not (tmp_path / "run/model.keras").exists()
    (checkpoints / ".unfinished-1-step-000000099.npz").write_bytes(b"torn")

    again = result_of(run_recipe("cnn_cifar10", "--out", "run", "--resume", "--target", "0.05", check=0))
    whole = result_of(run_recipe("cnn_cifar10", *options, "--out", "whole", check=0))
    assert (again["preset"], again["metrics"]) == (whole["preset"], whole["metrics"])
    weights = (read_model(tmp_path / run / "model.keras").get_weights() for run in ("run", "whole"))
    for resumed, uninterrupted in zip(*weights, strict=True):
        np.testing.assert_array_equal(resumed, uninterrupted)
    assert not list((tmp_path / "run").rglob(".unfinished*"))
