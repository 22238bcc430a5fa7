"""The Transformer (Vaswani et al. 2017, arXiv:1706.03762), pre-norm.

Pre-norm (Xiong et al. 2020, arXiv:2002.04745) trains without a long learning-rate warmup.
"""

from typing import ClassVar

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal
from shared.layers.attention import MultiHeadAttention
from shared.layers.dense import FeedForward, as_one_matrix


@keras.saving.register_keras_serializable("keras_recipes")
class TokenEmbedding(layers.ReversibleEmbedding):
    """Token embedding, times √channels; with reverse=True the output projection with tied weights.

    Args:
        vocabulary: number of tokens.
        channels: embedding size.
        stddev: standard deviation of the initial embeddings before they are multiplied; None: 1/√channels. Where what
            goes in also comes out, as in a decoder-only model, 1/√channels would predict each token to be repeated.

    Input: ids (batch, length), output (batch, length, channels). Reversed: (batch, length, channels) to logits (batch,
    length, vocabulary), float32.
    """

    def __init__(self, vocabulary, channels, stddev=None, **kwargs):
        own = {"embeddings_initializer": RandomNormal(stddev=stddev or channels**-0.5)}
        super().__init__(vocabulary, channels, **own | {"reverse_dtype": "float32"} | kwargs)

    def call(self, inputs, reverse=False):
        embed = super().call
        if reverse:
            return as_one_matrix(lambda rows: embed(rows, reverse=True), inputs)
        return embed(inputs) * self.output_dim**0.5

    def get_config(self):
        config = super().get_config()
        return {"vocabulary": config.pop("input_dim"), "channels": config.pop("output_dim")} | config


def normalization_layer(dtype, name, kind="layer"):
    """Normalization over the channels.

    Args:
        dtype: of the layer.
        name: of the layer.
        kind: "layer", or "rms" without mean and shift (RMSNorm, Zhang and Sennrich 2019, arXiv:1910.07467).
    """
    return {"layer": layers.LayerNormalization, "rms": layers.RMSNormalization}[kind](
        epsilon=1e-5, dtype=dtype, name=name
    )


