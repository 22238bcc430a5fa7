"""Evaluation of generators: its options, its networks in files and of ImageNet, and what is measured with them."""

import json
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import PROJECT, normal, numbers, refused_in_one_line

from recipes import cnn_cifar10
from shared.backends.compiling import compiled_inference
from shared.backends.runtime import copied_weights, dtype_policy, prepare_backend
from shared.data.images.datasets import ImageData, LabelledImages
from shared.generative.evaluation import evaluate_generator, evaluation_metrics, labels_like_test
from shared.generative.evaluation_networks import evaluation_classifier, evaluation_network, imagenet_network
from shared.generative.options import GenerativeOptions
from shared.training.options import parse_options
from shared.training.saving import save_model


@pytest.fixture(autouse=True)
def prepared():
    """Initial weights drawn on the host, which on JAX compiles nothing."""
    prepare_backend(0, "float32")


def image_data(size=16, channels=1):
    """Sixty images of three classes that differ in brightness."""
    labels = np.arange(60) % 3
    noise = np.random.default_rng(1).integers(0, 64, (60, size, size, channels))
    bright = LabelledImages((noise + labels[:, None, None, None] * 64).astype("uint8"), labels)
    mean, deviation = [100.0] * channels, [60.0] * channels
    return ImageData("bright", ["a", "b", "c"], bright, bright, bright, mean, deviation, True, "0")


def classifier(data):
    """An untrained one of the recipe cnn_cifar10, its weights moved off their first values."""
    model = cnn_cifar10.build_model(cnn_cifar10.Config.for_preset("smoke", stem=4, widths=(8, 128)), data)
    model.set_weights([normal(*weight.shape, seed=index) ** 2 for index, weight in enumerate(model.get_weights())])
    return model


@dataclass(kw_only=True)
class Config(GenerativeOptions):
    """Options of no recipe in particular."""

    epochs: int = 1
    batch_size: int = 10
    learning_rate: float = 1.0


def options(*arguments):
    return parse_options(Config, list(arguments))


