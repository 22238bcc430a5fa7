"""Families of convolutional networks: published sizes and costs, and the same outputs as other implementations."""

import math
import re

import keras
import numpy as np
import pytest
from conftest import gradients_of, normal, numbers
from keras import layers

from shared.images.backbones.convnext import convnext_block
from shared.images.backbones.densenet import dense_stage
from shared.images.backbones.efficientnet import efficientnet
from shared.images.backbones.families import ARCHITECTURES
from shared.images.backbones.mobilenet import MOBILENET_STAGES, mobilenet_v2
from shared.images.backbones.resnet import resnet
from shared.images.backbones.shufflenet import shuffle_unit
from shared.images.backbones.variant import rounded_to_eight
from shared.images.complexity import multiply_adds
from shared.layers.convolution import Convolution, DepthwiseConvolution

SMALLEST = ("lenet5", "alexnet", "resnet8", "densenet_bc100", "mobilenet_v2_x0_5", "shufflenet_v2_x0_5",
            "efficientnet_b0", "convnext_atto", "vgg11")  # fmt: skip


def built(network, *shape: int, **settings) -> keras.Model:
    """A model of a part of a network, for images of this shape."""
    inputs = keras.Input(shape)
    return keras.Model(inputs, network(inputs, **settings))


def sized(network, *shape: int, **settings) -> keras.Model:
    """The same, of weights that have a shape and no value, which takes no time to draw."""
    with keras.StatelessScope(initialize_variables=False):
        model = built(network, *shape, **settings)
    keras.backend.clear_session()  # or the next model would draw them, too
    return model


