"""The Transformer (Vaswani et al. 2017, arXiv:1706.03762), with normalization before each part.

In that order, after Xiong et al. 2020, arXiv:2002.04745, it trains without a long warm-up.
"""

import keras
from keras import layers, ops

from shared.backends.initializers import RandomNormal
from shared.layers.attention import MultiHeadAttention
from shared.layers.dense import SequenceDense, as_one_matrix


@keras.saving.register_keras_serializable("keras_recipes")
class TokenEmbedding(layers.ReversibleEmbedding):
    """A vector for each token, times √channels; with reverse=True from vectors to logits, by the same weights.

    Args:
        vocabulary: number of tokens.
        channels: of the vectors.

    Input: ids (batch, length), output (batch, length, channels). Reversed: (batch, length, channels) to logits (batch,
    length, vocabulary), float32.
    """

    def __init__(self, vocabulary, channels, **kwargs):
        own = {"embeddings_initializer": RandomNormal(stddev=channels**-0.5)}
        super().__init__(vocabulary, channels, **own | {"reverse_dtype": "float32"} | kwargs)

    def call(self, inputs, reverse=False):
        embed = super().call
        if reverse:
            return as_one_matrix(lambda rows: embed(rows, reverse=True), inputs)
        return embed(inputs) * self.output_dim**0.5

    def get_config(self):
        config = super().get_config()
        return {"vocabulary": config.pop("input_dim"), "channels": config.pop("output_dim")} | config


@keras.saving.register_keras_serializable("keras_recipes")
class FeedForward(layers.Layer):
    """Two dense layers with ReLU between them, token by token.

    Args:
        hidden: channels between them.

    Input and output: (batch, length, channels).
    """

    def __init__(self, hidden, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.expand = SequenceDense(hidden, activation="relu", dtype=self.dtype_policy, name="expand")

    def build(self, input_shape):
        self.expand.build(input_shape)
        self.contract = SequenceDense(input_shape[-1], dtype=self.dtype_policy, name="contract")
        self.contract.build((*input_shape[:-1], self.hidden))

    def call(self, inputs):
        return self.contract(self.expand(inputs))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"hidden": self.hidden}


class TransformerBlock(layers.Layer):
    """What encoder and decoder blocks have in common: parts, each of which is normalized before and added after.

    Args:
        heads: number of heads.
        hidden: channels of the feed-forward part between its layers.
        dropout: share of what a part gives that is left out.
        rotary: whether self-attention turns queries and keys by their places.
    """

    def __init__(self, heads, hidden, dropout=0.0, rotary=False, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.hidden = hidden
        self.rotary = rotary
        self.dropout = layers.Dropout(dropout, dtype=self.dtype_policy, name="dropout")
        self.attention = MultiHeadAttention(heads, rotary, dtype=self.dtype_policy, name="attention")
        self.attention_norm = self.normalization("attention_norm")
        self.feed_forward = FeedForward(hidden, dtype=self.dtype_policy, name="feed_forward")
        self.feed_forward_norm = self.normalization("feed_forward_norm")

    def normalization(self, name):
        return layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype_policy, name=name)

    def build(self, input_shape):
        for layer in (self.attention, self.attention_norm, self.feed_forward, self.feed_forward_norm):
            layer.build(input_shape)

    def finish(self, x, training=None):
        """The last part, which is the same in both blocks."""
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)), training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = {"heads": self.heads, "hidden": self.hidden, "dropout": self.dropout.rate, "rotary": self.rotary}
        return super().get_config() | config


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerEncoderBlock(TransformerBlock):
    """Self-attention and a feed-forward part; for its arguments see `TransformerBlock`.

    Call with (batch, m, channels) and key_mask (batch, m), True where there are tokens. Gives (batch, m, channels).
    """

    def call(self, inputs, key_mask=None, training=None):
        found = self.attention(self.attention_norm(inputs), key_mask=key_mask)
        return self.finish(inputs + self.dropout(found, training=training), training=training)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerDecoderBlock(TransformerBlock):
    """Causal self-attention, attention to the encoder's outputs, a feed-forward part; see `TransformerBlock`.

    Call with (batch, n, channels), a memory (batch, m, channels) and key_mask (batch, m), True where the memory has
    tokens. Gives (batch, n, channels). Padding after the end of the inputs needs no mask: nothing looks ahead.
    """

    def __init__(self, heads, hidden, dropout=0.0, rotary=False, **kwargs):
        super().__init__(heads, hidden, dropout, rotary, **kwargs)
        self.cross_attention = MultiHeadAttention(heads, dtype=self.dtype_policy, name="cross_attention")
        self.cross_norm = self.normalization("cross_norm")

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
        """One token (batch, 1, channels) at the place `index`; `memory` are keys and values of the cross-attention."""
        found, cache = self.attention.step(self.attention_norm(inputs), cache, index)
        x = inputs + found
        x = x + self.cross_attention.attend(self.cross_norm(x), *memory, key_mask)
        return self.finish(x), cache


