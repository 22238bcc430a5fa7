"""Optimizers."""

import keras


def built_optimizer(
    optimizer: keras.optimizers.Optimizer, model: keras.Model, precision: str
) -> keras.optimizers.Optimizer:
    """An optimizer with the variables for the weights of a model; in float16 it scales the loss."""
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    return optimizer
