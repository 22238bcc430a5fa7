"""A training step of one's own: what it computes, what it keeps, and the run around it."""

import ast
import csv
import itertools
import os
import random
import re
import runpy
import signal
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import PROJECT, all_but_one_slow, normal, numbers
from keras import layers, ops

from shared.backends.gradients import apply_gradients, minimize, substituted, value_and_grad
from shared.backends.optimizers import grouped_updates
from shared.backends.runtime import seed_step
from shared.backends.steps import compiled_step
from shared.errors import Interrupted, UsageError
from shared.layers.convolution import Convolution
from shared.layers.normalization import BatchNormalization
from shared.training import custom
from shared.training.batches import SeededBatches
from shared.training.custom import models_together, update_averages
from shared.training.options import Options
from shared.training.run import Run
from shared.training.saving import save_model
from shared.training.schedules import WarmupCosine


def linear(weights):
    """The function x · weights, as a model."""
    model = keras.Sequential([keras.Input((len(weights),)), layers.Dense(1, use_bias=False)])
    model.set_weights([np.array(weights, "float32")[:, None]])
    return model


def built(optimizer, model):
    optimizer.build(model.trainable_variables)
    return optimizer


def test_the_example_of_the_page(capsys):
    example = re.search(r"adversarial training:\n\n(.*?)\n\nIn a recipe", custom.__doc__, re.DOTALL)[1]
    names = {}
    exec(textwrap.dedent(example).replace("range(1000)", "range(201)"), names)  # noqa: S102
    lines = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines] == [{"critic_loss", "generator_loss"}] * 3
    made = numbers(names["generator"](normal(500, 8))).mean(axis=0)
    assert np.linalg.norm(made - [3, -1]) < 2  # before, the points were around (0, 0)


def classifier():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(16, kernel_regularizer=keras.regularizers.L2(0.01), activity_regularizer="l2"),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("relu"),
            layers.Dense(1),
        ]
    )


OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01, global_clipnorm=0.5),
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=0.5, use_ema=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_equal_to_fit(name):
    x = normal(160, 4)
    y = x.sum(axis=1, keepdims=True)
    theirs, ours = classifier(), classifier()
    ours.set_weights(theirs.get_weights())
    theirs.compile(OPTIMIZERS[name](), "mse")
    history = theirs.fit(x, y, batch_size=8, shuffle=False, verbose=0).history

    optimizer, mean = built(OPTIMIZERS[name](), ours), keras.metrics.Mean()

    @compiled_step
    def step(x, y):
        def loss():
            return ops.mean(ops.square(y - ours(x, training=True))) + sum(ours.losses)

        mean.update_state(minimize(optimizer, loss, ours.trainable_variables))
        return mean.result()

    for start in range(0, 160, 8):
        result = step(x[start : start + 8], y[start : start + 8])
    optimizer.finalize_variable_values(ours.trainable_variables)
    assert int(optimizer.iterations) == 20
    np.testing.assert_allclose(float(result), history["loss"][0], rtol=1e-5)
    for variable, other in zip(ours.weights, theirs.weights, strict=True):
        value, expected = numbers(variable.value), numbers(other.value)
        assert np.abs(value - expected).max() <= 1e-5 * np.abs(expected).max(), variable.path


