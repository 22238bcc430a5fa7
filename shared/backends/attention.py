"""Attention by the quickest way that the running backend has."""

from typing import Any

import keras


def dot_product_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None, causal: bool = False) -> Any:
    """softmax(queries · keysᵀ / √depth) · values, head by head (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Args:
        queries: (batch, n, heads, depth).
        keys: (batch, m, heads, depth).
        values: (batch, m, heads, depth).
        key_mask: (batch or 1, m), True where a key may be attended to, which must be somewhere in each row; None:
            everywhere.
        causal: whether query i attends to the first i keys alone.

    Returns:
        (batch, n, heads, depth).
    """
    mask = None if key_mask is None else keras.ops.cast(key_mask, "bool")[:, None, None, :]
    if keras.config.backend() != "torch":
        return keras.ops.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)
    import torch

    if mask is not None and causal:  # PyTorch takes one or the other
        ones = torch.ones((queries.shape[1], keys.shape[1]), dtype=torch.bool, device=queries.device)
        mask, causal = mask & ones.tril(), False
    heads_first = (each.transpose(1, 2) for each in (queries, keys, values))
    outputs = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask, is_causal=causal)
    return outputs.transpose(1, 2)


def with_entry(cache: Any, entry: Any, index: Any) -> Any:
    """A cache (batch, length, …) with an entry (batch, 1, …) at an index of its second axis.

    On PyTorch it is written into the cache itself, so the cache that was given is not to be used again.
    """
    if keras.config.backend() == "torch":
        index = keras.ops.reshape(keras.ops.convert_to_tensor(index, "int64"), (1,))
        return cache.index_copy_(1, index, entry)
    here = keras.ops.arange(cache.shape[1]) == index
    return keras.ops.where(keras.ops.reshape(here, (-1, *[1] * (len(cache.shape) - 2))), entry, cache)
