"""Attention."""

from typing import Any

import keras


def dot_product_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None, causal: bool = False) -> Any:
    """Attention of queries (batch, n, heads, depth) to keys where key_mask (batch, m) is True."""
    mask = None if key_mask is None else keras.ops.cast(key_mask, "bool")[:, None, None, :]
    return keras.ops.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)