def test_two_models_with_two_optimizers():
    generator, critic = linear([0.5]), linear([2.0])
    optimizers = [built(keras.optimizers.SGD(0.1), model) for model in (generator, critic)]

    @compiled_step
    def step(batch):
        def critic_loss():
            return ops.mean(critic(generator(batch["noise"]))) - ops.mean(critic(batch["points"]))

        def generator_loss():
            return -ops.mean(critic(generator(batch["noise"])))

        return (
            minimize(optimizers[1], critic_loss, critic.trainable_variables),
            minimize(optimizers[0], generator_loss, generator.trainable_variables),
        )

    points, noise = normal(16, 1), normal(16, 1, seed=1)
    losses = step({"points": points, "noise": noise, "nothing": None})
    new_critic = 2.0 - 0.1 * (0.5 * noise.mean() - points.mean())
    np.testing.assert_allclose(numbers(critic.weights[0].value), [[new_critic]], rtol=1e-5)
    # The critic's gradient has not moved the generator, and the generator met the new critic.
    np.testing.assert_allclose(
        numbers(generator.weights[0].value), [[0.5 + 0.1 * new_critic * noise.mean()]], rtol=1e-5
    )
    np.testing.assert_allclose(float(losses[0]), 2.0 * (0.5 * noise.mean() - points.mean()), rtol=1e-4)
    np.testing.assert_allclose(float(losses[1]), -new_critic * 0.5 * noise.mean(), rtol=1e-4)


def test_moving_averages_and_auxiliary_results():
    model = keras.Sequential([keras.Input((3,)), layers.BatchNormalization(momentum=0.9), layers.Dense(1)])
    normalization = model.layers[0]

    @compiled_step
    def step(real, fake):
        def loss():
            outputs = model(real, training=True), model(fake, training=True)
            return ops.mean(outputs[0]) - ops.mean(outputs[1]), {"outputs": outputs}

        return value_and_grad(loss, model.trainable_variables, has_aux=True)

    real, fake = normal(8, 3), normal(8, 3, seed=1) + 5
    (loss, aux), gradients = step(real, fake)
    means = [numbers(output).mean() for output in aux["outputs"]]
    np.testing.assert_allclose(float(loss), means[0] - means[1], atol=1e-5)
    assert len(gradients) == 4
    mean = 0.9 * (0.1 * real.mean(axis=0)) + 0.1 * fake.mean(axis=0)
    np.testing.assert_allclose(numbers(normalization.moving_mean.value), mean, rtol=1e-4, atol=1e-6)
    variance = 0.9 * (0.9 + 0.1 * real.var(axis=0)) + 0.1 * fake.var(axis=0)
    np.testing.assert_allclose(numbers(normalization.moving_variance.value), variance, rtol=1e-4)


def test_seed_generators_advance():
    seed = keras.random.SeedGenerator(7)

    @compiled_step
    def step():
        return keras.random.uniform((8,), seed=seed), keras.random.uniform((8,), seed=seed)

    start = numbers(seed.state.value)
    first, second = [numbers(x) for x in step()], [numbers(x) for x in step()]
    assert len({float(x[0]) for x in first + second}) == 4
    seed.state.assign(start)
    for x, again in zip(first, step(), strict=True):
        np.testing.assert_array_equal(numbers(again), x)


def test_gradient_of_a_gradient_by_inputs():
    """The penalty (‖w‖ − 1)² on the slope of w · x, whose gradient is 2 (1 − 1 / ‖w‖) w."""
    critic, weights = linear([3.0, 0.0, -4.0]), np.array([3.0, 0.0, -4.0])

    @compiled_step
    def step(points):
        def penalty():
            _, (slopes,) = value_and_grad(lambda x: ops.sum(critic(x)), [points])
            return ops.mean((ops.norm(slopes, axis=-1) - 1) ** 2)

        return value_and_grad(penalty, critic.trainable_variables)

    for run in (step, step.__wrapped__):
        penalty, (gradient,) = run(ops.convert_to_tensor(normal(5, 3)))
        np.testing.assert_allclose(float(penalty), 16, rtol=1e-5)
        np.testing.assert_allclose(numbers(gradient)[:, 0], 2 * (1 - 1 / 5) * weights, rtol=1e-5)


def test_gradients_of_embeddings_are_tensors():
    table = layers.Embedding(3, 2)
    table.build(None)
    unused = keras.Variable(1.0)
    step = compiled_step(lambda x: value_and_grad(lambda: ops.sum(table(x)), [*table.weights, unused])[1][0] * 2)
    np.testing.assert_array_equal(numbers(step(np.array([[0, 2, 2]]))), [[2, 2], [0, 0], [4, 4]])


