"""Softmax."""

from typing import Any

import keras


def common_log_softmax(logits: Any) -> Any:
    """Log-softmax over the last axis, in float32."""
    return keras.ops.log_softmax(keras.ops.cast(logits, "float32"), axis=-1)
