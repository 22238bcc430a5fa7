"""Multi-head attention, over whole sequences or one token at a time with a key-value cache."""

import keras
from keras import layers, ops

from shared.backends.attention import cached_attention, dot_product_attention, with_entry
from shared.layers.dense import SequenceDense
from shared.layers.positions import apply_rotary_embedding


@keras.saving.register_keras_serializable("keras_recipes")
class MultiHeadAttention(layers.Layer):
    """Multi-head attention by SDPA (Vaswani et al. 2017, arXiv:1706.03762, section 3.2.2).

    Args:
        heads: number of heads, a divisor of the number of channels.
        rotary: whether to apply rotary position embeddings (RoPE) to queries and keys; for self-attention.
        key_value_heads: number of heads of keys and values, a divisor of `heads`, each of which as many heads of
            queries share: grouped-query attention, GQA (Ainslie et al. 2023, arXiv:2305.13245); None: as many as heads.

    Inputs: queries (batch, n, channels); for cross-attention a memory (batch, m, channels); key_mask (batch, m), False
    for padding; causal=True where no token may attend to later ones. Output: (batch, n, channels).
    """

    def __init__(self, heads, rotary=False, key_value_heads=None, **kwargs):
        super().__init__(**kwargs)
        self.heads = heads
        self.rotary = rotary
        self.key_value_heads = key_value_heads or heads
        if heads % self.key_value_heads:
            raise ValueError(f"{heads} heads cannot share {self.key_value_heads} heads of keys and values equally")

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels % self.heads:
            raise ValueError(f"{channels} channels cannot be divided among {self.heads} heads")

        def dense(units, name):
            layer = SequenceDense(units, dtype=self.dtype_policy, name=name)
            layer.build((*input_shape[:-1], channels))
            return layer

        self.query = dense(channels, "query")
        self.key_value = dense(2 * (channels // self.heads) * self.key_value_heads, "key_value")
        self.output_projection = dense(channels, "output")

    def call(self, queries, memory=None, key_mask=None, causal=False):
        keys, values = self.keys_values(queries if memory is None else memory)
        x = dot_product_attention(self.queries(queries), keys, values, key_mask=key_mask, causal=causal)
        return self.joined(x)

    def keys_values(self, memory, start=0):
        """Keys and values (batch, m, heads of their own, depth) of a memory (batch, m, channels), from `start` on."""
        both = ops.split(self.key_value(memory), 2, axis=-1)
        keys, values = (self.split(each, self.key_value_heads) for each in both)
        return (apply_rotary_embedding(keys, start) if self.rotary else keys), values

    def cached_keys_values(self, memory, start=0):
        """The same in the layout of a key-value cache: (batch, key-value heads, m, depth)."""
        return tuple(ops.swapaxes(each, 1, 2) for each in self.keys_values(memory, start))

    def attend(self, queries, keys, values, key_mask, start=0):
        """The output for queries (batch, n, channels) at positions from `start`, given cached keys and values."""
        return self.joined(cached_attention(self.queries(queries, start), keys, values, key_mask))

    def joined(self, x):
        """What the heads found (batch, n, heads, depth), as (batch, n, channels)."""
        return self.output_projection(ops.reshape(x, (-1, ops.shape(x)[1], x.shape[2] * x.shape[3])))

    def queries(self, inputs, start=0):
        """Queries (batch, n, heads, depth)."""
        queries = self.split(self.query(inputs), self.heads)
        return apply_rotary_embedding(queries, start) if self.rotary else queries

    def split(self, x, heads):
        """(batch, length, channels) as (batch, length, heads, depth)."""
        return ops.reshape(x, (-1, ops.shape(x)[1], heads, x.shape[2] // heads))

    def read(self, inputs):
        """Causal self-attention of a sequence, and its key-value cache.

        Args:
            inputs: (batch, length, channels).

        Returns:
            (batch, length, channels), and keys and values (batch, key-value heads, length, depth).
        """
        keys, values = self.keys_values(inputs)
        x = dot_product_attention(self.queries(inputs), keys, values, causal=True)
        return self.joined(x), tuple(ops.swapaxes(each, 1, 2) for each in (keys, values))

    def step(self, inputs, cache, index):
        """Causal self-attention of one token with a key-value cache.

        Args:
            inputs: (batch, 1, channels).
            cache: keys and values (batch, key-value heads, length, depth) of the earlier tokens; not to be used again.
            index: position of the token.

        Returns:
            (batch, 1, channels), and the cache with this token added.
        """
        entries = self.cached_keys_values(inputs, index)
        cache = tuple(with_entry(old, entry, index) for old, entry in zip(cache, entries, strict=True))
        return self.attend(
            inputs, *cache, (ops.arange(ops.shape(cache[0])[2], dtype="int32") <= index)[None], start=index
        ), cache

    def attention_weights(self, queries, memory, key_mask=None, causal=False):
        """Attention weights (batch, heads, n, m) of each query over a memory, for figures."""
        keys, _ = self.keys_values(memory)
        keys = ops.repeat(keys, self.heads // self.key_value_heads, axis=2)
        scores = ops.einsum("bnhd,bmhd->bhnm", self.queries(queries), keys)
        scores = ops.cast(scores, "float32") / keys.shape[-1] ** 0.5
        if key_mask is not None:
            scores = ops.where(ops.cast(key_mask, "bool")[:, None, None, :], scores, -1e9)
        if causal:
            positions = ops.arange(scores.shape[-1])
            scores = ops.where(positions[:, None] >= positions, scores, -1e9)
        return ops.softmax(scores, axis=-1)

    def compute_output_shape(self, queries_shape, memory_shape=None):
        return queries_shape

    def get_config(self):
        return super().get_config() | {
            "heads": self.heads,
            "rotary": self.rotary,
            "key_value_heads": self.key_value_heads,
        }
