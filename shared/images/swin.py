"""Layers of the Swin Transformer (Liu et al. 2021, arXiv:2103.14030): attention within windows, shifted in turn."""

import keras
import numpy as np
from keras import layers, ops

from shared.backends.initializers import RandomNormal
from shared.images.vision_transformer import TokenBlock
from shared.layers.attention import MultiHeadAttention
from shared.layers.dense import SequenceDense
from shared.layers.resampling import SpaceToDepth


@keras.saving.register_keras_serializable("keras_recipes")
class WindowAttention(layers.Layer):
    """Multi-head attention within the windows of an image, with relative position bias (arXiv:2103.14030, equation 4).

    Images that windows do not fill are padded, and no pixel attends to the padding. Shifted windows go around the
    edges by a cyclic shift, and no pixel attends across them.

    Args:
        heads: number of heads, a divisor of the number of channels.
        window: height and width of the windows, in tokens; that of the image where it is smaller.
        shift: by how many tokens the windows are shifted, below `window`; not where one window covers the image.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, heads, window, shift=0, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.window = window
        self.shift = shift

    def build(self, input_shape):
        _, height, width, channels = input_shape
        self.side = min(self.window, max(height, width))
        self.moved = self.shift if self.side < max(height, width) else 0
        self.attention = MultiHeadAttention(self.heads, dtype=self.dtype_policy, name="attention")
        self.attention.build((None, self.side**2, channels))
        self.position_bias = self.add_weight(
            shape=((2 * self.side - 1) ** 2, self.heads), initializer=RandomNormal(stddev=0.02), name="position_bias"
        )
        offsets = np.stack(np.divmod(np.arange(self.side**2), self.side))
        offsets = offsets[:, :, None] - offsets[:, None] + self.side - 1
        self.bias_index = (offsets[0] * (2 * self.side - 1) + offsets[1]).ravel().astype("int32")
        self.mask = self.attention_mask(height, width)

    def attention_mask(self, height, width):
        """(windows, 1, tokens, tokens): 0 where a token of a window attends to another, −1e9 elsewhere."""
        rows, columns = (
            np.where(np.arange(-(-length // self.side) * self.side) < length, 0, -1000)
            + (np.arange(-(-length // self.side) * self.side) - self.moved) // self.side
            for length in (height, width)
        )
        regions = np.stack(np.broadcast_arrays(rows[:, None], columns), axis=-1)
        regions = self.windows(ops.convert_to_tensor(regions[None].astype("float32")))
        regions = ops.convert_to_numpy(regions)[0]
        same = (regions[:, :, None] == regions[:, None]).all(axis=-1)
        return np.where(same, 0.0, -1e9).astype("float32")[:, None]

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        windows = self.windows(inputs)
        x = ops.reshape(windows, (-1, self.side**2, channels))
        keys, values = self.attention.keys_values(x)
        weights = ops.reshape(self.attention_weights(x, keys), (-1, self.heads, self.side**2, self.side**2))
        x = ops.einsum("bhnm,bmhd->bnhd", ops.cast(weights, values.dtype), values)
        x = ops.reshape(self.attention.joined(x), (-1, *windows.shape[1:]))
        return self.image(x, height, width)

    def attention_weights(self, x, keys):
        """Attention weights (batch, windows, heads, tokens, tokens) of (batch · windows, tokens, channels), float32."""
        scores = ops.einsum("bnhd,bmhd->bhnm", self.attention.queries(x), keys)
        scores = ops.cast(scores, "float32") / keys.shape[-1] ** 0.5
        bias = ops.take(ops.cast(self.position_bias, "float32"), self.bias_index, axis=0)
        bias = ops.transpose(ops.reshape(bias, (self.side**2, self.side**2, self.heads)), (2, 0, 1))
        scores = ops.reshape(scores, (-1, len(self.mask), *scores.shape[1:])) + bias
        return ops.softmax(ops.add(scores, self.mask), axis=-1)

    def token_weights(self, inputs):
        """Attention weights (batch, tokens, tokens), the mean over heads, of all tokens of an image, for figures."""
        _, height, width, channels = inputs.shape
        x = ops.reshape(self.windows(inputs), (-1, self.side**2, channels))
        weights = ops.convert_to_numpy(self.attention_weights(x, self.attention.keys_values(x)[0])).mean(axis=2)
        numbers = np.arange(1, height * width + 1, dtype="float32").reshape(1, height, width, 1)
        numbers = ops.convert_to_numpy(self.windows(ops.convert_to_tensor(numbers)))[0, :, :, 0].astype(int)
        everywhere = np.zeros((len(weights), height * width + 1, height * width + 1), "float32")
        everywhere[:, numbers[:, :, None], numbers[:, None]] = weights  # number 0 is the padding
        return everywhere[:, 1:, 1:]

    def windows(self, x):
        """(batch, height, width, channels) as (batch, windows, tokens, channels)."""
        _, height, width, channels = x.shape
        down, right = -height % self.side, -width % self.side
        if down or right:
            x = ops.pad(x, ((0, 0), (0, down), (0, right), (0, 0)))
        rows, columns = (height + down) // self.side, (width + right) // self.side
        x = ops.reshape(rolled(x, self.moved), (-1, rows, self.side, columns, self.side, channels))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * columns, self.side**2, channels))

    def image(self, windows, height, width):
        """The inverse of `windows`, for images of height × width tokens."""
        rows, columns = -(-height // self.side), -(-width // self.side)
        channels = windows.shape[-1]
        x = ops.reshape(windows, (-1, rows, columns, self.side, self.side, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, rows * self.side, columns * self.side, channels))
        return rolled(x, -self.moved)[:, :height, :width]

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"heads": self.heads, "window": self.window, "shift": self.shift}


def rolled(x, shift):
    """Images (batch, height, width, channels) shifted up and left by `shift` pixels, which come back opposite."""
    if not shift:
        return x
    x = ops.concatenate([x[:, shift:], x[:, :shift]], axis=1)
    return ops.concatenate([x[:, :, shift:], x[:, :, :shift]], axis=2)


@keras.saving.register_keras_serializable("keras_recipes")
class SwinBlock(TokenBlock):
    """Attention within windows, and feed-forward layers (arXiv:2103.14030, equation 3).

    Args:
        window: height and width of the windows, in tokens.
        shift: by how many tokens the windows are shifted: 0 and half a window in turn.
        kwargs: see `TokenBlock`.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, heads, hidden, window, shift=0, **kwargs):
        super().__init__(heads, hidden, **kwargs)
        self.attention = WindowAttention(heads, window, shift, dtype=self.dtype_policy, name="attention")

    def build(self, input_shape):
        super().build(input_shape)
        self.attention.build(input_shape)

    def attend(self, normed):
        return self.attention(normed)

    def token_flow(self, inputs):
        """(batch, tokens, tokens), tokens row by row; see `VisionBlock`."""
        weights = self.attention.token_weights(self.attention_norm(inputs))
        return (weights + np.eye(weights.shape[-1], dtype="float32")) / 2

    def get_config(self):
        return super().get_config() | {"window": self.attention.window, "shift": self.attention.shift}


