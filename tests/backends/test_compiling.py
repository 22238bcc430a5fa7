"""Compiled inference: the same numbers as without, and always those of the present weights."""

import importlib

import keras
import numpy as np
import pytest

from shared.backends.compiling import compiled_inference


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "tanh"), keras.layers.Dropout(0.9)])


def steps(model, traces=None):
    """A function that applies the model several times, in a loop that the backend runs."""

    def function(state, count):
        if traces is not None:
            traces.append(state["x"].shape)

        def body(step, x):
            return step + 1, model(x, training=False)

        _, x = keras.ops.while_loop(lambda step, x: step < count, body, (0, state["x"]))
        return {"x": x, "nothing": state["nothing"]}

    return function


def test_the_numbers_are_those_of_the_plain_function(model):
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    kernel, bias = model.get_weights()
    expected = x
    for _ in range(4):
        expected = np.tanh(expected @ kernel + bias)
    outputs = compiled_inference(steps(model), [model])({"x": x, "nothing": None}, 4)
    assert outputs["nothing"] is None
    np.testing.assert_allclose(keras.ops.convert_to_numpy(outputs["x"]), expected, rtol=1e-5, atol=1e-6)


def test_weights_are_those_at_the_call_and_nothing_is_compiled_twice(model):
    traces = []
    function = compiled_inference(steps(model, traces), [model, model.layers[0]])
    inputs = {"x": np.ones((2, 3), "float32"), "nothing": None}
    before = keras.ops.convert_to_numpy(function(inputs, 1)["x"])
    model.set_weights([2 * weight + 1 for weight in model.get_weights()])
    after = keras.ops.convert_to_numpy(function(inputs, 2)["x"])
    expected = np.ones((2, 3), "float32")
    for _ in range(2):
        expected = np.tanh(expected @ model.get_weights()[0] + model.get_weights()[1])
    np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(after - before).max() > 1e-3
    # On PyTorch a loop over values is not recorded: it ran, was tried, and ran as it is.
    assert len(traces) == (3 if keras.config.backend() == "torch" else 1)


@pytest.mark.parametrize("module", ["shared.backends.compiling", "shared.tools.plain.backends.compiling"])
def test_a_compiled_loop_does_what_the_steps_do(model, module):
    traces = []

    def step(index, state, factor, nothing):
        traces.append(nothing)
        x, total = state
        x = factor * model(x, training=False)
        return x, total + keras.ops.cast(index, "float32") * x

    loop = importlib.import_module(module).compiled_loop(step, [model])
    start, counts = np.random.default_rng(0).normal(size=(2, 3)).astype("float32"), []
    for first, last in ((2, 6), (0, 2), (3, 3)):
        found = loop(first, last, (start, np.zeros_like(start)), np.float32(2), None)
        x, total = start, 0
        for index in range(first, last):
            x = 2 * np.tanh(x @ model.get_weights()[0] + model.get_weights()[1])
            total = total + index * x
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found[0]), x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found[1]), total, rtol=1e-5, atol=1e-6)
        counts.append(len(traces))
    if module.startswith("shared.backends"):
        assert counts[0] == counts[2] <= 2, "it is compiled once; PyTorch runs it first, then records it"


def test_no_gradients_are_kept(model):
    x = compiled_inference(steps(model), [model])({"x": np.ones((2, 3), "float32"), "nothing": None}, 1)["x"]
    assert not getattr(x, "requires_grad", False)


def test_outputs_stay_when_variables_change(model):
    kernel, bias = model.layers[0].weights
    function = compiled_inference(lambda x, y: (kernel.value, x, y), [model])
    before = keras.ops.convert_to_numpy(kernel.value).copy()
    outputs = function(kernel, bias.value)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    for output, expected in zip(outputs, [before, before, np.zeros(3)], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(output), expected)


def test_a_function_that_is_repeated_gives_what_the_plain_one_does(model):
    """Also when it is recorded, which PyTorch does at the second call, and after the weights have changed."""
    calls = []

    def advance(x, nothing, index):
        calls.append(None)
        return model(x, training=False) + keras.ops.cast(index, "float32"), {"nothing": nothing, "index": index + 1}

    function = compiled_inference(advance, [model])
    x = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    for index in range(5):
        model.set_weights([weight + 0.1 for weight in model.get_weights()])
        kernel, bias = model.get_weights()
        found, others = function(x, None, np.int32(index))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), np.tanh(x @ kernel + bias) + index, atol=1e-6)
        assert others["nothing"] is None and int(others["index"]) == index + 1
    assert len(calls) == (2 if keras.config.backend() == "torch" else 1)
    assert function(x[:1], None, np.int32(0))[0].shape == (1, 3)


@pytest.mark.skipif(keras.config.backend() != "torch", reason="the others refuse such functions by themselves")
def test_what_depends_on_values_or_chance_is_not_frozen():
    seeds = keras.random.SeedGenerator(0)
    branch = compiled_inference(lambda x: x + 1 if keras.ops.sum(x) > 0 else x - 1)
    host = compiled_inference(lambda x: keras.ops.convert_to_tensor(keras.ops.convert_to_numpy(x) * 2))
    noise = compiled_inference(lambda x: x + keras.random.normal((2,), seed=seeds))
    values = [np.full(2, value, "float32") for value in (1, 2, -3, 4)]
    for x in values:
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(branch(x)), x + np.sign(x))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(host(x)), x * 2)
    assert len({tuple(keras.ops.convert_to_numpy(noise(x) - x).round(4).tolist()) for x in values}) == 4