def test_gradient_through_a_step_of_gradient_descent():
    """As in MAML: w' = w − r a w², of the loss a w³ / 3; by w, w'² / 2 has the gradient w' (1 − 2 r a w)."""
    model, rate, a = linear([0.8]), 0.3, 2.0
    normalization = layers.BatchNormalization()
    normalization.build((None, 1))

    @compiled_step
    def step(support, query):
        def loss_after_a_step():
            weights = model.trainable_variables
            _, gradients = value_and_grad(lambda: ops.sum(a * model(support) ** 3 / 3), weights)
            with substituted(weights, [w - rate * g for w, g in zip(weights, gradients, strict=True)]):
                normalization(query, training=True)
                return ops.sum(model(query) ** 2 / 2)

        return value_and_grad(loss_after_a_step, model.trainable_variables)

    one, w = np.ones((1, 1)), 0.8
    loss, (gradient,) = step(one, one)
    adapted = w - rate * a * w**2
    np.testing.assert_allclose(float(loss), adapted**2 / 2, rtol=1e-5)
    np.testing.assert_allclose(numbers(gradient), [[adapted * (1 - 2 * rate * a * w)]], rtol=1e-5)
    np.testing.assert_allclose(numbers(model.weights[0].value), [[0.8]])
    np.testing.assert_allclose(numbers(normalization.moving_mean.value), [0.01], rtol=1e-5)  # assigned inside, and kept


@pytest.mark.parametrize("way", ["own code", "by the optimizer"])
def test_accumulated_gradients_are_those_of_the_large_batch(way):
    x, models = normal(32, 4), [linear([1.0, 2.0, 3.0, 4.0]) for _ in range(2)]
    every = None if way == "own code" else 4
    optimizers = [
        built(keras.optimizers.SGD(0.1, momentum=0.9, gradient_accumulation_steps=steps), model)
        for steps, model in zip([None, every], models, strict=True)
    ]

    def loss(model, x):
        return ops.mean(model(x) ** 2)

    def descend(optimizer, model):
        return compiled_step(lambda x: minimize(optimizer, lambda: loss(model, x), model.trainable_variables))

    large = descend(optimizers[0], models[0])
    if way == "own code":

        @compiled_step
        def small(parts):
            variables = models[1].trainable_variables
            each = [value_and_grad(lambda part=part: loss(models[1], part), variables)[1] for part in parts]
            apply_gradients(optimizers[1], [sum(gradients) / 4 for gradients in zip(*each, strict=True)], variables)

    else:
        one = descend(optimizers[1], models[1])

        def small(parts):
            for part in parts:
                one(part)

    for _ in range(2):
        large(x)
        small(np.split(x, 4))
    assert np.abs(models[0].get_weights()[0][:, 0] - [1, 2, 3, 4]).max() > 0.1
    np.testing.assert_allclose(models[1].get_weights()[0], models[0].get_weights()[0], rtol=1e-5, atol=1e-6)


def test_loss_scaling_leaves_out_a_step_that_overflows():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = linear([1.0, 1.0])
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = built(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5), initial_scale=1024.0), model)

    @compiled_step
    def step(x):
        def loss():
            return ops.mean(ops.cast(model(x, training=True), "float32"))

        return minimize(optimizer, loss, model.trainable_variables)

    # The gradient by a weight is the mean of x; times 1024, 100 is more than float16 can hold, and times 512 not.
    for x, weight, scale, steps in [(100, 1, 512, 0), (100, 1 - 50, 512, 1), (1, 1 - 50.5, 512, 2)]:
        loss = step(np.full((4, 2), x, "float32"))
        np.testing.assert_allclose(numbers(model.weights[0].value), [[weight]] * 2, rtol=1e-3)
        assert float(optimizer.dynamic_scale.value) == scale
        assert int(optimizer.iterations) == steps
        assert np.isfinite(float(loss))


