"""Training steps that PyTorch records do what they do as they are; tests/training/test_custom_step.py has more."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from shared.backends.optimizers import prepare_optimizer
from shared.backends.steps import STEPS_OF_RECORDING, compiled_step, record_training
from shared.layers.normalization import BatchNormalization

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="the others compile the step")


@pytest.mark.parametrize(
    ("function", "runs"),
    [
        (lambda x: ops.sum(x[x > 0] ** 2), 4),
        (lambda x: ops.sum(ops.take(x, ops.nonzero(x > 0)[0])), 4),
        (lambda x: x * ops.convert_to_tensor(float(x[0])), 4),
        (lambda x: x[ops.cast(ops.abs(x), "int32")], 2),
        (lambda x: x[ops.array([True, False, True])] * float(ops.array([2.0])[0]), 2),
    ],
    ids=["mask", "nonzero", "value", "indices", "constants"],
)
def test_steps_that_depend_on_values_are_not_recorded(function, runs):
    calls = []
    step = compiled_step(lambda x: calls.append(x) or function(x))
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(size=3).astype("float32")
        np.testing.assert_array_equal(ops.convert_to_numpy(step(x)), ops.convert_to_numpy(function(ops.array(x))))
    assert len(calls) == runs


def compiled_classifier(optimizer):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(BatchNormalization()(layers.Conv2D(4, 3, kernel_regularizer="l2")(x)))
    x = layers.Dropout(0.3)(layers.Flatten()(layers.MaxPooling2D()(x)))
    model = keras.Model(inputs, layers.Dense(5)(x))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    top1 = keras.metrics.CategoricalAccuracy("top1")
    model.compile(optimizer(), loss, metrics=[top1], weighted_metrics=["mse"])
    prepare_optimizer(model)
    return model


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9), momentum=0.9, nesterov=True),
        lambda: keras.optimizers.AdamW(1e-2, global_clipnorm=0.1, use_ema=True),
        lambda: keras.optimizers.RMSprop(1e-2),
    ],
    ids=["sgd", "adamw", "rmsprop"],
)
def test_fit_records_its_step(optimizer):
    rng, found = np.random.default_rng(0), []
    x, y = rng.normal(size=(22, 8, 8, 3)).astype("float32"), np.eye(5, dtype="float32")[rng.integers(5, size=22)]
    weights = rng.uniform(size=22).astype("float32")
    for steps in (0, STEPS_OF_RECORDING):
        model = compiled_classifier(optimizer)
        record_training(model, steps)
        calls, train_step = [], model.train_step
        model.train_step = lambda data, calls=calls, train_step=train_step: calls.append(data) or train_step(data)
        history = model.fit(x, y, 4, 4, sample_weight=weights, shuffle=False, verbose=0).history
        found.append([*model.get_weights(), *map(np.array, history.values())])
        # Five batches of four examples and one of two: for each of the two shapes the second step is recorded.
        assert len(calls) == (4 if steps else 4 * 6)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("reason", ["few steps", "eager"])
def test_fit_leaves_its_step_as_it_is(reason):
    model = compiled_classifier(keras.optimizers.Adam)
    model.run_eagerly = reason == "eager"
    record_training(model, STEPS_OF_RECORDING - (reason == "few steps"))
    assert model.train_function is None
