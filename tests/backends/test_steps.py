"""Training steps that PyTorch records do what they do as they are; tests/training/test_custom_step.py has more."""

import keras
import numpy as np
import pytest
from keras import ops

from shared.backends.steps import compiled_step

pytestmark = pytest.mark.skipif(keras.config.backend() != "torch", reason="the others compile the step")


@pytest.mark.parametrize(
    "function",
    [lambda x: ops.sum(x[x > 0] ** 2), lambda x: ops.sum(ops.take(x, ops.nonzero(x > 0)[0]))],
    ids=["mask", "nonzero"],
)
def test_shapes_that_depend_on_values_are_not_recorded(function):
    step = compiled_step(function)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = rng.normal(size=9).astype("float32")
        np.testing.assert_array_equal(ops.convert_to_numpy(step(x)), ops.convert_to_numpy(function(ops.array(x))))