def test_compiled_once_for_each_shape():
    model, traces = linear([1.0, 2.0]), []
    optimizer, total = built(keras.optimizers.Adam(0.1), model), keras.metrics.Sum()

    @compiled_step
    def step(x):
        traces.append(x.shape)
        total.update_state(minimize(optimizer, lambda: ops.mean(model(x)), model.trainable_variables))
        return total.result()

    def run(rows):
        before = len(traces)
        step(normal(rows, 2))
        return len(traces) - before

    counts = [run(rows) for rows in (4, 4, 4, 6, 6, 4)]
    total.reset_state()  # what is assigned from outside is no reason to compile anew
    counts.append(run(6))
    # On JAX the first call runs the function once more, to find its variables; PyTorch records it in the second call.
    first, second = {"jax": (2, 0), "tensorflow": (1, 0), "torch": (1, 1)}[keras.config.backend()]
    assert counts == [first, second, 0, 1, second, 0, 0]
    assert all(tuple(shape) in {(4, 2), (6, 2)} for shape in traces)
    assert step.__name__ == "step"


@pytest.mark.parametrize("mixed", all_but_one_slow([False, True], False))
def test_a_compiled_step_gives_what_the_function_gives_as_it_is(mixed):
    def trained(jit_compile):
        keras.utils.set_random_seed(0)
        policy = "mixed_bfloat16" if mixed else "float32"
        model = keras.Sequential(
            [
                keras.Input((6, 6, 2)),
                Convolution(8, 3, strides=2, dtype=policy),
                BatchNormalization(dtype=policy),
                layers.Activation("relu", dtype=policy),
                layers.Flatten(),
                layers.Dense(1, kernel_regularizer="l2"),
            ]
        )
        follower = keras.models.clone_model(model)
        optimizer = built(grouped_updates(keras.optimizers.AdamW(WarmupCosine(0.01, 5, 0.4), clipnorm=1.0)), model)
        mean = keras.metrics.Mean()

        def function(x):
            def loss():
                _, (slopes,) = value_and_grad(lambda x: ops.sum(model(x, training=False)), [x])
                return ops.mean(model(x, training=True) ** 2) + ops.mean(slopes**2) + sum(model.losses)

            mean.update_state(minimize(optimizer, loss, model.trainable_variables))
            update_averages(follower.weights, model.weights, 0.9)
            return {"mean": mean.result(), "steps": optimizer.iterations, "nothing": None}

        step = compiled_step(function, jit_compile)
        results = [step(normal(rows, 6, 6, 2, seed=rows)) for rows in (8, 8, 8, 4, 8, 4, 4, 8)]
        variables = (*model.variables, *follower.variables, *optimizer.variables, *mean.variables)
        numbers_of = [float(each[name]) for each in results for name in ("mean", "steps")]
        return [np.array(numbers_of), *(numbers(each.value) for each in variables)]

    for compiled, plain in zip(trained(None), trained(False), strict=True):
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="only PyTorch can run such a step")
@pytest.mark.parametrize(
    "read",
    [float, lambda x: x.tolist(), np.asarray, ops.convert_to_numpy],
    ids=["float", "tolist", "asarray", "convert_to_numpy"],
)
def test_a_step_whose_course_depends_on_values_changes_nothing_twice(read):
    count, total = keras.Variable(0.0), keras.Variable(1.0)

    @compiled_step
    def step(x):
        count.assign(count + 1)
        total.assign(total * 2 if read(x) > 0 else total)
        return total.value

    assert [float(step(np.array(x))) for x in (1.0, 1.0, -1.0, 1.0)] == [2, 4, 4, 8]
    assert float(numbers(count.value)) == 4


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the others keep the state of Dropout in a variable")
@pytest.mark.parametrize("seeds", [[3, 4, 5, 6], [3, None, None, None]], ids=["each step", "the first"])
def test_recording_draws_no_random_numbers(seeds):
    def trained(jit_compile):
        model = keras.Sequential([layers.Dropout(0.5)])
        model.build((4, 8))
        step = compiled_step(lambda x: model(x, training=True), jit_compile)
        outputs = []
        for batch, seed in enumerate(seeds):
            if seed is not None:
                seed_step(np.random.default_rng([seed, batch]))
            outputs.append(numbers(step(np.ones((4, 8)))))
        return outputs

    recorded, plain = trained(None), trained(False)
    np.testing.assert_array_equal(recorded, plain)
    assert all((recorded[0] != each).any() for each in recorded[1:])


