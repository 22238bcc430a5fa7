"""Attention."""

from typing import Any

import keras


def dot_product_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None, causal: bool = False) -> Any:
    """Attention of queries (batch, n, heads, depth) to keys where key_mask (batch, m) is True."""
    mask = None if key_mask is None else keras.ops.cast(key_mask, "bool")[:, None, None, :]
    if (sharing := queries.shape[2] // keys.shape[2]) > 1:
        keys, values = (keras.ops.repeat(each, sharing, axis=2) for each in (keys, values))
    return keras.ops.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)


def cached_attention(queries: Any, keys: Any, values: Any, key_mask: Any) -> Any:
    """The same for keys and values (batch, heads, m, depth)."""
    return dot_product_attention(queries, keras.ops.swapaxes(keys, 1, 2), keras.ops.swapaxes(values, 1, 2), key_mask)


def with_entry(cache: Any, entry: Any, index: Any) -> Any:
    """A cache (batch, heads, length, depth) with an entry (batch, heads, 1, depth) at an index of its third axis."""
    return keras.ops.where((keras.ops.arange(cache.shape[2]) == index)[:, None], entry, cache)
