"""Foundations: activation functions and their derivatives, the perceptron, features, the loss surface."""

import math
import typing

import keras
import numpy as np
import pytest
from conftest import normal, numbers
from keras import ops

from shared.backends.gradients import value_and_grad
from shared.data.images.datasets import LabelledImages
from shared.foundations.activations import ACTIVATIONS, ActivationName
from shared.foundations.checks import gradient_error
from shared.foundations.features import brightness_and_width, points_of_pair
from shared.foundations.perceptron import train_perceptron
from shared.foundations.plots import line_ends, plot_perceptron, plot_surface
from shared.foundations.surface import loss_surface, random_direction

POINTS = np.concatenate([np.linspace(-8, 8, 160), [-100, -1e-3, 1e-3, 100]]).astype("float32")


def logistic(z):
    return 1 / (1 + math.exp(-z)) if z > -700 else 0.0


CLOSED_FORMS = {
    "relu": (lambda z: max(z, 0), lambda z: float(z > 0)),
    "leaky_relu": (lambda z: max(z, 0.2 * z), lambda z: 1.0 if z > 0 else 0.2),
    "sigmoid": (logistic, lambda z: math.exp(-abs(z)) / (1 + math.exp(-abs(z))) ** 2),
    "tanh": (math.tanh, lambda z: 1 / math.cosh(z) ** 2),
    "gelu": (
        lambda z: z * 0.5 * math.erfc(-z / math.sqrt(2)),
        lambda z: 0.5 * math.erfc(-z / math.sqrt(2)) + z * math.exp(-z * z / 2) / math.sqrt(2 * math.pi),
    ),
    "swish": (lambda z: z * logistic(z), lambda z: logistic(z) + z * logistic(z) * logistic(-z)),
}


