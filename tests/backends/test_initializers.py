"""Initial weights: the same on every backend, distributed as Keras's own, and saved under Keras's names."""

import json
import zipfile

import keras
import numpy as np
import pytest
from conftest import numbers
from keras import layers

from shared.backends.initializers import HOST_INITIALIZERS, Ones, Zeros
from shared.backends.runtime import prepare_backend
from shared.training.saving import save_model

SUMS = [96.268295, 0, 16, 0, 0, 16, 88.381508, 35.748009, 8, 21.757166, 0, 80.374031, 0]
"""Of the absolute values of each weight of `network`, from seed 0."""


@pytest.fixture(autouse=True)
def prepared():
    prepare_backend(0, "float32")


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(16, 3, kernel_initializer="he_normal"),
            layers.BatchNormalization(),
            layers.Reshape((36, 16)),
            layers.LSTM(8, return_sequences=True),
            layers.Dense(8, kernel_initializer="lecun_uniform"),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )


def test_a_seed_gives_the_same_weights_on_every_backend():
    found = [float(np.abs(numbers(weight.value)).sum()) for weight in network().weights]
    np.testing.assert_allclose(found, SUMS, rtol=1e-6)


@pytest.mark.parametrize("kind", HOST_INITIALIZERS, ids=lambda kind: kind.__name__)
def test_the_backend_gets_what_is_drawn_bit_for_bit(kind):
    initializer = kind() if kind in (Zeros, Ones) else kind(seed=5)
    drawn = initializer.draw(np.random.default_rng(5), (3, 4)).astype("float32")
    assert np.array_equal(numbers(initializer((3, 4))), drawn)


@pytest.mark.once
@pytest.mark.parametrize("kind", HOST_INITIALIZERS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("shape", [(3, 3, 20, 40), (300, 100), (64, 200)])
def test_the_distribution_is_that_of_keras(kind, shape):
    original = next(base for base in kind.__mro__ if base.__module__.startswith("keras."))
    assert original.__name__ == kind.__name__
    ours, theirs = (numbers(each()(shape)) for each in (kind, original))
    assert ours.shape == theirs.shape == shape
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(np.std(ours), np.std(theirs), rtol=0.05)
    np.testing.assert_allclose(np.mean(ours), np.mean(theirs), atol=0.05 * np.std(theirs))
    np.testing.assert_allclose(np.max(ours), np.max(theirs), rtol=0.25)
    assert not np.array_equal(ours, numbers(kind()(shape))) or np.ptp(ours) == 0, "another seed"


@pytest.mark.once
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (3, 3, 2, 5)])
def test_orthogonal_rows_or_columns(shape):
    matrix = numbers(layers.Dense(1, kernel_initializer="orthogonal").kernel_initializer(shape)).reshape(-1, shape[-1])
    product = matrix @ matrix.T if len(matrix) < shape[-1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(min(matrix.shape)), atol=1e-6)


def test_models_are_saved_with_the_initializers_of_keras(tmp_path):
    save_model(network(), tmp_path / "model.keras")
    config = zipfile.ZipFile(tmp_path / "model.keras").read("config.json").decode()
    assert '"class_name": "HeNormal"' in config
    assert {each["module"] for each in initializers(json.loads(config))} == {"keras.initializers"}
    keras.saving.load_model(tmp_path / "model.keras")


def initializers(config):
    """The configuration of each initializer in that of a model."""
    if isinstance(config, list):
        return [found for each in config for found in initializers(each)]
    if not isinstance(config, dict):
        return []
    own = [value for key, value in config.items() if key.endswith("_initializer") and value]
    return own + [found for each in config.values() for found in initializers(each)]


def test_a_clone_draws_anew():
    model = network()
    clone = keras.models.clone_model(model)
    assert not np.array_equal(*(numbers(each.layers[-1].kernel.value) for each in (model, clone)))


@pytest.mark.skipif(keras.config.backend() != "jax", reason="only JAX compiles a program for each shape")
def test_building_a_model_compiles_nothing():
    import jax

    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, seconds, **_: compiled.append(name) if "backend_compile" in name else None
    )
    layers.Dense(37, kernel_initializer="glorot_normal").build((None, 41))
    assert not compiled
    jax.numpy.zeros((37, 43))
    assert compiled, "the listener hears nothing"