@pytest.mark.parametrize("given", ["the variable", "its value", "in a structure"])
def test_the_value_of_a_variable_may_be_an_argument(given):
    variable, untouched = keras.Variable([1.0, 2.0]), keras.Variable([5.0])

    @compiled_step
    def step(inputs):
        variable.assign(2 * variable)
        return ops.sum(inputs["x"][0]), inputs["x"][0], untouched

    def argument():
        value = variable if given == "the variable" else variable.value
        return {"x": [value, None, value if given == "in a structure" else None]}

    results = [step(argument()) for _ in range(4)]
    untouched.assign([6.0])
    # The values at the time of each call, whatever came after it.
    assert [float(total) for total, *_ in results] == [3, 6, 12, 24]
    for index, (_, values, other) in enumerate(results):
        np.testing.assert_array_equal(numbers(values), np.array([1.0, 2.0]) * 2**index)
        np.testing.assert_array_equal(numbers(other), [5])
    np.testing.assert_array_equal(numbers(variable.value), [16, 32])


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the others compile what the function did at first")
def test_a_step_can_use_a_variable_that_it_did_not_use_at_first():
    variables = [keras.Variable(1.0), keras.Variable(2.0)]
    used = iter((0, 1, 1, 1, 1))
    step = compiled_step(lambda x: x + variables[next(used)])
    assert [float(step(np.array(1.0))) for _ in range(3)] == [2, 3, 3]
    variables[1].assign(5.0)
    assert float(step(np.array(1.0))) == 6


def test_shared_memory_does_no_harm(tmp_path):
    model, follower = classifier(), classifier()
    optimizer = built(keras.optimizers.Adam(0.01, use_ema=True), model)
    total, counter = keras.metrics.Sum(), keras.Variable(0.0, trainable=False)

    @compiled_step
    def step(x):
        minimize(optimizer, lambda: ops.mean(model(x, training=True) ** 2), model.trainable_variables)
        update_averages(follower.weights, model.weights, decay=0.5)
        total.update_state(1.0)
        counter.assign(counter + 1)
        return total.result(), counter, counter.value

    x = normal(8, 4)
    results = [step(x)]
    optimizer.finalize_variable_values(model.trainable_variables)  # on JAX, weights are now the averages' arrays
    for variable, other in zip(follower.weights, model.weights, strict=True):
        variable.assign(other.value)
    results.append(step(x))
    before = model.predict(x, verbose=0)
    results.append(step(x))
    assert np.abs(model.predict(x, verbose=0) - before).max() > 0
    assert [[float(number) for number in numbers] for numbers in results] == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    expected = model.predict(x, verbose=0)
    save_model(model, tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), expected, rtol=1e-5)
    assert [numbers(variable.value).shape for variable in optimizer.variables]  # none was deleted
    step(x)
    assert float(counter.value) == 4


def test_averages_follow():
    averages, variables = [keras.Variable([1.0, 2.0])], [keras.Variable([3.0, 6.0])]
    step = compiled_step(lambda decay: update_averages(averages, variables, decay))
    for decay, expected in [(0.75, [1.5, 3.0]), (0.0, [3.0, 6.0])]:
        step(decay)
        np.testing.assert_allclose(numbers(averages[0].value), expected)


