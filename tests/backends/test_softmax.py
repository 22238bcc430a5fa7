"""The log-softmax that a loss and its metrics have in common is that of the logits as they are."""

import keras
import numpy as np
import pytest
from conftest import normal

from shared.backends.gradients import value_and_grad
from shared.backends.softmax import common_log_softmax, smoothed_cross_entropy


def test_common_log_softmax():
    logits = keras.ops.convert_to_tensor(normal(4, 7))
    first, second = common_log_softmax(logits), common_log_softmax(logits)
    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (first, second)))
    expected = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits, axis=-1))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(first), expected, rtol=1e-6)
    if keras.config.backend() == "torch":
        assert first is second
        logits.mul_(2)
        expected = keras.ops.convert_to_numpy(keras.ops.log_softmax(logits, axis=-1))
        np.testing.assert_allclose(keras.ops.convert_to_numpy(common_log_softmax(logits)), expected, rtol=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_smoothed_cross_entropy_and_its_gradient_are_those_of_keras(label_smoothing):
    labels, logits = np.array([[0, 6, 3], [2, 2, 5]]), keras.ops.convert_to_tensor(5 * normal(2, 3, 7))
    weights = keras.ops.convert_to_tensor(normal(2, 3))

    def ours(logits):
        losses = smoothed_cross_entropy(labels, logits, label_smoothing)
        return keras.ops.sum(weights * losses), losses

    def theirs(logits):
        targets = keras.ops.one_hot(labels, 7) * (1 - label_smoothing) + label_smoothing / 7
        losses = keras.ops.categorical_crossentropy(targets, logits, from_logits=True)
        return keras.ops.sum(weights * losses), losses

    (_, losses), (gradient,) = value_and_grad(ours, [logits], has_aux=True)
    (_, expected), (slopes,) = value_and_grad(theirs, [logits], has_aux=True)
    for one, other in ((losses, expected), (gradient, slopes)):
        one, other = map(keras.ops.convert_to_numpy, (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
