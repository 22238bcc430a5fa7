"""Layers that change the resolution of images."""

import keras
from keras import layers, ops

from shared.backends.pooling import max_pooling, nearest_upsampling


@keras.saving.register_keras_serializable("keras_recipes")
class MaxPooling(layers.Layer):
    """2×2 max pooling, as quick as each backend can.

    Input: (batch, height, width, channels). Output: (batch, height // 2, width // 2, channels).
    """

    def call(self, inputs):
        return max_pooling(inputs, 2, stride=2, padding="valid")

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, *(length and length // 2 for length in (height, width)), channels)


@keras.saving.register_keras_serializable("keras_recipes")
class NearestUpsampling(layers.Layer):
    """Nearest-neighbour upsampling by 2, cropped to a given size.

    It restores the size before a convolution with stride 2, which rounds up.

    Args:
        height: of the output; at most twice that of the input.
        width: of the output, likewise.

    Input: (batch, rows, columns, channels). Output: (batch, height, width, channels).
    """

    def __init__(self, height, width, **kwargs):
        super().__init__(**kwargs)
        self.height = height
        self.width = width

    def call(self, inputs):
        x = nearest_upsampling(inputs)
        return x if x.shape[1:3] == (self.height, self.width) else x[:, : self.height, : self.width]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.height, self.width, input_shape[-1])

    def get_config(self):
        return super().get_config() | {"height": self.height, "width": self.width}


@keras.saving.register_keras_serializable("keras_recipes")
class SpaceToDepth(layers.Layer):
    """Space-to-depth (pixel unshuffle): stacks the pixels of each square as channels.

    Args:
        size: height and width of the squares, in pixels; divides the image's.

    Input: (batch, height, width, channels). Output: (batch, height / size, width / size, size · size · channels).
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        height, width, channels = inputs.shape[1] // self.size, inputs.shape[2] // self.size, inputs.shape[3]
        x = ops.reshape(inputs, (-1, height, self.size, width, self.size, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, self.size**2 * channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        return (batch, height // self.size, width // self.size, self.size**2 * channels)

    def get_config(self):
        return super().get_config() | {"size": self.size}


@keras.saving.register_keras_serializable("keras_recipes")
class DepthToSpace(layers.Layer):
    """Depth-to-space (pixel shuffle): the inverse of space-to-depth.

    Args:
        size: height and width of the squares, in pixels.

    Input: (batch, rows, columns, size · size · channels). Output: (batch, size · rows, size · columns, channels).
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs):
        rows, columns, channels = inputs.shape[1:]
        x = ops.reshape(inputs, (-1, rows, columns, self.size, self.size, channels // self.size**2))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.reshape(x, (-1, rows * self.size, columns * self.size, channels // self.size**2))

    def compute_output_shape(self, input_shape):
        batch, rows, columns, channels = input_shape
        return (batch, rows * self.size, columns * self.size, channels // self.size**2)

    def get_config(self):
        return super().get_config() | {"size": self.size}