def test_a_classifier_gives_features_and_logits(tmp_path):
    data = image_data()
    model = classifier(data)
    save_model(model, tmp_path / "model.keras")
    network = evaluation_classifier(tmp_path / "model.keras", data)
    outputs = network.outputs(data.test.images)
    assert outputs["features"].shape == (60, 128)
    kernel = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense)).get_weights()[0]
    np.testing.assert_allclose(outputs["features"] @ kernel / 8, outputs["logits"], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(outputs["logits"], model.predict(data.test.images, verbose=0), rtol=1e-4, atol=1e-5)
    assert network.facts["judge"] == str(tmp_path / "model.keras")
    assert len(network.facts["judge_sha256"]) == 64

    dark = LabelledImages(data.test.images // 2, data.test.labels)
    found = evaluation_metrics(network, data, samples=data.train, untrained=dark)
    kinds = ("frechet", "kid", "kid_error", "precision", "recall", "diversity", "class_accuracy")
    names = {name + end for name in kinds for end in ("", "_real", "_untrained")}
    ratios = {"frechet_gap_ratio", "nearest_neighbour_distance_ratio"}
    assert set(found) == names | ratios
    assert found["frechet"] == found["frechet_real"] < found["frechet_untrained"]
    assert found["frechet_gap_ratio"] == pytest.approx(1000)
    assert found["class_accuracy"] == (outputs["logits"].argmax(axis=1) == data.train.labels).mean()
    json.dumps(found)
    found = evaluation_metrics(network, data, data.train, dark, conditional=False)
    assert set(found) == {name for name in names if "class" not in name} | ratios


@pytest.mark.once
def test_the_recorded_classifier_is_read_by_a_process_that_knows_only_a_generative_recipe():
    """Keras reads a file only where the classes of its layers are imported, as the recipe cnn_cifar10 does. To copy a
    model, it imports TensorFlow unless it is kept from that."""
    program = """
import sys
from pathlib import Path
from types import SimpleNamespace
import recipes.gan_fashion
from shared.backends.runtime import copied_model
from shared.generative.evaluation_networks import evaluation_classifier
train = SimpleNamespace(images=SimpleNamespace(shape=(1, 28, 28, 1)))
data = SimpleNamespace(train=train, classes=range(10))
copied_model(evaluation_classifier(Path("results/judges/fashion_mnist.keras"), data).model)
print({"jax", "tensorflow", "torch"} & set(sys.modules))
"""
    printed = subprocess.check_output([sys.executable, "-c", program], cwd=PROJECT, text=True)
    assert printed == f"{ {keras.config.backend()} }\n"


def test_a_classifier_computes_in_float32_whatever_the_precision(tmp_path):
    """Its own, with which it was trained, and that of the run that it measures."""
    data, found = image_data(), []
    for precision in ("float32", "mixed_bfloat16"):
        with dtype_policy(precision):
            save_model(classifier(data), tmp_path / f"{precision}.keras")
            network = evaluation_classifier(tmp_path / f"{precision}.keras", data)
            found.append(network.outputs(data.test.images))
    for name, one in found[0].items():
        assert one.dtype == found[1][name].dtype == np.float32
        np.testing.assert_array_equal(one, found[1][name])


def test_a_classifier_that_does_not_fit_is_refused_in_one_line(tmp_path):
    save_model(classifier(image_data()), tmp_path / "model.keras")
    keras.Sequential([keras.Input((16, 16, 1)), keras.layers.Flatten()]).save(tmp_path / "none.keras")
    (tmp_path / "torn.keras").write_bytes(b"torn")
    for name, size in (("model", 12), ("none", 16), ("torn", 16), ("missing", 16)):
        with refused_in_one_line("--judge"):
            evaluation_classifier(tmp_path / f"{name}.keras", image_data(size))


@pytest.mark.in_turn
@pytest.mark.parametrize("channels", [1, 3])
def test_features_of_imagenet(channels):
    data = image_data(channels=channels)
    network = evaluation_network(Config(), data)
    assert network.facts == {"judge": "efficientnet_lite0-imagenet at 96 pixels"}
    features = network.outputs(data.test.images)["features"]
    assert features.shape == (60, 1280)
    call = compiled_inference(network.model, [network.model])  # JAX takes a minute to run it operation by operation
    called = call(data.test.images.astype("float32"))["features"]
    np.testing.assert_allclose(numbers(called), features, 1e-3, 1e-3)


@pytest.mark.in_turn
def test_features_of_imagenet_are_computed_in_float32_whatever_the_precision():
    images, found = image_data().test.images[:2], []
    for precision in ("mixed_bfloat16", "float32"):
        with dtype_policy(precision):
            found.append(imagenet_network("efficientnet_lite0", (16, 16, 1)).outputs(images)["features"])
    np.testing.assert_array_equal(*found)


@pytest.mark.once
def test_options_of_the_evaluation(tmp_path, capfd):
    with refused_in_one_line("--backbone nothing is not one of efficientnet_lite0"):
        evaluation_network(options("--backbone", "nothing"), image_data())
    with refused_in_one_line("--backbone must be left at efficientnet_lite0 where --judge is given, not inceptionv3"):
        options("--judge", "model.keras", "--backbone", "inceptionv3")
    with refused_in_one_line("--test-examples must be at least 10, not 9"):
        options("--test-examples", "9")
    for extra, part in (((), "test"), (("--measure-on", "validation"), "validation")):
        data = options("--data", "mnist5k", "--test-examples", "50", *extra).load_data("mnist5k", validation=0.0)
        assert len(data.test.labels) == 50
        if part == "validation":
            np.testing.assert_array_equal(data.test.images, data.validation.images[:50])
    assert "evaluating on 50 validation images instead of test images" in capfd.readouterr().err


@pytest.mark.once
@pytest.mark.parametrize("conditional", [True, False])
def test_a_generator_is_measured_against_itself_untrained(tmp_path, capfd, conditional):
    data, figures = image_data(), {}
    save_model(classifier(data), tmp_path / "model.keras")
    network = evaluation_classifier(tmp_path / "model.keras", data)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.ones((1, 1))])
    untrained = [np.full((1, 1), 0.5, "float32")]

    def draw(labels):
        return (data.train.images[: len(labels)] * copied_weights(model)[0].item()).astype("uint8")

    run = SimpleNamespace(config=SimpleNamespace(samples=30, seed=0), save_figure=figures.__setitem__, facts={})
    samples, metrics = evaluate_generator(run, draw, network, data, conditional, model=model, untrained=untrained)
    assert figures.keys() == {"samples.png", "neighbours.png"}
    np.testing.assert_array_equal(samples.images, data.train.images[:30])
    assert metrics["frechet"] == metrics["frechet_real"] < metrics["frechet_untrained"]
    assert ("class_accuracy" in metrics) == conditional
    assert metrics["nearest_neighbour_distance_ratio"] == 0
    assert run.facts["generated_images_per_second"] > 0
    assert f"in the features of {tmp_path / 'model.keras'}: compare only numbers of" in capfd.readouterr().err


@pytest.mark.once
def test_labels_are_as_frequent_as_in_the_test_images():
    labels = labels_like_test(image_data(), count=600, seed=0)
    assert np.bincount(labels).tolist() == [200, 200, 200]
    assert len(set(labels[:10])) == 3
    np.testing.assert_array_equal(labels_like_test(image_data(), 600, 0), labels)