class TransformerStack(layers.Layer):
    """Blocks one upon the other, with a normalization on top.

    Args:
        depth: number of blocks.
        heads: number of heads.
        hidden: channels of the feed-forward parts between their layers.
        dropout: share of what each part gives that is left out.
        rotary: whether self-attention turns queries and keys by their places.
    """

    def __init__(self, depth, heads, hidden, dropout=0.0, rotary=False, **kwargs):
        super().__init__(**kwargs)
        self.options = {"depth": depth, "heads": heads, "hidden": hidden, "dropout": dropout, "rotary": rotary}
        self.blocks = [
            self.block_class(heads, hidden, dropout, rotary, dtype=self.dtype_policy, name=f"block_{index}")
            for index in range(depth)
        ]
        self.norm = layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        for layer in (*self.blocks, self.norm):
            layer.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | dict(self.options)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerEncoder(TransformerStack):
    """Encoder blocks and a normalization; for its arguments see `TransformerStack`.

    Call with (batch, m, channels) and key_mask (batch, m), True where there are tokens. Gives (batch, m, channels).
    """

    block_class = TransformerEncoderBlock

    def call(self, inputs, key_mask=None, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, key_mask=key_mask, training=training)
        return self.norm(x)


@keras.saving.register_keras_serializable("keras_recipes")
class TransformerDecoder(TransformerStack):
    """Decoder blocks and a normalization; for its arguments see `TransformerStack`.

    Call with (batch, n, channels), the encoder's outputs (batch, m, channels) and key_mask (batch, m), True where these
    have tokens. Gives (batch, n, channels). `start` and `step` give the same, token by token.
    """

    block_class = TransformerDecoderBlock

    def call(self, inputs, memory, key_mask=None, training=None):
        x = inputs
        for block in self.blocks:
            x = block(x, memory, key_mask=key_mask, training=training)
        return self.norm(x)

    def start(self, memory, length):
        """What token by token begins with.

        Args:
            memory: (batch, m, channels), the encoder's outputs.
            length: most tokens that there will be.

        Returns:
            For each block an empty cache of keys and values (batch, length, heads, depth), and for each block the keys
            and values (batch, m, heads, depth) of the memory, which stay as they are.
        """
        fixed = [block.cross_attention.keys_values(memory) for block in self.blocks]
        caches = [
            tuple(ops.zeros((x.shape[0], length, *x.shape[2:]), dtype=x.dtype) for x in keys_values)
            for keys_values in fixed
        ]
        return caches, fixed

    def step(self, inputs, caches, fixed, key_mask, index):
        """One token.

        Args:
            inputs: (batch, 1, channels).
            caches: as `start` or an earlier step gave them.
            fixed: as `start` gave them.
            key_mask: (batch, m).
            index: the place of the token, from 0.

        Returns:
            (batch, 1, channels), and the caches with the token in them.
        """
        x, grown = inputs, []
        for block, cache, memory in zip(self.blocks, caches, fixed, strict=True):
            x, cache = block.step(x, cache, memory, key_mask=key_mask, index=index)
            grown.append(cache)
        return self.norm(x), grown

    def cross_weights(self, inputs, memory, key_mask=None):
        """How much each token attends to each of the encoder's, (batch, heads, n, m), in the last block."""
        x = inputs
        for block in self.blocks[:-1]:
            x = block(x, memory, key_mask=key_mask, training=False)
        last = self.blocks[-1]
        x = x + last.attention(last.attention_norm(x), causal=True)
        return last.cross_attention.weights_of(last.cross_norm(x), memory, key_mask)