@keras.saving.register_keras_serializable("keras_recipes")
class PatchMerging(layers.Layer):
    """Merges each 2×2 tokens into one of other width (arXiv:2103.14030, section 3.1); an odd side is padded.

    Args:
        channels: number of output channels.

    Input: (batch, height, width, channels). Output: (batch, height / 2, width / 2, channels), rounded up.
    """

    def __init__(self, channels, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.squares = SpaceToDepth(2, dtype=self.dtype_policy, name="squares")
        self.norm = layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype_policy, name="norm")
        self.reduction = SequenceDense(channels, use_bias=False, dtype=self.dtype_policy, name="reduction")

    def build(self, input_shape):
        stacked = (*self.compute_output_shape(input_shape)[:-1], 4 * input_shape[-1])
        self.norm.build(stacked)
        self.reduction.build(stacked)

    def call(self, inputs):
        height, width = inputs.shape[1:3]
        if height % 2 or width % 2:
            inputs = ops.pad(inputs, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        return self.reduction(self.norm(self.squares(inputs)))

    def token_flow(self, inputs):
        """(1, tokens merged, tokens): the mean of those that are merged."""
        _, height, width, _ = inputs.shape
        rows, columns = -(-height // 2), -(-width // 2)
        row, column = np.divmod(np.arange(height * width), width)
        flow = (row // 2 * columns + column // 2 == np.arange(rows * columns)[:, None]).astype("float32")
        return (flow / flow.sum(axis=1, keepdims=True))[None]

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return batch, -(-height // 2), -(-width // 2), self.channels

    def get_config(self):
        return super().get_config() | {"channels": self.channels}
