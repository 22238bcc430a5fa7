"""An autoregressive prior over the codes of a vector-quantized autoencoder: a small causal Transformer."""

import keras
import numpy as np
from keras import layers, ops

from shared.backends.compiling import compiled_inference
from shared.data.randomness import random_stream
from shared.layers.attention import MultiHeadAttention
from shared.layers.dense import SequenceDense
from shared.layers.positions import LearnedPositions
from shared.text.sampling import draw_tokens


class CodeBlock(layers.Layer):
    """Causal self-attention and a feed-forward layer, pre-norm, with residual connections.

    Args:
        heads: number of heads, a divisor of the number of channels.

    Input and output: (batch, length, channels).
    """

    def __init__(self, heads, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        policy = self.dtype_policy
        self.attention = MultiHeadAttention(heads, dtype=policy, name="attention")
        self.attention_norm = layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="attention_norm")
        self.expand_norm = layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="expand_norm")

    def build(self, input_shape):
        channels = input_shape[-1]
        self.expand = SequenceDense(4 * channels, "gelu", dtype=self.dtype_policy, name="expand")
        self.contract = SequenceDense(channels, dtype=self.dtype_policy, name="contract")
        for layer in (self.attention, self.attention_norm, self.expand_norm, self.expand):
            layer.build(input_shape)
        self.contract.build((*input_shape[:-1], 4 * channels))

    def call(self, inputs):
        return self.finish(inputs + self.attention(self.attention_norm(inputs), causal=True))

    def step(self, inputs, cache, index):
        """One position (batch, 1, channels), and the key-value cache with it added."""
        found, cache = self.attention.step(self.attention_norm(inputs), cache, index)
        return self.finish(inputs + found), cache

    def finish(self, x):
        """The feed-forward part."""
        return x + self.contract(self.expand(self.expand_norm(x)))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"heads": self.heads}


@keras.saving.register_keras_serializable("keras_recipes")
class CodePrior(layers.Layer):
    """Autoregressive model of code indices in raster order; a position sees those before it.

    Args:
        codes: size of the codebook.
        channels: of each position.
        depth: number of blocks.
        heads: number of heads, a divisor of the channels.

    Input: indices (batch, length), int32. Output: logits (batch, length, codes); those of a position do not depend on
    its own index, nor on later ones.
    """

    def __init__(self, codes, channels, depth, heads=4, **kwargs):
        super().__init__(**kwargs)
        self.options = {"codes": codes, "channels": channels, "depth": depth, "heads": heads}
        policy = self.dtype_policy
        self.embedding = layers.Embedding(codes + 1, channels, dtype=policy, name="embedding")
        self.blocks = [CodeBlock(heads, dtype=policy, name=f"block_{index}") for index in range(depth)]
        self.norm = layers.LayerNormalization(epsilon=1e-5, dtype=policy, name="norm")
        self.logits = SequenceDense(codes, dtype=policy, name="logits")

    def build(self, input_shape):
        inside = (*input_shape, self.options["channels"])
        self.positions = LearnedPositions(input_shape[-1], dtype=self.dtype_policy, name="positions")
        self.embedding.build(input_shape)
        for layer in (self.positions, *self.blocks, self.norm, self.logits):
            layer.build(inside)

    def call(self, inputs):
        start = ops.full_like(inputs[:, :1], self.options["codes"])
        x = self.positions(self.embedding(ops.concatenate([start, inputs[:, :-1]], axis=1)))
        for block in self.blocks:
            x = block(x)
        return self.logits(self.norm(x))

    def step(self, before, caches, index):
        """Logits (batch, codes) of position `index`, and the caches with it added.

        Args:
            before: the index before it, (batch,); of the first position, the number of codes.
            caches: for each block keys and values (batch, heads, length, depth).
            index: the position.
        """
        x, grown = self.positions(self.embedding(before[:, None]), start=index), []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache, index)
            grown.append(cache)
        return self.logits(self.norm(x))[:, 0], grown

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.options["codes"])

    def get_config(self):
        return super().get_config() | dict(self.options)


class CodeSampler:
    """Samples code indices from a prior, position by position, with a key-value cache.

    Random numbers are drawn by NumPy, so that every backend samples the same indices up to rounding.

    Args:
        prior: built.
        length: number of positions.
        batch_size: sequences per batch.
        seed: of the random numbers.
    """

    def __init__(self, prior: CodePrior, length: int, batch_size: int, seed: int):
        self.options = prior.options
        self.length = length
        self.batch_size = batch_size
        self.seed = seed

        def advance(before, caches, index, uniform):
            logits, caches = prior.step(before, caches, index)
            return draw_tokens(ops.softmax(logits), uniform), caches

        self.advance = compiled_inference(advance, [prior])
        heads, depth = self.options["heads"], self.options["channels"] // self.options["heads"]
        empty = np.zeros((batch_size, heads, length, depth), np.float32)
        self.start = [(empty, empty)] * self.options["depth"]
        """The caches before the first position."""

    def __call__(self, count: int) -> np.ndarray:
        """Indices (count, length), int32."""
        batches = -(-count // self.batch_size)
        return np.concatenate([self.batch(number) for number in range(batches)])[:count]

    def batch(self, number: int) -> np.ndarray:
        """Batch `number` of the indices, always the same."""
        caches, before = self.start, np.full(self.batch_size, self.options["codes"], np.int32)
        rng, found = random_stream(self.seed, "tokens", number), []
        uniform = rng.random((self.length, self.batch_size), np.float32)
        for index in range(self.length):
            before, caches = self.advance(before, caches, np.int32(index), uniform[index])
            found.append(before)
        return np.stack([ops.convert_to_numpy(each) for each in found], axis=1)
