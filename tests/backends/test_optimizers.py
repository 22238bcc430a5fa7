"""Optimizers that update all variables together, and learning rates without Keras, do what Keras's do."""

import keras
import numpy as np
import pytest

from shared.backends.optimizers import grouped_updates
from shared.layers.convolution import Convolution
from shared.training.schedules import WarmupCosine, warmup_cosine_rate

on_torch = pytest.mark.skipif(keras.config.backend() != "torch", reason="only PyTorch's updates are other than Keras's")


@on_torch
@pytest.mark.parametrize("initializer", ["glorot_uniform", "orthogonal"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"global_clipnorm": 0.5},
        {"global_clipnorm": 1e6, "use_ema": True, "ema_momentum": 0.7},
        {"use_ema": True, "ema_momentum": 0.7},
        {"beta_1": 0.5, "beta_2": 0.99, "epsilon": 1e-2},
        {"amsgrad": True},
        {"weight_decay": 0.1, "gradient_accumulation_steps": 2},
        {"use_ema": True, "gradient_accumulation_steps": 2, "global_clipnorm": 0.5},
    ],
    ids=str,
)
def test_grouped_updates_are_those_of_keras(options, initializer):
    def trained(change):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((4, 4, 2)),
                Convolution(3, 3),  # whose gradient on PyTorch lies in another order than the kernel
                keras.layers.Flatten(),
                keras.layers.Dense(48, "relu", kernel_initializer=initializer),  # orthogonal lies in memory by columns
                keras.layers.Dense(1),
            ]
        )
        optimizer = keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.03, 10), **options)
        model.compile(change(optimizer), "mse")
        rng = np.random.default_rng(0)
        for _ in range(4):
            x = rng.normal(size=(16, 4, 4, 2)).astype("float32")
            model.train_on_batch(x, 10 * x[:, :, 0, 0].sum(axis=1, keepdims=True))
        return [keras.ops.convert_to_numpy(each.value) for each in (*model.variables, *model.optimizer.variables)]

    for ours, theirs in zip(trained(grouped_updates), trained(lambda optimizer: optimizer), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=5e-7 * np.abs(theirs).max())


@on_torch
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_that_of_keras(momentum, nesterov):
    def trained(change):
        rng = np.random.default_rng(0)
        variables = [keras.Variable(rng.normal(size=shape).astype("float32")) for shape in ((3, 4), (5,))]
        rate = keras.optimizers.schedules.CosineDecay(0.3, 10)
        optimizer = change(keras.optimizers.SGD(rate, momentum=momentum, nesterov=nesterov, weight_decay=0.1))
        for _ in range(4):
            gradients = [rng.normal(size=each.shape).astype("float32") for each in variables]
            optimizer.apply([keras.ops.convert_to_tensor(each) for each in gradients], variables)
        return [keras.ops.convert_to_numpy(each.value) for each in (*variables, *optimizer.variables)]

    for ours, theirs in zip(trained(grouped_updates), trained(lambda optimizer: optimizer), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@on_torch
@pytest.mark.parametrize("gradient", [np.inf, -np.inf, np.nan, 1e20, 3e38, 1e-30, 0.0])
def test_a_norm_that_is_not_finite_is_seen_as_by_keras(gradient):
    def stepped(change):
        variables = [keras.Variable(np.ones(3, "float32")), keras.Variable(np.ones(2, "float32"))]
        optimizer = change(keras.optimizers.SGD(0.1, global_clipnorm=1.0))
        gradients = [np.array([1, gradient, 1], "float32"), np.ones(2, "float32")]
        optimizer.apply([keras.ops.convert_to_tensor(each) for each in gradients], variables)
        return [keras.ops.convert_to_numpy(each.value) for each in variables]

    for ours, theirs in zip(stepped(grouped_updates), stepped(lambda optimizer: optimizer), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 3, 40])
def test_no_step_has_a_rate_of_0(steps, warmup):
    rates = [float(WarmupCosine(0.02, steps, warmup)(step)) for step in range(steps)]
    assert min(rates) > 0
    np.testing.assert_allclose(max(rates), 0.02, rtol=1e-6)
    rising = max(1, round(steps * warmup))
    np.testing.assert_allclose(rates[:rising], 0.02 * np.arange(1, rising + 1) / rising, rtol=1e-5)
    assert (np.diff(rates[rising - 1 :]) < 0).all()
    if warmup == 0:  # Loshchilov and Hutter 2017, equation 5
        np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(steps) / steps)), rtol=1e-4)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (10, 0.1), (57, 0.3), (20, 1.0)])
def test_the_rate_without_keras_is_that_of_the_schedule(steps, warmup):
    schedule = WarmupCosine(0.02, steps, warmup)
    expected = [float(schedule(step)) for step in range(steps + 3)]
    found = [warmup_cosine_rate(step, 0.02, steps, warmup) for step in range(steps + 3)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
