"""Optimizers that update all variables together, and learning rates without Keras, do what Keras's do."""

import keras
import numpy as np
import pytest

from shared.backends.optimizers import grouped_updates
from shared.schedules import warmup_cosine, warmup_cosine_rate


@pytest.mark.parametrize("clip", [None, 0.5, 1e6])
@pytest.mark.parametrize("ema", [False, True])
def test_grouped_updates_are_those_of_keras(clip, ema):
    def trained(change):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
        rate = keras.optimizers.schedules.CosineDecay(0.1, 10)
        model.compile(change(keras.optimizers.AdamW(rate, global_clipnorm=clip, use_ema=ema, ema_momentum=0.7)), "mse")
        rng = np.random.default_rng(0)
        for _ in range(4):
            x = rng.normal(size=(16, 4)).astype("float32")
            model.train_on_batch(x, 10 * x.sum(axis=1, keepdims=True))
        return [keras.ops.convert_to_numpy(each.value) for each in (*model.variables, *model.optimizer.variables)]

    for ours, theirs in zip(trained(grouped_updates), trained(lambda optimizer: optimizer), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_gradients_that_are_not_numbers_are_seen():
    variable = keras.Variable(np.ones(3, "float32"))
    optimizer = grouped_updates(keras.optimizers.SGD(0.1, global_clipnorm=1.0))
    optimizer.apply([keras.ops.convert_to_tensor(np.array([1, np.inf, 1], "float32"))], [variable])
    assert np.isnan(keras.ops.convert_to_numpy(variable.value)).any()


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (10, 0.1), (57, 0.3), (20, 1.0)])
def test_the_rate_without_keras_is_that_of_the_schedule(steps, warmup):
    schedule = warmup_cosine(0.02, steps, warmup)
    expected = [float(schedule(step)) for step in range(steps + 3)]
    found = [warmup_cosine_rate(step, 0.02, steps, warmup) for step in range(steps + 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
