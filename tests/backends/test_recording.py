"""What is recorded on PyTorch computes the same with fewer operations, and keeps what is its own."""

import keras
import numpy as np
import pytest
from conftest import numbers
from keras import ops

from shared.backends.compiling import compiled_inference
from shared.layers.convolution import Convolution

pytestmark = pytest.mark.only_on("torch")


def called(function, *arguments, times=3):
    """The outputs of the last of several calls, and the operations that it ran, views left out."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Recorder(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = []

        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if not operation.is_view:
                self.names.append(operation.overloadpacket.__name__)
            return operation(*args, **kwargs or {})

    program = compiled_inference(function)
    for _ in range(times - 1):
        program(*arguments)
    with Recorder() as recorder:
        outputs = program(*arguments)
    return outputs, recorder.names


def test_what_depends_on_no_argument_is_computed_once():
    x = np.arange(12, dtype="float32").reshape(2, 6)

    def function(x):
        places = ops.minimum(ops.arange(4) + 1, 3)
        return ops.take(x, places, axis=1) + ops.where(ops.arange(4) < 2, 10.0, 0.0)

    outputs, operations = called(function, x)
    np.testing.assert_array_equal(numbers(outputs), x[:, [1, 2, 3, 3]] + [10, 10, 0, 0])
    assert operations == ["index_select", "add"]


def test_variables_are_looked_at_at_each_call():
    variable = keras.Variable(np.ones(2, "float32"))
    program = compiled_inference(lambda x: x + ops.exp(variable.value))
    for value in range(4):
        variable.assign([value, value])
        np.testing.assert_allclose(numbers(program(np.zeros(2, "float32"))), np.exp([value] * 2), rtol=1e-6)


def test_what_the_caller_gets_is_the_caller_s():
    program = compiled_inference(lambda x: (ops.zeros((3,)), ops.reshape(ops.arange(3), (3, 1)), x))
    for _ in range(4):
        zeros, counted, _ = program(np.zeros(2, "float32"))
        np.testing.assert_array_equal(numbers(zeros), 0)
        np.testing.assert_array_equal(numbers(counted)[:, 0], [0, 1, 2])
        for mine in (numbers(zeros), numbers(counted)):  # the same memory
            mine += 1


def test_what_is_written_to_is_made_anew():
    def function(index, x):
        y = x + 1
        marked = ops.scatter_update(ops.zeros((4,)), index[:, None], ops.ones((1,)))
        return marked, ops.scatter_update(y, index[:, None], ops.full((1,), 9.0)), y

    program = compiled_inference(function)
    for index in range(4):
        marked, changed, same = program(np.array([index], "int32"), np.zeros(4, "float32"))
        np.testing.assert_array_equal(numbers(marked), np.eye(4)[index])
        np.testing.assert_array_equal(numbers(changed), np.where(np.arange(4) == index, 9, 1))
        np.testing.assert_array_equal(numbers(same), 1)


def test_what_nothing_else_uses_is_written_to_without_a_copy():
    indices = np.array([[1]], "int32")
    outputs, operations = called(lambda x: ops.scatter_update(x + 1, indices, ops.zeros((1,))), np.zeros(3, "float32"))
    np.testing.assert_array_equal(numbers(outputs), [1, 0, 1])
    assert "clone" not in operations


@pytest.mark.parametrize("shape", [(5, 3), (5, 1, 3), (2, 5, 3)])
def test_a_dense_layer_is_one_operation(shape):
    layer = keras.layers.Dense(4, bias_initializer="normal")
    layer.build(shape)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    outputs, operations = called(lambda x: layer(ops.reshape(x, shape)), x)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(numbers(outputs), x @ kernel + bias, rtol=1e-5, atol=1e-6)
    assert operations == ["addmm"]


def test_other_sums_of_products_stay():
    rng = np.random.default_rng(0)
    x, y, rows = (rng.normal(size=size).astype("float32") for size in ((3, 2), (2, 3), (3, 3)))
    for addend in (rows, rows[:1], rows[:, :1], rows[0, 0]):
        outputs, _ = called(lambda x, y, z: ops.matmul(x, y) + z, x, y, addend)
        np.testing.assert_allclose(numbers(outputs), x @ y + addend, rtol=1e-5)
    bfloat16, _ = called(
        lambda x, y, z: ops.matmul(ops.cast(x, "bfloat16"), ops.cast(y, "bfloat16")) + z, x, y, rows[0]
    )
    np.testing.assert_allclose(numbers(bfloat16), x @ y + rows[0], atol=0.1)
    rows_of_one = (3, 3, 1)
    wider, _ = called(lambda x, y, z: ops.reshape(ops.matmul(x, y), rows_of_one) + z, x, y, rows[0])
    np.testing.assert_allclose(numbers(wider), (x @ y).reshape(rows_of_one) + rows[0], rtol=1e-5)
    both, _ = called(lambda x, y, z: (product := ops.matmul(x, y), product + z), x, y, rows[0])
    np.testing.assert_allclose(numbers(both[0]), x @ y, rtol=1e-5)
    np.testing.assert_allclose(numbers(both[1]), x @ y + rows[0], rtol=1e-5)
    twice, _ = called(lambda x, y: ops.add(ops.matmul(x, y), 2.0), x, y)
    np.testing.assert_allclose(numbers(twice), x @ y + 2, rtol=1e-5)


def test_a_copy_that_changes_the_order_in_memory_stays():
    x = np.arange(6, dtype="float32").reshape(2, 3)
    outputs, _ = called(lambda x: ops.reshape(ops.transpose(x) + 1, (-1,)), x)
    np.testing.assert_array_equal(numbers(outputs), x.T.ravel() + 1)


def test_a_kernel_of_a_convolution_is_brought_into_order_once_for_each_of_its_values():
    layer = Convolution(3, 3)
    model = keras.Sequential([keras.Input((4, 4, 2)), layer])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 2)).astype("float32")
    y = np.zeros((1, 4, 4, 3), "float32")

    def infer(x):
        return model(x, training=False)

    assert called(infer, x)[1] == ["convolution"]
    program = compiled_inference(infer)
    for change in (lambda: None, lambda: model.train_on_batch(x, y), lambda: layer.kernel.assign(layer.kernel * 2)):
        for _ in range(3):
            change()
            np.testing.assert_allclose(numbers(program(x)), numbers(infer(x)), rtol=1e-5, atol=1e-6)