def test_all_activations_have_an_option():
    assert set(typing.get_args(ActivationName)) == set(ACTIVATIONS) == set(CLOSED_FORMS)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_activations_and_derivatives_are_those_of_closed_forms_and_of_keras(name):
    value, derivative = CLOSED_FORMS[name]
    z = ops.convert_to_tensor(POINTS)
    found = numbers(ACTIVATIONS[name].value(z))
    np.testing.assert_allclose(found, [value(float(p)) for p in POINTS], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(found, numbers(keras.activations.get(name)(z)), rtol=1e-5, atol=2e-6)
    slopes = numbers(ACTIVATIONS[name].derivative(z))
    np.testing.assert_allclose(slopes, [derivative(float(p)) for p in POINTS], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_derivatives_are_those_of_automatic_differentiation(name):
    points = np.append(POINTS, np.float32(0))  # at 0, too
    _, (slopes,) = value_and_grad(lambda z: ops.sum(ACTIVATIONS[name].value(z)), [ops.convert_to_tensor(points)])
    found = numbers(ACTIVATIONS[name].derivative(ops.convert_to_tensor(points)))
    np.testing.assert_allclose(found, numbers(slopes), rtol=1e-5, atol=2e-6)


def test_gradient_error_finds_a_wrong_gradient():
    w, b = keras.Variable(normal(4, 3)), keras.Variable(normal(3, seed=1))
    x, y = normal(5, 4, seed=2), normal(5, 3, seed=3)

    def loss(x, y):
        return ops.sum(ops.square(ops.add(ops.matmul(x, w), b) - y)) / 2

    def gradients(factor):
        def computed(x, y):
            delta = ops.add(ops.matmul(x, w), b) - y
            return [(ops.matmul(ops.transpose(x), delta), factor * ops.sum(delta, axis=0))], None

        return computed

    assert gradient_error(loss, gradients(1.0), [(w, b)], (x, y)) < 1e-6
    assert np.isnan(gradient_error(loss, gradients(np.nan), [(w, b)], (x, y)))
    assert gradient_error(loss, gradients(1.001), [(w, b)], (x, y)) == pytest.approx(1e-3, rel=0.01)


def two_clouds(distance):
    rng = np.random.default_rng(0)
    t = np.where(np.arange(200) % 2, 1, -1)
    return rng.normal(size=(200, 2)) * (1, 10) + t[:, None] * (distance, 0) + (5, 100), t


@pytest.mark.once
def test_the_perceptron_separates_what_a_line_separates_and_stops():
    x, t = two_clouds(distance=6)
    found = train_perceptron(x, t, epochs=100)
    assert found.mistakes[0] > 0 and found.mistakes[-1] == 0 and len(found.mistakes) < 100
    assert found.accuracy(x, t) == 1
    w, b = found.lines[found.best]
    assert abs(w[0]) > 10 * abs(w[1])
    assert -(b + w[1] * 100) / w[0] == pytest.approx(5, abs=2)


@pytest.mark.once
def test_the_perceptron_is_that_of_rosenblatt():
    """By hand, on points of mean 0 and deviation 1: each correction adds the example times its target."""
    x, t = np.array([[-1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]), np.array([1, -1, -1, -1])
    found = train_perceptron(x, t, epochs=20)
    w, b = np.zeros(2), 0
    for x_i, t_i in zip(x, t, strict=True):
        if t_i * (x_i @ w + b) <= 0:
            w, b = w + t_i * x_i, b + t_i
    np.testing.assert_allclose(found.lines[0][0], w, rtol=1e-6)
    assert found.lines[0][1] == pytest.approx(b)
    assert found.accuracy(x, t) == 1


@pytest.mark.once
def test_the_best_line_is_kept_where_no_line_separates():
    x, t = two_clouds(distance=0.7)
    found = train_perceptron(x, t, epochs=10)
    assert len(found.mistakes) == 10 and min(found.mistakes) > 0
    assert found.accuracy(x, t) == max(found.accuracies) > min(found.accuracies)
    figure = plot_perceptron(found, x, t, ("a", "b"), ("u", "v"))
    assert len(figure.axes[0].lines) == 2 + 10 + 1


@pytest.mark.once
def test_decision_lines_are_drawn_where_they_are():
    limits = [(-1, 3), (0, 2)]
    for w, b in ((np.array([1.0, 2.0]), -1.0), (np.array([2.0, 0.0]), -3.0), (np.array([0.0, 1.0]), -1.0)):
        xs, ys = line_ends(w, b, limits)
        np.testing.assert_allclose(w[0] * np.array(xs) + w[1] * np.array(ys) + b, 0, atol=1e-9)
        assert xs[0] != xs[1] or ys[0] != ys[1]


@pytest.mark.once
def test_brightness_and_width():
    images = np.zeros((3, 10, 20, 1), np.uint8)
    images[0, :, 4:6], images[1, :, :2], images[1, :, 18:] = 255, 255, 255
    found = brightness_and_width(images)
    np.testing.assert_allclose(found[:, 0], [0.1, 0.2, 0])
    np.testing.assert_allclose(found[:, 1], [0.025, np.sqrt(0.45**2 + 0.025**2), 0], atol=1e-9)
    points, t = points_of_pair(LabelledImages(images, np.array([2, 0, 1])), [2, 1])
    np.testing.assert_array_equal(t, [-1, 1])
    np.testing.assert_allclose(points, found[[0, 2]])


def test_the_loss_surface_is_that_of_moved_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.set_weights([normal(4, 3), normal(3, seed=1)])
    x = normal(6, 4, seed=2)

    def loss(x):
        return ops.mean(ops.square(model(x)))

    found = loss_surface(loss, (x,), model, seed=5, steps=3, reach=0.5)
    rng = np.random.default_rng(5)
    W, b = model.get_weights()
    d, e = (numbers(random_direction(model.trainable_variables[0], rng)) for _ in range(2))
    for direction in (d, e):
        np.testing.assert_allclose(np.linalg.norm(direction, axis=0), np.linalg.norm(W, axis=0), rtol=1e-5)
    for row, beta in enumerate((-0.5, 0, 0.5)):
        for column, alpha in enumerate((-0.5, 0, 0.5)):
            expected = np.mean(np.square(x @ (W + alpha * d + beta * e) + b))
            assert found[row, column] == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(model.get_weights()[0], W)
    assert len(plot_surface(found).axes) == 2
