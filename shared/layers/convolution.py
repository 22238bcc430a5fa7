"""Convolutions, as quick as each backend can."""

import keras
from keras import layers

from shared.backends.convolution import convolution, depthwise_convolution


@keras.saving.register_keras_serializable("keras_recipes")
class Convolution(layers.Conv2D):
    """Keras's convolution with a square kernel, same padding and without bias.

    Args:
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        strides: step between outputs, in pixels.

    Input: (batch, height, width, channels). Output: (batch, height / strides, width / strides, filters), rounded up.
    """

    def __init__(self, filters, kernel_size, strides=1, **kwargs):
        super().__init__(filters, kernel_size, strides, **{"padding": "same", "use_bias": False} | kwargs)

    def convolution_op(self, inputs, kernel):
        return convolution(inputs, kernel, self.strides[0])


@keras.saving.register_keras_serializable("keras_recipes")
class DepthwiseConvolution(layers.Layer):
    """Filters each channel by itself, with same padding; as quick as each backend can.

    Args:
        kernel_size: height and width of the kernel, in pixels.
        strides: step between outputs, in pixels.
        use_bias: whether a bias is added.

    Input: (batch, height, width, channels). Output: (batch, height / strides, width / strides, channels), rounded up.
    """

    def __init__(self, kernel_size, strides=1, use_bias=False, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.strides = strides
        self.use_bias = use_bias

    def build(self, input_shape):
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], 1)
        self.kernel = self.add_weight(shape=shape, initializer="he_normal", name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="bias")

    def call(self, inputs):
        outputs = depthwise_convolution(inputs, self.kernel, self.strides)
        return outputs + self.bias if self.use_bias else outputs

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        halved = [None if length is None else -(-length // self.strides) for length in (height, width)]
        return (batch, *halved, channels)

    def get_config(self):
        config = {"kernel_size": self.kernel_size, "strides": self.strides, "use_bias": self.use_bias}
        return super().get_config() | config
