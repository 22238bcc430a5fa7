"""Training techniques: each of them trains, sweeps are chosen and resumed as they should, what is refused."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import keras
import numpy as np
import pytest
from conftest import PROJECT, refused_in_one_line

from recipes import training_techniques
from recipes.training_techniques import Config, build_model, build_optimizer, main, seeded_model, train
from shared.backends.runtime import prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.foundations.techniques import TECHNIQUES
from shared.training.checkpoint import read_archive
from shared.training.options import parse_options
from shared.training.run import Run

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 1), np.uint8)
IMAGES = LabelledImages(PIXELS, np.arange(48) % 4)
DATA = ImageData("noise", list("abcd"), IMAGES, IMAGES, IMAGES, [128.0], [74.0], True, "0")
TINY = {"epochs": 1, "batch_size": 16, "widths": (16, 32)}
COMPILED_ALIKE = ("schedule", "initialization", "activation", "regularization", "augmentation")
"""What is of the same operations on each backend as everywhere, so that one tells."""
ALL = [
    pytest.param(
        vary, str(value), marks=pytest.mark.only_on("torch") if vary in COMPILED_ALIKE else pytest.mark.in_turn
    )
    for vary, values in TECHNIQUES.items()
    for value in values
]


@pytest.fixture(autouse=True)
def policy_as_before():
    yield
    keras.config.set_dtype_policy("float32")


def trained(directory, vary, value, rate=0.01, **options):
    """The model and the facts of one training."""
    run = Run(Config(out=directory, vary=vary, **TINY | options))
    model, score, facts = train(run, DATA, value, rate, 0, "")
    return model, score, facts


def test_options_are_the_names_of_the_tables():
    for vary, values in TECHNIQUES.items():
        assert getattr(Config(), vary) in values, vary
        for value in values:
            replace(Config(), **{vary: value})
    for name in ("vary", "optimizer", "loss"):
        with refused_in_one_line("nothing"):
            parse_options(Config, [f"--{name}", "nothing"])


@pytest.mark.parametrize(("vary", "value"), ALL)
def test_each_technique_trains(tmp_path, vary, value):
    network = "cnn" if value == "instance" else "mlp"
    model, score, facts = trained(tmp_path, vary, value, network=network)
    assert 0 <= score <= 1
    assert np.isfinite(list(facts["last"].values())).all()
    prepare_backend(0, "float32")
    before = build_model(Config(**TINY | {"network": network}).trying("sgd", 0), DATA).trainable_variables
    assert len(facts["gradients_before"]) == len(facts["gradients_after"]) == 3
    moved = [
        not np.array_equal(keras.ops.convert_to_numpy(variable), keras.ops.convert_to_numpy(start))
        for variable, start in zip(model.trainable_variables[-2:], before[-2:], strict=True)
    ]
    assert moved[1], "the bias of the output"
    assert (facts["gradients_before"][-1] > 0) == (value != "zeros")
    expected = "LossScaleOptimizer" if value == "mixed_float16" else "SGD"
    assert vary == "optimizer" or type(model.optimizer).__name__ == expected


@pytest.mark.parametrize(("network", "optimizer"), [("mlp", "momentum"), ("cnn", "adamw")])
def test_accumulated_gradients_are_those_of_the_large_batch(tmp_path, network, optimizer):
    options = {"network": network, "optimizer": optimizer, "batch_size": 24, "schedule": "cosine"}
    weights = {}
    for micro_batches in ("1", "4"):
        model, _, _ = trained(tmp_path / micro_batches, "accumulation", micro_batches, rate=0.003, **options)
        weights[micro_batches] = model.get_weights()
        assert int(model.optimizer.iterations) == 2
    start = seeded_model(Config(**TINY | {"network": network}), DATA).get_weights()
    for large, small, first in zip(weights["1"], weights["4"], start, strict=True):
        np.testing.assert_allclose(large - first, small - first, rtol=2e-3, atol=2e-6)
        if large.ndim > 1 and large.size > 4:
            assert np.abs(large - first).max() > 1e-5


def test_float16_scales_the_loss_and_leaves_out_the_steps_that_overflow(tmp_path):
    model, _, _ = trained(tmp_path, "precision", "mixed_float16")
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    assert model.layers[-1].compute_dtype == "float32"
    assert model.layers[-2].compute_dtype == "float16"
    scale = float(optimizer.dynamic_scale)
    before = model.get_weights()
    inputs, targets = np.where(PIXELS > 99, np.uint8(255), np.uint8(0)), np.eye(4)[IMAGES.labels]
    optimizer.dynamic_scale.assign(1e38)
    model.train_on_batch(inputs, targets)
    assert 0 < float(optimizer.dynamic_scale) < 1e38
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert scale > 1


def test_weight_decay_is_of_kernels_alone():
    config = Config(**TINY, regularization="weight_decay", normalization="batch")
    model = seeded_model(config, DATA)
    optimizer = build_optimizer(config, 0.1, 10)
    optimizer.build(model.trainable_variables)
    kinds = {
        variable.path.rpartition("/")[2]: optimizer._use_weight_decay(variable)
        for variable in model.trainable_variables
    }
    assert kinds == {"kernel": True, "bias": False, "gamma": False, "beta": False}


SWEEP = ("--preset", "test", "--train-examples", "300", "--widths", "8")


def sweep(directory, *options):
    run = Run(parse_options(Config, [*SWEEP, "--out", str(directory), *options]))
    main(run)
    result = json.loads((directory / "result.json").read_text())
    return {name: result[name] for name in ("value", "metrics", "best", "sweep", "classes", "options")}


class Killed(Exception):
    """Stands for kill -9: nothing is saved at it."""


def weights_in(directory):
    return {path.name: read_archive(path) for path in (directory / "trainings").glob("*.npz")}


def assert_same_sweeps(one, other):
    ours, theirs = weights_in(one), weights_in(other)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 4, "those of the chosen learning rates"
    for name, arrays in ours.items():
        for key, array in arrays.items():
            np.testing.assert_array_equal(array, theirs[name][key], err_msg=name)
    assert (one / "table.csv").read_text() == (other / "table.csv").read_text()
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}
    assert [path.name for path in (one / "checkpoint").iterdir() if path.is_dir()] == []


@pytest.mark.only_on("jax")
def test_a_stopped_sweep_is_resumed_with_the_same_bits(tmp_path, monkeypatch):
    whole = sweep(tmp_path / "whole")
    trainings, run_of = [], training_techniques.train

    def counted(run, data, *what):
        trainings.append(what[:3])
        if len(trainings) in (1, 5):
            raise Killed
        return run_of(run, data, *what)

    monkeypatch.setattr(training_techniques, "train", counted)
    for resume in ((), ("--resume",)):
        with pytest.raises(Killed):
            sweep(tmp_path / "run", *resume)
    again = sweep(tmp_path / "run", "--resume")
    assert again == whole
    assert_same_sweeps(tmp_path / "whole", tmp_path / "run")
    assert len(trainings) == 1 + 4 + 1 + 3, "the first is opened again, each other trained once, the killed one anew"


@pytest.mark.only_on("torch")
def test_a_sweep_killed_within_a_training_is_resumed_with_the_same_bits(tmp_path):
    whole = sweep(tmp_path / "whole", "--epochs", "6")
    command = [sys.executable, PROJECT / "recipes/training_techniques.py", *SWEEP, "--epochs", "6", "--out"]
    process = subprocess.Popen([*command, tmp_path / "run"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any((tmp_path / "run/checkpoint").glob("momentum-0.003-*/step-*.npz")):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run/result.json").exists()
    assert sweep(tmp_path / "run", "--epochs", "6", "--resume") == whole
    assert_same_sweeps(tmp_path / "whole", tmp_path / "run")


@pytest.mark.in_turn
def test_a_sweep_shows_what_it_found(tmp_path):
    options = (
        "--vary",
        "schedule",
        "--values",
        "constant",
        "one_cycle",
        "--factors",
        "0.3",
        "1",
        "1e9",
        "--seeds",
        "1",
    )
    result = sweep(tmp_path / "run", *options)
    figures = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert figures == {"curves.png", "learning_rates.png", "gradients.png", "schedules.png"}
    assert result["value"] == result["metrics"][f"top1_{result['best']}"]
    assert [row["value"] for row in result["sweep"]] == ["constant", "one_cycle"]
    assert all(row["learning_rate"] < 1 for row in result["sweep"]), "what diverged is not chosen"
    table = (tmp_path / "run/trainings.csv").read_text().splitlines()
    assert len(table) == 1 + 6
    with refused_in_one_line("every training diverged: try a --learning-rate below 1e+12"):
        sweep(tmp_path / "other", "--learning-rate", "1e12", "--values", "momentum")


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--values", "sgd", "adm"], "--values must be among sgd, momentum, nesterov"),
        (["--vary", "normalization", "--values", "instance"], "--normalization instance needs --network cnn"),
        (["--vary", "normalization", "--values", "group", "--widths", "12"], "--normalization group needs --widths"),
        (["--vary", "augmentation", "--values", "flip"], "--augmentation flip changes the class of these images"),
        (["--regularization", "label_smoothing", "--loss", "hinge"], "label_smoothing needs --loss cross_entropy or"),
        (["--vary", "accumulation", "--values", "4"], "--accumulation 4 must divide --batch-size 50"),
        (["--factors", "1", "1"], "--factors must differ from each other"),
        (["--initial-weights", "model.keras"], "--initial-weights must be left out"),
        (["--batch-size", "5000"], "--batch-size must be at most the 300 training images"),
        (["--data", "nothing-here"], "no data set 'nothing-here'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(options, message, tmp_path):
    if "--vary" in options and "--values" not in options:
        options = [*options, "--values"]
    with refused_in_one_line(message):
        main(Run(parse_options(Config, [*SWEEP, "--out", str(tmp_path / "run"), *options])))


@pytest.mark.once
def test_a_technique_that_does_not_fit_is_left_out_where_all_are_tried(capsys):
    config = Config(vary="normalization", **TINY)
    assert config.fitting(lambda each: each.misfit(DATA)) == ["none", "batch", "layer", "group", "rms"]
    assert "WARNING: instance is left out: --normalization instance needs --network cnn" in capsys.readouterr().err