def test_a_step_may_use_other_variables_for_other_shapes():
    a, b, c = (keras.Variable(value) for value in (1.0, 2.0, 3.0))

    @compiled_step
    def step(x):
        if x.shape[0] == 1:
            a.assign(a + b)
        else:
            b.assign(b + c)
        return a + b

    assert [float(step(np.zeros(rows))) for rows in (1, 2, 1, 2)] == [5, 8, 13, 16]
    c.assign(10.0)
    assert float(step(np.zeros(2))) == 26
    assert [float(numbers(x.value)) for x in (a, b, c)] == [8, 18, 10]


@pytest.mark.skipif(keras.config.backend() == "torch", reason="PyTorch runs it as it is")
def test_a_step_makes_no_variables():
    step = compiled_step(lambda x: ops.sum(layers.Dense(1)(x)))
    with pytest.raises((UsageError, ValueError), match=r"new variables|singleton"):
        step(np.ones((2, 3)))


def test_a_step_may_change_nothing():
    model = linear([1.0, 2.0])
    step = compiled_step(lambda x: ops.sum(model(x)))
    assert float(step(np.ones((1, 2)))) == 3
    model.set_weights([np.array([[2.0], [2.0]])])
    assert float(step(np.ones((1, 2)))) == 4


def test_an_unbuilt_state_is_refused():
    model, optimizer = keras.Sequential([layers.Dense(1)]), keras.optimizers.Adam()
    step = compiled_step(lambda x: minimize(optimizer, lambda: ops.sum(model(x)), model.trainable_variables))
    with pytest.raises(UsageError, match="build the model first"):
        step(np.ones((2, 3)))
    model.build((None, 3))
    with pytest.raises(UsageError, match=r"adam.* is not built: call optimizer\.build\(model\.trainable_variables\)"):
        step(np.ones((2, 3)))
    optimizer.build(model.trainable_variables)
    step(np.ones((2, 3)))
    with pytest.raises(ValueError, match="must be a scalar"):
        value_and_grad(lambda: model(ops.ones((2, 3))), model.trainable_variables)


@dataclass(kw_only=True)
class Config(Options):
    epochs: int = 2
    batch_size: int = 8
    learning_rate: float = 0.01


class Points(SeededBatches):
    """Points on a line, and noise; `bad` names the epoch and the batch with a point that is not a number."""

    batch_size = 8
    batches_per_epoch = 5
    bad = None

    def make_batch(self, index, rng):
        points = rng.normal(size=(8, 1)) * np.array([[1.0, 2.0, 3.0]])
        if (self.epoch, index) == self.bad:
            points[0, 0] = np.nan
        return points, rng.normal(size=(8, 4))


def adversaries(config):
    """A step that uses all that a checkpoint must hold, and its state."""
    generator = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.BatchNormalization(), layers.ReLU(), layers.Dense(3)]
    )
    critic = keras.Sequential([keras.Input((3,)), layers.Dense(8, "tanh"), layers.Dropout(0.5), layers.Dense(1)])
    average = keras.models.clone_model(generator)
    average.set_weights(generator.get_weights())
    generator_optimizer = built(keras.optimizers.Adam(config.learning_rate), generator)
    critic_optimizer = built(keras.optimizers.SGD(config.learning_rate, momentum=0.9, use_ema=True), critic)
    critic_mean, generator_mean = keras.metrics.Mean(), keras.metrics.Mean()
    seed = keras.random.SeedGenerator(config.seed)

    @compiled_step
    def step(points, noise):
        def critic_loss():
            noisy = points + 0.1 * keras.random.normal(points.shape, seed=seed)
            real, fake = critic(noisy, training=True), critic(generator(noise, training=True), training=True)
            return ops.mean(ops.softplus(-real) + ops.softplus(fake))

        def generator_loss():
            return ops.mean(ops.softplus(-critic(generator(noise, training=True), training=True)))

        critic_mean.update_state(minimize(critic_optimizer, critic_loss, critic.trainable_variables))
        generator_mean.update_state(minimize(generator_optimizer, generator_loss, generator.trainable_variables))
        update_averages(average.weights, generator.weights, decay=0.9)
        return {"generator_loss": generator_mean.result(), "critic_loss": critic_mean.result()}

    return step, {
        "generator": generator,
        "critic": critic,
        "average": average,
        "generator_optimizer": generator_optimizer,
        "critic_optimizer": critic_optimizer,
        "critic_loss": critic_mean,
        "generator_loss": generator_mean,
        "seed": seed,
    }