class TransformerBlock(layers.Layer):
    """Base class of encoder and decoder blocks: pre-norm sublayers with residual connections.

    Args:
        heads: number of heads.
        hidden: hidden width of the feed-forward layers.
        dropout: dropout rate of each sublayer's output.
        rotary: whether self-attention uses rotary position embeddings (RoPE).
        key_value_heads: grouped-query attention: number of heads of keys and values; None: as many as heads.
        normalization: see `normalization_layer`.
        activation: see `FeedForward`.
    """

    def __init__(
        self,
        heads,
        hidden,
        dropout=0.0,
        rotary=False,
        key_value_heads=None,
        normalization="layer",
        activation="relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.options = {
            "heads": heads, "hidden": hidden, "dropout": dropout, "rotary": rotary, "key_value_heads": key_value_heads,
            "normalization": normalization, "activation": activation,
        }  # fmt: skip
        self.normalization = normalization
        policy = self.dtype_policy
        self.dropout = layers.Dropout(dropout, dtype=policy, name="dropout")
        self.attention = MultiHeadAttention(heads, rotary, key_value_heads, dtype=policy, name="attention")
        self.attention_norm = normalization_layer(policy, "attention_norm", normalization)
        self.feed_forward = FeedForward(hidden, activation, dtype=policy, name="feed_forward")
        self.feed_forward_norm = normalization_layer(policy, "feed_forward_norm", normalization)

    def build(self, input_shape):
        for layer in (self.attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(input_shape)

    def finish(self, x, training=None):
        """The feed-forward sublayer, common to both blocks."""
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | dict(self.options)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerEncoderBlock(TransformerBlock):
    """Self-attention and feed-forward layers; for its arguments see `TransformerBlock`.

    Inputs: (batch, m, channels) and key_mask (batch, m), False for padding. Output: (batch, m, channels).
    """

    def call(self, inputs, key_mask=None, training=None):
        found = self.attention(self.attention_norm(inputs), key_mask=key_mask)
        return self.finish(inputs + self.dropout(found, training=training), training=training)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerDecoderBlock(TransformerBlock):
    """Causal self-attention, cross-attention and feed-forward layers; see `TransformerBlock`.

    Inputs: (batch, n, channels), a memory (batch, m, channels) and key_mask (batch, m), False for its padding. Output:
    (batch, n, channels). Padding at the end of the inputs needs no mask, since attention is causal.
    """

    def __init__(self, heads, hidden, dropout=0.0, rotary=False, **kwargs):
        super().__init__(heads, hidden, dropout, rotary, **kwargs)
        self.cross_attention = MultiHeadAttention(heads, dtype=self.dtype_policy, name="cross_attention")
        self.cross_norm = normalization_layer(self.dtype_policy, "cross_norm", self.normalization)

    def build(self, input_shape):
        super().build(input_shape)
        for layer in (self.cross_attention, self.cross_norm):  # the memory has as many channels as the inputs
            layer.build(input_shape)

    def call(self, inputs, memory, key_mask=None, training=None):
        x = inputs
        x = x + self.dropout(self.attention(self.attention_norm(x), causal=True), training=training)
        found = self.cross_attention(self.cross_norm(x), memory, key_mask)
        return self.finish(x + self.dropout(found, training=training), training=training)

    def step(self, inputs, cache, memory, key_mask, index):
        """One token (rows, 1, channels) at position `index`; `memory` are keys and values of the cross-attention."""
        found, cache = self.attention.step(self.attention_norm(inputs), cache, index)
        x = inputs + found
        # Beams of one item are as many queries of it, so that its keys and values are read once.
        queries = ops.reshape(self.cross_norm(x), (ops.shape(key_mask)[0], -1, x.shape[2]))
        found = self.cross_attention.attend(queries, *memory, key_mask)
        return self.finish(x + ops.reshape(found, (-1, 1, x.shape[2]))), cache


@keras.saving.register_keras_serializable("keras_recipes")
class CausalBlock(TransformerBlock):
    """Causal self-attention and feed-forward layers; for its arguments see `TransformerBlock`.

    Input and output: (batch, length, channels). Padding at the end needs no mask, since attention is causal.
    """

    def call(self, inputs, training=None):
        found = self.attention(self.attention_norm(inputs), causal=True)
        return self.finish(inputs + self.dropout(found, training=training), training=training)

    def read(self, inputs):
        """The same without dropout, and the key-value cache of the sequence."""
        found, cache = self.attention.read(self.attention_norm(inputs))
        return self.finish(inputs + found), cache

    def step(self, inputs, cache, index):
        """One token (batch, 1, channels) at position `index`."""
        found, cache = self.attention.step(self.attention_norm(inputs), cache, index)
        return self.finish(inputs + found), cache


def unusual(options):
    """The options of a stack that are not the defaults, so that its config can be read where there are no others."""
    usual = {"dropout": 0.0, "rotary": False, "key_value_heads": None, "normalization": "layer", "activation": "relu"}
    return {name: value for name, value in options.items() if name not in usual or value != usual[name]}


class TransformerStack(layers.Layer):
    """A stack of blocks and a final normalization.

    Args:
        depth: number of blocks.
        heads: number of heads.
        hidden: hidden width of the feed-forward layers.
        dropout: dropout rate of each sublayer's output.
        rotary: whether self-attention uses rotary position embeddings (RoPE).
        key_value_heads: grouped-query attention: number of heads of keys and values; None: as many as heads.
        normalization: see `normalization_layer`.
        activation: see `FeedForward`.
    """

    saves_defaults: ClassVar[bool] = False
    """Its config holds an argument only where it is not the default."""

    def __init__(
        self,
        depth,
        heads,
        hidden,
        dropout=0.0,
        rotary=False,
        key_value_heads=None,
        normalization="layer",
        activation="relu",
        **kwargs,
    ):
        super().__init__(**kwargs)
        block = {
            "heads": heads, "hidden": hidden, "dropout": dropout, "rotary": rotary, "key_value_heads": key_value_heads,
            "normalization": normalization, "activation": activation,
        }  # fmt: skip
        self.options = {"depth": depth} | block
        policy = self.dtype_policy
        self.blocks = [self.block_class(**block, dtype=policy, name=f"block_{index}") for index in range(depth)]
        self.norm = normalization_layer(policy, "norm", normalization)

    def build(self, input_shape):
        for layer in (*self.blocks, self.norm):
            layer.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | unusual(self.options)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerEncoder(TransformerStack):
    """Transformer encoder; for its arguments see `TransformerStack`.

    Inputs: (batch, m, channels) and key_mask (batch, m), False for padding. Output: (batch, m, channels).
    """

    block_class = TransformerEncoderBlock

    def call(self, inputs, key_mask=None, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, key_mask=key_mask, training=training)
        return self.norm(x)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerDecoder(TransformerStack):
    """Transformer decoder; for its arguments see `TransformerStack`.

    Inputs: (batch, n, channels), the encoder outputs (batch, m, channels) and key_mask (batch, m), False for their
    padding. Output: (batch, n, channels). `start` and `step` compute the same token by token, with a key-value cache.
    """

    block_class = TransformerDecoderBlock

    def call(self, inputs, memory, key_mask=None, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, memory, key_mask=key_mask, training=training)
        return self.norm(x)

    def memory_keys_values(self, memory):
        """For each block keys and values (batch, heads, m, depth) of the encoder outputs (batch, m, channels)."""
        return [block.cross_attention.cached_keys_values(memory) for block in self.blocks]

    def start(self, memory, length):
        """Initial state of decoding token by token.

        Args:
            memory: (batch, m, channels), the encoder outputs.
            length: maximum number of tokens.

        Returns:
            For each block an empty key-value cache (batch, heads, length, depth), and for each block the constant keys
            and values (batch, heads, m, depth) of the memory.
        """
        fixed = self.memory_keys_values(memory)
        caches = [
            tuple(ops.zeros((*x.shape[:2], length, x.shape[3]), dtype=x.dtype) for x in keys_values)
            for keys_values in fixed
        ]
        return caches, fixed

    def step(self, inputs, caches, fixed, key_mask, index):
        """Decodes one token.

        Args:
            inputs: (rows, 1, channels): as many rows of each item of the batch as there are beams.
            caches: from `start`, its rows repeated for each beam, or from the previous step.
            fixed: from `start`.
            key_mask: (batch, m).
            index: position of the token, from 0.

        Returns:
            (rows, 1, channels), and the caches with the token added.
        """
        x, grown = inputs, []
        for block, cache, memory in zip(self.blocks, caches, fixed, strict=True):
            x, cache = block.step(x, cache, memory, key_mask=key_mask, index=index)
            grown.append(cache)
        return self.norm(x), grown

    def cross_weights(self, inputs, memory, key_mask=None):
        """Cross-attention weights (batch, heads, n, m) of the last block."""
        x = inputs
        for block in self.blocks[:-1]:
            x = block(x, memory, key_mask=key_mask, training=False)
        last = self.blocks[-1]
        x = x + last.attention(last.attention_norm(x), causal=True)
        return last.cross_attention.attention_weights(last.cross_norm(x), memory, key_mask)


@keras.saving.register_keras_serializable("keras_recipes")
class CausalTransformer(TransformerStack):
    """Decoder-only Transformer, as of GPT (Radford et al. 2018); for its arguments see `TransformerStack`.

    Input and output: (batch, length, channels); no position sees those after it. `read` and `step` compute the same
    with a key-value cache.
    """

    block_class = CausalBlock

    def call(self, inputs, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, training=training)
        return self.norm(x)

    def read(self, inputs):
        """The outputs for a sequence, and each block's key-value cache (batch, key-value heads, length, depth)."""
        x, caches = inputs, []
        for block in self.blocks:
            x, cache = block.read(x)
            caches.append(cache)
        return self.norm(x), caches

    def step(self, inputs, caches, index):
        """Reads one token.

        Args:
            inputs: (batch, 1, channels).
            caches: from `read` or the previous step; their entries from `index` on are not looked at.
            index: position of the token, from 0.

        Returns:
            (batch, 1, channels), and the caches with the token at its position.
        """
        x, grown = inputs, []
        for block, cache in zip(self.blocks, caches, strict=True):
            x, cache = block.step(x, cache, index)
            grown.append(cache)
        return self.norm(x), grown

    def attention_weights(self, inputs):
        """Attention weights (batch, heads, length, length) of each block, for figures."""
        x, found = inputs, []
        for block in self.blocks:
            normed = block.attention_norm(x)
            found.append(block.attention.attention_weights(normed, normed, causal=True))
            x = block(x, training=False)
        return found
