"""Max pooling is what Keras's own is, gradients included."""

import keras
import numpy as np
import pytest

from shared.backends.gradients import value_and_grad
from shared.backends.pooling import max_pooling


@pytest.mark.parametrize(("size", "stride", "padding"), [(2, 2, "valid"), (3, 2, "valid"), (5, 1, "same")])
def test_max_pooling(size, stride, padding):
    images = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).round(1).astype("float32")  # so that some are equal
    results = []
    for pool in (max_pooling, keras.ops.max_pool):

        def loss(inputs, pool=pool):
            outputs = pool(inputs, size, stride, padding=padding)
            return keras.ops.sum(outputs**2), outputs

        (_, outputs), (gradients,) = value_and_grad(loss, [keras.ops.convert_to_tensor(images)], has_aux=True)
        results.append([keras.ops.convert_to_numpy(each) for each in (outputs, gradients)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