def regression(config):
    """A step that PyTorch records, with a Dropout that draws from PyTorch's own random numbers there, and its state."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "tanh"), layers.Dropout(0.5), layers.Dense(3)])
    optimizer = built(keras.optimizers.Adam(config.learning_rate), model)

    @compiled_step
    def step(points, noise):
        def loss():
            return ops.mean(ops.square(points - model(noise, training=True)))

        return {"loss": minimize(optimizer, loss, model.trainable_variables)}

    return step, {"model": model, "optimizer": optimizer}


def train(config, number=None, event=None, bad=None, build=adversaries):
    """Trains as a recipe does; the event comes with step `number`."""
    run = Run(config, build.__name__)
    step, state = build(config)
    batches, calls = Points(config.seed), itertools.count(1)
    batches.bad = bad

    def counted(*batch):
        if next(calls) == number:
            event()
        return step(*batch)

    run.train(counted, batches, state, "points", after_epoch=lambda epoch: {"spread": epoch / 2})
    return run, state


def assert_same_bits(one, other):
    for name in one:
        parts = [[part[name].state] if name == "seed" else part[name].variables for part in (one, other)]
        for a, b in zip(*parts, strict=True):
            np.testing.assert_array_equal(numbers(a.value), numbers(b.value), err_msg=name)


def newest(run):
    return max(path.name for path in (run / "checkpoint").glob("*.npz"))


KILLED = """
import os, signal, sys
from test_custom_step import Config, train
config = Config(out=sys.argv[1], checkpoint_seconds=0)
train(config, number=8, event=lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.in_turn
def test_stopped_or_killed_and_resumed_ends_with_the_same_bits(tmp_path, run_python):
    whole, expected = train(Config(out=tmp_path / "whole"))
    rows = list(csv.DictReader((tmp_path / "whole/history.csv").open()))
    assert [list(row) for row in rows] == [["epoch", "critic_loss", "generator_loss", "spread"]] * 2
    assert [row["spread"] for row in rows] == ["0.5", "1.0"]

    with pytest.raises(Interrupted, match="--resume"):
        train(Config(out=tmp_path / "stopped"), number=3, event=lambda: signal.raise_signal(signal.SIGTERM))
    paths = os.pathsep.join(map(str, (PROJECT, PROJECT / "tests", Path(__file__).parent)))
    assert run_python("-c", KILLED, tmp_path / "killed", PYTHONPATH=paths).returncode == -signal.SIGKILL
    assert newest(tmp_path / "killed") == "step-000000007.npz"
    for name in ("stopped", "killed"):
        random.seed(99)
        run, state = train(Config(out=tmp_path / name, resume=True))
        assert_same_bits(state, expected)
        assert run.history == whole.history
        assert (tmp_path / name / "history.csv").read_text() == (tmp_path / "whole/history.csv").read_text()
    _, state = train(Config(out=tmp_path / "whole", resume=True))
    assert_same_bits(state, expected)


def test_resumed_after_any_step_dropout_draws_the_same(tmp_path):
    _, expected = train(Config(out=tmp_path / "whole"), build=regression)
    for number in (1, 2, 6):
        out = tmp_path / str(number)
        with pytest.raises(Interrupted):
            train(Config(out=out), number, lambda: signal.raise_signal(signal.SIGTERM), build=regression)
        _, state = train(Config(out=out, resume=True), build=regression)
        assert_same_bits(state, expected)


@pytest.mark.parametrize("seconds", [0, 60])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path, seconds):
    good = "step-000000007.npz" if seconds == 0 else "step-000000005.npz"
    with pytest.raises(UsageError, match=rf"critic_loss is nan after step 3 of epoch 2; .* {tmp_path}.*{good}: try a "):
        train(Config(out=tmp_path, checkpoint_seconds=seconds), bad=(1, 2))
    assert newest(tmp_path) == good


