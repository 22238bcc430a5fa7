"""Nested structures of tensors that Keras takes apart."""

import gc
import weakref

import keras
import pytest

from shared.backends.runtime import prepare_backend


@pytest.mark.only_on("torch")
def test_inputs_of_a_layer_are_freed_without_a_search_for_cycles():
    prepare_backend(0, "float32")
    inputs = [keras.ops.ones((2, 3)), keras.ops.ones((2, 3))]
    freed = weakref.ref(inputs[0])
    gc.disable()
    try:
        keras.layers.Add()(inputs)
        keras.tree.map_structure(lambda x: x, {"nested": inputs, "alone": inputs[0]})
        del inputs
        assert freed() is None
    finally:
        gc.enable()
