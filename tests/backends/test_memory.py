"""Tensors are freed when nothing needs them any more."""

import gc
import sys
import weakref
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import PROJECT, numbers

from shared.backends.runtime import prepare_backend

pytestmark = pytest.mark.only_on("torch")


@pytest.fixture(autouse=True)
def prepared():
    prepare_backend(0, "float32")
    gc.disable()
    yield
    gc.enable()


def test_inputs_of_a_layer_are_freed_without_a_search_for_cycles():
    inputs = [keras.ops.ones((2, 3)), keras.ops.ones((2, 3))]
    freed = weakref.ref(inputs[0])
    keras.layers.Add()(inputs)
    keras.tree.map_structure(lambda x: x, {"nested": inputs, "alone": inputs[0]})
    del inputs
    assert freed() is None


class Watched(keras.layers.Layer):
    """Adds 1, and notes its outputs, and how many of the noted are still held when it is called."""

    def __init__(self, notes):
        super().__init__()
        self.notes = notes

    def call(self, inputs):
        self.notes.held.append(sum(each() is not None for each in self.notes.outputs))
        outputs = inputs + 1
        self.notes.outputs.append(weakref.ref(outputs))
        return outputs


def test_a_model_holds_the_output_of_a_layer_until_the_last_that_takes_it():
    notes = SimpleNamespace(outputs=[], held=[])
    inputs = keras.Input((2,))
    first = x = Watched(notes)(inputs)
    for _ in range(4):
        x = Watched(notes)(x)
    model = keras.Model(inputs, [x, keras.layers.Add()([x, first])])
    notes.outputs, notes.held = [], []
    last, total = model(np.ones((3, 2), "float32"))
    np.testing.assert_array_equal(numbers(last), np.full((3, 2), 6))
    np.testing.assert_array_equal(numbers(total), np.full((3, 2), 8))
    assert notes.held == [0, 1, 2, 2, 2], "the first output and the one before"


def test_models_of_the_same_layers_hold_what_each_of_them_needs():
    inputs = keras.Input((2,))
    first = keras.layers.Dense(2)(inputs)
    second = keras.layers.Dense(2)(first)
    whole = keras.Model(inputs, {"nested": keras.layers.Add()([first, keras.Model(inputs, second)(inputs)])})
    both = keras.Model(inputs, [first, second])
    x = np.ones((3, 2), "float32")
    first, second = both(x)
    np.testing.assert_array_equal(numbers(whole(x)["nested"]), numbers(first + second))


ALLOCATES = """
import resource
import numpy as np
from shared.backends.memory import keep_freed_memory

def pages_handed_out():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    arrays = [np.ones(2**18, np.float32) for _ in range(100)]

def pages_of_a_step():
    step()
    before = pages_handed_out()
    for _ in range(10):
        step()
    return (pages_handed_out() - before) // 10

print(pages_of_a_step())
keep_freed_memory()
step()
print(pages_of_a_step())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of Linux's C library")
def test_the_memory_of_a_step_serves_the_next(run_python):
    before, after = map(int, run_python("-c", ALLOCATES, check=0, PYTHONPATH=str(PROJECT)).stdout.split())
    assert before > 10_000, "without it, the pages of a hundred arrays of 1 MiB are handed out at each step"
    assert after < 100
