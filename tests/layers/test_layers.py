"""Convolutions, normalization and dense layers against NumPy, Keras and KerasCV."""

import keras
import numpy as np
import pytest
from conftest import numbers

from shared.backends.convolution import convolution, depthwise_convolution
from shared.backends.gradients import value_and_grad
from shared.backends.steps import compiled_step
from shared.images.backbones.efficientnet_lite import InvertedBottleneck
from shared.layers.convolution import Convolution, DepthwiseConvolution
from shared.layers.dense import SequenceDense
from shared.layers.normalization import BatchNormalization
from shared.layers.residual import ConvolutionBlock, ResidualBlock

CASES = {
    "plain convolution": (lambda **kw: Convolution(6, 3, **kw), (2, 7, 8, 5), (2, 7, 8, 6)),
    "plain convolution strided": (lambda **kw: Convolution(6, 3, strides=2, **kw), (2, 8, 7, 5), (2, 4, 4, 6)),
    "plain convolution 6x6": (lambda **kw: Convolution(6, 6, use_bias=True, **kw), (2, 7, 8, 5), (2, 7, 8, 6)),
    "plain convolution of many channels": (lambda **kw: Convolution(16, 3, **kw), (2, 7, 8, 16), (2, 7, 8, 16)),
    "convolution": (lambda **kw: ConvolutionBlock(6, **kw), (4, 8, 8, 3), (4, 8, 8, 6)),
    "convolution 5x5": (lambda **kw: ConvolutionBlock(6, kernel_size=5, **kw), (4, 8, 8, 3), (4, 8, 8, 6)),
    "convolution pooled": (lambda **kw: ConvolutionBlock(6, pool=True, **kw), (4, 8, 8, 3), (4, 4, 4, 6)),
    "convolution pooled odd": (lambda **kw: ConvolutionBlock(6, pool=True, **kw), (4, 7, 9, 3), (4, 3, 4, 6)),
    "normalization": (lambda **kw: BatchNormalization(**kw), (4, 5, 6, 3), (4, 5, 6, 3)),
    "depthwise": (lambda **kw: DepthwiseConvolution(3, **kw), (2, 7, 8, 5), (2, 7, 8, 5)),
    "depthwise 5x5 strided": (lambda **kw: DepthwiseConvolution(5, strides=2, **kw), (2, 8, 7, 5), (2, 4, 4, 5)),
    "depthwise strided even": (lambda **kw: DepthwiseConvolution(3, strides=2, **kw), (2, 8, 8, 5), (2, 4, 4, 5)),
    "bottleneck": (lambda **kw: InvertedBottleneck(5, **kw), (2, 7, 8, 5), (2, 7, 8, 5)),
    "bottleneck strided": (lambda **kw: InvertedBottleneck(5, 5, 2, **kw), (2, 8, 8, 5), (2, 4, 4, 5)),
    "bottleneck plain": (lambda **kw: InvertedBottleneck(4, expansion=1, **kw), (2, 7, 8, 5), (2, 7, 8, 4)),
    "residual": (lambda **kw: ResidualBlock(**kw), (4, 8, 8, 3), (4, 8, 8, 3)),
    "residual short": (lambda **kw: ResidualBlock(depth=1, **kw), (4, 5, 5, 6), (4, 5, 5, 6)),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer):
    """Gives every variable a value of its own, so that none can hide behind its initial 0 or 1."""
    for index, variable in enumerate(layer.weights):
        value = random(variable.shape, seed=index + 1)
        variable.assign(np.abs(value) + 0.5 if "variance" in variable.path or "gamma" in variable.path else value * 0.3)


