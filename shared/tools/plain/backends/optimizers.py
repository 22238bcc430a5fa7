"""Optimizers."""

import keras

from shared.errors import UsageError


def built_optimizer(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, precision: str
) -> keras.optimizers.Optimizer:
    """An optimizer with the variables for the weights of a model."""
    if precision == "mixed_float16":
        raise UsageError("this training does not scale its losses, as float16 needs: take --precision mixed_bfloat16")
    optimizer.build(model.trainable_variables)
    return optimizer
