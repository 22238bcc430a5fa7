"""Attention by the quickest way that the running backend has."""

from typing import Any

import keras


def dot_product_attention(queries: Any, keys: Any, values: Any, key_mask: Any = None, causal: bool = False) -> Any:
    """softmax(queries · keysᵀ / √depth) · values, head by head (Vaswani et al. 2017, arXiv:1706.03762, equation 1).

    Args:
        queries: (batch, n, heads, depth).
        keys: (batch, m, key-value heads, depth), whose heads as many heads of queries share, in their order.
        values: (batch, m, key-value heads, depth).
        key_mask: (batch or 1, m), True where a key may be attended to, which must be somewhere in each row; None:
            everywhere.
        causal: whether query i attends to the first i keys alone.

    Returns:
        (batch, n, heads, depth).
    """
    mask = None if key_mask is None else keras.ops.cast(key_mask, "bool")[:, None, None, :]
    if (sharing := queries.shape[2] // keys.shape[2]) > 1:
        keys, values = (keras.ops.repeat(each, sharing, axis=2) for each in (keys, values))
    if keras.config.backend() != "torch":
        return keras.ops.dot_product_attention(queries, keys, values, mask=mask, is_causal=causal)
    import torch

    if mask is not None and causal:  # PyTorch takes one or the other
        ones = torch.ones((queries.shape[1], keys.shape[1]), dtype=torch.bool, device=queries.device)
        mask, causal = mask & ones.tril(), False
    heads_first = (each.transpose(1, 2) for each in (queries, keys, values))
    outputs = torch.nn.functional.scaled_dot_product_attention(*heads_first, attn_mask=mask, is_causal=causal)
    return outputs.transpose(1, 2)


def cached_attention(queries: Any, keys: Any, values: Any, key_mask: Any) -> Any:
    """The same for keys and values that many calls use, in a layout that none of them has to change.

    Args:
        queries: (batch, n, heads, depth).
        keys: (batch, key-value heads, m, depth).
        values: (batch, key-value heads, m, depth).
        key_mask: (batch or 1, m), as for `dot_product_attention`.

    Returns:
        (batch, n, heads, depth).
    """
    _, length, heads, depth = keras.ops.shape(queries)
    # Heads that share keys are as many more queries of one head: the cache is read once.
    queries = keras.ops.reshape(
        keras.ops.swapaxes(queries, 1, 2), (-1, keys.shape[1], heads // keys.shape[1] * length, depth)
    )
    mask = keras.ops.cast(key_mask, "bool")[:, None, None, :]
    if keras.config.backend() == "torch":
        import torch

        outputs = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    else:
        scores = keras.ops.matmul(queries * queries.shape[-1] ** -0.5, keras.ops.swapaxes(keys, 2, 3))
        scores = keras.ops.where(mask, keras.ops.cast(scores, "float32"), -1e9)
        outputs = keras.ops.matmul(keras.ops.cast(keras.ops.softmax(scores, axis=-1), values.dtype), values)
    return keras.ops.swapaxes(keras.ops.reshape(outputs, (-1, heads, length, depth)), 1, 2)


def with_entry(cache: Any, entry: Any, index: Any) -> Any:
    """A cache (batch, heads, length, depth) with an entry (batch, heads, 1, depth) at an index of its third axis.

    On PyTorch it is written into the cache itself, so the cache that was given is not to be used again.
    """
    batch, heads, length, depth = keras.ops.shape(cache)
    match keras.config.backend():
        case "jax":
            here = keras.ops.arange(length) == index
            return keras.ops.where(here[:, None], entry, cache)
        case "torch":
            index = keras.ops.reshape(keras.ops.convert_to_tensor(index, "int64"), (1,))
            return cache.contiguous().index_copy_(2, index, entry)  # zeros at the start may be one in memory
        case "tensorflow":
            import tensorflow as tf

            # A selection as on JAX is twice as slow here.
            places = tf.range(batch * heads)[:, None] * length + index
            rows, entries = (tf.reshape(each, (-1, depth)) for each in (cache, entry))
            return tf.reshape(tf.tensor_scatter_nd_update(rows, places, entries), (batch, heads, length, depth))
