"""Convolutions with batch normalization, and the residual block built of them."""

import keras
from keras import layers

from shared.backends.pooling import max_pooling
from shared.layers.convolution import Convolution
from shared.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable("keras_recipes")
class ConvolutionBlock(layers.Layer):
    """Convolution without bias, optional 2×2 max pooling, batch normalization, ReLU.

    Batch normalization is that of Ioffe and Szegedy 2015, arXiv:1502.03167.

    Args:
        filters: number of output channels.
        kernel_size: height and width of the kernel, in pixels.
        pool: halve height and width, rounded down.

    Input: (batch, height, width, channels). Output: (batch, height, width, filters), or (batch, height // 2,
    width // 2, filters) with `pool`.
    """

    def __init__(self, filters, kernel_size=3, pool=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.pool = pool
        self.convolution = Convolution(
            filters, kernel_size, kernel_initializer="he_normal", dtype=self.dtype_policy, name="convolution"
        )
        self.normalization = BatchNormalization(momentum=0.9, dtype=self.dtype_policy, name="normalization")

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.normalization.build(self.compute_output_shape(input_shape))

    def call(self, inputs, training=None):
        x = self.convolution(inputs)
        if self.pool:
            x = max_pooling(x, 2, stride=2, padding="valid")
        return keras.ops.relu(self.normalization(x, training=training))

    def compute_output_shape(self, input_shape):
        batch, height, width, filters = self.convolution.compute_output_shape(input_shape)
        if self.pool:
            height, width = (None if length is None else length // 2 for length in (height, width))
        return batch, height, width, filters

    def get_config(self):
        return super().get_config() | {"filters": self.filters, "kernel_size": self.kernel_size, "pool": self.pool}


@keras.saving.register_keras_serializable("keras_recipes")
class ResidualBlock(layers.Layer):
    """x + f(x), where f is a chain of convolution blocks (He et al. 2015, arXiv:1512.03385, equation 1).

    Args:
        depth: number of convolution blocks in f, each with a 3×3 kernel and as many filters as x has channels.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, depth=2, **kwargs):
        super().__init__(**kwargs)
        self.depth = depth
        self.blocks = []

    def build(self, input_shape):
        for index in range(self.depth):
            block = ConvolutionBlock(input_shape[-1], dtype=self.dtype_policy, name=f"block_{index}")
            block.build(input_shape)
            self.blocks.append(block)

    def call(self, inputs, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, training=training)
        return inputs + x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"depth": self.depth}
