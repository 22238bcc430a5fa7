"""Layers of a detector after YOLOv8 (Jocher et al. 2023, https://github.com/ultralytics/ultralytics).

They use inner layers by `call`, since the overhead of `__call__` on PyTorch exceeds some convolutions.
"""

import math

import keras
from keras import layers

from shared.backends.pooling import max_pooling
from shared.layers.convolution import Convolution
from shared.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable("keras_recipes")
class NormalizedConvolution(layers.Layer):
    """Convolution without bias, batch normalization, SiLU ("Conv").

    Args:
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        strides: stride, in pixels.

    Input: (batch, height, width, channels). Output: (batch, height / strides, width / strides, filters), rounded up.
    """

    def __init__(self, filters, kernel_size=1, strides=1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.convolution = Convolution(
            filters, kernel_size, strides, kernel_initializer="he_normal", dtype=self.dtype_policy, name="convolution"
        )
        self.normalization = BatchNormalization(momentum=0.97, dtype=self.dtype_policy, name="normalization")

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.normalization.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        return keras.ops.silu(self.normalization.call(self.convolution.call(inputs), training=training))

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)

    def get_config(self):
        config = {"filters": self.filters, "kernel_size": self.kernel_size, "strides": self.strides}
        return super().get_config() | config


@keras.saving.register_keras_serializable("keras_recipes")
class CrossStageBlock(layers.Layer):
    """C2f: cross-stage partial block, after Wang et al. 2019, "CSPNet", arXiv:1911.11929.

    Half of the channels pass through a chain of blocks of two 3×3 convolutions; all intermediate outputs are
    concatenated.

    Args:
        filters: number of output channels, even.
        depth: number of inner blocks.
        shortcut: whether inner blocks have a residual connection.

    Input: (batch, height, width, channels). Output: (batch, height, width, filters).
    """

    def __init__(self, filters, depth=1, shortcut=True, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.depth = depth
        self.shortcut = shortcut
        self.first = NormalizedConvolution(filters, dtype=self.dtype_policy, name="first")
        self.last = NormalizedConvolution(filters, dtype=self.dtype_policy, name="last")
        self.blocks = [
            NormalizedConvolution(filters // 2, 3, dtype=self.dtype_policy, name=f"block_{index}_{step}")
            for index in range(depth)
            for step in range(2)
        ]

    def build(self, input_shape):
        leading = tuple(input_shape[:-1])
        self.first.build(input_shape)
        for convolution in self.blocks:
            convolution.build((*leading, self.filters // 2))
        self.last.build((*leading, (2 + self.depth) * self.filters // 2))

    def call(self, inputs, training=None):
        parts = keras.ops.split(self.first.call(inputs, training=training), 2, axis=-1)
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = second.call(first.call(parts[-1], training=training), training=training)
            parts.append(parts[-1] + x if self.shortcut else x)
        return self.last.call(keras.ops.concatenate(parts, axis=-1), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "depth": self.depth, "shortcut": self.shortcut}


@keras.saving.register_keras_serializable("keras_recipes")
class PyramidPooling(layers.Layer):
    """SPPF: fast spatial pyramid pooling, after He et al. 2014, arXiv:1406.4729.

    The input is concatenated with three successive max poolings.

    Args:
        filters: number of output channels.
        pool_size: height and width of each pooling window, in pixels, odd.

    Input: (batch, height, width, channels). Output: (batch, height, width, filters).
    """

    def __init__(self, filters, pool_size=5, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.pool_size = pool_size
        self.last = NormalizedConvolution(filters, dtype=self.dtype_policy, name="last")

    def build(self, input_shape):
        *leading, channels = input_shape
        self.first = NormalizedConvolution(channels // 2, dtype=self.dtype_policy, name="first")
        self.first.build(input_shape)
        self.last.build((*leading, channels // 2 * 4))

    def call(self, inputs, training=None):
        parts = [self.first.call(inputs, training=training)]
        for _ in range(3):
            parts.append(max_pooling(parts[-1], self.pool_size, stride=1, padding="same"))
        return self.last.call(keras.ops.concatenate(parts, axis=-1), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters)

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "pool_size": self.pool_size}


@keras.saving.register_keras_serializable("keras_recipes")
class DetectionHead(layers.Layer):
    """Decoupled detection head: boxes and classes at each position of one pyramid level, by separate branches.

    The initial biases are the prior of about five objects per image, and a uniform distance distribution.

    Args:
        classes: number of classes.
        box_filters: channels of the box branch.
        class_filters: channels of the class branch.
        bins: number of bins per side of a box.

    Input: (batch, height, width, channels). Output: logits (batch, height · width, 4 · bins + classes), float32.
    """

    def __init__(self, classes, box_filters, class_filters, bins=16, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.box_filters = box_filters
        self.class_filters = class_filters
        self.bins = bins

        def branch(name, filters):
            return [NormalizedConvolution(filters, 3, dtype=self.dtype_policy, name=f"{name}_{i}") for i in range(2)]

        self.box_branch = branch("box", box_filters)
        self.class_branch = branch("class", class_filters)
        self.boxes = Convolution(4 * bins, 1, use_bias=True, bias_initializer="ones", dtype="float32", name="boxes")

    def build(self, input_shape):
        _, height, width, _ = input_shape

        def prior(shape, dtype=None):
            return keras.ops.full(shape, math.log(5 / (self.classes * height * width)), dtype)

        self.scores = Convolution(
            self.classes, 1, use_bias=True, bias_initializer=prior, dtype="float32", name="scores"
        )
        for branch, output in ((self.box_branch, self.boxes), (self.class_branch, self.scores)):
            shape = input_shape
            for layer in (*branch, output):
                layer.build(shape)
                shape = layer.compute_output_shape(shape)

    def call(self, inputs, training=None):
        outputs = []
        for branch, output in ((self.box_branch, self.boxes), (self.class_branch, self.scores)):
            x = inputs
            for layer in branch:
                x = layer.call(x, training=training)
            outputs.append(output(x))  # called as a layer, which casts to its own type, float32
        x = keras.ops.concatenate(outputs, axis=-1)
        return keras.ops.reshape(x, (-1, x.shape[1] * x.shape[2], x.shape[3]))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, height * width, 4 * self.bins + self.classes)

    def get_config(self):
        return super().get_config() | {
            "classes": self.classes,
            "box_filters": self.box_filters,
            "class_filters": self.class_filters,
            "bins": self.bins,
        }
