"""Log-softmax, computed once for all that need it."""

from typing import Any

import keras


def common_log_softmax(logits: Any) -> Any:
    """Log-softmax over the last axis, in float32.

    A loss and the metrics beside it take it of the same logits, which with a large vocabulary is a twentieth of a step.
    On PyTorch it is kept with the tensor; the other backends compile the step, and compute it once by themselves.

    Args:
        logits: (…, classes).

    Returns:
        (…, classes), float32.
    """
    if keras.config.backend() != "torch":
        return keras.ops.log_softmax(keras.ops.cast(logits, "float32"), axis=-1)
    logits = keras.ops.convert_to_tensor(logits)
    version, found = getattr(logits, "common_log_softmax", (None, None))
    if version != logits._version:  # else it has not been changed in place meanwhile
        found = logits.float().log_softmax(dim=-1)
        logits.common_log_softmax = logits._version, found
    return found
