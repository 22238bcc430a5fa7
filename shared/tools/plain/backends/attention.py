"""Attention."""

from typing import Any

import keras


def dot_product_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None, causal: bool = False) -> Any:
    """Attention of queries (batch, n, heads, depth) to keys where key_mask (batch, m) is True."""
    mask = None if key_mask is None else keras.ops.cast(key_mask, "bool")[:, None, None, :]
    return keras.ops.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)


def with_entry(cache: Any, entry: Any, index: Any) -> Any:
    """A cache (batch, length, …) with an entry (batch, 1, …) at an index of its second axis."""
    here = keras.ops.arange(cache.shape[1]) == index
    return keras.ops.where(keras.ops.reshape(here, (-1, *[1] * (len(cache.shape) - 2))), entry, cache)
