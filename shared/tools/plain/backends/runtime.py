"""Weights of models."""

import keras


def copied_model(model: keras.Model) -> keras.Model:
    """Another model of the same layers, with weights of its own, which are equal now."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy
