"""The log-softmax that a loss and its metrics have in common is that of the logits as they are."""

import keras
import numpy as np
from conftest import normal

from shared.backends.softmax import common_log_softmax


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
