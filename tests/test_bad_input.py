"""Wrong use: one clear line that suggests a fix, exit code 2, nothing destroyed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import keras
import pytest
from conftest import PROJECT, refused_in_one_line

from recipes.cnn_cifar10 import Config, main
from shared.backends.choice import installed_backends, require_backend
from shared.errors import UsageError
from shared.training.options import parse_options
from shared.training.run import Run

pytestmark = pytest.mark.once


def refused(process):
    """The one line of a process that ended with exit code 2."""
    assert process.returncode == 2, process.stdout + process.stderr
    assert "Traceback" not in process.stderr
    lines = [line for line in process.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert process.stderr.splitlines()[-1] == lines[0]
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--no-such-option", "3"], "--no-such-option"),
        (["--batch-size", "many"], "--batch-size"),
        (["--batch-size"], "--batch-size"),
        (["--batch-size", "0"], "--batch-size must be at least 1, not 0"),
        (["--epochs", "-1"], "--epochs must be at least 1, not -1"),
        (["--learning-rate", "nan"], "--learning-rate must be a finite number, not nan"),
        (["--learning-rate", "inf"], "--learning-rate must be a finite number, not inf"),
        (["--seed", "-5"], "--seed must be between"),
        (["--target", "nan"], "--target must be a finite number"),
        (["--preset", "huge"], "huge"),
        (["--precision", "float8"], "float8"),
        (["--optimizer", "adagrad"], "adagrad"),
        (["--label-smoothing", "1"], "--label-smoothing must be at least 0 and below 1"),
        (["--ema", "1.5"], "--ema must be at least 0 and below 1"),
        (["--widths", "32", "0"], "--widths must be at least 1 each"),
        (["--resume"], "--resume needs --out"),
        (["--resume", "--out"], "--out"),
        (["stray"], "stray"),
    ],
)
def test_options(arguments, message):
    with refused_in_one_line(message):
        config = parse_options(Config, arguments)
        Run(config)


def test_presets_and_options_combine():
    assert parse_options(Config, []) == Config()
    smoke = parse_options(Config, ["--preset", "smoke", "--epochs", "7", "--widths", "8", "12"])
    assert smoke == Config.for_preset("smoke", epochs=7, widths=(8, 12))
    assert smoke.batch_size == Config.presets["smoke"]["batch_size"]


def test_help_shows_the_defaults_of_the_preset(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(Config, ["--preset", "smoke", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"default: {Config.presets['smoke']['batch_size']}" in text
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in text
    assert text.count("Examples per step") == 1


def test_as_a_command(run_recipe, tmp_path):
    assert "--batch-size must be at least 1" in refused(run_recipe("cnn_cifar10", "--batch-size", "0"))
    assert list(tmp_path.iterdir()) == []


def test_unknown_backend(run_recipe):
    line = refused(run_recipe("cnn_cifar10", KERAS_BACKEND="caffe"))
    assert "KERAS_BACKEND=caffe is not one of jax, torch, tensorflow (installed here: " in line


def test_backend_not_installed(run_recipe, hiding):
    line = refused(run_recipe("cnn_cifar10", KERAS_BACKEND="torch", **hiding("torch")))
    assert "the backend torch is not installed" in line
    assert 'pip install -c constraints.txt -e ".[torch]"' in line


def test_backend_unset_and_tensorflow_not_installed(run_recipe, hiding, tmp_path):
    first = installed_backends()[0]
    if first == "tensorflow":
        pytest.skip("needs a backend besides TensorFlow")
    environment = {"KERAS_BACKEND": "", "KERAS_HOME": str(tmp_path), **hiding("tensorflow")}
    line = refused(run_recipe("cnn_cifar10", **environment))
    assert "Keras's choice where KERAS_BACKEND is not set" in line
    assert f"installed here: {first}" in line
    assert f": set KERAS_BACKEND={first}, or run  pip install" in line


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"backend": "jax",}', "keras.json cannot be read"),
        ("[]", "keras.json holds no settings by name"),
        ('{"floatx": "float8"}', "must be one of float16, float32, float64, not 'float8'"),
        ('{"image_data_format": "NCHW"}', "must be one of channels_last, channels_first, not 'NCHW'"),
        ('{"epsilon": "small"}', "must be a number such as 1e-7"),
        ('{"backend": "caffe"}', "backend caffe in "),
    ],
)
def test_settings_of_keras_that_cannot_be_used(tmp_path, monkeypatch, capsys, settings, message):
    (tmp_path / "keras.json").write_text(settings)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND")
    with pytest.raises(SystemExit) as caught:
        require_backend()
    line = capsys.readouterr().err
    assert caught.value.code == 2
    assert line.count("\n") == 1
    assert message in line
    assert str(tmp_path / "keras.json") in line
    assert "KERAS_BACKEND" not in line


def test_settings_of_keras_do_not_change_an_experiment(run_recipe, tmp_path):
    settings = {"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "tensorflow"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    options = ("--preset", "smoke", "--data", "mnist5k", "--epochs", "2", "--train-examples", "100")
    losses = []
    for name, environment in (
        ("plain", {}),
        ("other", {"KERAS_HOME": str(tmp_path), "KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}),
    ):
        run_recipe("cnn_cifar10", *options, "--out", name, check=0, **environment)
        losses.append((tmp_path / name / "history.csv").read_text())
    assert losses[0] == losses[1]
    assert len(losses[0].splitlines()) == 3


def test_no_backend_at_all(run_recipe, run_python, hiding):
    environment = hiding("tensorflow", "torch", "jax")
    assert "none is installed here" in refused(run_recipe("cnn_cifar10", KERAS_BACKEND="jax", **environment))
    doctor = run_python("-m", "shared.tools.cli", "doctor", KERAS_BACKEND="jax", **environment)
    assert doctor.returncode == 1
    assert doctor.stdout.count("fix: pip install") == 3


def test_shared_not_installed(run_recipe, tmp_path, hiding):
    shutil.copy(PROJECT / "recipes/cnn_cifar10.py", tmp_path)
    process = subprocess.run(
        [sys.executable, "cnn_cifar10.py"],
        cwd=tmp_path, env=os.environ | hiding("shared"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert "shared is not installed: run  pip install -e ." in refused(process)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("fashion_mnist", "fashion_mnist is not in the data directory and cannot be downloaded"),
        ("imagenet9000", "choose one of auto"),
    ],
)
def test_data_set_missing_offline(offline, tmp_path, data, message):
    with refused_in_one_line(message):
        main(Run(small_config(tmp_path / "run", data=data)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (4, 4, 4, 4, 4)}, "--widths"),
        ({"batch_size": 5000}, "--batch-size"),
        ({"crop": 28}, "--crop"),
        ({"cutout": 29}, "--cutout"),
        ({"train_examples": 0}, "--train-examples"),
    ],
)
def test_what_does_not_fit_the_images(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        main(Run(Config.for_preset("smoke", data="mnist5k", out=tmp_path / "run", **changes)))
    assert "\n" not in str(caught.value)


def small_config(directory, **changes):
    return Config.for_preset("smoke", **{"data": "mnist5k", "out": directory} | changes)


def test_an_output_directory_that_is_in_use(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.txt").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UsageError, match="take another --out"):
            Run(small_config(tmp_path / "run", resume=resume))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_an_output_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    for place in (tmp_path / "file", tmp_path / "file/run", "/proc/run"):
        with pytest.raises(UsageError, match=r"cannot write to .* take another --out"):
            Run(small_config(place))
    assert (tmp_path / "file").read_text() == "not a directory"


@pytest.fixture
def started(tmp_path):
    Run(small_config(tmp_path / "run"))
    (tmp_path / "run/history.csv").write_text("epoch\n")
    return tmp_path / "run"


def test_an_existing_run_without_resume(started):
    with pytest.raises(UsageError, match="add --resume to resume the run in it"):
        Run(small_config(started))
    assert (started / "history.csv").read_text() == "epoch\n"


def test_resume_with_other_settings(started):
    with pytest.raises(UsageError, match=r"was started with --learning-rate 0\.1, not 0\.2"):
        Run(small_config(started, resume=True, learning_rate=0.2))
    with pytest.raises(UsageError, match="is a run of cnn_cifar10, not of gan"):
        Run(small_config(started, resume=True), "gan")
    path = started / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"backend": "theano"}))
    with pytest.raises(UsageError, match="set KERAS_BACKEND=theano"):
        Run(small_config(started, resume=True))


def test_resume_takes_the_settings_of_the_run(started):
    config = parse_options(Config, ["--resume", "--out", str(started)])
    assert config == small_config(started, resume=True)
    assert config.widths == Config.presets["smoke"]["widths"]


@pytest.mark.parametrize("content", ["", "{", '{"options": {}}', '{"options": {"epochs": "many"}}', "[]"])
def test_resume_with_a_damaged_config(started, content):
    (started / "config.json").write_text(content)
    with pytest.raises(UsageError, match="name another directory") as caught:
        parse_options(Config, ["--resume", "--out", str(started)])
    assert "\n" not in str(caught.value)


def test_an_interrupt_before_training_is_130(run_python):
    code = (
        "import os, signal, shared.training.run as run\n"
        "from recipes.cnn_cifar10 import Config\n"
        "run.launch(lambda opened: os.kill(os.getpid(), signal.SIGTERM), Config)"
    )
    process = run_python("-c", code, PYTHONPATH=str(PROJECT))
    assert process.returncode == 130
    assert "Traceback" not in process.stderr


def test_policy_is_left_at_float32():
    assert keras.config.dtype_policy().name == "float32"
