"""Layers of Vision Transformers: ViT (arXiv:2010.11929) and the compact convolutional Transformer (arXiv:2104.05704).

A layer that mixes tokens has `token_flow`: of how much of each incoming token an outgoing one is made, for
`attention_rollout`. It costs training nothing.
"""

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal
from shared.backends.pooling import max_pooling
from shared.layers.attention import MultiHeadAttention
from shared.layers.convolution import Convolution
from shared.layers.dense import FeedForward
from shared.layers.normalization import BatchNormalization
from shared.layers.stochastic_depth import StochasticDepth


@keras.saving.register_keras_serializable("keras_recipes")
class ClassToken(layers.Layer):
    """Puts a learned token before the patches, from which the class is predicted (arXiv:2010.11929, equation 1).

    Input: (batch, tokens, channels). Output: (batch, 1 + tokens, channels).
    """

    def build(self, input_shape):
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), initializer=RandomNormal(stddev=0.02), name="token")

    def call(self, inputs):
        token = ops.broadcast_to(ops.cast(self.token, inputs.dtype), (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        return ops.concatenate([token, inputs], axis=1)

    def token_flow(self, inputs):
        """(1, 1 + tokens, tokens): the class token is made of none."""
        return ops.eye(inputs.shape[1] + 1, inputs.shape[1], -1)[None]

    def compute_output_shape(self, input_shape):
        batch, tokens, channels = input_shape
        return batch, tokens + 1, channels

    def get_config(self):
        return super().get_config()


class TokenBlock(layers.Layer):
    """Base class of the blocks of a Vision Transformer: pre-norm sublayers, each a branch for stochastic depth.

    Args:
        heads: number of heads, a divisor of the number of channels.
        hidden: hidden width of the feed-forward layers, which have GELU between them.
        dropout: dropout rate of each branch's output.
        stochastic_depth: probability that a branch is dropped for an example.
    """

    def __init__(self, heads, hidden, dropout=0.0, stochastic_depth=0.0, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.hidden = hidden
        policy = self.dtype_policy
        self.attention_norm = layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="attention_norm")
        self.feed_forward_norm = layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="feed_forward_norm")
        self.feed_forward = FeedForward(hidden, "gelu", dtype=policy, name="feed_forward")
        self.dropout = layers.Dropout(dropout, dtype=policy, name="dropout")
        self.stochastic_depth = StochasticDepth(stochastic_depth, dtype=policy, name="stochastic_depth")

    def build(self, input_shape):
        for layer in (self.attention_norm, self.feed_forward_norm, self.feed_forward):
            layer.build(input_shape)

    def call(self, inputs, training=None):
        x = inputs + self.thinned(self.attend(self.attention_norm(inputs)), training)
        return x + self.thinned(self.feed_forward(self.feed_forward_norm(x)), training)

    def attend(self, normed):
        """The attention branch, same shape."""
        raise NotImplementedError

    def thinned(self, branch, training):
        """A branch after dropout and stochastic depth."""
        return self.stochastic_depth(self.dropout(branch, training=training), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "heads": self.heads,
            "hidden": self.hidden,
            "dropout": self.dropout.rate,
            "stochastic_depth": self.stochastic_depth.rate,
        }


@keras.saving.register_keras_serializable("keras_recipes")
class VisionBlock(TokenBlock):
    """Attention over all tokens and feed-forward layers (arXiv:2010.11929, equations 2 and 3); see `TokenBlock`.

    Input and output: (batch, tokens, channels).
    """

    def build(self, input_shape):
        super().build(input_shape)
        self.attention = MultiHeadAttention(self.heads, dtype=self.dtype_policy, name="attention")
        self.attention.build(input_shape)

    def attend(self, normed):
        return self.attention(normed)

    def token_flow(self, inputs):
        """(batch, tokens, tokens): attention weights, the mean over heads, half; the other half past the branch."""
        normed = self.attention_norm(inputs)
        weights = ops.mean(self.attention.attention_weights(normed, normed), axis=1)
        return (weights + ops.eye(inputs.shape[1])) / 2


@keras.saving.register_keras_serializable("keras_recipes")
class ConvolutionalTokenizer(layers.Layer):
    """Convolutions, ReLU and max pooling in place of patches (Hassani et al. 2021, arXiv:2104.05704, section 3.3).

    Pooling takes 2×2 pixels, where the paper's takes 3×3 with stride 2, whose gradient is slow on processors.

    Args:
        filters: number of output channels of each convolution.
        normalize: batch normalization after the convolutions, which the paper has not: it is quicker to learn (Xiao et
            al. 2021, arXiv:2106.14881).
        kernel_size: height and width of the kernels, in pixels.

    Input: (batch, height, width, channels). Output: (batch, rows, columns, filters), halved by each convolution.
    """

    def __init__(self, filters, normalize=False, kernel_size=3, **kwargs):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.normalize = normalize
        self.kernel_size = kernel_size
        own = {"kernel_initializer": "he_normal", "dtype": self.dtype_policy}
        self.convolutions = [
            Convolution(number, kernel_size, name=f"convolution_{index}", **own)
            for index, number in enumerate(self.filters)
        ]
        self.normalizations = [
            BatchNormalization(momentum=0.9, dtype=self.dtype_policy, name=f"normalization_{index}")
            for index in range(len(self.filters) * normalize)
        ]

    def build(self, input_shape):
        for index, convolution in enumerate(self.convolutions):
            convolution.build(input_shape)
            input_shape = self.halved(input_shape, convolution.filters)
            if self.normalize:
                self.normalizations[index].build(input_shape)

    def call(self, inputs, training=None):
        x = inputs
        for index, convolution in enumerate(self.convolutions):
            x = max_pooling(convolution(x), 2, stride=2, padding="valid")  # first: less is left to do
            x = ops.relu(self.normalizations[index](x, training=training) if self.normalize else x)
        return x

    def halved(self, shape, filters):
        """The shape after one convolution and its pooling."""
        batch, height, width, _ = shape
        return batch, height and height // 2, width and width // 2, filters

    def compute_output_shape(self, input_shape):
        for filters in self.filters:
            input_shape = self.halved(input_shape, filters)
        return input_shape

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "normalize": self.normalize,
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable("keras_recipes")
class SequencePooling(layers.Layer):
    """Sequence pooling, SeqPool: the mean of the tokens with learned weights (arXiv:2104.05704, section 3.2).

    Input: (batch, tokens, channels). Output: (batch, channels).
    """

    def build(self, input_shape):
        # A bias would add the same to each score, and change nothing.
        self.score = layers.Dense(1, use_bias=False, dtype=self.dtype_policy, name="score")
        self.score.build(input_shape)

    def call(self, inputs):
        return ops.squeeze(ops.matmul(ops.cast(self.token_flow(inputs), inputs.dtype), inputs), axis=1)

    def token_flow(self, inputs):
        """(batch, 1, tokens): the weight of each token, float32."""
        return ops.softmax(ops.cast(ops.swapaxes(self.score(inputs), 1, 2), "float32"), axis=-1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]

    def get_config(self):
        return super().get_config()