def count(model: keras.Model) -> int:
    """Number of trainable parameters."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


@pytest.mark.once
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_multiply_adds_are_those_published(name):
    variant = ARCHITECTURES[name]
    model = sized(variant.network, 32, 32, 3, classes=10, **variant.settings)
    assert (model.output.shape, model.output.dtype) == ((None, 10), "float32")
    assert count(model) / 1e6 == pytest.approx(variant.parameters, rel=0.02)
    if variant.multiply_adds:
        assert multiply_adds(model) / 1e6 == pytest.approx(variant.multiply_adds, rel=1e-3)
    sized(variant.network, variant.least, variant.least, 1, classes=3, **variant.settings)


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mobilenet_v2", 3_504_872), ("shufflenet_v2", 2_278_604), ("efficientnet_b0", 5_288_548)],
)
def test_parameters_are_those_of_torchvision_with_a_thousand_classes(name, parameters):
    variant = ARCHITECTURES[name]
    assert count(sized(variant.network, 32, 32, 3, classes=1000, **variant.settings)) == parameters


@pytest.mark.once
def test_multiply_adds_by_hand():
    x = inputs = keras.Input((6, 8, 3))
    x = Convolution(5, 3, 2, use_bias=True)(x)  # 3 × 4 outputs of 5 filters over 27 numbers: 1,620
    x = DepthwiseConvolution(5)(x)  # 60 outputs over 25 numbers: 1,500
    x = layers.DepthwiseConv2D(2, depth_multiplier=2)(x)  # 2 × 3 outputs of 10 filters over 4 numbers: 240
    x = layers.Conv2D(4, 2, groups=2)(x)  # 1 × 2 outputs of 4 filters over 20 numbers: 160
    x = layers.Dense(3)(layers.BatchNormalization()(x))  # 2 × 3 outputs over 4 numbers: 24
    x = layers.Dense(7)(layers.Flatten()(x))  # 7 outputs over 6 numbers: 42
    assert multiply_adds(keras.Model(inputs, x)) == 1620 + 1500 + 240 + 160 + 24 + 42
    inputs = keras.Input((5, 3))
    with pytest.raises(TypeError, match="the multiply-adds of LSTM are not known"):
        multiply_adds(keras.Model(inputs, layers.LSTM(2)(inputs)))


@pytest.mark.once
def test_channels_are_rounded_by_at_most_a_tenth():
    assert [rounded_to_eight(channels) for channels in (3, 12, 16, 22.4, 33.6, 44.8, 448, 10)] == [
        8, 16, 16, 24, 32, 48, 448, 16,
    ]  # fmt: skip


def moved(model: keras.Model) -> keras.Model:
    """The model, no weight left at its first value, and with the epsilon of ours."""
    for index, weight in enumerate(model.weights):
        if weight.dtype == "float32":
            value = normal(*weight.shape, seed=index)
            positive = "variance" in weight.path or "gamma" in weight.path
            fan = math.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 10
            weight.assign(1 + 0.2 * np.abs(value) if positive else value / math.sqrt(fan))
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.epsilon = 1e-3
    return model


def check_same(ours: keras.Model, other: keras.Model, *shape: int) -> None:
    """Whether two models with the same weights, layer by layer, have the same outputs."""
    weights = [weight for layer in moved(other).layers for weight in layer.get_weights()]
    own = [weight for layer in ours.layers for weight in layer.weights]
    for weight, value in zip(own, weights, strict=True):
        weight.assign(value.reshape(weight.shape))
    x = normal(2, *shape)
    expected = other.predict(x, verbose=0)
    assert expected.std() > 1e-3
    np.testing.assert_allclose(ours.predict(x, verbose=0), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.only_on("torch")
def test_mobilenet_is_that_of_keras():
    stages = tuple((n, 2 if index == 1 else s, t, c) for index, (n, s, t, c) in enumerate(MOBILENET_STAGES))
    ours = built(mobilenet_v2, 64, 64, 3, classes=7, stages=stages, stem_strides=2)
    other = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=7, classifier_activation=None)
    check_same(ours, other, 64, 64, 3)


@pytest.mark.only_on("torch")
def test_efficientnet_is_that_of_keras():
    ours = built(efficientnet, 64, 64, 3, classes=7, stem_strides=2)
    other = keras.applications.EfficientNetB0(
        input_shape=(64, 64, 3), weights=None, classes=7, classifier_activation=None
    )
    stem = next(layer for layer in other.layers if "stem_conv_pad" in layer.name)  # before it, pixels are scaled
    check_same(ours, keras.Model(stem.input, other.output), 64, 64, 3)


@pytest.mark.only_on("torch")
def test_densely_connected_layers_are_those_of_keras():
    other = keras.applications.DenseNet121(input_shape=(32, 32, 3), weights=None, include_top=False)
    part = keras.Model(other.get_layer("pool1").output, other.get_layer("conv2_block6_concat").output)
    check_same(built(dense_stage, 8, 8, 64, depth=6, growth=32), part, 8, 8, 64)


@pytest.mark.only_on("torch")
def test_a_convnext_block_is_that_of_keras():
    other = keras.applications.ConvNeXtTiny(input_shape=(32, 32, 3), weights=None, include_top=False)
    first, second = (other.get_layer(f"convnext_tiny_stage_0_block_{index}_depthwise_conv") for index in (0, 1))
    part = keras.Model(first.input, second.input)
    check_same(built(convnext_block, 8, 8, 96), part, 8, 8, 96)


def in_order_made(model: keras.Model, kind: type) -> list:
    """The layers of a kind, by the numbers in their names."""
    found = [layer for layer in model.layers if isinstance(layer, kind)]
    return sorted(found, key=lambda layer: int((re.findall(r"_(\d+)$", layer.name) or ["0"])[0]))


class Reference:
    """Operations of plain PyTorch on channels first, with the weights of a model in the order in which it was made."""

    def __init__(self, model: keras.Model):
        import torch

        self.torch = torch
        weights = [
            [[torch.from_numpy(numbers(weight)) for weight in layer.weights] for layer in in_order_made(model, kind)]
            for kind in (Convolution, layers.BatchNormalization, DepthwiseConvolution, layers.Dense)
        ]
        self.kernels, self.norms, self.filters, self.dense = map(iter, weights)

    def convolve(self, x, stride=1, depthwise=False):
        (kernel,) = next(self.filters if depthwise else self.kernels)
        order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
        before = max(0, kernel.shape[0] - stride) // 2
        x = self.torch.nn.functional.pad(x, (before, kernel.shape[0] // 2, before, kernel.shape[0] // 2))
        groups = x.shape[1] if depthwise else 1
        return self.torch.nn.functional.conv2d(x, kernel.permute(order), stride=stride, groups=groups)

    def normalize(self, x, relu=True):
        gamma, beta, mean, variance = next(self.norms)
        x = self.torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, eps=1e-3)
        return x.relu() if relu else x

    def classify(self, x):
        kernel, bias = next(self.dense)
        return x.mean((2, 3)) @ kernel + bias

    def resnet(self, x, depth, preactivation):
        x = self.convolve(x) if preactivation else self.normalize(self.convolve(x))
        for index in range((depth - 2) // 2):
            stride = 2 if index in ((depth - 2) // 6, (depth - 2) // 3) else 1
            if preactivation:
                before = self.normalize(x)
                branch = self.convolve(self.normalize(self.convolve(before, stride)))
                x = branch + (self.convolve(before, stride) if stride == 2 else x)
            else:
                branch = self.normalize(self.convolve(x, stride))
                branch = self.normalize(self.convolve(branch), relu=False)
                x = (branch + (self.normalize(self.convolve(x, stride), relu=False) if stride == 2 else x)).relu()
        return self.classify(self.normalize(x) if preactivation else x)

    def shuffle_unit(self, x, stride):
        first, second = (x, x) if stride == 2 else x.chunk(2, dim=1)
        if stride == 2:
            first = self.normalize(self.convolve(first, stride, depthwise=True), relu=False)
            first = self.normalize(self.convolve(first))
        second = self.normalize(self.convolve(second))
        second = self.normalize(self.convolve(second, stride, depthwise=True), relu=False)
        second = self.normalize(self.convolve(second))
        return self.torch.nn.functional.channel_shuffle(self.torch.cat([first, second], dim=1), 2)


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("preactivation", [False, True])
def test_resnet_is_that_of_plain_pytorch(preactivation):
    model = moved(built(resnet, 16, 16, 3, classes=5, depth=14, preactivation=preactivation))
    x = normal(2, 16, 16, 3)
    reference = Reference(model)
    expected = reference.resnet(reference.torch.from_numpy(x).permute(0, 3, 1, 2), 14, preactivation).numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("strides", [1, 2])
def test_a_shuffle_unit_is_that_of_plain_pytorch(strides):
    model = moved(built(shuffle_unit, 8, 6, 8, channels=8 if strides == 1 else 12, strides=strides))
    x = normal(2, 8, 6, 8)
    reference = Reference(model)
    expected = reference.shuffle_unit(reference.torch.from_numpy(x).permute(0, 3, 1, 2), strides).permute(0, 2, 3, 1)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("name", SMALLEST)
def test_every_weight_of_a_family_learns(name):
    variant = ARCHITECTURES[name]
    model = built(variant.network, 32, 32, 3, classes=5, **variant.settings)
    x, loss = normal(4, 32, 32, 3), keras.losses.CategoricalCrossentropy(from_logits=True)
    weights = model.trainable_weights
    _, gradients = gradients_of(lambda: loss(np.eye(5)[:4], model(x, training=True)), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 0, weight.path