def windows_of(x, size, stride):
    """What each output of a same-padded convolution sees: (batch, height, width, channels, size, size).

    With a stride, same padding adds just as much as the last output needs, the smaller half of it before.
    """
    missing = [max((-(-length // stride) - 1) * stride + size - length, 0) for length in x.shape[1:3]]
    padded = np.pad(x.astype("float64"), ((0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def reference_plain(layer, x):
    """What a Convolution or a DepthwiseConvolution should compute, from its weights, in NumPy."""
    kernel, *bias = layer.get_weights()
    if isinstance(layer, DepthwiseConvolution):
        return np.einsum("bhwcij,ijc->bhwc", windows_of(x, kernel.shape[0], layer.strides), kernel[..., 0])
    return np.einsum("bhwcij,ijcf->bhwf", windows_of(x, kernel.shape[0], layer.strides[0]), kernel) + sum(bias)


def reference_normalization(layer, x, training):
    """What a BatchNormalization should compute, from its weights, in NumPy."""
    gamma, beta, mean, variance = layer.get_weights()
    if training:
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def reference_block(block, x, training):
    """What a ConvolutionBlock should compute, from its weights, in NumPy."""
    x = reference_plain(block.convolution, x)
    if block.pool:
        batch, height, width, channels = x.shape
        x = x[:, : height // 2 * 2, : width // 2 * 2]
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
    return np.maximum(reference_normalization(block.normalization, x, training), 0)


def reference_bottleneck(block, x, training):
    """What an InvertedBottleneck should compute, from its weights, in NumPy."""
    for first, second in zip(block.layers[::2], block.layers[1::2], strict=True):
        outputs = reference_normalization(second, reference_plain(first, x), training)
        x = outputs.clip(0, 6)
    return outputs


@pytest.mark.parametrize("training", [False, True])
def test_same_numbers_as_numpy(case, training):
    make, input_shape, _ = case
    layer, x = make(), random(input_shape)
    layer.build(input_shape)
    randomize(layer)
    if isinstance(layer, Convolution | DepthwiseConvolution):
        expected = reference_plain(layer, x)
    elif isinstance(layer, BatchNormalization):
        expected = reference_normalization(layer, x, training)
    elif isinstance(layer, InvertedBottleneck):
        expected = reference_bottleneck(layer, x, training)
    elif isinstance(layer, ResidualBlock):
        expected = x
        for block in layer.blocks:
            expected = reference_block(block, expected, training)
    else:
        expected = reference_block(layer, x, training)
    if isinstance(layer, InvertedBottleneck | ResidualBlock) and expected.shape == x.shape:
        expected = x + expected
    options = {} if isinstance(layer, Convolution | DepthwiseConvolution) else {"training": training}
    actual = numbers(compiled_step(lambda x: layer(x, **options))(x))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_same_numbers_as_keras_cv():
    csp_darknet = pytest.importorskip("keras_cv.src.models.backbones.csp_darknet.csp_darknet_utils")
    ours, x = ConvolutionBlock(6), random((2, 8, 8, 3))
    theirs = csp_darknet.DarknetConvBlock(6, kernel_size=3, strides=1, activation="relu")
    ours.build(x.shape)
    theirs(x)
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(ours(x)), keras.ops.convert_to_numpy(theirs(x)), rtol=1e-5, atol=1e-5
    )


CONVOLUTIONS = pytest.mark.parametrize(
    ("ours", "theirs", "last"),
    [(convolution, keras.ops.conv, 16), (depthwise_convolution, keras.ops.depthwise_conv, 1)],
)


@pytest.mark.parametrize(
    ("size", "stride", "extent"),
    [(3, 1, (6, 5)), (5, 2, (8, 7)), (3, 2, (8, 8)), (1, 1, (4, 4)), (3, 1, (2, 2)), (4, 1, (1, 3))],
)
@CONVOLUTIONS
def test_gradients_of_convolutions_are_those_of_keras(ours, theirs, last, size, stride, extent, monkeypatch):
    monkeypatch.setattr("shared.backends.convolution.PIXELS_AT_ONCE", 60)  # so that a batch is of several parts
    x, kernel = keras.Variable(random((6, *extent, 16))), keras.Variable(random((size, size, 16, last), seed=1))

    def by_keras(inputs, kernel, stride):
        return theirs(inputs, kernel, stride, padding="same")

    found = []
    for convolve in (ours, by_keras):
        outputs = convolve(x, kernel, stride)
        weight = random(tuple(outputs.shape), seed=2)

        def loss(convolve=convolve, weight=weight):
            return keras.ops.sum(keras.ops.multiply(convolve(x.value, kernel.value, stride), weight))

        value, gradients = value_and_grad(loss, [x, kernel])
        found.append([keras.ops.convert_to_numpy(each) for each in (outputs, value, *gradients)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@CONVOLUTIONS
def test_gradients_of_gradients_of_convolutions_are_those_of_keras(ours, theirs, last):
    kernel = keras.Variable(0.1 * random((3, 3, 16, last), seed=1))
    inputs = keras.ops.convert_to_tensor(random((3, 6, 5, 16)))
    found = []
    for convolve in (ours, lambda *arguments: theirs(*arguments, padding="same")):

        def score(x, convolve=convolve):
            return keras.ops.sum(keras.ops.tanh(convolve(x, kernel.value, 1)))

        def penalty(score=score):
            return keras.ops.sum(keras.ops.square(value_and_grad(score, [inputs])[1][0]))

        value, (gradient,) = value_and_grad(penalty, [kernel])
        found.append([keras.ops.convert_to_numpy(each) for each in (value, gradient)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.in_turn
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("plain", "depthwise"))])
def test_inference_does_not_change_the_statistics(name):
    make, input_shape, _ = CASES[name]
    layer = make()
    layer.build(input_shape)
    before = [w.copy() for w in layer.get_weights()]
    layer(random(input_shape) + 3, training=False)
    assert all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))
    layer(random(input_shape) + 3, training=True)
    assert not all(np.array_equal(a, b) for a, b in zip(before, layer.get_weights(), strict=True))


@pytest.mark.in_turn
@pytest.mark.parametrize("options", [{}, {"center": False}, {"axis": 1}, {"momentum": 0.5, "epsilon": 0.1}])
@pytest.mark.parametrize("shape", [(6, 4), (5, 3, 4, 4)])
@pytest.mark.parametrize("state", ["training", "inference", "frozen"])
def test_batch_normalization_is_that_of_keras(shape, options, state):
    x, weight = keras.Variable(random(shape) * 3 + 1), random(shape, seed=1)
    found = []
    for make in (BatchNormalization, keras.layers.BatchNormalization):
        layer = make(**options)
        layer.build(shape)
        randomize(layer)
        layer.trainable = state != "frozen"

        def loss(layer=layer):
            return keras.ops.sum(keras.ops.multiply(layer(x, training=state != "inference"), weight))

        value, gradients = value_and_grad(loss, [x, *layer.trainable_variables])
        found.append([keras.ops.convert_to_numpy(each) for each in (value, *gradients, *layer.get_weights())])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4)


@pytest.mark.in_turn
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("own", [{}, {"activation": "tanh"}, {"use_bias": False}])
def test_the_dense_layer_of_sequences_is_that_of_keras(shape, own):
    inputs = keras.Input((None, *shape[2:]) if len(shape) > 2 else shape[1:])
    ours, theirs = SequenceDense(7, **own), keras.layers.Dense(7, **own)
    models = [keras.Model(inputs, layer(inputs)) for layer in (ours, theirs)]
    randomize(ours)
    theirs.set_weights(ours.get_weights())
    x, goal = random(shape), random((*shape[:-1], 7), seed=1)
    found = []
    for model in models:

        def loss(model=model):
            return keras.ops.mean(keras.ops.square(keras.ops.subtract(model(x), goal)))

        value, gradients = value_and_grad(loss, model.trainable_variables)
        found.append([keras.ops.convert_to_numpy(tensor) for tensor in (model(x), value, *gradients)])
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *found)
    assert models[0].output.shape == models[1].output.shape