@pytest.mark.parametrize("index", [0, 2, 4])
def test_a_loss_of_fit_that_is_no_number_ends_the_run(tmp_path, index):
    batches, model = Points(0), keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    batches.bad = (0, index)
    model.compile("sgd", "mse")
    with pytest.raises(UsageError, match=f"loss is nan after step {index + 1} of epoch 1; there is no checkpoint yet"):
        Run(Config(out=tmp_path), "points").fit(model, batches, "points")


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    weight = keras.Variable([1.0, 2.0], name="scale")

    @compiled_step
    def step(points, noise):
        weight.assign(weight / 0)
        return {"loss": ops.mean(points)}

    with pytest.raises(UsageError, match="the weight scale is not finite after step 5 of epoch 1"):
        Run(Config(out=tmp_path), "points").train(step, Points(0), {"weight": weight}, "points")
    assert [path.name for path in (tmp_path / "checkpoint").iterdir()] == [".lock"]


@pytest.mark.parametrize("name", ["one", "several"])
def test_initial_weights(tmp_path, name):
    models = {"first": linear([1.0, 2.0]), "second": layers.Dense(2)}
    models["second"].build((None, 3))
    state = dict(list(models.items())[: 1 if name == "one" else 2])
    expected = [numbers(x.value) for model in state.values() for x in model.weights]
    models_together(state).save_weights(tmp_path / "start.weights.h5")
    for model in state.values():
        model.set_weights([x + 1 for x in model.get_weights()])
    step = compiled_step(lambda *batch: {"loss": ops.sum(models["first"].weights[0])})
    config = Config(out=tmp_path / "run", epochs=1, initial_weights=tmp_path / "start.weights.h5")
    Run(config, "points").train(step, Points(0), state, "points")
    for x, y in zip((x for model in state.values() for x in model.weights), expected, strict=True):
        np.testing.assert_array_equal(numbers(x.value), y)


def test_the_state_must_be_built(tmp_path):
    run, model = Run(Config(out=tmp_path), "points"), linear([1.0])
    for part, message in [
        (keras.Sequential([layers.Dense(1)]), "thing is not built: call it once"),
        (keras.optimizers.Adam(), r"thing is not built: call thing\.build\(model\.trainable_variables\)"),
        (model.weights, "thing is not a model"),
    ]:
        with pytest.raises(UsageError, match=message):
            run.train(print, Points(0), {"model": model, "thing": part}, "points")


def test_the_progress_bar_shows_the_losses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    run, _ = train(Config(out=tmp_path))
    printed = capsys.readouterr().out
    assert "Epoch 2/2" in printed
    assert "5/5" in printed
    for name in ("critic_loss", "generator_loss", "spread"):
        assert f"{name}: {run.history[-1][name]:.4f}" in printed


@pytest.mark.in_turn
def test_the_benchmark_trains_by_every_way():
    benchmark = runpy.run_path(str(PROJECT / "benchmarks/custom_step.py"))
    ways = {"compiled_step", "train_on_batch", *(["plain JAX"] if keras.config.backend() == "jax" else [])}
    found = benchmark["milliseconds"](rounds=1, steps=1)
    assert set(found) == ways and min(found.values()) > 0
    x, y = normal(64, 64), np.eye(10, dtype="float32")[np.arange(64) % 10]
    for name in ("of_keras", "of_ours", *(["of_plain_jax"] if "plain JAX" in ways else [])):
        step = benchmark[name]()
        losses = [float(step(x, y)) for _ in range(30)]
        assert losses[-1] < 0.8 * losses[0], name
