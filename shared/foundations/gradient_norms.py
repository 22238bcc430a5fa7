"""Sizes of the gradients in each layer of a network."""

from typing import Any

import keras
from keras import ops

from shared.backends.gradients import value_and_grad


def gradient_norms(model: keras.Model, loss: keras.losses.Loss, batch: tuple[Any, Any]) -> list[float]:
    """Root mean square of the gradient of the loss by the kernel of each layer, from the first layer to the last.

    The model is as it is while it trains: normalization by the batch, dropout. It stays as it was, seeds included.

    Args:
        model: built.
        loss: of targets and outputs, without that of regularizers.
        batch: inputs and targets.
    """
    inputs, targets = (ops.convert_to_tensor(each) for each in batch)
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) > 1]
    with keras.StatelessScope():  # in which moving averages and seeds are not assigned
        _, gradients = value_and_grad(lambda: loss(targets, model(inputs, training=True)), kernels)
    return [float(ops.sqrt(ops.mean(ops.square(ops.cast(each, "float32"))))) for each in gradients]
