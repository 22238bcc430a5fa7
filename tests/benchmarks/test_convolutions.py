"""The benchmark of convolutions."""

import runpy

import numpy as np
import pytest
from conftest import PROJECT, normal, numbers

benchmark = runpy.run_path(str(PROJECT / "benchmarks/convolutions.py"))


@pytest.mark.in_turn
@pytest.mark.parametrize("shape", [(2, 6, 3, 4, 3, 2), (2, 5, 16, 16, 3, 1), (2, 4, 3, 5, 1, 1)])
def test_every_way_trains(shape):
    rates = benchmark["multiply_adds_per_second"](shape, seconds=0)
    assert rates.keys() == benchmark["WAYS"].keys()
    assert min(rates.values()) > 0


def test_multiply_adds_are_counted_forward_and_for_both_gradients():
    for way in benchmark["WAYS"].values():
        _, count = benchmark["training_step"](way, (2, 5, 3, 4, 3, 2))
        assert count == 3 * (2 * 3 * 3) * (3 * 3 * 3 * 4)


def test_both_convolutions_compute_the_same():
    inputs, kernel = normal(2, 6, 6, 3), normal(3, 3, 3, 4, seed=1)
    ours, theirs = (numbers(benchmark["WAYS"][name](inputs, kernel, 2)) for name in ("convolution", "of Keras"))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
