"""The multilayer perceptron from scratch: its gradients, its training step, what vanishes, what is refused."""

import json

import keras
import numpy as np
import pytest
from conftest import normal, numbers, refused_in_one_line

from recipes.mlp_from_scratch import Config, Network, build_model, main, training_step
from shared.backends.compiling import compiled_inference
from shared.backends.runtime import prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.foundations.activations import ACTIVATIONS
from shared.foundations.checks import gradient_error
from shared.training.options import parse_options
from shared.training.run import Run
from shared.training.schedules import warmup_cosine_rate

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), np.uint8)
IMAGES = LabelledImages(PIXELS, np.arange(20) % 4)
DATA = ImageData("noise", list("abcd"), IMAGES, IMAGES, IMAGES, [128.0, 120.0, 140.0], [74.0, 70.0, 80.0], False, "0")
TARGETS = np.eye(4, dtype="float32")[IMAGES.labels]


def network(**options):
    prepare_backend(0, "float32")
    made = Network(Config(**options), DATA)
    for index, (_, bias) in enumerate(made.parameters):
        bias.assign(0.1 * normal(*bias.shape, seed=index))
    return made


@pytest.mark.in_turn
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("widths", [(12,), (16, 8, 12, 9)], ids=["shallow", "deep"])
def test_backpropagation_has_the_gradients_of_automatic_differentiation(activation, widths):
    made = network(activation=activation, widths=widths)
    assert gradient_error(made.loss, made.gradients, made.parameters, (PIXELS, TARGETS)) < 1e-5


@pytest.mark.in_turn
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_layers_of_keras_compute_the_same(activation):
    made = network(activation=activation, widths=(12, 10))
    expected = made.model.predict(PIXELS, verbose=0)
    found = numbers(compiled_inference(made.logits, [made.model])(PIXELS))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)(TARGETS, expected)
    assert float(made.loss(PIXELS, TARGETS)) == pytest.approx(float(loss), rel=1e-5)


def test_steps_are_those_of_keras_sgd_with_momentum():
    config = Config(widths=(12, 10), learning_rate=0.05, momentum=0.9)
    prepare_backend(0, "float32")
    made, twin = Network(config, DATA), build_model(config, DATA)
    twin.set_weights(made.model.get_weights())
    step, state = training_step(config, made, steps=5)
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    twin.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
    for number in range(5):
        optimizer.learning_rate.assign(warmup_cosine_rate(number, 0.05, 5, 0.02))
        expected = twin.train_on_batch(PIXELS, TARGETS)
        state["loss"].reset_state()
        assert float(step(PIXELS, TARGETS)["loss"]) == pytest.approx(float(np.ravel(expected)[0]), rel=1e-4)
        twin.reset_metrics()
    for found, wanted in zip(made.model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-5)


def test_gradients_vanish_in_a_deep_sigmoid_network_and_not_with_relu_and_he():
    sizes = {}
    for activation in ("sigmoid", "relu"):
        made = network(activation=activation, widths=(100,) * 8)
        gradients, _ = compiled_inference(made.gradients, [made.model])(PIXELS, TARGETS)
        sizes[activation] = [np.sqrt(np.mean(np.square(numbers(dW)))) for dW, _ in gradients]
    assert sizes["sigmoid"][0] < 1e-3 * sizes["sigmoid"][-1]
    assert sizes["relu"][0] > 1e-2 * sizes["relu"][-1]


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pair", "0"], "--pair must be two of the classes 0, 1"),
        (["--pair", "0", "0"], "--pair must be two of the classes"),
        (["--pair", "0", "cat"], "--pair must be two of the classes"),
        (["--train-examples", "1", "--batch-size", "1"], "the perceptron needs images of both its classes"),
        (["--precision", "mixed_bfloat16"], "--precision must be float32"),
        (["--batch-size", "5000"], "--batch-size must be at most the 1500 training images"),
        (["--widths", "20", "0"], "--widths must be at least 1 each"),
        (["--activation", "softsign"], "softsign"),
        (["--data", "nothing-here"], "no data set 'nothing-here'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(options, message, tmp_path):
    with refused_in_one_line(message):
        main(Run(parse_options(Config, ["--preset", "test", "--out", str(tmp_path / "run"), *options])))


@pytest.mark.in_turn
def test_a_run_learns_and_shows_what_happens_inside(run_recipe, tmp_path):
    options = ("--preset", "smoke", "--data", "mnist5k", "--train-examples", "3000", "--pair", "3", "8")
    run_recipe("mlp_from_scratch", *options, "--target", "0.85", "--out", "run", check=0)
    metrics = json.loads((tmp_path / "run/result.json").read_text())["metrics"]
    assert metrics["gradient_error"] < 1e-5
    assert metrics["layers_error"] < 1e-4
    assert 0.5 < metrics["perceptron_top1"] <= 1
    figures = {path.name for path in (tmp_path / "run").glob("*.png")}
    assert figures == {"perceptron.png", "signals.png", "curves.png", "weights.png", "surface.png"}
